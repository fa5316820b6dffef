"""The registry: names in any spelling, options checked by their defaults, and what a method receives."""

import re

import pytest
import torch
from torch import nn

import gmcam
from gmcam import METHODS
from gmcam.capture import INPUT, capture
from gmcam.registry import Method, Query, find_method, method, no_layer, require_counts

SPELLINGS = {
    "grad_cam": ["GradCAM", "grad-cam", "Grad-CAM", "GRAD_CAM", "Grad CAM"],
    "grad_cam_pp": ["Grad-CAM++", "GradCAM++", "gradcampp", "Grad-CAM ++"],
    "gmcam": ["GMCAM", "gm-cam", "gm_cam"],
    "hires_cam": ["HiResCAM", "hirescam", "HiRes-CAM"],
    "x_grad_cam": ["XGradCAM", "XGrad-CAM"],
    "full_grad": ["FullGrad", "fullgrad"],
    "integrated_grad_cam": ["Integrated Grad-CAM", "IntegratedGradCAM"],
    "captum.integrated_gradients": ["captum.IntegratedGradients", "Captum.Integrated-Gradients"],
}


@pytest.mark.parametrize(
    ("spelling", "name"), [(spelling, name) for name, several in SPELLINGS.items() for spelling in several]
)
def test_a_method_is_found_in_any_spelling(spelling, name):
    assert find_method(spelling) is METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name_and_by_its_title(name):
    assert find_method(name) is METHODS[name]
    if not name.startswith("captum."):
        assert find_method(METHODS[name].title) is METHODS[name]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("grad_camm", "the closest are grad_cam"),
        ("grad_cam_plus", "grad_cam_pp"),
        ("scorecam2", "score_cam"),
        ("zzz", "there are cam, grad_cam"),
        ("", "there are cam, grad_cam"),
        (None, "got None: there are cam"),
        (METHODS["gmcam"], "there are cam"),
    ],
    ids=repr,
)
def test_an_unknown_method_raises_with_the_closest_names(name, hint):
    with pytest.raises(ValueError, match="expected the name of a method") as error:
        find_method(name)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def register():
    """Registers methods for one test."""
    before = dict(METHODS)
    yield method
    METHODS.clear()
    METHODS.update(before)


def of_every_type(
    query, steps: int = 5, noise: float = 0.1, exact: bool = False, mode: str = "mean", other=None
):
    """0; a method with an option of every type."""
    return torch.zeros(len(query.M), 1, 1)


FITS = {
    "steps": ([1, 0, -3, 10**9], [1.5, 2.0, True, "3", None, float("nan"), [1]]),
    "noise": ([0.5, 2, 0, -1.5], [float("nan"), float("inf"), True, "much", None, [0.1]]),
    "exact": ([True, False], [0, 1, "yes", None]),
    "mode": (["mean", ""], [1, True, None, b"mean"]),
    "other": ([None, 1, "a", [2]], []),
}


@pytest.mark.parametrize("name", FITS)
def test_an_option_is_checked_by_the_type_of_its_default(register, name):
    register("of_every_type", title="Every type", source="here")(of_every_type)
    entry = METHODS["of_every_type"]
    accepted, refused = FITS[name]
    for value in accepted:
        entry.check({name: value})
    for value in refused:
        with pytest.raises(ValueError, match=re.escape(f"for {name}, got {value!r}")) as error:
            entry.check({name: value})
        assert "\n" not in str(error.value)


def test_an_unknown_option_raises_with_those_there_are(register):
    register("of_every_type", title="Every type", source="here")(of_every_type)
    with pytest.raises(ValueError, match="got 'step': its options are steps, noise, exact, mode, other"):
        METHODS["of_every_type"].check({"step": 3})
    with pytest.raises(ValueError, match="got 'query'"):
        METHODS["of_every_type"].check({"query": 3})
    with pytest.raises(ValueError, match="got 'chunk_size': its options are none"):
        METHODS["gmcam"].check({"chunk_size": 3})


def test_options_reach_a_registered_method(register, gap_network, images):
    seen = []

    def ones(query, steps: int = 5, noise: float = 0.1):
        """1 everywhere."""
        seen.append((steps, noise))
        return torch.ones_like(query.M[:, 0])

    register("my_ones", title="Ones", source="here")(ones)
    for options in ({}, {"steps": 7}, {"noise": 2}):
        gmcam.explain(gap_network, images, 0, method="My-Ones", layer="relu", **options)
    assert seen == [(5, 0.1), (7, 0.1), (5, 2)]
    assert METHODS["my_ones"].options == {"steps": 5, "noise": 0.1}
    assert METHODS["my_ones"].summary == "1 everywhere."
    assert (METHODS["my_ones"].signed, METHODS["my_ones"].gradients) == (False, True)


