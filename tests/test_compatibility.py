"""Modules that were wrapped, scripted, traced or exported.

For compiled modules, hooks, half precision and frozen parameters, see tests/test_capture.py.
"""

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
REMEDY = "pass the module it was created from"


def same(module, expected, images, layer="relu", method="gmcam"):
    raw = gmcam.explain(module, images, 1, layer=layer, method=method).raw
    return torch.equal(raw, gmcam.explain(expected, images, 1, layer="relu", method=method).raw)


@pytest.mark.parametrize("method", ["gmcam", "full_grad", "score_cam"])
def test_a_module_in_parallel_has_a_prefix_before_its_layers(gap_network, images, method):
    parallel = nn.DataParallel(copy.deepcopy(gap_network))
    assert same(parallel, gap_network, images, "module.relu", method)
    with pytest.raises(ValueError, match="nearest are module"):
        gmcam.explain(parallel, images, 1, layer="relu")


@pytest.mark.parametrize("method", ["gmcam", "full_grad", "relevance_cam"])
def test_a_graph_of_torch_fx_is_explained_as_the_module_it_was_traced_from(gap_network, images, method):
    assert same(torch.fx.symbolic_trace(gap_network), gap_network, images, method=method)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", SCRIPTED)
def test_a_scripted_module_is_refused_with_what_to_give_instead(gap_network, images, kind):
    scripted = SCRIPTED[kind](gap_network)
    for use in (
        lambda: Network(scripted),
        lambda: gmcam.explain(scripted, images, 1, layer="relu"),
        lambda: gmcam.explain(scripted, images, 1, method="full_grad"),
        lambda: gmcam.capture(scripted, images, 1, ["relu"]),
    ):
        with pytest.raises(ValueError, match=REMEDY):
            use()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_part_is_run_but_refused_as_a_layer(gap_network, images):
    module = copy.deepcopy(gap_network)
    module.fc = torch.jit.script(module.fc)
    assert same(module, gap_network, images)
    with pytest.raises(ValueError, match=REMEDY):
        gmcam.explain(module, images, 1, layer="fc")


def test_an_exported_program_has_no_layer_to_look_at(gap_network, images):
    exported = torch.export.export(gap_network, (images,)).module()
    with pytest.raises(ValueError, match="expected a layer of the forward pass, got 'conv'"):
        gmcam.explain(exported, images, 1, layer="conv")
