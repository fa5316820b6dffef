"""Answers to *Guided aggregation*."""

import numpy as np
import torch
from torch import Tensor

from gmcam import equations, explain
from gmcam.capture import capture
from gmcam.lab import dual_class_scenes
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.metrics import share_inside
from gmcam.postprocess import postprocess

METHODS = ("grad_cam", "guidance_map", "gmcam")


@exercise("guided_aggregation.1", tolerance=1e-4)
def as_a_product() -> Answers:
    """Equation 6 from its factors: guidance map times Grad-CAM."""

    def weighted(M: Tensor, C: Tensor) -> Tensor:
        return equations.class_map(M, equations.channel_weights(C))

    slips = {
        "this is Grad-CAM squared, which is the same only where the gradient is flat": lambda M, C: (
            equations.grad_cam(M, C) ** 2
        ),
        "this is the guidance map squared": lambda M, C: equations.guidance_map(M, C) ** 2,
        "the guidance map is not rectified, so it can reverse the sign": lambda M, C: (
            equations.hires_cam(M, C) * equations.grad_cam(M, C)
        ),
        "Grad-CAM is not rectified, so cells against the class stay below zero": lambda M, C: (
            equations.guidance_map(M, C) * weighted(M, C)
        ),
        "with one rectifier around the product, two negative factors give a positive cell": (
            lambda M, C: (equations.hires_cam(M, C) * weighted(M, C)).relu()
        ),
        "this adds the maps; multiply": lambda M, C: equations.guidance_map(M, C) + equations.grad_cam(M, C),
        "this is Grad-CAM, without guidance": equations.grad_cam,
        "this is the guidance map alone": equations.guidance_map,
    }
    return Answers(equations.gmcam, slips, tried_on=captured())


@exercise("guided_aggregation.2")
def rectifiers() -> Answers:
    """Which rectifier is redundant: the inner one of GM or the outer one of Equation 6."""
    M, C = captured()
    weights, S = equations.channel_weights(C), equations.gmcam(M, C)

    def guided(guide: Tensor) -> Tensor:
        return equations.class_map(guide.unsqueeze(1) * M, weights)

    without_inner = guided(equations.hires_cam(M, C)).relu()
    without_outer = guided(equations.guidance_map(M, C))
    equal = [bool((other - S).abs().max() <= 1e-4 * S.max()) for other in (without_inner, without_outer)]
    words = {(False, False): "neither", (True, False): "inner", (False, True): "outer", (True, True): "both"}
    slips = {
        "without the inner one, cells in which both factors are negative become positive": "inner",
        "without the outer one, a negative weighted sum stays negative where GM is above zero": "outer",
        "leave out one at a time, and compare with S": "both",
    }
    return Answers(words[equal[0], equal[1]], slips)


@exercise("guided_aggregation.3", tolerance=1e-3)
def twice_the_score() -> Answers:
    """The factor by which the raw map grows if the score is doubled: both factors of S double."""
    net = network()
    cat = net.class_index("cat")

    def doubled(logits: Tensor) -> Tensor:
        return 2 * logits[:, cat]

    twice = capture(net.module, net.prepare(cat_and_cup().image), doubled, "stage4")
    gmcam, grad_cam = (
        float(equation(twice.maps["stage4"], twice.gradients["stage4"]).max() / equation(*captured()).max())
        for equation in (equations.gmcam, equations.grad_cam)
    )
    slips = {
        "this is Grad-CAM's factor; S contains the gradient twice, in λ and in GM": grad_cam,
        "this holds after min–max normalisation; the question is about the raw map": 1.0,
        "M does not change; only λ and GM double": gmcam * 2,
    }
    return Answers(gmcam, slips)


@exercise("guided_aggregation.4")
def squaring() -> Answers:
    """The part of GMCAM's gain in share inside over Grad-CAM that squaring Grad-CAM brings."""
    scenes, net = dual_class_scenes(14), network()
    masks = torch.from_numpy(np.stack([s.masks[0] for s in scenes]))
    images, names = [s.image for s in scenes], [s.labels[0] for s in scenes]
    grad_cam, guide, guided = (explain(net, images, names, method=m).raw for m in METHODS)

    def share(raw: Tensor) -> Tensor:
        heat, _ = postprocess(raw, (masks.shape[1], masks.shape[2]))
        return share_inside(heat, masks).nan_to_num().mean()

    plain, squared, proposed = share(grad_cam), share(grad_cam**2), share(guided)
    gain = proposed - plain
    slips = {
        "this is the ratio of the shares; compare the gains over plain Grad-CAM": squared / proposed,
        "this is the gain in share inside; divide it by GMCAM's gain": squared - plain,
        "this is the guidance map's gain; square Grad-CAM": (share(guide) - plain) / gain,
    }
    return Answers((squared - plain) / gain, slips)


@exercise("guided_aggregation.5")
def earlier() -> Answers:
    """Shares inside the cup of Grad-CAM, guidance map and GMCAM for it, at the 32 × 32 layer."""
    both, net = cat_and_cup(), network()
    mask = torch.from_numpy(both.mask("cup"))[None]

    def share(method: str, layer: str, label: str) -> Tensor:
        raw = explain(net, both.image, label, method=method, layer=layer).raw
        return share_inside(postprocess(raw, (256, 256))[0], mask)

    def shares(layer: str, label: str) -> Tensor:
        return torch.cat([share(method, layer, label) for method in METHODS])

    right = shares("32x32", "cup")
    slips = {
        "this is the last layer": shares("16x16", "cup"),
        "this is the layer with 64 × 64 cells": shares("64x64", "cup"),
        "these are the cat's maps, measured on the cup": shares("32x32", "cat"),
        "the order is Grad-CAM, guidance map, GMCAM": right[[0, 2, 1]],
    }
    return Answers(right, slips)
