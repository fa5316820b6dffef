"""Answers to *What guidance really does*."""

from collections.abc import Callable

import torch
from torch import Tensor

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured


def _deviation(M: Tensor, C: Tensor) -> Tensor:
    """R: each feature map times how far its gradient map lies from its mean, added over the channels."""
    return ((C - C.mean((2, 3), keepdim=True)) * M).sum(1)


@exercise("what_guidance_does.1")
def flat_by_hand() -> Answers:
    """Equation 6 on nine cells with the gradients 2 and −1 in every cell of their channel."""
    M = torch.tensor([[[[0, 1, 2], [0, 3, 1], [0, 0, 0]], [[1, 0, 0], [2, 0, 0], [3, 1, 0]]]]).double()
    C = torch.tensor([2.0, -1.0]).double()[None, :, None, None].expand_as(M)
    signed = equations.hires_cam(M, C)[0]
    return Answers(
        equations.gmcam(M, C)[0],
        {
            "that is one factor; Equation 6 multiplies it with the other, which is equal here": signed.relu(),
            "you squared before the rectifier, and cells that speak against the class came back": signed**2,
            "the two factors are multiplied, not added": 2 * signed.relu(),
            "every feature map was squared by itself; the sum over the channels comes first": (C * M**2)
            .sum(1)[0]
            .relu(),
        },
    )


@exercise("what_guidance_does.2", tolerance=0.005)
def same_area() -> Answers:
    """S² ≥ t · max S² where S ≥ √t · max S."""
    return Answers(
        0.5**0.5,
        {
            "that is the other way round: a threshold of ½ for Grad-CAM is one of ¼ for its square": 0.25,
            "half the maximum of the square is not half the maximum": 0.5,
            "no threshold reaches beyond the maximum": 2**0.5,
        },
    )


@exercise("what_guidance_does.3")
def heads() -> Answers:
    """The heads that see a map through its channel means alone: all others give a gradient that varies."""
    torch.manual_seed(0)
    M = torch.rand(4, 5, 5, dtype=torch.double)
    w, v, W, u = (torch.randn(shape, dtype=torch.double) for shape in ((4,), (6,), (6, 4), (5, 5)))
    of: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda M: w @ M.mean((1, 2)),
        "norm": lambda M: w @ (M.mean((1, 2)) / M.mean((1, 2)).norm()),
        "two": lambda M: v @ (W @ M.mean((1, 2))).relu(),
        "max": lambda M: w @ M.amax((1, 2)),
        "power": lambda M: w @ (M**2).mean((1, 2)),
        "bias": lambda M: w @ (M - 0.5).relu().mean((1, 2)),
        "place": lambda M: w @ (u * M).mean((1, 2)),
    }
    flat = {name for name, head in of.items() if _spread(head, M) < 1e-9}
    return Answers(
        flat,
        {
            "what follows the means need not be linear; one of the others sees nothing but means": {"linear"},
            "two linear layers with a rectifier between see nothing but means too": {"linear", "norm"},
            "dividing the means by their length leaves them means: the gradient is flat": {"linear", "two"},
            "max passes one cell of each channel on; every other cell has gradient zero": flat | {"max"},
            "a square has the slope 2M, which is another in every cell": flat | {"power"},
            "below its bias a channel has gradient zero, and that is in other cells for each channel": flat
            | {"bias"},
            "a weight for every place goes into the gradient, which then differs from place to place": flat
            | {"place"},
            "you took those that escape": set(of) - flat,
        },
    )


def _spread(head: Callable[[Tensor], Tensor], M: Tensor) -> float:
    """By how much the gradient of a head varies over the cells, at most."""
    M = M.clone().requires_grad_()
    (C,) = torch.autograd.grad(head(M), M)
    return float((C - C.mean((1, 2), keepdim=True)).abs().max())


@exercise("what_guidance_does.4", tolerance=1e-4)
def dropped_by_the_mean() -> Answers:
    """R = Σ_k (C_k − λ_k) ⊙ M_k as a function of M and C."""
    return Answers(
        _deviation,
        {
            "this is L + R: take away what Grad-CAM adds up": equations.hires_cam,
            "this is L: the weights' share, not what they drop": lambda M, C: equations.class_map(
                M, C.mean((2, 3))
            ),
            "R is not rectified; a rectifier stands around L + R": lambda M, C: _deviation(M, C).relu(),
            "both maps were rectified first; R is the difference of the sums": lambda M, C: (
                equations.guidance_map(M, C) - equations.grad_cam(M, C)
            ),
            "the mean was taken over the channels; Equation 3 takes it over the cells": lambda M, C: (
                (C - C.mean(1, keepdim=True)) * M
            ).sum(1),
            "the sign is turned: R is C less its mean, not the mean less C": lambda M, C: -_deviation(M, C),
        },
        tried_on=captured(),
    )


@exercise("what_guidance_does.5", tolerance=0.04)
def cleared() -> Answers:
    """The share of the cells that Grad-CAM marks for the cat and the guidance map does not."""
    M, C = captured()
    base, guide = equations.grad_cam(M, C) > 0, equations.guidance_map(M, C) > 0
    return Answers(
        (base & ~guide).float().mean(),
        {
            "those are the cells that guidance marks and Grad-CAM does not": (~base & guide).float().mean(),
            "those are the cells that both mark": (base & guide).float().mean(),
            "that is a share of the cells that Grad-CAM marks; give it of all cells": (~guide)[base]
            .float()
            .mean(),
            "that is the number of cells; divide by all cells": (base & ~guide).sum(),
            "those are all cells that the guidance map leaves dark, whether Grad-CAM marks them or not": (
                ~guide
            )
            .float()
            .mean(),
        },
    )
