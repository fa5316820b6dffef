"""Every registered method keeps the same promises; CAM also knows where it is not defined."""

import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

import gmcam
from gmcam import METHODS, equations, method
from gmcam.capture import capture
from gmcam.metrics import curves

# CAM is defined only where pooling and a linear layer follow the map; CAMERAS needs a network that takes
# larger images.
REFUSED = {("cam", "flat_network"), ("cameras", "flat_network")}
SERVED = [
    (name, network)
    for name in METHODS
    for network in ("gap_network", "flat_network")
    if (name, network) not in REFUSED
]
SIZE_OF_CHUNKS = [name for name in METHODS if "chunk_size" in METHODS[name].options]
WITHOUT_LAYER = {
    *("full_grad", "smooth_full_grad", "captum.saliency", "captum.input_x_gradient"),
    *("captum.integrated_gradients", "captum.guided_backprop", "captum.occlusion", "captum.deep_lift"),
    *("centred_blob", "edges", "area"),
}


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "network"), SERVED)
def test_maps_are_float32_from_zero_to_one_and_nothing_is_left_behind(
    request, images, snapshot, name, network, count, trainable
):
    module = request.getfixturevalue(network).requires_grad_(trainable).train()
    before = snapshot(module)
    targets = [2, 1, 0][:count]
    result = gmcam.explain(module, images[:count], targets, method=name)
    assert snapshot(module) == before
    assert result.maps.shape == (count, 8, 8)
    assert result.maps.dtype == torch.float32
    assert result.maps.isfinite().all()
    assert result.maps.amin((1, 2)).tolist() == [0] * count
    assert result.maps.amax((1, 2)).tolist() == [0 if empty else 1 for empty in result.empty]
    assert not result.empty.all()
    assert result.raw.shape == (count, 8, 8)
    assert result.target.tolist() == targets


@pytest.mark.parametrize(("name", "network"), SERVED)
def test_a_batch_equals_its_images_one_by_one(request, images, name, network):
    module = request.getfixturevalue(network)
    together = gmcam.explain(module, images, [2, 0, 1], method=name)
    for n, target in enumerate([2, 0, 1]):
        alone = gmcam.explain(module, images[n : n + 1], target, method=name)
        assert torch.allclose(together.raw[n], alone.raw[0], rtol=1e-9)
        assert torch.allclose(together.maps[n], alone.maps[0], atol=1e-5)


@pytest.mark.parametrize(("name", "network"), SERVED)
def test_all_classes_of_one_image_equal_one_at_a_time(request, images, name, network):
    module = request.getfixturevalue(network)
    together = gmcam.explain(module, images[:1], [0, 1, 2], method=name)
    for target in range(3):
        alone = gmcam.explain(module, images[:1], target, method=name)
        assert torch.allclose(together.maps[target], alone.maps[0], atol=1e-5)


def test_cameras_is_refused_where_the_network_takes_one_size_only(flat_network, images, snapshot):
    before = snapshot(flat_network)
    with pytest.raises(
        ValueError, match=r"accepts larger images, got Sequential, which fails at 12 x 12"
    ) as error:
        gmcam.explain(flat_network, images, 0, method="cameras")
    assert "\n" not in str(error.value)
    assert snapshot(flat_network) == before


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_the_whole_network_names_the_input_as_its_layer(gap_network, images, name):
    layer = gmcam.explain(gap_network, images[:1], 0, method=name).layer
    assert layer == ("<input>" if name in WITHOUT_LAYER else "relu")


@pytest.mark.parametrize("name", METHODS)
def test_the_same_call_gives_the_same_map_and_leaves_chance_alone(gap_network, images, name):
    random.seed(3)
    np.random.seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = gmcam.explain(gap_network, images, [2, 0, 1], method=name)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    torch.rand(5)  # nor does it depend on it
    again = gmcam.explain(gap_network, images, [2, 0, 1], method=name)
    assert torch.equal(first.raw, again.raw)
    assert torch.equal(first.maps, again.maps)


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", METHODS)
def test_any_method_serves_any_caller(gap_network, images, name, caller):
    expected = gmcam.explain(gap_network, images, 1, method=name)
    with caller():
        inputs = images * 1  # made here: an inference tensor under inference_mode
        result = gmcam.explain(gap_network, inputs, 1, method=name)
    assert torch.equal(result.raw, expected.raw)
    assert not result.raw.requires_grad


