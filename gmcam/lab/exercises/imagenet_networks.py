"""Answers to *ResNet50 and VGG16*; none of them needs weights trained on ImageNet."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab import grid_pointing, mosaic, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.lab.networks import INPUT_SIZE, PREPROCESSING
from gmcam.metrics import share_inside
from gmcam.postprocess import postprocess, upsample

SIZE = (INPUT_SIZE, INPUT_SIZE)


def _signed_maps() -> tuple[Tensor, Tensor]:
    """Three signed maps (3, 12, 12), and their cells, which leave a quarter of the image uncovered."""
    maps = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = torch.zeros(3, 12, 12, dtype=torch.bool)
    cells[0, :6, :6] = cells[1, :6, 6:] = cells[2, 6:, :6] = True
    return maps + cells, cells


def _game(maps: Tensor, cells: Tensor) -> Tensor:
    return share_inside(maps.clamp(min=0) * cells.any(0), cells)


def _pointing(maps: Tensor, cells: Tensor) -> Tensor:
    brightest = (maps * cells.any(0)).flatten(1).argmax(1, keepdim=True)
    return cells.flatten(1).gather(1, brightest).double()[:, 0]


@exercise("imagenet_networks.1", tolerance=1e-4)
def the_game() -> Answers:
    """The share of a map's positive values in its cell, among all cells."""
    slips = {
        "negative values cancel positive ones here; rectify first": lambda maps, cells: share_inside(
            maps * cells.any(0), cells
        ),
        "set negative values to zero; their absolute value counts evidence against the class": (
            lambda maps, cells: _game(maps.abs(), cells)
        ),
        "exclude values outside all cells from the denominator": lambda maps, cells: share_inside(
            maps.clamp(min=0), cells
        ),
        "add up the values, not the pixels above zero": lambda maps, cells: _game((maps > 0).double(), cells),
        "each map has its own denominator: its values in all cells": lambda maps, cells: (
            (maps.clamp(min=0) * cells).sum((1, 2)) / (maps.clamp(min=0) * cells).sum()
        ),
        "this is the pointing game: whether the brightest pixel is in the cell": _pointing,
    }
    return Answers(_game, slips, tried_on=_signed_maps())


@exercise("imagenet_networks.2", tolerance=0.002)
def perfect_map() -> Answers:
    """The score of a perfect map, a little of which up-sampling carries across the two seams."""
    raw = torch.zeros(1, 14, 14)
    raw[:, :7, :7] = 1

    def score(maps: Tensor) -> Tensor:
        return maps[:, :112, :112].sum() / maps.sum()

    right = score(upsample(raw, (224, 224)))
    one_seam = upsample(raw.amax(1, keepdim=True).expand(-1, 14, -1), (224, 224))
    slips = {
        "the raw map is perfect, but interpolation between cells carries some of it across the seam": 1.0,
        "this is the smoothed map; use sigma=0": score(postprocess(raw, (224, 224))[0]),
        "a mosaic of four has two seams; this counts one": one_seam[..., :112].sum() / one_seam.sum(),
        "a quarter is chance, the score of a uniform map": 0.25,
        "this is the share that is lost": 1 - right,
    }
    return Answers(right, slips)


@exercise("imagenet_networks.3")
def copies() -> Answers:
    """The ratio of two standard errors is the root of the inverse ratio of independent values."""
    slips = {
        "this is the ratio of the variances; take the square root": 8.0,
        "copies of a photo's score are no new photos, but resampling rows treats them as new": 1.0,
        "this is the inverse; divide the right width by theirs": 8**-0.5,
        "compare forty values with five, on which the right interval rests": 40**0.5,
        "compare five values with forty, on which their interval rests": 5**0.5,
    }
    return Answers(8**0.5, slips)


@exercise("imagenet_networks.4", tolerance=0.005)
def squared() -> Answers:
    """The score of Grad-CAM squared, which is GMCAM where the gradient is flat."""
    record = mosaic([scene("cat", seed=1).image, scene("cup", seed=2).image], ["cat", "cup"], size=256)
    raw = explain(network("collage-resnet"), record.image, "cat", method="grad_cam").raw

    def shares(maps: Tensor) -> Tensor:
        return grid_pointing(maps.repeat(2, 1, 1), record, PREPROCESSING)[0]

    plain, right = (shares(postprocess(values, SIZE, sigma=0)[0]) for values in (raw, raw**2))
    slips = {
        "this is Grad-CAM's score; on this network GMCAM is its square": plain[0],
        "this is the share in the cup's cell": right[1],
        "the score was squared; square the map cell by cell, then take the share": plain[0] ** 2,
        "this squares the up-sampled map; square before up-sampling": shares(upsample(raw, SIZE) ** 2)[0],
    }
    return Answers(right[0], slips)


@exercise("imagenet_networks.5")
def one_change() -> Answers:
    """Only a common resolution removes the layer from the comparison."""
    slips = {
        "more photos make the difference more certain, but do not show its cause": "more photos",
        "another method would be compared at the same two layers, which still differ": "another method",
        "smoothing blurs each map within its cells; the layers still differ": "smoother maps",
    }
    return Answers("same resolution", slips)
