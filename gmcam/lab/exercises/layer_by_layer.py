"""Answers to *Which layer?*"""

from functools import cache

import torch
from torch import Tensor

from gmcam import explain, explain_layers
from gmcam.lab import Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


@cache
def cat_and_cup() -> Scene:
    """The scene of the chapter."""
    return scene("cat", "cup", seed=15)


@exercise("layer_by_layer.1", tolerance=0.04)
def two_classes_early() -> Answers:
    """The correlation of Grad-CAM's maps of the cat and the cup at an early block of collage-resnet."""

    def alike(layer: str, method: str = "grad_cam", name: str = "collage-resnet") -> Tensor:
        maps = explain(network(name), cat_and_cup().image, ["cat", "cup"], method=method, layer=layer).maps
        return torch.corrcoef(maps.flatten(1))[0, 1]

    slips = {
        "this is the last block": alike("stage4"),
        "this is stage1": alike("stage1"),
        "this is stage3": alike("stage3"),
        "these are the maps of GMCAM": alike("stage2", method="gmcam"),
        "this is collage-vgg": alike("stage2", name="collage-vgg"),
        "this compares a map with itself; compare the two classes": 1.0,
    }
    return Answers(alike("stage2"), slips)


@exercise("layer_by_layer.2", tolerance=1e-4)
def geometric_mean() -> Answers:
    """The n-th root of the product of n maps."""
    layers = ["stage2", "stage3", "stage4"]
    results = explain_layers(network(), cat_and_cup().image, "cat", layers=layers)
    slips = {
        "this is the product; take its n-th root": lambda maps: maps.prod(0),
        "the root depends on the number of maps; this is the square root": lambda maps: maps.prod(0).sqrt(),
        "this is the product to the power n; use the power 1/n": lambda maps: maps.prod(0) ** len(maps),
        "this is the product divided by n; use the power 1/n": lambda maps: maps.prod(0) / len(maps),
        "this is the arithmetic mean": lambda maps: maps.mean(0),
        "this is the maximum, for which one strong layer is enough": lambda maps: maps.amax(0),
        "this is the minimum, which changes the order of the pixels": lambda maps: maps.amin(0),
        "multiply along the first axis, the layers": lambda maps: maps.prod(1) ** (1 / len(maps)),
    }
    return Answers(
        lambda maps: maps.prod(0) ** (1 / len(maps)),
        slips,
        tried_on=(torch.cat([result.maps for result in results]),),
    )


@exercise("layer_by_layer.3")
def referee() -> Answers:
    """The three points of a report on a claim about GMCAM at the first layer."""
    slips = {
        "more scenes of the same eight objects do not replace objects; ask for an interval over objects": (
            {"a", "b", "c"}
        ),
        "smoothing changes the judged map; the evidence has no interval over objects": {"a", "c", "d"},
        "a larger share inside is not a better one, because an object's effect has a share below 1": (
            {"b", "c", "e"}
        ),
        "read all three scores: two of them prefer stage4": {"a", "b", "e"},
        "smoothing is not the fault of this evidence; read all three scores": {"a", "d", "e"},
        "tick three points; more scenes and one width of smoothing do not help": {"a", "b", "c", "d", "e"},
    }
    return Answers({"a", "c", "e"}, slips)