class Remembering(nn.Module):
    """It keeps a tensor of its first pass for all later ones, as networks do with the places of tokens."""

    def __init__(self, module):
        super().__init__()
        self.module, self.scale = module, None

    def forward(self, x):
        logits = self.module(x)
        if self.scale is None:
            self.scale = torch.ones_like(logits[:1])
        return logits * self.scale


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", sorted({*METHODS, "probabilities", "curves"} - {"relevance_cam"}))
def test_what_a_network_keeps_of_a_pass_may_be_needed_for_gradients(gap_network, images, name, caller):
    network = gmcam.Network(Remembering(gap_network))
    expected = gmcam.explain(gap_network, images, 1, method="gmcam")
    with caller():
        if name == "probabilities":
            network.probabilities(images)
        elif name == "curves":
            curves(network, images, [1] * len(images), expected.maps)
        else:
            gmcam.explain(network, images, 1, method=name)
    assert torch.equal(gmcam.explain(network, images, 1, method="gmcam").raw, expected.raw)


@pytest.mark.parametrize("name", METHODS)
def test_no_image_gives_no_map(gap_network, images, name):
    result = gmcam.explain(gap_network, images[:0], 0, method=name)
    assert result.maps.shape == (0, 8, 8)


@pytest.mark.parametrize("name", sorted({*METHODS} - {"cam", "relevance_cam"}))
def test_a_function_that_picks_a_logit_gives_the_map_of_that_class(gap_network, images, name):
    by_function = gmcam.explain(gap_network, images, lambda logits: logits[:, 1], method=name)
    by_index = gmcam.explain(gap_network, images, 1, method=name)
    if name == "score_cam":  # weighs by the function's value where a class has its probability
        assert not torch.allclose(by_function.maps, by_index.maps, atol=1e-3)
    else:
        assert torch.allclose(by_function.raw, by_index.raw, rtol=1e-9)


@pytest.mark.parametrize("name", SIZE_OF_CHUNKS)
def test_the_size_of_chunks_makes_no_difference(gap_network, images, name):
    few = {"samples": 5, "steps": 5, "sizes": 3, "share": 3}
    few = {option: count for option, count in few.items() if option in METHODS[name].options}
    together, *others = (
        gmcam.explain(gap_network, images, [2, 0, 1], method=name, chunk_size=size, **few).raw
        for size in (1000, 1, 2)
    )
    assert all(torch.allclose(together, other, rtol=1e-9, atol=1e-12) for other in others)


@pytest.mark.parametrize("name", ["score_cam", "smooth_full_grad", "captum.saliency"])
def test_progress_goes_to_stderr_alone(gap_network, images, monkeypatch, capfd, name):
    def at_once(*items, **how):
        return tqdm(*items, **{**how, "delay": 0, "mininterval": 0})

    monkeypatch.setattr("gmcam.methods.full_grad.with_progress", at_once)
    monkeypatch.setattr("gmcam.chunks.tqdm", at_once)
    gmcam.explain(gap_network, images, 0, method=name)
    written = capfd.readouterr()
    assert written.out == ""
    assert "100%" in written.err


class Odd(nn.Module):
    """``body`` behind a rectifier in place, or a norm and a dropout that is a function, or with a note."""

    def __init__(self, kind, body):
        super().__init__()
        self.kind, self.body = kind, body
        if kind != "more than logits":
            self.first = nn.ReLU(inplace=True) if kind == "in place first" else nn.BatchNorm2d(3).double()

    def forward(self, x):
        if self.kind in ("in place first", "in training"):
            x = self.first(x)
        if self.kind == "in training":
            x = nn.functional.dropout(x, 0.5, self.training)
        return (self.body(x), "note") if self.kind == "more than logits" else self.body(x)


