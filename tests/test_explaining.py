"""``explain``, ``compare`` and ``explain_layers``: their arguments, their results, their errors."""

import copy
import re
import warnings

import numpy as np
import pytest
import torch
from modules import Apply, plain_autograd
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gmcam
from gmcam import METHODS, Network


@pytest.fixture(scope="module")
def network():
    return gmcam.load("collage-vgg")


@pytest.fixture(scope="module")
def scene():
    return gmcam.lab.scene("cat", "cup", seed=3)


def test_an_image_and_a_class_by_name(network, scene):
    result = gmcam.explain(network, scene.image, "cat")
    assert result.maps.shape == (1, 128, 128)
    assert result.raw.shape == (1, 16, 16)
    assert result.cells == (16, 16)
    assert (result.method, result.layer, result.network) == ("gmcam", "stage4", network)
    assert result.target.tolist() == [network.classes.index("cat")]
    assert result.label(0) == "cat"
    assert result.empty.tolist() == [False]


def test_score_and_probability_are_the_networks_to_rounding(network, scene):
    result = gmcam.explain(network, scene.image, "cup")
    with torch.no_grad():
        logits = network.module(network.prepare(scene.image))
    # Convolutions add up in another order where channels come last.
    index = network.class_index("cup")
    assert torch.allclose(result.score, logits[:, index], rtol=1e-4)
    assert torch.allclose(result.probability, logits.softmax(1)[:, index], atol=1e-5)


def test_score_and_probability_are_exactly_the_networks_in_double_precision(network, scene):
    exact = Network(copy.deepcopy(network.module).double(), input_shape=network.input_shape)
    inputs = network.prepare(scene.image).double()
    result = gmcam.explain(exact, inputs, 1)
    with torch.no_grad():
        logits = exact.module(inputs)
    assert torch.equal(result.score, logits[:, 1])
    assert torch.allclose(result.probability, logits.softmax(1)[:, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "target"), [(3, [2, 0, 1]), (3, 1), (3, None), (1, [2, 0, 1, 1]), (1, [1]), (0, 1)], ids=repr
)
def test_probability_is_that_of_each_class_explained(gap_network, images, count, target):
    result = gmcam.explain(gap_network, images[:count], target)
    expected = gap_network(images[:count]).softmax(1)
    rows = range(count) if count != 1 else [0] * len(result.target)
    assert result.probability.shape == result.score.shape == (len(result.maps),)
    assert result.probability.tolist() == pytest.approx(
        [expected[row, index].item() for row, index in zip(rows, result.target, strict=True)], rel=1e-6
    )


def test_results_compare_by_identity(gap_network, images):
    first, second = (gmcam.explain(gap_network, images, 0) for _ in range(2))
    assert first == first
    assert (first == second) is False
    assert len({first, second}) == 2
    assert "network" not in repr(first)


