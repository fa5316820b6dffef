"""Fixtures of several test files: tiny networks with fixed weights, and data from outside the project.

Weights trained on ImageNet and photographs are not part of the project. Tests find them through two
environment variables and skip where they are missing:

- ``TORCH_HOME``: torch's cache; the weights are in ``$TORCH_HOME/hub/checkpoints``;
- ``GMCAM_DATA``: a folder with ``voc``, ``coco``, ``imagenet_sample`` and ``dual_class`` in it.
"""

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import settings
from torch import nn

import gmcam
from gmcam.loading import checkpoint

# The same few hundred cases in every run; with --hypothesis-profile=nightly, ten thousand new ones for each
# test. No deadline, because a busy machine is not a failure.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=10_000, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def same_random_numbers_in_every_run():
    torch.manual_seed(0)


def fixed_weights(module):
    """The same weights on every machine and in every run, large enough for clear maps."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    return module.eval()


@pytest.fixture
def gap_network():
    """(N, 3, H, W) → 3 logits through ``conv``, ``relu``, global average ``pool`` and ``fc``; float64."""
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, padding=1),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(4, 3),
    )
    return fixed_weights(nn.Sequential(layers).double())


@pytest.fixture
def flat_network():
    """(N, 3, 8, 8) → 3 logits through ``conv``, ``relu``, max ``pool``, flattening and two linear layers."""
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, padding=1),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64, 5),
        relu1=nn.ReLU(),
        fc2=nn.Linear(5, 3),
    )
    return fixed_weights(nn.Sequential(layers).double())


@pytest.fixture
def images():
    """Three fixed inputs (3, 3, 8, 8), float64."""
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def snapshot():
    """A function from a module to the state that an explanation must not change, comparable by ``==``."""

    def take(module):
        parameters = {
            name: (p.requires_grad, p.tolist(), id(p.grad), None if p.grad is None else p.grad.tolist())
            for name, p in module.named_parameters()
        }
        buffers = {name: buffer.tolist() for name, buffer in module.named_buffers()}
        training = {name: part.training for name, part in module.named_modules()}
        hooks = {
            (name, kind): list(table)
            for name, part in module.named_modules()
            for kind, table in vars(part).items()
            if "hooks" in kind and table is not None
        }
        return parameters, buffers, training, hooks

    return take


@pytest.fixture(scope="session")
def squeezenet():
    """SqueezeNet 1.0 with ImageNet weights, from disk; nothing is downloaded."""
    path = checkpoint(torchvision.models.get_model_weights("squeezenet1_0").DEFAULT)
    if not path.exists():
        pytest.skip(
            f"expected {path.name} in {path.parent}: set TORCH_HOME to the folder that has it "
            "under hub/checkpoints, or let gmcam.load('squeezenet1_0') download it once"
        )
    return gmcam.load("squeezenet1_0")


@pytest.fixture(scope="session")
def data_root():
    """The folder of photographs that ``GMCAM_DATA`` names."""
    root = os.environ.get("GMCAM_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip(
            "expected photographs: set GMCAM_DATA to the folder with voc, coco, imagenet_sample "
            f"and dual_class (it is {root!r})"
        )
    return Path(root)