@pytest.mark.parametrize("kind", ["in place first", "in training", "more than logits", "with an idle part"])
@pytest.mark.parametrize("name", METHODS)
def test_odd_networks_give_the_maps_of_ordinary_ones(gap_network, images, snapshot, name, kind):
    odd = Odd(kind, gap_network).train(kind == "in training")
    before, inputs = snapshot(odd), images.clone()
    result = gmcam.explain(odd, inputs, [2, 0, 1], method=name, layer="body.relu")
    assert snapshot(odd) == before  # running statistics among it
    assert torch.equal(inputs, images)
    first = {"in place first": nn.ReLU(), "in training": getattr(odd, "first", None)}.get(kind, nn.Identity())
    ordinary = nn.Sequential(OrderedDict(first=first, body=gap_network)).eval()
    expected = gmcam.explain(ordinary, images, [2, 0, 1], method=name, layer="body.relu")
    assert torch.allclose(result.raw, expected.raw, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "guidance_map", "gmcam"])
def test_a_method_is_its_equation(flat_network, images, name):
    captured = capture(flat_network, images, 1, ["relu"])
    expected = getattr(equations, name)(captured.maps["relu"], captured.gradients["relu"])
    assert torch.equal(gmcam.explain(flat_network, images, 1, method=name).raw, expected)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "area"])  # seeded by every bit
def test_half_precision_networks_give_float32_maps_near_the_exact_ones(gap_network, images, name):
    exact = gmcam.explain(gap_network, images, 1, method=name)
    rough = gmcam.explain(gap_network.bfloat16(), images, 1, method=name)
    assert rough.raw.dtype == torch.float32
    assert (rough.maps - exact.maps).abs().mean() < 0.02


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_computes_and_where_it_comes_from(name):
    entry = METHODS[name]
    assert entry.name == name
    assert "Σ" in entry.summary or name in ("centred_blob", "edges", "area")  # these explain no network
    assert "20" in entry.source


@pytest.fixture
def registry():
    before = dict(METHODS)
    yield METHODS
    METHODS.clear()
    METHODS.update(before)


def test_a_method_of_the_readers_own_is_served_by_explain(registry, gap_network, images):
    @method("mean of maps", title="Mean", source="this test")
    def mean_of_maps(query):
        """Mean of the feature maps."""
        return query.M.mean(1)

    result = gmcam.explain(gap_network, images, 0, method="mean of maps")
    assert torch.equal(result.raw, gap_network.conv(images).relu().mean(1))
    assert registry["mean of maps"].summary == "Mean of the feature maps."


OPTIONS = {
    "mode": ("max", "mean"),
    "centred": (True, False),
    "power": (0, 2),
    "shift": (-1.5, 0.5),
    "of": ("y", "x"),
    "given": ([1], None),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_the_readers_own_is_passed_on_whatever_it_is(registry, gap_network, images, option):
    value, seen = OPTIONS[option][0], []

    @method("mine", title="Mine", source="this test")
    def mine(query, mode="mean", centred=False, power=2, shift=0.5, of="x", given=None):
        """Mean of the feature maps."""
        seen.append(
            {"mode": mode, "centred": centred, "power": power, "shift": shift, "of": of, "given": given}
        )
        return query.M.mean(1)

    gmcam.explain(gap_network, images, 0, method="mine", **{option: value})
    assert seen == [{name: default for name, (_, default) in OPTIONS.items()} | {option: value}]


def test_an_option_is_checked_by_its_own_default_whatever_its_name(registry, gap_network, images):
    @method("mine", title="Mine", source="this test")
    def mine(query, share: float = 0.3, steps: float = 2.5):
        """Mean of the feature maps."""
        return query.M.mean(1) * share * steps

    raw = gmcam.explain(gap_network, images, 0, method="mine", share=0.5).raw
    assert torch.allclose(raw, gap_network.conv(images).relu().mean(1) * 1.25)
    for wrong in ("0.3", None, float("nan"), True):
        with pytest.raises(ValueError, match="for share, got"):
            gmcam.explain(gap_network, images, 0, method="mine", share=wrong)


COUNTS = [
    (name, option)
    for name in METHODS
    for option in METHODS[name].options
    if option in ("chunk_size", "steps", "samples", "sizes", "share")
]


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_counts_are_whole_numbers_from_one_on(gap_network, images, name, option):
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"for {option}, got {wrong}"):
            gmcam.explain(gap_network, images, 0, method=name, **{option: wrong})
    for wrong in (2.0, True, "5", None):
        with pytest.raises(ValueError, match=f"for {option}, got {wrong!r}"):
            gmcam.explain(gap_network, images, 0, method=name, **{option: wrong})


