"""Answers to *Write your own method*."""

import torch
from torch import Tensor

from gmcam import equations, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network


@exercise("own_method.1")
def zero_gradients() -> Answers:
    """Max pooling 2 × 2 passes the gradient to one cell of four."""
    M, C = captured()
    zero = (C == 0).float().mean().item()
    return Answers(
        zero,
        {
            "that is the share of cells whose gradient is not zero": 1 - zero,
            "that is the share of channels whose median is zero; count cells": (
                (C.flatten(2).median(2).values == 0).float().mean().item()
            ),
            "that is counted in the feature maps, where the rectifier made the zeros": (
                (M == 0).float().mean().item()
            ),
            "that is the number of cells; divide by all of them": (C == 0).sum().item(),
        },
    )


@exercise("own_method.2", tolerance=1e-4)
def against() -> Answers:
    """ReLU(−Σ_k λ_k M_k), as a function of M and C."""
    return Answers(
        lambda M, C: equations.class_map(M, -equations.channel_weights(C)).relu(),
        {
            "that is Grad-CAM with its sign turned; the rectifier comes after the sign": lambda M, C: (
                -equations.grad_cam(M, C)
            ),
            "that is the maximum less Grad-CAM: bright where nothing speaks at all": lambda M, C: (
                equations.grad_cam(M, C).amax() - equations.grad_cam(M, C)
            ),
            "you kept only the channels with negative weights; the others count too, and may outweigh them": (
                lambda M, C: equations.class_map(M, (-equations.channel_weights(C)).relu())
            ),
            "that is Grad-CAM, what speaks for the class": equations.grad_cam,
            "you forgot the rectifier": lambda M, C: equations.class_map(M, -equations.channel_weights(C)),
            "every cell has its own gradient here; the channels' weights were asked for": lambda M, C: (
                (-C * M).sum(1).relu()
            ),
        },
        tried_on=captured(),
    )


@exercise("own_method.3")
def known_answers() -> Answers:
    """Which methods are Grad-CAM, up to a constant, on the last map of a pooled network."""
    pooled, image = network("collage-resnet"), cat_and_cup().image

    def raw(name: str) -> Tensor:
        return explain(pooled, image, "cat", method=name).raw.relu().flatten()

    known = raw("grad_cam")

    def coincides(name: str) -> bool:
        found = raw(name)
        fitted = (found @ known) / (known @ known) * known
        return bool((found - fitted).norm() <= 1e-3 * found.norm())

    asked = ("cam", "x_grad_cam", "guidance_map", "layer_cam", "gmcam", "eigen_cam")
    right = {name for name in asked if coincides(name)}
    return Answers(
        right,
        {
            "GMCAM is Grad-CAM's square there, and a square is no constant times it": right | {"gmcam"},
            "LayerCAM rectifies every gradient, so the channels with negative weights are lost": (
                right | {"layer_cam"}
            ),
            "Eigen-CAM does not ask for the class": right | {"eigen_cam"},
            "the guidance map is missing: with one gradient per channel, C_k ⊙ M_k is λ_k M_k": (
                right - {"guidance_map"}
            ),
            "CAM is missing: its weights are Z times Grad-CAM's": right - {"cam"},
            "XGrad-CAM is missing: the mean of a flat gradient is the same however the cells are weighed": (
                right - {"x_grad_cam"}
            ),
        },
    )


@exercise("own_method.4")
def leaking_batch() -> Answers:
    """A mean over the pictures lets one picture into the map of another."""
    M, C = captured()
    both, gradients = torch.cat([M, 2 * M]), torch.cat([C, C])  # beside it, a picture of larger maps

    def centred(M: Tensor, C: Tensor) -> Tensor:
        return equations.class_map(M - M.mean((0, 2, 3), keepdim=True), equations.channel_weights(C)).relu()

    together, alone = centred(both, gradients)[:1], centred(M, C)
    assert together.isfinite().all()
    return Answers(
        "finite" if torch.allclose(together, alone) else "batch",
        {
            "sums and products of finite maps are finite": "finite",
            "normalising brings any raw map into [0, 1], whatever the method did": "range",
            "the function reads its query and changes nothing in the network": "left behind",
        },
    )