class Looks(TorchDispatchMode):
    """Counts how often values of a tensor are read, which makes the program wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("method", ["grad_cam", "gmcam"])
def test_values_are_read_of_the_input_the_pass_and_the_maps_alone(network, layers, method, monkeypatch):
    inputs = torch.rand(4, 3, 64, 64)
    tolist = torch.Tensor.tolist
    paths = list(network.layers.values())[-layers:]
    with Looks() as looks:

        def counted(tensor):
            looks.count += tensor.is_floating_point()  # targets are on the CPU
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)
        gmcam.explain_layers(network, inputs, [0, 1, 2, 3], method=method, layers=paths)
    assert looks.count == 2 + layers


def test_a_list_of_classes_of_one_image_gives_a_map_each(network, scene):
    together = gmcam.explain(network, scene.image, ["cat", 1, "Rocket"])
    assert [together.label(t) for t in range(3)] == ["cat", "cup", "rocket"]
    assert together.probability.shape == (3,)
    for t, name in enumerate(["cat", "cup", "rocket"]):
        alone = gmcam.explain(network, scene.image, name)
        assert torch.allclose(together.maps[t], alone.maps[0], atol=1e-4)


@pytest.mark.parametrize("method", ["grad_cam", "gmcam", "full_grad", "integrated_grad_cam", "eigen_cam"])
def test_more_classes_than_a_part_holds_give_the_same_maps_in_one_forward_pass(
    flat_network, images, monkeypatch, method
):
    targets = [0, 2, 1, 1, 0]
    whole = gmcam.explain(flat_network, images[:1], targets, method=method)
    monkeypatch.setattr("gmcam.explaining.CLASSES_AT_A_TIME", 2)
    passes = []
    flat_network.register_forward_hook(lambda *_: passes.append(1))
    parts = gmcam.explain(flat_network, images[:1], targets, method=method, layer=whole.layer)
    assert torch.allclose(parts.maps, whole.maps, atol=1e-6)
    assert torch.allclose(parts.raw, whole.raw, rtol=1e-5, atol=1e-7)
    assert torch.equal(parts.score, whole.score) and torch.equal(parts.probability, whole.probability)
    assert parts.target.tolist() == targets
    if method != "integrated_grad_cam":  # it has further passes for each class
        assert len(passes) == 1


class Checked(torch.autograd.Function):
    """Reads values of the gradient, so that classes cannot be differentiated as a batch."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if not gradient.isfinite().all():
            raise ValueError("no")
        return gradient


