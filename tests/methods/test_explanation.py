"""``explain``: what it takes, what it gives, and what it refuses in one sentence."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam.networks import Network


@pytest.fixture(scope="module")
def network():
    return gmcam.load("collage-vgg")


@pytest.fixture(scope="module")
def scene():
    return gmcam.scene("cat", "cup", seed=3)


def test_a_picture_and_a_class_by_name(network, scene):
    result = gmcam.explain(network, scene.image, "cat")
    assert result.maps.shape == (1, 128, 128)
    assert result.raw.shape == (1, 16, 16)
    assert (result.method, result.layer, result.network) == ("gmcam", "stage4", network)
    assert result.target.tolist() == [network.classes.index("cat")]
    assert result.label(0) == "cat"
    assert result.empty.tolist() == [False]


def test_score_and_probabilities_are_the_networks_own(network, scene):
    result = gmcam.explain(network, scene.image, "cup")
    with torch.no_grad():
        logits = network.module(network.prepare(scene.image))
    assert torch.equal(result.score, logits[:, network.class_index("cup")])
    assert torch.equal(result.probabilities, logits.softmax(1))


def test_a_list_of_classes_of_one_picture_gives_a_map_each(network, scene):
    together = gmcam.explain(network, scene.image, ["cat", 1, "Rocket"])
    assert [together.label(t) for t in range(3)] == ["cat", "cup", "rocket"]
    assert together.probabilities.shape == (1, 8)
    for t, name in enumerate(["cat", "cup", "rocket"]):
        alone = gmcam.explain(network, scene.image, name)
        assert torch.allclose(together.maps[t], alone.maps[0], atol=1e-4)


def test_a_list_of_pictures_takes_a_class_each(network, scene):
    other = gmcam.scene("rocket", seed=1).image
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
    expected = gmcam.explain(network, scene.image, "cat").maps
    with caller():
        assert torch.equal(gmcam.explain(network, scene.image, "cat").maps, expected)


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
