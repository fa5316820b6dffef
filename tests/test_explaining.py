"""``explain``: what it takes, what it gives, and what it refuses in one sentence."""

import copy
import re

import numpy as np
import pytest
import torch
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


def test_a_picture_and_a_class_by_name(network, scene):
    result = gmcam.explain(network, scene.image, "cat")
    assert result.maps.shape == (1, 128, 128)
    assert result.raw.shape == (1, 16, 16)
    assert (result.method, result.layer, result.network) == ("gmcam", "stage4", network)
    assert result.target.tolist() == [network.classes.index("cat")]
    assert result.label(0) == "cat"
    assert result.empty.tolist() == [False]


def test_score_and_probabilities_are_the_networks_own_to_rounding(network, scene):
    result = gmcam.explain(network, scene.image, "cup")
    with torch.no_grad():
        logits = network.module(network.prepare(scene.image))
    # Convolutions add up in another order where channels come last.
    assert torch.allclose(result.score, logits[:, network.class_index("cup")], rtol=1e-4)
    assert torch.allclose(result.probabilities, logits.softmax(1), atol=1e-5)


def test_score_and_probabilities_are_exactly_the_networks_own_in_double_precision(network, scene):
    exact = Network(copy.deepcopy(network.module).double(), input_shape=network.input_shape)
    inputs = network.prepare(scene.image).double()
    result = gmcam.explain(exact, inputs, 1)
    with torch.no_grad():
        logits = exact.module(inputs)
    assert torch.equal(result.score, logits[:, 1])
    assert torch.equal(result.probabilities, logits.float().softmax(1))


