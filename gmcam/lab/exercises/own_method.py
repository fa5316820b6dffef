"""Answers to *Write your own method*."""

import torch
from torch import Tensor

from gmcam import equations, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network


@exercise("own_method.1")
def zero_gradients() -> Answers:
    """The share of zero gradients: max pooling 2 × 2 passes the gradient to one cell of four."""
    M, C = captured()
    zero = (C == 0).float().mean().item()
    slips = {
        "this is the share of cells whose gradient is not zero": 1 - zero,
        "this is the share of channels whose median is zero; count cells": (
            (C.flatten(2).median(2).values == 0).float().mean().item()
        ),
        "this counts zeros in the feature maps, which the rectifier produces": (M == 0).float().mean().item(),
        "this is the number of cells; divide by all cells": (C == 0).sum().item(),
    }
    return Answers(zero, slips)


@exercise("own_method.2", tolerance=1e-4)
def against() -> Answers:
    """ReLU(−Σ_k λ_k M_k), as a function of M and C."""
    slips = {
        "this is Grad-CAM with the opposite sign; change the sign before rectifying": lambda M, C: (
            -equations.grad_cam(M, C)
        ),
        "this is the maximum minus Grad-CAM, which is bright where there is no evidence": lambda M, C: (
            equations.grad_cam(M, C).amax() - equations.grad_cam(M, C)
        ),
        "this uses only channels with negative weights; the others count too, and may outweigh them": (
            lambda M, C: equations.class_map(M, (-equations.channel_weights(C)).relu())
        ),
        "this is Grad-CAM, the evidence for the class": equations.grad_cam,
        "the rectifier is missing": lambda M, C: equations.class_map(M, -equations.channel_weights(C)),
        "here every cell keeps its gradient; use the channels' weights": lambda M, C: (-C * M).sum(1).relu(),
    }
    return Answers(
        lambda M, C: equations.class_map(M, -equations.channel_weights(C)).relu(), slips, tried_on=captured()
    )


@exercise("own_method.3")
def known_answers() -> Answers:
    """The methods that equal Grad-CAM, up to a constant, on the last map of a pooled network."""
    pooled, image = network("collage-resnet"), cat_and_cup().image

    def raw(name: str) -> Tensor:
        return explain(pooled, image, "cat", method=name).raw.relu().flatten()

    known = raw("grad_cam")

    def coincides(name: str) -> bool:
        other = raw(name)
        fitted = (other @ known) / (known @ known) * known
        return bool((other - fitted).norm() <= 1e-3 * other.norm())

    names = ("cam", "x_grad_cam", "guidance_map", "layer_cam", "gmcam", "eigen_cam")
    right = {name for name in names if coincides(name)}
    slips = {
        "GMCAM is Grad-CAM's square there, and a square is not a multiple of the map": right | {"gmcam"},
        "LayerCAM rectifies every gradient, so it drops channels with negative weights": (
            right | {"layer_cam"}
        ),
        "Eigen-CAM ignores the class": right | {"eigen_cam"},
        "the guidance map is missing: with flat gradients, C_k ⊙ M_k is λ_k M_k": right - {"guidance_map"},
        "CAM is missing: its weights are Z times Grad-CAM's": right - {"cam"},
        "XGrad-CAM is missing: any weighted mean of a flat gradient is the same": right - {"x_grad_cam"},
    }
    return Answers(right, slips)


@exercise("own_method.4")
def leaking_batch() -> Answers:
    """A mean over the batch lets one image affect the map of another."""
    M, C = captured()
    both, gradients = torch.cat([M, 2 * M]), torch.cat([C, C])  # with a second image of larger maps

    def centred(M: Tensor, C: Tensor) -> Tensor:
        return equations.class_map(M - M.mean((0, 2, 3), keepdim=True), equations.channel_weights(C)).relu()

    together, alone = centred(both, gradients)[:1], centred(M, C)
    assert together.isfinite().all()
    slips = {
        "sums and products of finite maps are finite": "finite",
        "normalisation brings any raw map into [0, 1]": "range",
        "the function reads its query and does not change the network": "left behind",
    }
    return Answers("finite" if torch.allclose(together, alone) else "batch", slips)


@exercise("own_method.5")
def referee() -> Answers:
    """The points of a referee's paragraph on a small difference in share inside."""
    right = {"a", "c", "e"}
    slips = {
        "the interval draws images, and the claim is about objects: a is missing": right - {"a"},
        "without Grad-CAM squared the reader cannot see how little the difference is: c is missing": right
        - {"c"},
        "the share says where a map is, and not whether it follows the network: e is missing": right - {"e"},
        "more scenes of the same eight objects add no object": right | {"b"},
        "the mean of the shares is what the claim speaks of; d changes the question": right | {"d"},
    }
    return Answers(right, slips)
