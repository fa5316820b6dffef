"""Relevance-CAM: relevance is conserved on its way to the layer, and the maps are near the authors'."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gmcam
from gmcam.capture import capture
from gmcam.methods.relevance import propagate


def test_two_pixels_by_hand():
    """Two channels on two cells through a 1 × 1 convolution, a rectifier, mean and linear layer.

    Positive parts (z⁺) of the convolution, at the cells (1, 2) and (3, −1) of channels (a, b):
    out 0 = 2a − b + 1: cell 0: 2·1 + bias 1 = 3 (the −2 of b does not count); cell 1: 2·3 + 1·1 + 1 = 8;
    out 1 = a + b − 4: cell 0: 1 + 2 = 3; cell 1: 3 (neither b nor a negative bias counts).
    The convolution itself gives (1, 8) and (−1, −2), rectified (1, 8) and (0, 0); their means: 4.5 and 0.
    Linear: class 0 takes 2 of mean 0, class 1 takes 1 of mean 0 and 5 of mean 1 (which is 0).
    Start for class 0 of two: (1, −1/2). All relevance goes to mean 0: 1 − 1/2 = 1/2; by share of the sum
    9 to the cells: 1/18 and 8/18. Through the convolution: cell 0 gives a 2/3 of its 1/18 (1/3 is the
    bias's); cell 1 gives a 6/8 of 8/18, b 1/8. Mean over two cells, times the maps.
    """
    module = nn.Sequential(
        OrderedDict(
            maps=nn.Conv2d(1, 2, 1, bias=False),
            conv=nn.Conv2d(2, 2, 1),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(2, 2),
        )
    ).double()
    module.requires_grad_(False)
    module.maps.weight.copy_(torch.tensor([1.0, 1.0])[:, None, None, None])
    module.conv.weight.copy_(torch.tensor([[2.0, -1.0], [1.0, 1.0]])[:, :, None, None])
    module.conv.bias.copy_(torch.tensor([1.0, -4.0]))
    module.fc.weight.copy_(torch.tensor([[2.0, 0.0], [1.0, 5.0]]))
    module.fc.bias.copy_(torch.tensor([7.0, -9.0]))
    maps = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]], dtype=torch.float64)
    rest = module[1:]
    rest_alone = nn.Sequential(OrderedDict(maps=nn.Identity(), **dict(rest.named_children())))
    found = propagate(rest_alone, "maps", maps, torch.tensor([0]))
    expected = torch.tensor([[[[2 / 3 / 18, 6 / 8 * 8 / 18]], [[0, 1 / 8 * 8 / 18]]]])
    assert torch.allclose(found, expected.double(), atol=1e-6)
    raw = gmcam.explain(rest_alone, maps, 0, method="relevance_cam", layer="maps").raw
    a, b = (1 / 27 + 1 / 3) / 2, (1 / 18) / 2
    assert torch.allclose(raw, torch.tensor([[[a * 1 + b * 2, a * 3 - b * 1]]]).double(), atol=1e-6)