class Looks(TorchDispatchMode):
    """Counts how often a tensor's values are looked at, for which a GPU has to be waited for."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
        )
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("method", ["grad_cam", "gmcam"])
def test_values_are_looked_at_in_the_input_the_pass_and_the_maps_alone(network, layers, method, monkeypatch):
    inputs = torch.rand(4, 3, 64, 64)
    tolist = torch.Tensor.tolist
    paths = list(network.layers.values())[-layers:]
    with Looks() as looks:

        def counted(tensor):
            looks.count += tensor.is_floating_point()  # targets lie on the CPU
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)
        gmcam.explain(network, inputs, [0, 1, 2, 3], method=method, layer=paths)
    assert looks.count == 2 + layers


def test_a_list_of_classes_of_one_picture_gives_a_map_each(network, scene):
    together = gmcam.explain(network, scene.image, ["cat", 1, "Rocket"])
    assert [together.label(t) for t in range(3)] == ["cat", "cup", "rocket"]
    assert together.probabilities.shape == (1, 8)
    for t, name in enumerate(["cat", "cup", "rocket"]):
        alone = gmcam.explain(network, scene.image, name)
        assert torch.allclose(together.maps[t], alone.maps[0], atol=1e-4)


@pytest.mark.parametrize("method", ["grad_cam", "gmcam", "full_grad", "integrated_grad_cam", "eigen_cam"])
def test_more_classes_than_a_part_holds_give_the_same_maps_in_one_forward_pass(
    flat_network, pictures, monkeypatch, method
):
    targets = [0, 2, 1, 1, 0]
    whole = gmcam.explain(flat_network, pictures[:1], targets, method=method)
    monkeypatch.setattr("gmcam.methods.explanation.CLASSES_AT_A_TIME", 2)
    passes = []
    flat_network.register_forward_hook(lambda *_: passes.append(1))
    parts = gmcam.explain(flat_network, pictures[:1], targets, method=method, layer=whole.layer)
    assert torch.allclose(parts.maps, whole.maps, atol=1e-6)
    assert torch.allclose(parts.raw, whole.raw, rtol=1e-5, atol=1e-7)
    assert torch.equal(parts.score, whole.score) and torch.equal(parts.probabilities, whole.probabilities)
    assert parts.target.tolist() == targets
    if method != "integrated_grad_cam":  # which makes passes of its own for each class
        assert len(passes) == 1


def test_a_list_of_pictures_takes_a_class_each(network, scene):
    other = gmcam.lab.scene("rocket", seed=1).image
    together = gmcam.explain(network, [scene.image, np.asarray(other)], ["cup", "rocket"])
    assert [together.label(0), together.label(1)] == ["cup", "rocket"]
    for n, (picture, name) in enumerate([(scene.image, "cup"), (other, "rocket")]):
        assert torch.allclose(together.maps[n], gmcam.explain(network, picture, name).maps[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["array", "path", "name of a file", "tensor", "tensor without batch"])
def test_a_picture_may_come_in_any_form(network, scene, tmp_path, kind):
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
    assert result.target.tolist() == result.probabilities.argmax(1).tolist()


def test_a_function_may_be_the_target(network, scene):
    def margin(logits):
        return logits[:, 0] - logits[:, 1]

    result = gmcam.explain(network, scene.image, margin)
    assert result.target is margin
    assert result.label(0) == "margin"
    assert not torch.equal(result.raw, gmcam.explain(network, scene.image, 0).raw)


def test_a_layer_goes_by_resolution_or_path(network, scene):
    by_resolution = gmcam.explain(network, scene.image, "cat", layer="32x32")
    by_path = gmcam.explain(network, scene.image, "cat", layer="stage3")
    assert by_resolution.layer == by_path.layer == "stage3"
    assert by_resolution.raw.shape == (1, 32, 32)
    assert torch.equal(by_resolution.maps, by_path.maps)


def test_sigma_smooths_the_map_and_leaves_the_raw_values(network, scene):
    sharp = gmcam.explain(network, scene.image, "cat", sigma=0)
    smooth = gmcam.explain(network, scene.image, "cat", sigma=2)
    assert torch.equal(sharp.raw, smooth.raw)
    assert smooth.maps.diff(dim=2).abs().max() < sharp.maps.diff(dim=2).abs().max()


def test_a_plain_module_is_enough(flat_network, pictures):
    result = gmcam.explain(flat_network, pictures, 2)
    assert result.maps.shape == (3, 8, 8)
    assert result.layer == "relu"
    assert result.label(1) == "class 2"


OF_COMPILED = ["gmcam", "score_cam", "ablation_cam", "full_grad", "relevance_cam", "captum.guided_grad_cam"]


@pytest.mark.parametrize("method", OF_COMPILED)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_a_compiled_module_is_explained_as_the_one_it_was_made_from(gap_network, method, layout, in_place):
    plain, inputs = gap_network.float().requires_grad_(False), torch.rand(1, 3, 8, 8)
    module = copy.deepcopy(plain)
    if in_place:
        module.compile(backend="eager")
    else:
        module = torch.compile(module, backend="eager")
    with torch.no_grad():  # a program without hooks is made, and has run
        module(inputs.clone(memory_format=layout))
    result, expected = (gmcam.explain(one, inputs, 0, method=method) for one in (module, plain))
    assert result.layer == expected.layer
    assert torch.equal(result.raw, expected.raw)


def test_a_module_made_in_inference_mode_is_refused_and_left_alone(pictures, snapshot):
    with torch.inference_mode():
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    before = snapshot(module)
    for layer in (None, "1"):
        with pytest.raises(ValueError, match="the network was made in inference mode, where no gradient"):
            gmcam.explain(module, pictures, 0, layer=layer)
    assert snapshot(module) == before


def test_a_plain_module_takes_inputs_of_any_size(gap_network):
    result = gmcam.explain(gap_network, torch.rand(2, 3, 20, 31), 0, method="grad_cam")
    assert result.maps.shape == (2, 20, 31)


def test_no_picture_gives_no_map(gap_network, pictures):
    result = gmcam.explain(gap_network, pictures[:0], 0)
    assert (result.maps.shape, result.empty.shape) == ((0, 8, 8), (0,))


def test_outputs_that_are_not_classes_have_no_probabilities(gap_network, pictures):
    maps = nn.Sequential(gap_network.conv, gap_network.relu)
    result = gmcam.explain(maps, pictures, lambda y: y[:, 0].square().mean((1, 2)), layer="0")
    assert result.probabilities is None
    assert result.maps.shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["grad_cam", "guidance_map", "gmcam"])
def test_a_map_without_evidence_is_zeros_and_called_empty(gap_network, pictures, name):
    with torch.no_grad():
        gap_network.fc.weight[0] = -gap_network.fc.weight[0].abs()  # everything speaks against class 0
        gap_network.fc.weight[1] = gap_network.fc.weight[1].abs()
    result = gmcam.explain(gap_network, pictures[:1], [0, 1], method=name)
    assert result.empty.tolist() == [True, False]
    assert result.maps[0].abs().max() == 0


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
def test_any_caller(network, scene, caller):
    for targets in ("cat", ["cat", "cup"], None):
        expected = gmcam.explain(network, scene.image, targets).maps
        with caller():
            assert torch.equal(gmcam.explain(network, scene.image, targets).maps, expected)


REFUSED = [
    ({"method": "gradcam"}, "no method is called 'gradcam'; there are cam, grad_cam,"),
    ({"layer": "stage9"}, "no layer is called 'stage9'; the nearest names are stage"),
    ({"layer": "16x17"}, "by resolution, 128x128 (stage1), 64x64 (stage2)"),
    ({"layer": "head.0"}, "'head.0' gives output of shape (1, 96), without height and width"),
    ({"targets": "ct"}, "collage-vgg has no class called 'ct'; closest: cat"),
    ({"targets": "motor"}, "no class called 'motor'; closest: motorbike"),
    ({"targets": "zzz"}, "no class called 'zzz'; for example cat, cup, flower"),
    ({"targets": ["cat", "cupp"]}, "no class called 'cupp'; closest: cup"),
    ({"targets": 8}, "class 8 is out of range: collage-vgg has 8 classes, 0 to 7"),
    ({"targets": [0, -1]}, "class -1 is out of range"),
    ({"targets": []}, "the list of targets is empty"),
    ({"targets": [1.5]}, "1.5"),
    ({"targets": [True]}, "True"),
    ({"targets": [None]}, "None"),
    ({"targets": {1, 2}}, "{1, 2}"),
    ({"targets": True}, "True"),
    ({"sigma": -1}, "sigma is zero or a positive number of cells, not -1"),
    ({"images": []}, "the list of pictures is empty"),
    ({"images": None}, "None"),
    ({"images": "missing.png"}, "there is no file missing.png"),
    ({"images": torch.zeros(128, 128)}, "torch.float32 (128, 128)"),
    ({"images": torch.zeros(3, 128, 128, dtype=torch.uint8)}, "torch.uint8 (3, 128, 128)"),
    ({"images": torch.full((3, 128, 128), float("nan"))}, "the input holds NaN or infinite values"),
    ({"images": [torch.zeros(3, 128, 128)]}, "Tensor"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(network, scene, change, message):
    arguments = {"images": scene.image, "targets": "cat", **change}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.explain(network, arguments.pop("images"), arguments.pop("targets"), **arguments)
    assert "\n" not in str(error.value)


# Several layers, and options.

LAYERS = ["pool", "conv", "relu"]
ONE_PASS = ["grad_cam", "hires_cam", "guidance_map", "gmcam", "grad_cam_pp", "x_grad_cam", "layer_cam"]


@pytest.mark.parametrize("method", [*ONE_PASS, "eigen_cam", "score_cam", "ablation_cam", "relevance_cam"])
def test_a_list_of_layers_gives_the_results_of_one_at_a_time(flat_network, pictures, method):
    together = gmcam.explain(flat_network, pictures, [2, 0, 1], method=method, layer=LAYERS)
    assert [result.layer for result in together] == LAYERS
    for result in together:
        alone = gmcam.explain(flat_network, pictures, [2, 0, 1], method=method, layer=result.layer)
        assert torch.equal(result.raw, alone.raw)
        assert torch.equal(result.maps, alone.maps)
        assert torch.equal(result.score, alone.score)


def test_layers_go_by_any_name_and_may_repeat(network, scene):
    results = gmcam.explain(network, scene.image, "cat", layer=("16x16", None, "stage3", "stage4"))
    assert [result.layer for result in results] == ["stage4", "stage4", "stage3", "stage4"]
    assert torch.equal(results[0].maps, results[3].maps)
    assert gmcam.explain(network, scene.image, "cat", layer=["stage3"])[0].raw.shape == (1, 32, 32)


@pytest.mark.parametrize("fuse", [None, "mean"])
@pytest.mark.parametrize("method", [*ONE_PASS, "eigen_cam"])
def test_several_layers_cost_one_forward_and_at_most_one_backward_pass(flat_network, pictures, method, fuse):
    passes = []
    flat_network.fc1.register_forward_hook(lambda *_: passes.append("forward"))
    flat_network.fc1.register_full_backward_hook(lambda *_: passes.append("backward"))
    gmcam.explain(flat_network, pictures, 0, method=method, layer=LAYERS, fuse=fuse)
    assert passes == (["forward"] if method == "eigen_cam" else ["forward", "backward"])


ARITHMETIC = {
    "mean": lambda first, second, third: (first + second + third) / 3,
    "max": lambda first, second, third: torch.maximum(torch.maximum(first, second), third),
    "product": lambda first, second, third: first * second * third,
}


@pytest.mark.parametrize("fuse", ARITHMETIC)
def test_fused_layers_are_their_maps_put_together_and_normalised_again(flat_network, pictures, fuse):
    how = {"method": "hires_cam", "layer": LAYERS, "sigma": 1.0}
    fused = gmcam.explain(flat_network, pictures, 2, **how, fuse=fuse)
    expected = ARITHMETIC[fuse](*(one.maps for one in gmcam.explain(flat_network, pictures, 2, **how)))
    assert torch.allclose(fused.raw, expected, atol=1e-6)
    low, high = expected.amin((1, 2), keepdim=True), expected.amax((1, 2), keepdim=True)
    assert torch.allclose(fused.maps, (expected - low) / (high - low), atol=1e-5)
    assert fused.maps.amax((1, 2)).tolist() == [1, 1, 1]
    assert (fused.layer, fused.method, fused.empty.any()) == ("pool, conv, relu", "hires_cam", False)


def test_a_product_with_an_empty_map_is_empty(gap_network, pictures):
    with torch.no_grad():
        gap_network.fc.weight[0] = -gap_network.fc.weight[0].abs()
    result = gmcam.explain(gap_network, pictures, 0, method="grad_cam", layer=["relu"], fuse="product")
    assert result.empty.all()
    assert not result.maps.any()


LISTS_AND_OPTIONS = [
    ({"layer": []}, "the list of layers is empty; name at least one"),
    ({"layer": (), "fuse": "mean"}, "the list of layers is empty"),
    ({"layer": ["conv", "covn"]}, "no layer is called 'covn'"),
    ({"layer": ["conv", "fc1"]}, "'fc1' gives output of shape (3, 5), without height and width"),
    ({"layer": ["relu"], "fuse": "median"}, "fuse is one of mean, max, product, for a list of layers"),
    ({"layer": ["relu"], "fuse": ["mean"]}, "fuse is one of mean, max, product"),
    ({"layer": "relu", "fuse": "max"}, "for a list of layers; it is 'max'"),
    ({"fuse": "product"}, "for a list of layers; it is 'product'"),
    ({"layer": ["relu"], "method": "full_grad"}, "full_grad explains no single layer"),
    ({"layer": [], "method": "captum.saliency"}, "captum.saliency explains no single layer"),
    ({"layer": 5}, "5"),
    ({"layer": ["relu", 5]}, "5"),
    ({"chunk_size": 2}, "gmcam has no option 'chunk_size'; it has none"),
    (
        {"method": "smooth_full_grad", "step": 3},
        "no option 'step'; it has samples, noise, seed, chunk_size",
    ),
    ({"method": "score_cam", "query": 3}, "score_cam has no option 'query'; it has chunk_size"),
    ({"method": "score_cam", "chunk_size": 0}, "chunk_size is a whole number from 1 on, not 0"),
    ({"method": "ablation_cam", "chunk_size": -2}, "chunk_size is a whole number from 1 on, not -2"),
    ({"method": "cameras", "chunk_size": True}, "chunk_size is a whole number from 1 on, not True"),
    ({"method": "captum.occlusion", "chunk_size": 2.0}, "chunk_size is a whole number from 1 on, not 2.0"),
    ({"method": "integrated_grad_cam", "steps": -1}, "steps is a whole number from 1 on, not -1"),
    ({"method": "captum.integrated_gradients", "steps": "5"}, "steps is a whole number from 1 on, not '5'"),
    ({"method": "smooth_full_grad", "samples": 0}, "samples is a whole number from 1 on, not 0"),
    ({"method": "cameras", "sizes": None}, "sizes is a whole number from 1 on, not None"),
    ({"method": "captum.occlusion", "share": 0}, "share"),
    ({"method": "captum.occlusion", "share": -3}, "share"),
    ({"method": "captum.occlusion", "share": 2.5}, "share"),
    ({"method": "smooth_full_grad", "noise": -0.1}, "noise"),
    ({"method": "smooth_full_grad", "noise": float("nan")}, "noise"),
    ({"method": "smooth_full_grad", "noise": "much"}, "noise"),
    ({"method": "smooth_full_grad", "seed": 1.5}, "seed"),
]


@pytest.mark.parametrize(("change", "message"), LISTS_AND_OPTIONS, ids=repr)
def test_layers_and_options_that_do_not_fit_are_refused_in_one_sentence(
    flat_network, pictures, snapshot, change, message
):
    before = snapshot(flat_network)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gmcam.explain(flat_network, pictures, 0, **change)
    assert "\n" not in str(error.value)
    assert snapshot(flat_network) == before


def test_options_reach_the_method(gap_network, pictures):
    def raw(**options):
        return gmcam.explain(gap_network, pictures, 0, **options).raw

    runs = []
    gap_network.register_forward_hook(lambda *_: runs.append(1))
    raw(method="integrated_grad_cam", layer="relu", steps=3, chunk_size=1)
    assert len(runs) == 1 + 3 * len(pictures)
    noisy = {"method": "smooth_full_grad", "samples": 3}
    assert torch.equal(raw(**noisy, seed=7), raw(**noisy, seed=7))
    assert not torch.equal(raw(**noisy, seed=7), raw(**noisy, seed=8))
    quiet = [raw(**noisy, noise=0.0, seed=seed) for seed in (7, 8)]
    assert torch.equal(*quiet)  # every copy is the picture


def test_a_method_tells_its_options_and_their_defaults():
    assert METHODS["gmcam"].options == {}
    assert METHODS["integrated_grad_cam"].options == {"steps": 50, "chunk_size": 8}
    options = METHODS["smooth_full_grad"].options
    assert (options["samples"], options["noise"], options["seed"]) == (25, 0.15, 0)
    assert METHODS["cameras"].options["sizes"] == 8


def test_a_plain_module_takes_no_picture(gap_network, scene):
    with pytest.raises(ValueError, match="Sequential has no preprocessing; give a tensor"):
        gmcam.explain(gap_network, scene.image, 0)


def test_a_plain_module_has_no_class_names(gap_network, pictures):
    with pytest.raises(ValueError, match="it has no class names, so give an index"):
        gmcam.explain(gap_network, pictures, "cat")


@pytest.mark.parametrize("index", [3, -1, 1.5])
def test_a_class_that_a_plain_module_does_not_have_is_refused(gap_network, pictures, index):
    with pytest.raises(ValueError, match=str(index)):
        gmcam.explain(gap_network, pictures[:1], [index])


def test_what_is_no_module_is_no_network(pictures):
    with pytest.raises(ValueError, match=r"a network is made from a torch\.nn\.Module, not a function"):
        gmcam.explain(lambda x: x, pictures, 0)


def test_a_module_without_convolutions_has_no_default_layer(pictures):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double()
    with pytest.raises(ValueError, match="no convolutional layer"):
        gmcam.explain(Network(module, input_shape=(3, 8, 8)), pictures, 0)


SHARED = ["eigen_cam", "grad_cam", "full_grad", "gmcam", "captum.saliency", "ablation_cam"]


def test_methods_compared_are_methods_explained(network, scene):
    targets = ["cat", "cup"]
    for result in gmcam.methods.compare(network, scene.image, targets, methods=SHARED, layer="32x32"):
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
    ran = []
    hook = network.module.register_forward_hook(lambda *_: ran.append(1))
    try:
        gmcam.methods.compare(
            network, scene.image, "cat", methods=["eigen_cam", "grad_cam", "gmcam", "hires_cam"]
        )
        assert len(ran) == 1
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("methods", "says"),
    [([], "the list of methods is empty"), (["grad_cam", "gradcam"], "no method is called 'gradcam'")],
)
def test_what_cannot_be_compared_is_refused(methods, says, network, scene):
    with pytest.raises(ValueError, match=says):
        gmcam.methods.compare(network, scene.image, "cat", methods=methods)
