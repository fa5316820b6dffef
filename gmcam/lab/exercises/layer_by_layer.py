"""Answers to *Layer by layer*."""

import torch
from torch import Tensor

from gmcam import explain, explain_layers
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network


@exercise("layer_by_layer.1", tolerance=0.01)
def centres() -> Answers:
    """The centres of four cells on sixteen pixels: s (i + ½) − ½."""
    i, step = torch.arange(4).double(), 16 / 4
    slips = {
        "these are the cells' first pixels": step * i,
        "these are the cells' last pixels": step * (i + 1) - 1,
        "here the outer cells' centres are on the border, as with align_corners=True": i * (16 - 1) / 3,
        "pixel 0 has its centre at 0, so subtract half a pixel": step * (i + 0.5),
        "a cell is four pixels wide, and i counts from 0": step * (i + 1),
    }
    return Answers(step * (i + 0.5) - 0.5, slips)


@exercise("layer_by_layer.2")
def corner_of_resnet50() -> Answers:
    """7 × 7 cells on 224 pixels: the centre of cell 0 is at (32 − 1) / 2, with align_corners=True at 0."""
    step = 224 / 7
    slips = {
        "the first pixel's centre is at 0, so this is half a cell minus half a pixel": step / 2,
        "this is a whole cell": step,
        "this is the distance to the cell's last pixel": step - 1,
        "only the central cell does not move": 0.0,
        "this is the corner of an 8 × 8 map on 128 pixels": (128 / 8 - 1) / 2,
    }
    return Answers((step - 1) / 2, slips)


@exercise("layer_by_layer.3", tolerance=0.01)
def one_stage_more() -> Answers:
    """The receptive field after one more pooling and two convolutions: each adds (kernel − 1) × the step
    before it."""

    def field(*parts: tuple[int, int], size: int = 1, step: int = 1) -> int:
        for kernel, stride in parts:
            size, step = size + (kernel - 1) * step, step * stride
        return size

    conv, pool = (3, 1), (2, 2)
    stage4 = (conv, pool, conv, *[pool, conv, conv] * 2)
    slips = {
        "this is the receptive field of stage4": field(*stage4),
        "the pooling enlarges the field too, by one step": field(*stage4, pool, conv, conv) - 8,
        "after this pooling a step is twice as wide": field(*stage4, (2, 1), conv, conv),
        "a convolution adds two steps of its input, and a step is many pixels here": field(*stage4) + 5,
    }
    return Answers(field(*stage4, pool, conv, conv), slips)


@exercise("layer_by_layer.4", tolerance=0.04)
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


@exercise("layer_by_layer.5", tolerance=1e-4)
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
        "this is the maximum, for which one bright layer is enough": lambda maps: maps.amax(0),
        "this is the minimum, which changes the order of the pixels": lambda maps: maps.amin(0),
        "multiply along the first axis, the layers": lambda maps: maps.prod(1) ** (1 / len(maps)),
    }
    return Answers(
        lambda maps: maps.prod(0) ** (1 / len(maps)),
        slips,
        tried_on=(torch.cat([result.maps for result in results]),),
    )
