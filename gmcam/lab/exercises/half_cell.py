"""Answers to *The half cell*."""

from collections.abc import Sequence
from functools import cache

import torch
from PIL import ImageOps
from torch import Tensor

from gmcam import explain
from gmcam.lab import dual_class_scenes
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network

Layers = Sequence[tuple[int, int, int]]


@exercise("half_cell.1")
def aligned_corners() -> Answers:
    """The cell that stays in its place, and the displacement of cell 1, of 7 cells on 224 pixels."""

    def displaced(cell: int, half_pixel: float = 0.5) -> float:
        step = 224 / 7
        return cell * (224 - 1) / (7 - 1) - (step * (cell + 0.5) - half_pixel)

    slips = {
        "cell 0 is drawn on the border, half a cell from its place": [0, displaced(1)],
        "cell 1 is drawn to the left of its place": [3, -displaced(1)],
        "the middle of pixel 0 is at 0, so subtract half a pixel from the middle of the square": (
            [3, displaced(1, half_pixel=0)]
        ),
        "this is cell 0; the displacement shrinks towards the middle": [3, displaced(0)],
        "this is cell 2": [3, displaced(2)],
        "count the cells from 0": [4, displaced(1)],
        "with align_corners=False every cell is drawn in its place": [3, 0.0],
    }
    return Answers([3, displaced(1)], slips)


@exercise("half_cell.2", tolerance=0.01)
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


def offset(layers: Layers) -> float:
    """A receptive field's middle minus the middle of its cell's square, in pixels of the image."""
    total, step = 0.0, 1
    for kernel, stride, padding in layers:
        total += step * ((kernel - 1) / 2 - padding - (stride - 1) / 2)
        step *= stride
    return total


def _as_cells(layers: Layers) -> float:
    return sum((n - 1) / 2 - p - (s - 1) / 2 for n, s, p in layers)


def _step_after(layers: Layers) -> float:
    total, step = 0.0, 1
    for kernel, stride, padding in layers:
        step *= stride
        total += step * ((kernel - 1) / 2 - padding - (stride - 1) / 2)
    return total


def _without_square(layers: Layers) -> float:
    total, step = 0.0, 1
    for kernel, stride, padding in layers:
        total += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return total


def _step(layers: Layers) -> int:
    step = 1
    for _, stride, _ in layers:
        step *= stride
    return step


@exercise("half_cell.3", tolerance=1e-6)
def offsets() -> Answers:
    """The sum over the layers of step × ((n − 1)/2 − p − (s − 1)/2)."""
    slips = {
        "the sign is reversed: subtract the square's middle from the field's": lambda layers: -offset(layers),
        "multiply each layer's distance by the step of its input, in pixels": _as_cells,
        "use the step before the layer; its own stride counts for later layers only": _step_after,
        "subtract the middle of the square, (s − 1)/2": _without_square,
        "a pooling of 2 × 2 without padding adds nothing": lambda layers: -(_step(layers) - 1) / 2,
    }
    layers = [(7, 2, 3), (3, 2, 1), (3, 1, 1), (2, 2, 0), (5, 2, 2)]
    return Answers(offset, slips, tried_on=(layers,))


@cache
def _mirrored_maps(name: str) -> list[Tensor]:
    """Grad-CAM of eight scenes and of their mirror images, (2, 128, 128) each."""
    pairs = []
    for each in dual_class_scenes(8):
        both = [each.image, ImageOps.mirror(each.image)]
        labels = [each.labels[0]] * 2
        pairs.append(explain(network(name), both, labels, method="grad_cam", layer="stage4").maps)
    return pairs


def _gap(name: str = "collage-resnet", back: bool = True, axis: int = 0) -> float:
    """The mean distance of the centres of mass, along the columns or, with axis 1, the rows."""
    gaps = list[float]()
    for first, second in _mirrored_maps(name):
        sums = torch.stack([first.sum(axis), (second.flip(1) if back else second).sum(axis)])
        left, right = ((sums @ torch.arange(128.0)) / sums.sum(1)).tolist()
        gaps.append(left - right)
    return sum(gaps) / len(gaps)


@exercise("half_cell.4", tolerance=0.03)
def mirrored() -> Answers:
    """How far the maps are to the right of those of the mirrored images, mirrored back."""
    right = _gap()
    slips = {
        "the first map is to the right of the second; subtract in this order": -right,
        "this is half of it, the displacement itself": right / 2,
        "mirror the second map back": _gap(back=False),
        "this compares rows; compare columns": _gap(axis=1),
        "this is in cells of eight pixels": right / 8,
        "this is collage-vgg": _gap("collage-vgg"),
    }
    return Answers(right, slips)
