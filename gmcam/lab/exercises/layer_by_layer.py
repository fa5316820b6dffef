"""Answers to *Layer by layer*."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network


@exercise("layer_by_layer.1", tolerance=0.01)
def centres() -> Answers:
    """Where the centres of four cells lie on sixteen pixels: s (i + ½) − ½."""
    i, step = torch.arange(4).double(), 16 / 4
    return Answers(
        step * (i + 0.5) - 0.5,
        {
            "those are the cells' first pixels": step * i,
            "those are the cells' last pixels": step * (i + 1) - 1,
            "that puts the outer cells' centres on the border, as align_corners=True does": i * (16 - 1) / 3,
            "pixel 0 has its centre at 0, so half a pixel less": step * (i + 0.5),
            "a cell is four pixels wide, and i counts from 0": step * (i + 1),
        },
    )


@exercise("layer_by_layer.2")
def corner_of_resnet50() -> Answers:
    """7 × 7 cells on 224 pixels: the centre of cell 0 is (32 − 1) / 2, with align_corners=True it is at 0."""
    step = 224 / 7
    return Answers(
        (step - 1) / 2,
        {
            "the first pixel's centre is at 0, so it is half a cell less half a pixel": step / 2,
            "that is a whole cell": step,
            "that is the way to the cell's last pixel": step - 1,
            "only the middle cell stays where it is": 0.0,
            "that is a corner of the 8 × 8 map on 128 pixels": (128 / 8 - 1) / 2,
        },
    )


@exercise("layer_by_layer.3", tolerance=0.01)
def one_stage_more() -> Answers:
    """The field after pooling and two convolutions more: each adds (kernel − 1) × the step before it."""

    def field(*parts: tuple[int, int], size: int = 1, step: int = 1) -> int:
        for kernel, stride in parts:
            size, step = size + (kernel - 1) * step, step * stride
        return size

    conv, pool = (3, 1), (2, 2)
    stage4 = (conv, pool, conv, *[pool, conv, conv] * 2)
    return Answers(
        field(*stage4, pool, conv, conv),
        {
            "that is the field of stage4": field(*stage4),
            "the pooling widens the field too, by one step": field(*stage4, pool, conv, conv) - 8,
            "after this pooling a step is twice as wide": field(*stage4, (2, 1), conv, conv),
            "a convolution adds two steps of its input, and a step is many pixels here": field(*stage4) + 5,
        },
    )


@exercise("layer_by_layer.4", tolerance=0.04)
def two_classes_early() -> Answers:
    """The correlation of Grad-CAM's maps of the cat and the cup at an early block of collage-resnet."""

    def alike(layer: str, method: str = "grad_cam", name: str = "collage-resnet") -> Tensor:
        maps = explain(network(name), cat_and_cup().image, ["cat", "cup"], method=method, layer=layer).maps
        return torch.corrcoef(maps.flatten(1))[0, 1]

    return Answers(
        alike("stage2"),
        {
            "that is at the last block": alike("stage4"),
            "that is at stage1": alike("stage1"),
            "that is at stage3": alike("stage3"),
            "those are the maps of GMCAM": alike("stage2", method="gmcam"),
            "that is on collage-vgg": alike("stage2", name="collage-vgg"),
            "a map is correlated with itself like that; take the two classes": 1.0,
        },
    )


@exercise("layer_by_layer.5", tolerance=1e-4)
def geometric_mean() -> Answers:
    """The n-th root of the product of n maps."""
    maps = explain(
        network(), cat_and_cup().image, "cat", method="gmcam", layer=["stage2", "stage3", "stage4"]
    )
    return Answers(
        lambda maps: maps.prod(0) ** (1 / len(maps)),
        {
            "that is the product; take its n-th root": lambda maps: maps.prod(0),
            "the root goes with the number of maps, it is not always the square root": lambda maps: maps.prod(
                0
            ).sqrt(),
            "the product is raised to n; the root is the power 1/n": lambda maps: maps.prod(0) ** len(maps),
            "the product is divided by n; the root is the power 1/n": lambda maps: maps.prod(0) / len(maps),
            "that is the arithmetic mean": lambda maps: maps.mean(0),
            "that is the largest value; the product asks all layers": lambda maps: maps.amax(0),
            "that is the smallest value; it puts the pixels in another order": lambda maps: maps.amin(0),
            "the maps are multiplied along the wrong axis: the layers come first": lambda maps: (
                maps.prod(1) ** (1 / len(maps))
            ),
        },
        tried_on=(torch.cat([one.maps for one in maps]),),
    )