def test_a_name_is_registered_once(register):
    register("of_every_type", title="Every type", source="here")(of_every_type)
    for name in ("of_every_type", "grad_cam"):
        with pytest.raises(ValueError, match=f"got '{name}', which is registered"):
            register(name, title="Again", source="here")(of_every_type)


def test_a_notebooks_method_may_be_registered_again(register):
    def first(query):
        """0."""

    def second(query):
        """0."""

    first.__module__ = second.__module__ = "__main__"
    register("of_a_notebook", title="A notebook's", source="here")(first)
    register("of_a_notebook", title="A notebook's", source="here")(second)
    assert METHODS["of_a_notebook"].compute is second


def test_the_default_options_of_every_method_fit():
    for entry in METHODS.values():
        entry.check(entry.options)
    assert METHODS["integrated_grad_cam"].options == {"steps": 50, "chunk_size": 8}
    options = METHODS["smooth_full_grad"].options
    assert (options["samples"], options["noise"], options["seed"]) == (25, 0.15, 0)


SIGNED = {"cam", "hires_cam", "eigen_cam", "relevance_cam"}


def test_the_signed_methods_are_those_that_the_design_lists():
    assert {name for name, entry in METHODS.items() if entry.signed and "captum" not in name} == SIGNED
    assert not METHODS["captum.saliency"].signed  # an absolute value
    assert METHODS["captum.input_x_gradient"].signed


@pytest.mark.parametrize("value", [0, -2, 2.0, True, "5", None])
def test_counts_are_whole_numbers_from_one_on(value):
    require_counts(steps=1, chunk_size=10**6)
    with pytest.raises(ValueError, match=re.escape(f"from 1 on for steps, got {value!r}")):
        require_counts(chunk_size=3, steps=value)


# What a method receives.


def query_at(module, images, target, layer="relu"):
    captured = capture(module, images, target, layer)
    return Query(gmcam.Network(module), images, target, layer, captured)


def test_a_query_has_maps_and_gradients_in_float32_at_least(gap_network, images):
    query = query_at(gap_network, images, [2, 0, 1])
    assert torch.equal(query.M, query.captured.maps["relu"])
    assert torch.equal(query.C, query.captured.gradients["relu"])
    assert query.size == (8, 8)
    rough = query_at(gap_network.bfloat16(), images.bfloat16(), 0)
    assert (rough.captured.maps["relu"].dtype, rough.M.dtype, rough.C.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )


def test_rows_are_an_image_and_a_target_for_each_map(gap_network, images):
    rows, target, _ = query_at(gap_network, images, [2, 0, 1]).rows(torch.tensor([2, 0]))
    assert torch.equal(rows, images[[2, 0]])
    assert target.tolist() == [1, 2]
    rows, target, _ = query_at(gap_network, images[:1], [2, 0, 1]).rows()
    assert torch.equal(rows, images[[0, 0, 0]])
    assert target.tolist() == [2, 0, 1]


def test_again_is_the_pass_for_other_inputs(gap_network, images):
    query = query_at(gap_network, images[:1], 0)
    again = query.again(images[1:], [2, 1])
    expected = capture(gap_network, images[1:], [2, 1], "relu")
    assert torch.equal(again.gradients["relu"], expected.gradients["relu"])


def test_scores_of_variants_of_an_image(gap_network, images):
    logits = torch.arange(6.0).reshape(2, 3)
    assert query_at(gap_network, images, [2, 0, 1]).scores(logits, 1).tolist() == [[0], [3]]
    assert query_at(gap_network, images[:1], [2, 0]).scores(logits, 0).tolist() == [[2, 0], [5, 3]]
    sums = query_at(gap_network, images, lambda y: y.sum(1)).scores(logits, 2)
    assert sums.tolist() == [[3], [12]]


def test_queries_and_methods_compare_by_identity_or_as_they_are(gap_network, images):
    first, second = query_at(gap_network, images, 0), query_at(gap_network, images, 0)
    assert (first == second) is False
    assert len({first, second}) == 2
    assert isinstance(METHODS["gmcam"], Method)


def test_a_method_without_a_layer_keeps_the_input():
    assert no_layer(nn.ReLU()) == [INPUT]
