"""Answers to *Bug or theorem?*"""

from collections.abc import Callable

import torch
from torch import Tensor

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise

Head = Callable[[Tensor], Tensor]
DRAWS = 50  # of weights and maps, since a map that is empty shows nothing


@exercise("bug_or_theorem.1")
def flat_by_hand() -> Answers:
    """Equation 6 on nine cells, with the gradient 2 in every cell of channel 1 and −1 in channel 2."""
    M = torch.tensor([[[[0, 1, 2], [0, 3, 1], [0, 0, 0]], [[1, 0, 0], [2, 0, 0], [3, 1, 0]]]]).double()
    C = torch.tensor([2.0, -1.0]).double()[None, :, None, None].expand_as(M)
    signed = equations.hires_cam(M, C)[0]
    slips = {
        "this is one factor; Equation 6 multiplies it by the other, which is equal here": signed.relu(),
        "this squares before the rectifier, so cells against the class become positive": signed**2,
        "the two factors are added; multiply them": 2 * signed.relu(),
        "each feature map was squared; sum over the channels first": (C * M**2).sum(1)[0].relu(),
    }
    return Answers(equations.gmcam(M, C)[0], slips)


@exercise("bug_or_theorem.2", tolerance=0.005)
def same_area() -> Answers:
    """S² ≥ t · max S² where S ≥ √t · max S."""
    slips = {
        "this is the inverse: a threshold of ½ for Grad-CAM is one of ¼ for its square": 0.25,
        "half the maximum of the square is not half the maximum": 0.5,
        "a threshold above the maximum selects no cell": 2**0.5,
    }
    return Answers(0.5**0.5, slips)


@exercise("bug_or_theorem.3")
def heads() -> Answers:
    """The heads on which GMCAM is Grad-CAM squared: those that depend on channel means alone."""
    generator = torch.Generator().manual_seed(0)
    names = set(_heads(generator))
    squared = {name for name in names if _collapses(name, generator)}
    slips = {
        "what follows the means need not be linear: other heads depend on the means alone": {"linear"},
        "two linear layers with a rectifier between them depend on the means alone": {"linear", "norm"},
        "dividing the means by their norm leaves a function of the means": {"linear", "two"},
        "max passes on one cell of each channel; every other cell has gradient zero": squared | {"max"},
        "a square has the slope 2M, which differs between cells": squared | {"power"},
        "below its bias a channel has gradient zero, in different cells for each channel": squared | {"bias"},
        "a weight for every position is in the gradient, which then varies with position": squared
        | {"place"},
        "these are the others": names - squared,
    }
    return Answers(squared, slips)


def _heads(generator: torch.Generator) -> dict[str, Head]:
    """Seven heads with random weights, from maps (4, 5, 5) to a score."""
    shapes = ((4,), (6,), (6, 4), (5, 5))
    w, v, W, u = (torch.randn(shape, generator=generator, dtype=torch.double) for shape in shapes)
    return {
        "linear": lambda M: w @ M.mean((1, 2)),
        "norm": lambda M: w @ (M.mean((1, 2)) / M.mean((1, 2)).norm()),
        "two": lambda M: v @ (W @ M.mean((1, 2))).relu(),
        "max": lambda M: w @ M.amax((1, 2)),
        "power": lambda M: w @ (M**2).mean((1, 2)),
        "bias": lambda M: w @ (M - 0.5).relu().mean((1, 2)),
        "place": lambda M: w @ (u * M).mean((1, 2)),
    }


def _collapses(name: str, generator: torch.Generator) -> bool:
    """Whether GMCAM is Grad-CAM squared in every draw whose Grad-CAM is not empty.

    Raises ``ValueError`` if all are empty, since equal empty maps show nothing."""
    shown = 0
    for _ in range(DRAWS):
        M = torch.rand(1, 4, 5, 5, generator=generator, dtype=torch.double).requires_grad_()
        (C,) = torch.autograd.grad(_heads(generator)[name](M[0]), M)
        square = equations.grad_cam(M, C) ** 2
        if square.any():
            shown += 1
            if (equations.gmcam(M, C) - square).abs().max() > 1e-9 * square.max():
                return False
    if not shown:
        raise ValueError(f"expected a map that is not empty among {DRAWS} draws of {name}, got none")
    return True


@exercise("bug_or_theorem.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a share inside at a pooled layer."""
    right = {"layer", "square", "effect"}
    slips = {
        "the paragraph must name the layer: the theorem leaves guidance nothing to add there": right
        - {"layer"},
        "the paragraph must ask for the square of Grad-CAM, which scores the same": right - {"square"},
        "the paragraph must ask for the effect: a larger share is no better map by itself": right
        - {"effect"},
        "more scenes make the two means surer; the claim fails with exact ones": right | {"more scenes"},
        "other random weights change nothing: the theorem holds for any": right | {"seeds"},
        "no threshold enters the share inside": right | {"threshold"},
    }
    return Answers(right, slips)