@pytest.mark.parametrize("at_a_time", [64, 2, 1])
@pytest.mark.parametrize("method", ["gmcam", "hires_cam", "full_grad", "integrated_grad_cam"])
def test_classes_that_cannot_be_differentiated_together_warn_once(images, monkeypatch, method, at_a_time):
    monkeypatch.setattr("gmcam.explaining.CLASSES_AT_A_TIME", at_a_time)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        Apply(Checked.apply),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).double()
    targets, options = [2, 0, 3, 1, 1], {"method": method} | ({} if method == "full_grad" else {"layer": "0"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = gmcam.explain(module, images[:1], targets, **options)
    assert len(caught) == (at_a_time > 1)
    assert all("cannot be batched" in str(warning.message) for warning in caught)
    for raw, target in zip(result.raw, targets, strict=True):
        expected = gmcam.explain(module, images[:1], target, **options).raw[0]
        assert expected.abs().max() > 0
        assert torch.allclose(raw, expected, rtol=1e-9, atol=1e-12)


def test_a_list_of_images_takes_a_class_for_each(network, scene):
    other = gmcam.lab.scene("rocket", seed=1).image
    together = gmcam.explain(network, [scene.image, np.asarray(other)], ["cup", "rocket"])
    assert [together.label(0), together.label(1)] == ["cup", "rocket"]
    for n, (image, name) in enumerate([(scene.image, "cup"), (other, "rocket")]):
        assert torch.allclose(together.maps[n], gmcam.explain(network, image, name).maps[0], atol=1e-4)


def test_a_list_of_tensors_is_a_batch(network):
    tensors = list(torch.rand(2, 3, 128, 128))
    together = gmcam.explain(network, tensors, ["cup", "cat"])
    assert torch.equal(together.maps, gmcam.explain(network, torch.stack(tensors), ["cup", "cat"]).maps)


@pytest.mark.parametrize("kind", ["array", "path", "name of a file", "tensor", "tensor without batch"])
def test_an_image_may_have_any_form(network, scene, tmp_path, kind):
    path = tmp_path / "scene.png"
    scene.image.save(path)
    tensor = network.prepare(scene.image)
    forms = {
        "array": np.asarray(scene.image),
        "path": path,
        "name of a file": str(path),
        "tensor": tensor,
        "tensor without batch": tensor[0],
    }
    result = gmcam.explain(network, forms[kind], "cat")
    assert torch.equal(result.maps, gmcam.explain(network, scene.image, "cat").maps)


def test_without_a_target_the_top_class_is_explained(network, scene):
    result = gmcam.explain(network, scene.image)
    probabilities = network.probabilities(scene.image)
    assert result.target.tolist() == probabilities.argmax(1).tolist()
    assert torch.allclose(result.probability, probabilities.amax(1), atol=1e-6)


def test_a_function_may_be_the_target(network, scene):
    def margin(logits):
        return logits[:, 0] - logits[:, 1]

    result = gmcam.explain(network, scene.image, margin)
    assert result.target is margin
    assert result.label(0) == "margin"
    assert result.probability is None
    assert not torch.equal(result.raw, gmcam.explain(network, scene.image, 0).raw)


def test_a_layer_is_given_by_resolution_path_or_module(network, scene):
    by_resolution = gmcam.explain(network, scene.image, "cat", layer="32x32")
    by_path = gmcam.explain(network, scene.image, "cat", layer="stage3")
    assert by_resolution.layer == by_path.layer == "stage3"
    assert by_resolution.raw.shape == (1, 32, 32)
    assert torch.equal(by_resolution.maps, by_path.maps)
    by_module = gmcam.explain(network, scene.image, "cat", layer=network.module.stage3)
    assert by_module.layer == "stage3"
    assert torch.equal(by_module.maps, by_path.maps)


def test_sigma_smooths_the_map_and_leaves_the_raw_values(network, scene):
    sharp = gmcam.explain(network, scene.image, "cat", sigma=0)
    smooth = gmcam.explain(network, scene.image, "cat", sigma=2)
    assert torch.equal(sharp.raw, smooth.raw)
    assert smooth.maps.diff(dim=2).abs().max() < sharp.maps.diff(dim=2).abs().max()


def scaled(raw, normalise):
    """Maps of the raw map's size, without smoothing."""
    positive = raw.relu()
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    return {
        "rectified": (positive - positive.amin((1, 2), keepdim=True)) / (high - low.relu()),
        "max": positive / high,
        "batch": positive / raw.max(),
        "minmax": (raw - low) / (high - low),
    }[normalise].float()


@pytest.mark.parametrize("normalise", ["rectified", "max", "batch", "minmax"])
@pytest.mark.parametrize("count", [1, 3])
def test_signed_maps_keep_their_sign_in_raw_and_are_scaled_as_requested(
    flat_network, images, monkeypatch, count, normalise
):
    monkeypatch.setattr("gmcam.explaining.CLASSES_AT_A_TIME", 2)  # one maximum for the call, not for a part
    options = {"method": "hires_cam", "layer": "relu", "sigma": 0}
    result = gmcam.explain(flat_network, images[:count], [2, 0, 1], normalise=normalise, **options)
    rows = range(3) if count == 3 else [0, 0, 0]
    pairs = [
        plain_autograd(flat_network, images[row : row + 1], "relu", lambda y, t=target: y[:, t])
        for row, target in zip(rows, [2, 0, 1], strict=True)
    ]
    expected = torch.cat([(C * M).sum(1) for M, C in pairs])
    assert (expected < 0).any() and (expected > 0).any((1, 2)).all()
    assert torch.allclose(result.raw, expected, rtol=1e-9, atol=1e-14)
    assert torch.allclose(result.maps, scaled(expected, normalise), atol=1e-6)
    if normalise != "minmax":
        assert not result.maps[expected <= 0].any()
    default = gmcam.explain(flat_network, images[:count], [2, 0, 1], **options)
    if normalise == "rectified":
        assert torch.equal(default.maps, result.maps)


@pytest.mark.parametrize("method", sorted(name for name in METHODS if not name.startswith("captum.")))
def test_only_signed_methods_have_negative_raw_values(gap_network, images, method):
    options = {name: 3 for name in ("steps", "samples", "sizes") if name in METHODS[method].options}
    layer = {} if METHODS[method].keeps else {"layer": "relu"}
    raw = gmcam.explain(gap_network, images, [2, 0, 1], method=method, **layer, **options).raw
    assert METHODS[method].signed or (raw >= 0).all()


def test_a_plain_module_is_enough(flat_network, images):
    result = gmcam.explain(flat_network, images, 2)
    assert result.maps.shape == (3, 8, 8)
    assert result.layer == "relu"
    assert result.label(1) == "class 2"


def test_a_module_created_in_inference_mode_is_refused_and_left_alone(images, snapshot):
    with torch.inference_mode():
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    before = snapshot(module)
    for layer in (None, "1"):
        with pytest.raises(ValueError, match=r"created under torch\.inference_mode"):
            gmcam.explain(module, images, 0, layer=layer)
    assert snapshot(module) == before


def test_a_plain_module_accepts_inputs_of_any_size(gap_network):
    result = gmcam.explain(gap_network, torch.rand(2, 3, 20, 31), 0, method="grad_cam")
    assert result.maps.shape == (2, 20, 31)


def test_no_image_gives_no_map(gap_network, images):
    result = gmcam.explain(gap_network, images[:0], 0)
    assert (result.maps.shape, result.empty.shape) == ((0, 8, 8), (0,))


def test_outputs_that_are_not_classes_have_no_probability(gap_network, images):
    maps = nn.Sequential(gap_network.conv, gap_network.relu)
    result = gmcam.explain(maps, images, lambda y: y[:, 0].square().mean((1, 2)), layer="0")
    assert result.probability is None
    assert result.maps.shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["grad_cam", "guidance_map", "gmcam"])
def test_a_map_without_evidence_is_zeros_and_called_empty(gap_network, images, name):
    with torch.no_grad():
        gap_network.fc.weight[0] = -gap_network.fc.weight[0].abs()  # all evidence is against class 0
        gap_network.fc.weight[1] = gap_network.fc.weight[1].abs()
    result = gmcam.explain(gap_network, images[:1], [0, 1], method=name)
    assert result.empty.tolist() == [True, False]
    assert result.maps[0].abs().max() == 0


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
def test_any_caller(network, scene, caller):
    for targets in ("cat", ["cat", "cup"], None):
        expected = gmcam.explain(network, scene.image, targets).maps
        with caller():
            assert torch.equal(gmcam.explain(network, scene.image, targets).maps, expected)


class Autocasts(nn.Module):
    """A network with mixed precision inside."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(x)


AUTOCAST = [
    "cam",
    "grad_cam",
    "hires_cam",
    "gmcam",
    "layer_cam",
    "x_grad_cam",
    "eigen_cam",
    "score_cam",
    "full_grad",
]


@pytest.mark.parametrize("method", AUTOCAST)
@pytest.mark.parametrize("inside", [False, True], ids=["the call", "the network"])
def test_autocast_gives_maps_near_the_exact_ones(gap_network, method, inside):
    module, inputs = gap_network.float(), torch.rand(2, 3, 24, 24)
    exact = gmcam.explain(module, inputs, [1, 2], method=method)
    if inside:
        result = gmcam.explain(Autocasts(module), inputs, [1, 2], method=method)
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = gmcam.explain(module, inputs, [1, 2], method=method)
    assert (result.raw.dtype, result.maps.dtype) == (torch.float32, torch.float32)
    assert result.empty.tolist() == exact.empty.tolist()
    difference = (result.maps - exact.maps).abs()
    assert difference.mean() < 0.01
    if (
        method != "full_grad"
    ):  # a rectifier near zero may open in one precision alone, which single pixels show
        assert difference.max() < 0.05
    assert torch.allclose(result.probability.float(), exact.probability, atol=0.02)


@pytest.mark.parametrize("method", ["eigen_cam", "layer_cam"])
def test_autocast_does_not_make_nearly_flat_maps_empty(method):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    with torch.no_grad():
        module[0].weight.mul_(0.1)  # maps that vary by a few percent
        module[4].weight.abs_()
    inputs = torch.rand(2, 3, 24, 24)
    exact = gmcam.explain(module, inputs, 0, method=method, layer="1")
    assert not exact.empty.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = gmcam.explain(module, inputs, 0, method=method, layer="1")
    assert not result.empty.any()
    for rough, fine in zip(result.maps, exact.maps, strict=True):
        assert torch.corrcoef(torch.stack([rough.flatten(), fine.flatten()]))[0, 1] > 0.9


REFUSED = [
    ({"method": "grad_camm"}, "got 'grad_camm': the closest are grad_cam"),
    ({"method": "zzz"}, "got 'zzz': there are cam, grad_cam,"),
    ({"layer": "stage9"}, "got 'stage9': the nearest are stage"),
    ({"layer": "16x17"}, "128x128 (stage1), 64x64 (stage2)"),
    ({"layer": "head.0"}, "at layer 'head.0', got (1, 96)"),
    ({"layer": ["stage3", "stage4"]}, "got ['stage3', 'stage4']"),
    ({"layer": nn.ReLU()}, "ReLU"),
    ({"target": "ct"}, "a class of collage-vgg, got 'ct': the closest are cat"),
    ({"target": "motor"}, "got 'motor': the closest are motorbike"),
    ({"target": "zzz"}, "got 'zzz': choose one, as cat, cup, flower"),
    ({"target": ["cat", "cupp"]}, "got 'cupp': the closest are cup"),
    ({"target": 8}, "collage-vgg from 0 to 7, got 8:"),
    ({"target": [0, -1]}, "from 0 to 7, got -1"),
    ({"target": []}, "at least one target, got an empty list"),
    ({"target": [1.5]}, "1.5"),
    ({"target": [True]}, "True"),
    ({"target": [None]}, "None"),
    ({"target": {1, 2}}, "{1, 2}"),
    ({"target": True}, "True"),
    ({"sigma": -1}, "from 0 to 100 cells, got -1"),
    ({"normalise": "sum"}, "rectified, max, batch, minmax, got 'sum'"),
    ({"image": []}, "an empty list"),
    ({"image": None}, "None"),
    ({"image": "missing.png"}, "missing.png"),
    ({"image": torch.zeros(128, 128)}, "torch.float32 (128, 128)"),
    ({"image": torch.zeros(3, 128, 128, dtype=torch.uint8)}, "torch.uint8 (3, 128, 128)"),
    ({"image": torch.full((3, 128, 128), float("nan"))}, "a finite input, got NaN or infinity"),
    ({"image": [torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)]}, "(3, 8, 8) and (3, 8, 9)"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=repr)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(network, scene, change, message):
    arguments = {"image": scene.image, "target": "cat", **change}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.explain(network, **arguments)
    assert "\n" not in str(error.value)


# Several layers, and options.

LAYERS = ["pool", "conv", "relu"]
ONE_PASS = ["grad_cam", "hires_cam", "guidance_map", "gmcam", "grad_cam_pp", "x_grad_cam", "layer_cam"]


@pytest.mark.parametrize("method", [*ONE_PASS, "eigen_cam", "score_cam", "ablation_cam", "relevance_cam"])
def test_several_layers_give_the_results_of_one_at_a_time(flat_network, images, method):
    together = gmcam.explain_layers(flat_network, images, [2, 0, 1], method=method, layers=LAYERS)
    assert [result.layer for result in together] == LAYERS
    for result in together:
        alone = gmcam.explain(flat_network, images, [2, 0, 1], method=method, layer=result.layer)
        assert torch.equal(result.raw, alone.raw)
        assert torch.equal(result.maps, alone.maps)
        assert torch.equal(result.score, alone.score)


def test_layers_may_be_given_in_any_form_and_repeat(network, scene):
    layers = ("16x16", None, "stage3", network.module.stage4)
    results = gmcam.explain_layers(network, scene.image, "cat", layers=layers)
    assert [result.layer for result in results] == ["stage4", "stage4", "stage3", "stage4"]
    assert torch.equal(results[0].maps, results[3].maps)
    (result,) = gmcam.explain_layers(network, scene.image, "cat", layers=["stage3"])
    assert result.raw.shape == (1, 32, 32)


@pytest.mark.parametrize("fuse", [None, "mean"])
@pytest.mark.parametrize("method", [*ONE_PASS, "eigen_cam"])
def test_several_layers_cost_one_forward_and_at_most_one_backward_pass(flat_network, images, method, fuse):
    passes = []
    flat_network.fc1.register_forward_hook(lambda *_: passes.append("forward"))
    flat_network.fc1.register_full_backward_hook(lambda *_: passes.append("backward"))
    gmcam.explain_layers(flat_network, images, 0, method=method, layers=LAYERS, fuse=fuse)
    assert passes == (["forward"] if method == "eigen_cam" else ["forward", "backward"])


ARITHMETIC = {
    "mean": lambda first, second, third: (first + second + third) / 3,
    "max": lambda first, second, third: torch.maximum(torch.maximum(first, second), third),
    "product": lambda first, second, third: first * second * third,
}


@pytest.mark.parametrize("fuse", ARITHMETIC)
def test_fused_layers_are_their_maps_put_together_and_normalised_again(flat_network, images, fuse):
    options = {"method": "hires_cam", "layers": LAYERS, "sigma": 1.0}
    fused = gmcam.explain_layers(flat_network, images, 2, **options, fuse=fuse)
    results = gmcam.explain_layers(flat_network, images, 2, **options)
    expected = ARITHMETIC[fuse](*(result.maps for result in results))
    assert torch.allclose(fused.raw, expected, atol=1e-6)
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    assert torch.allclose(fused.maps, (expected - low) / (high - low), atol=1e-5)
    assert fused.maps.amax((1, 2)).tolist() == [1, 1, 1]
    assert (fused.layer, fused.method, fused.empty.any()) == ("pool, conv, relu", "hires_cam", False)
    assert fused.cells == (8, 8)
    assert torch.equal(fused.probability, results[0].probability)


def test_a_product_with_an_empty_map_is_empty(gap_network, images):
    with torch.no_grad():
        gap_network.fc.weight[0] = -gap_network.fc.weight[0].abs()
    options = {"method": "grad_cam", "layers": ["relu", "conv"], "fuse": "product"}
    result = gmcam.explain_layers(gap_network, images, 0, **options)
    assert result.empty.all()
    assert not result.maps.any()


LAYERS_THAT_DO_NOT_FIT = [
    ({"layers": []}, "expected a list of layers"),
    ({"layers": (), "fuse": "mean"}, "expected a list of layers"),
    ({"layers": "relu"}, "expected a list of layers, got"),
    ({"layers": nn.Sequential(nn.ReLU())}, "expected a list of layers"),
    ({"layers": 5}, "expected a list of layers, got"),
    ({"layers": ["conv", "covn"]}, "got 'covn'"),
    ({"layers": ["conv", "fc1"]}, "at layer 'fc1', got (3, 5)"),
    ({"layers": ["relu", 5]}, "5"),
    ({"layers": [["relu", "conv"]]}, "got ['relu', 'conv']"),
    ({"layers": ["relu"], "fuse": "median"}, "mean, max, product, got 'median'"),
    ({"layers": ["relu"], "fuse": ["mean"]}, "mean, max, product, got ['mean']"),
    ({"layers": ["relu"], "method": "full_grad"}, "got full_grad: use explain"),
    ({"layers": [None], "method": "captum.saliency"}, "got captum.saliency: use explain"),
    ({"layers": ["relu"], "chunk_size": 2}, "an option of gmcam, got 'chunk_size'"),
]


@pytest.mark.parametrize(("change", "message"), LAYERS_THAT_DO_NOT_FIT, ids=repr)
def test_layers_that_do_not_fit_are_refused_in_one_sentence(flat_network, images, change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.explain_layers(flat_network, images, 0, **change)
    assert "\n" not in str(error.value)


OPTIONS_THAT_DO_NOT_FIT = [
    ({"chunk_size": 2}, "an option of gmcam, got 'chunk_size': its options are none"),
    ({"fuse": "mean"}, "an option of gmcam, got 'fuse'"),
    ({"targets": 1}, "an option of gmcam, got 'targets'"),
    ({"layer": 5}, "5"),
    (
        {"method": "smooth_full_grad", "step": 3},
        "got 'step': its options are samples, noise, seed, chunk_size",
    ),
    ({"method": "score_cam", "query": 3}, "an option of score_cam, got 'query'"),
    ({"method": "score_cam", "chunk_size": 0}, "from 1 on for chunk_size, got 0"),
    ({"method": "ablation_cam", "chunk_size": -2}, "from 1 on for chunk_size, got -2"),
    ({"method": "cameras", "chunk_size": True}, "for chunk_size, got True"),
    ({"method": "captum.occlusion", "chunk_size": 2.0}, "for chunk_size, got 2.0"),
    ({"method": "integrated_grad_cam", "steps": -1}, "from 1 on for steps, got -1"),
    ({"method": "captum.integrated_gradients", "steps": "5"}, "for steps, got '5'"),
    ({"method": "smooth_full_grad", "samples": 0}, "from 1 on for samples, got 0"),
    ({"method": "cameras", "sizes": None}, "for sizes, got None"),
    ({"method": "captum.occlusion", "share": 0}, "share"),
    ({"method": "captum.occlusion", "share": -3}, "share"),
    ({"method": "captum.occlusion", "share": 2.5}, "share"),
    ({"method": "smooth_full_grad", "noise": -0.1}, "noise"),
    ({"method": "smooth_full_grad", "noise": float("nan")}, "for noise, got nan"),
    ({"method": "smooth_full_grad", "noise": "much"}, "for noise, got 'much'"),
    ({"method": "smooth_full_grad", "seed": 1.5}, "for seed, got 1.5"),
]


@pytest.mark.parametrize(("change", "message"), OPTIONS_THAT_DO_NOT_FIT, ids=repr)
def test_options_that_do_not_fit_are_refused_in_one_sentence(flat_network, images, snapshot, change, message):
    before = snapshot(flat_network)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.explain(flat_network, images, 0, **change)
    assert "\n" not in str(error.value)
    assert snapshot(flat_network) == before


def test_options_reach_the_method(gap_network, images):
    def raw(**options):
        return gmcam.explain(gap_network, images, 0, **options).raw

    passes = []
    gap_network.register_forward_hook(lambda *_: passes.append(1))
    raw(method="integrated_grad_cam", layer="relu", steps=3, chunk_size=1)
    assert len(passes) == 1 + 1 + 3 * len(images)  # the pass, image 0 alone, the steps
    noisy = {"method": "smooth_full_grad", "samples": 3}
    assert torch.equal(raw(**noisy, seed=7), raw(**noisy, seed=7))
    assert not torch.equal(raw(**noisy, seed=7), raw(**noisy, seed=8))
    quiet = [raw(**noisy, noise=0.0, seed=seed) for seed in (7, 8)]
    assert torch.equal(*quiet)  # every copy is the image


def test_a_plain_module_accepts_no_image(gap_network, scene):
    with pytest.raises(ValueError, match="Sequential has no preprocessing, got an image"):
        gmcam.explain(gap_network, scene.image, 0)


def test_a_plain_module_has_no_class_names(gap_network, images):
    with pytest.raises(ValueError, match="got 'cat': without class names"):
        gmcam.explain(gap_network, images, "cat")


@pytest.mark.parametrize("index", [3, -1, 1.5])
def test_a_class_that_a_plain_module_does_not_have_is_refused(gap_network, images, index):
    with pytest.raises(ValueError, match=str(index)):
        gmcam.explain(gap_network, images[:1], [index])


def test_a_function_is_not_a_network(images):
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, got a function"):
        gmcam.explain(lambda x: x, images, 0)


def test_a_module_without_convolutions_has_no_default_layer(images):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    with pytest.raises(ValueError, match="a convolutional layer with height and width, got none"):
        gmcam.explain(Network(module, input_shape=(3, 8, 8)), images, 0)


SHARED = ["eigen_cam", "grad_cam", "full_grad", "gmcam", "captum.saliency", "ablation_cam"]


def test_methods_compared_are_methods_explained(network, scene):
    targets = ["cat", "cup"]
    for result in gmcam.compare(network, scene.image, targets, methods=SHARED, layer="32x32"):
        alone = gmcam.explain(
            network,
            scene.image,
            targets,
            method=result.method,
            layer=None if METHODS[result.method].keeps else "32x32",
        )
        assert (result.layer, result.method) == (alone.layer, alone.method)
        assert torch.allclose(result.raw, alone.raw, atol=1e-5 * alone.raw.abs().max())
        assert torch.equal(result.target, alone.target)


def test_methods_of_a_layer_share_one_pass(network, scene):
    passes = []
    hook = network.module.register_forward_hook(lambda *_: passes.append(1))
    try:
        gmcam.compare(network, scene.image, "cat", methods=["eigen_cam", "grad_cam", "gmcam", "hires_cam"])
        assert len(passes) == 1
    finally:
        hook.remove()


def test_each_method_compared_has_its_options(gap_network, images):
    methods = ["Score-CAM", "integrated_grad_cam", "gmcam"]
    options = {"score_cam": {"chunk_size": 1}, "IntegratedGradCAM": {"steps": 3, "chunk_size": 2}}
    sizes = []
    gap_network.register_forward_hook(lambda m, inputs, output: sizes.append(len(output)))
    results = gmcam.compare(gap_network, images[:1], 0, methods=methods, layer="relu", options=options)
    assert [result.method for result in results] == ["score_cam", "integrated_grad_cam", "gmcam"]
    assert sizes == [1, *[1] * 4, 2, 1]  # the pass they share, four channels, three steps
    expected = gmcam.explain(gap_network, images[:1], 0, method="integrated_grad_cam", layer="relu", steps=3)
    assert torch.allclose(results[1].raw, expected.raw, rtol=1e-9)


def test_methods_compared_share_sigma_and_scale(gap_network, images):
    options = {"layer": "relu", "sigma": 0, "normalise": "batch"}
    for result in gmcam.compare(gap_network, images, 0, methods=["hires_cam", "grad_cam"], **options):
        alone = gmcam.explain(gap_network, images, 0, method=result.method, **options)
        assert torch.equal(result.maps, alone.maps)


NOT_COMPARED = [
    ({"methods": []}, "expected a list of methods"),
    ({"methods": "grad_cam"}, "expected a list of methods, got"),
    ({"methods": 5}, "expected a list of methods, got"),
    ({"methods": ["grad_cam", "grad_camm"]}, "got 'grad_camm': the closest are grad_cam"),
    ({"methods": ["grad_cam"], "options": {"score_cam": {"chunk_size": 3}}}, "options of grad_cam"),
    ({"methods": ["grad_cam"], "options": {"scorecamm": {}}}, "got 'scorecamm': the closest are score_cam"),
    (
        {"methods": ["score_cam"], "options": {"score_cam": {"steps": 3}}},
        "an option of score_cam, got 'steps'",
    ),
    ({"methods": ["score_cam"], "options": {"score_cam": {"chunk_size": 1.5}}}, "chunk_size, got 1.5"),
    ({"methods": ["score_cam"], "options": {"chunk_size": 3}}, "chunk_size"),
    ({"methods": ["score_cam"], "layer": ["stage3"]}, "got ['stage3']"),
]


@pytest.mark.parametrize(("change", "message"), NOT_COMPARED, ids=repr)
def test_methods_that_cannot_be_compared_are_refused(change, message, network, scene):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.compare(network, scene.image, "cat", **change)
    assert "\n" not in str(error.value)


def test_class_names_that_do_not_fit_the_output_are_refused(gap_network, images):
    network = Network(gap_network, classes=["cat", "cup"])
    with pytest.raises(ValueError, match="expected 3 class names, got 2"):
        gmcam.explain(network, images, 0)
