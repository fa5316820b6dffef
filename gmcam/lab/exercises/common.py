"""The networks and the scene that several chapters' exercises share."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from gmcam import Network, load
from gmcam.capture import capture
from gmcam.lab import Scene, scene
from gmcam.outputs import Target


@cache
def network(name: str = "collage-vgg") -> Network:
    """An embedded network, loaded once."""
    return load(name)


@cache
def cat_and_cup() -> Scene:
    """The scene of most chapters."""
    return scene("cat", "cup", seed=3)


@cache
def captured(label: str = "cat", name: str = "collage-vgg", layer: str = "stage4") -> tuple[Tensor, Tensor]:
    """Feature maps and gradient maps (1, K, h, w) of that scene."""
    net = network(name)
    result = capture(net.module, net.prepare(cat_and_cup().image), net.class_index(label), layer)
    return result.maps[layer], result.gradients[layer]


@cache
def undecided() -> Scene:
    """The scene of chapters 1 to 6, on which `collage-vgg` wavers."""
    return scene("cat", "cup", seed=15)


def captured_for(target: Target) -> tuple[Tensor, Tensor]:
    """Feature maps and gradient maps (1, K, h, w) of the scene of chapters 1 to 6, on `collage-vgg`."""
    result = capture(network().module, network().prepare(undecided().image), target, "stage4")
    return result.maps["stage4"], result.gradients["stage4"]