def test_a_name_that_is_taken_is_refused(registry):
    entry = registry["grad_cam"]
    with pytest.raises(ValueError, match="new name, got 'grad_cam'"):
        method("grad_cam", title="", source="")(lambda query: query.M.sum(1))
    assert registry["grad_cam"] is entry


def test_a_notebooks_own_method_is_registered_again_when_its_cell_is_run_again(registry):
    def cell(own_summary, name="mine"):
        function = lambda query: query.M.sum(1)  # noqa: E731
        function.__doc__, function.__module__ = own_summary, "__main__"
        method(name, title="Mine", source="this notebook")(function)

    cell("First.")
    cell("Second.")
    assert registry["mine"].summary == "Second."
    with pytest.raises(ValueError, match="new name, got 'gmcam'"):
        cell("Third.", name="gmcam")


# Where CAM is defined.


def classifier(*after):
    """Six maps of 6 × 6 from layer ``0``, then what comes after them, to four classes."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    return nn.Sequential(features, *after).double()


POOL = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
DEFINED = {
    "pooling, linear": (*POOL, nn.Linear(6, 4)),
    "without bias": (*POOL, nn.Linear(6, 4, bias=False)),
    "dropout between": (*POOL, nn.Dropout(0.5), nn.Linear(6, 4)),
    "a map per class, pooling": (nn.Conv2d(6, 4, 1), *POOL),
    "a rectified map per class, pooling": (nn.Dropout(0.5), nn.Conv2d(6, 4, 1), nn.ReLU(), *POOL),
}


@pytest.mark.parametrize("head", DEFINED)
def test_cam_weighs_the_maps_by_the_last_layer(images, head):
    module = classifier(*DEFINED[head])
    result = gmcam.explain(module, images, [0, 3, 1], method="cam", layer="0")
    last = next(layer for layer in DEFINED[head] if hasattr(layer, "weight"))
    weights = last.weight.flatten(1)[[0, 3, 1]]
    expected = (weights[:, :, None, None] * module[0](images)).sum(1)
    assert torch.allclose(result.raw, expected)


UNDEFINED = {
    "a hidden layer": (*POOL, nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)),
    "max pooling": (nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    "softmax": (*POOL, nn.Linear(6, 4), nn.Softmax(1)),
    "a wider convolution": (nn.Conv2d(6, 4, 3), nn.Conv2d(4, 6, 3), *POOL, nn.Linear(6, 4)),
}


@pytest.mark.parametrize("head", UNDEFINED)
def test_cam_is_refused_where_the_logit_is_not_a_mean_of_weighted_maps(images, head):
    with pytest.raises(
        ValueError, match="one linear layer after '0', got something else in Sequential: use grad_cam"
    ):
        gmcam.explain(classifier(*UNDEFINED[head]), images, 0, method="cam", layer="0")


@pytest.mark.parametrize(
    "head",
    [(nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(6 * 36, 4)), (nn.Conv2d(6, 4, 3), *POOL)],
    ids=["flattened", "no linear layer"],
)
def test_cam_is_refused_where_no_weight_belongs_to_a_channel(images, head):
    with pytest.raises(ValueError, match="one linear layer after '0', got something else"):
        gmcam.explain(classifier(*head), images, 0, method="cam", layer="0")


def test_cam_is_refused_before_a_rectifier(gap_network, images):
    with pytest.raises(ValueError, match="one linear layer after 'conv', got something else"):
        gmcam.explain(gap_network, images, 0, method="cam", layer="conv")


def test_cam_is_refused_for_a_function(gap_network, images):
    with pytest.raises(ValueError, match="a class as target of cam, got a function"):
        gmcam.explain(gap_network, images, lambda logits: logits[:, 0], method="cam")
