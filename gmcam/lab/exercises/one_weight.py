"""Answers to *One weight per map is not enough*."""

from __future__ import annotations

import torch
from torch import Tensor

from gmcam import explain
from gmcam.capture import capture
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.postprocess import upsample

PLACES = ("stage3", "stage4.relu1", "stage4.conv2", "stage4.bn2", "stage4.relu2", "stage4")


@exercise("one_weight.1")
def smaller_traces() -> Answers:
    """Two networks differ in more than in what the mean loses on them."""
    return Answers(
        "no",
        {
            "the networks differ in everything else as well, in depth, cells and training; to price the "
            "mean, change it and nothing else": "yes",
        },
    )


@exercise("one_weight.2", tolerance=1e-4)
def share_over_area() -> Answers:
    """Share inside, divided by the share of the picture that is masked; (N, H, W) twice → (N,)."""
    both, net = cat_and_cup(), network()
    maps = upsample(explain(net, both.image, both.labels, method="grad_cam").maps, both.masks.shape[1:])
    masks = torch.from_numpy(both.masks).float()

    def inside(maps: Tensor, masks: Tensor) -> Tensor:
        return (maps * masks).sum((1, 2)) / maps.sum((1, 2))

    return Answers(
        lambda maps, masks: inside(maps, masks) / masks.mean((1, 2)),
        {
            "that is the share inside; divide it by the share of the picture that is masked": inside,
            "divide by the share of the picture, not by the number of masked pixels": lambda maps, masks: (
                inside(maps, masks) / masks.sum((1, 2))
            ),
            "it is upside down": lambda maps, masks: masks.mean((1, 2)) / inside(maps, masks),
            "that compares inside with outside; compare with the whole picture": lambda maps, masks: (
                inside(maps, masks)
                / (1 - inside(maps, masks))
                * (1 - masks.mean((1, 2)))
                / masks.mean((1, 2))
            ),
            "all pictures went into one sum; each has a value of its own": lambda maps, masks: (
                (maps * masks).sum() / maps.sum() / masks.mean()
            ).expand(len(maps)),
        },
        tried_on=(maps, masks),
    )


@exercise("one_weight.3")
def what_survives() -> Answers:
    """Σ_k |Σ_ij C_k(i, j)| / Σ_k Σ_ij |C_k(i, j)|: what cancelling within channels leaves."""
    _, C = captured()
    kept, whole = C.sum((2, 3)).abs(), C.abs().sum((2, 3))
    return Answers(
        kept.sum() / whole.sum(),
        {
            "the size was taken before the sum over the cells, where nothing cancels yet": 1.0,
            "that is what is lost; the question is what is left": 1 - kept.sum() / whole.sum(),
            "channels cancelled against each other; add up each channel's cells, then take the size": (
                C.sum().abs() / C.abs().sum()
            ),
            "the sum ran over the channels of each cell; Equation 3 averages over each channel's cells": (
                C.sum(1).abs().sum() / C.abs().sum()
            ),
            "that is the mean of the channels' own ratios; add up over the channels before you divide": (
                (kept / whole.clamp(min=1e-20)).mean()
            ),
            "that is the share of cells with a gradient at all": (C != 0).float().mean(),
        },
    )


@exercise("one_weight.4")
def flat_gradients() -> Answers:
    """The layers of ``collage-resnet`` at which every gradient map is flat."""
    net = network("collage-resnet")
    inputs, cat = net.prepare(cat_and_cup().image), net.class_index("cat")
    gradients = capture(net.module, inputs, cat, PLACES).gradients
    flat = {
        name
        for name, C in gradients.items()
        if float(C.std((2, 3), correction=0).max()) < 1e-5 * float(C.abs().max())
    }
    return Answers(
        flat,
        {
            "stage4.relu2 is the block's last module: its output is the output of stage4": {"stage4"},
            "after stage4.bn2 the shortcut is added and a rectifier follows: where it is closed, "
            "the gradient is zero": flat | {"stage4.bn2"},
            "a convolution follows stage3 before the pooling, and rectifiers: the last map alone is next "
            "to the pooling": flat | {"stage3"},
            "that is everything in stage4; inside the block rectifiers and a convolution still follow": (
                set(PLACES) - {"stage3"}
            ),
            "the gradient is flat somewhere: look at what the pooling takes in": set(),
        },
    )
