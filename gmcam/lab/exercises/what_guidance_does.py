"""Answers to *What guidance really does*."""

from collections.abc import Callable

import torch
from torch import Tensor

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured


def _deviation(M: Tensor, C: Tensor) -> Tensor:
    """R: the sum over channels of each feature map times its gradient's deviation from the mean."""
    return ((C - C.mean((2, 3), keepdim=True)) * M).sum(1)


@exercise("what_guidance_does.1")
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


@exercise("what_guidance_does.2", tolerance=0.005)
def same_area() -> Answers:
    """S² ≥ t · max S² where S ≥ √t · max S."""
    slips = {
        "this is the inverse: a threshold of ½ for Grad-CAM is one of ¼ for its square": 0.25,
        "half the maximum of the square is not half the maximum": 0.5,
        "a threshold above the maximum selects no cell": 2**0.5,
    }
    return Answers(0.5**0.5, slips)


@exercise("what_guidance_does.3")
def heads() -> Answers:
    """The heads that depend on channel means alone; the gradient of all others varies across cells."""
    torch.manual_seed(0)
    M = torch.rand(4, 5, 5, dtype=torch.double)
    w, v, W, u = (torch.randn(shape, dtype=torch.double) for shape in ((4,), (6,), (6, 4), (5, 5)))
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda M: w @ M.mean((1, 2)),
        "norm": lambda M: w @ (M.mean((1, 2)) / M.mean((1, 2)).norm()),
        "two": lambda M: v @ (W @ M.mean((1, 2))).relu(),
        "max": lambda M: w @ M.amax((1, 2)),
        "power": lambda M: w @ (M**2).mean((1, 2)),
        "bias": lambda M: w @ (M - 0.5).relu().mean((1, 2)),
        "place": lambda M: w @ (u * M).mean((1, 2)),
    }
    flat = {name for name, head in scores.items() if _spread(head, M) < 1e-9}
    slips = {
        "what follows the means need not be linear: other heads depend on the means alone": {"linear"},
        "two linear layers with a rectifier between them depend on the means alone": {"linear", "norm"},
        "dividing the means by their norm leaves a function of the means": {"linear", "two"},
        "max passes on one cell of each channel; every other cell has gradient zero": flat | {"max"},
        "a square has the slope 2M, which differs between cells": flat | {"power"},
        "below its bias a channel has gradient zero, in different cells for each channel": flat | {"bias"},
        "a weight for every position enters the gradient, which then varies with position": flat | {"place"},
        "these are the others": set(scores) - flat,
    }
    return Answers(flat, slips)


def _spread(head: Callable[[Tensor], Tensor], M: Tensor) -> float:
    """The largest deviation of a head's gradient from its mean over the cells."""
    M = M.clone().requires_grad_()
    (C,) = torch.autograd.grad(head(M), M)
    return float((C - C.mean((1, 2), keepdim=True)).abs().max())


@exercise("what_guidance_does.4", tolerance=1e-4)
def dropped_by_the_mean() -> Answers:
    """R = Σ_k (C_k − λ_k) ⊙ M_k as a function of M and C."""
    slips = {
        "this is L + R: subtract the sum of Grad-CAM": equations.hires_cam,
        "this is L, the part of the weights; R is the part that they drop": lambda M, C: equations.class_map(
            M, C.mean((2, 3))
        ),
        "R is not rectified; the rectifier applies to L + R": lambda M, C: _deviation(M, C).relu(),
        "both maps were rectified first; R is the difference of the sums": lambda M, C: (
            equations.guidance_map(M, C) - equations.grad_cam(M, C)
        ),
        "this is the mean over the channels; Equation 3 takes it over the cells": lambda M, C: (
            (C - C.mean(1, keepdim=True)) * M
        ).sum(1),
        "the sign is reversed: R uses C minus its mean": lambda M, C: -_deviation(M, C),
    }
    return Answers(_deviation, slips, tried_on=captured())


@exercise("what_guidance_does.5", tolerance=0.04)
def cleared() -> Answers:
    """The share of cells that Grad-CAM marks for the cat and the guidance map does not."""
    M, C = captured()
    base, guide = equations.grad_cam(M, C) > 0, equations.guidance_map(M, C) > 0

    def share(cells: Tensor) -> Tensor:
        return cells.float().mean()

    slips = {
        "these are the cells that the guidance map marks and Grad-CAM does not": share(~base & guide),
        "these are the cells that both mark": share(base & guide),
        "this is a share of the cells that Grad-CAM marks; give the share of all": share(~guide[base]),
        "this is the number of cells; divide by all cells": (base & ~guide).sum(),
        "these are all cells that the guidance map does not mark, marked by Grad-CAM or not": share(~guide),
    }
    return Answers(share(base & ~guide), slips)
