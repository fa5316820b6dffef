"""Modules that something was done to. Compiled ones: tests/test_capture.py, with hooks, half precision and
frozen parameters."""

import copy

import pytest
import torch
from torch import nn

import gmcam
from gmcam import Network

SCRIPTED = {
    "scripted": torch.jit.script,
    "traced": lambda module: torch.jit.trace(module, torch.zeros(1, 3, 8, 8, dtype=torch.float64)),
    "frozen": lambda module: torch.jit.freeze(torch.jit.script(module)),
}
MADE_FROM = "give the module that this one was made from"


def same(module, expected, pictures, layer="relu", method="gmcam"):
    made = gmcam.explain(module, pictures, 1, layer=layer, method=method)
    return torch.equal(made.raw, gmcam.explain(expected, pictures, 1, layer="relu", method=method).raw)


@pytest.mark.parametrize("method", ["gmcam", "full_grad", "score_cam"])
def test_a_module_in_parallel_has_a_prefix_before_its_layers(gap_network, pictures, method):
    parallel = nn.DataParallel(copy.deepcopy(gap_network))
    assert same(parallel, gap_network, pictures, "module.relu", method)
    with pytest.raises(ValueError, match="nearest names are module"):
        gmcam.explain(parallel, pictures, 1, layer="relu")


@pytest.mark.parametrize("method", ["gmcam", "full_grad", "relevance_cam"])
def test_a_graph_of_torch_fx_is_explained_as_the_module_it_was_traced_from(gap_network, pictures, method):
    assert same(torch.fx.symbolic_trace(gap_network), gap_network, pictures, method=method)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", SCRIPTED)
def test_a_scripted_module_is_refused_with_what_to_give_instead(gap_network, pictures, kind):
    scripted = SCRIPTED[kind](gap_network)
    for use in (
        lambda: Network(scripted),
        lambda: gmcam.explain(scripted, pictures, 1, layer="relu"),
        lambda: gmcam.explain(scripted, pictures, 1, method="full_grad"),
        lambda: gmcam.capture(scripted, pictures, 1, ["relu"]),
    ):
        with pytest.raises(ValueError, match=MADE_FROM):
            use()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_part_is_passed_through_and_refused_as_a_layer(gap_network, pictures):
    module = copy.deepcopy(gap_network)
    module.fc = torch.jit.script(module.fc)
    assert same(module, gap_network, pictures)
    with pytest.raises(ValueError, match=MADE_FROM):
        gmcam.explain(module, pictures, 1, layer="fc")


def test_an_exported_program_has_no_layer_to_look_at(gap_network, pictures):
    exported = torch.export.export(gap_network, (pictures,)).module()
    with pytest.raises(ValueError, match="layer 'conv' is not reached"):
        gmcam.explain(exported, pictures, 1, layer="conv")
