"""Answers to *Guided aggregation*."""

from __future__ import annotations

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

    return Answers(
        equations.gmcam,
        {
            "that is Grad-CAM squared, which it is only where the gradient is flat": lambda M, C: (
                equations.grad_cam(M, C) ** 2
            ),
            "that is the guidance map squared": lambda M, C: equations.guidance_map(M, C) ** 2,
            "the guidance map is not rectified: it can turn the sign": lambda M, C: (
                equations.hires_cam(M, C) * equations.grad_cam(M, C)
            ),
            "Grad-CAM is not rectified, and cells against the class stay below zero": lambda M, C: (
                equations.guidance_map(M, C) * weighted(M, C)
            ),
            "one rectifier around the product lets minus times minus pass as plus": lambda M, C: (
                equations.hires_cam(M, C) * weighted(M, C)
            ).relu(),
            "the two maps are added; guidance multiplies": lambda M, C: (
                equations.guidance_map(M, C) + equations.grad_cam(M, C)
            ),
            "that is Grad-CAM, without guidance": equations.grad_cam,
            "that is the guidance map alone": equations.guidance_map,
        },
        tried_on=captured(),
    )


@exercise("guided_aggregation.2")
def rectifiers() -> Answers:
    """Which rectifier could be left out, GM's inner one or Equation 6's outer one."""
    M, C = captured()
    weights, S = equations.channel_weights(C), equations.gmcam(M, C)

    def guided(guide: Tensor) -> Tensor:
        return equations.class_map(guide.unsqueeze(1) * M, weights)

    without_inner = guided(equations.hires_cam(M, C)).relu()
    without_outer = guided(equations.guidance_map(M, C))
    can_go = [bool((other - S).abs().max() <= 1e-4 * S.max()) for other in (without_inner, without_outer)]
    words = {(False, False): "neither", (True, False): "inner", (False, True): "outer", (True, True): "both"}
    return Answers(
        words[can_go[0], can_go[1]],
        {
            "without the inner one, cells in which both factors are negative count as positive": "inner",
            "without the outer one, cells with a negative weighted sum stay negative wherever GM is above "
            "zero": "outer",
            "leave out one at a time, and compare with S": "both",
        },
    )


@exercise("guided_aggregation.3", tolerance=1e-3)
def twice_the_score() -> Answers:
    """The factor by which the raw map grows when the score is doubled: both factors of S double."""
    net = network()
    cat = net.class_index("cat")

    def doubled(logits: Tensor) -> Tensor:
        return 2 * logits[:, cat]

    found = capture(net.module, net.prepare(cat_and_cup().image), doubled, ["stage4"])
    M, C = captured()
    twice, once = (found.maps["stage4"], found.gradients["stage4"]), (M, C)
    factors = {f: float(f(*twice).max() / f(*once).max()) for f in (equations.gmcam, equations.grad_cam)}
    return Answers(
        factors[equations.gmcam],
        {
            "that is Grad-CAM's factor; in S the gradient stands twice, in λ and in GM": factors[
                equations.grad_cam
            ],
            "that is so after min–max scaling; the question is about the raw map": 1.0,
            "M does not change; only λ and GM double": factors[equations.gmcam] * 2,
        },
    )


@exercise("guided_aggregation.4")
def squaring() -> Answers:
    """The part of GMCAM's gain over Grad-CAM, in the mean share inside, that squaring Grad-CAM brings."""
    scenes, net = dual_class_scenes(14), network()
    masks = torch.from_numpy(np.stack([s.masks[0] for s in scenes]))
    images, names = [s.image for s in scenes], [s.labels[0] for s in scenes]
    grad_cam, guide, guided = (explain(net, images, names, method=m).raw for m in METHODS)

    def share(raw: Tensor) -> Tensor:
        heat, _ = postprocess(raw, (masks.shape[1], masks.shape[2]))
        return share_inside(heat, masks).nan_to_num().mean()

    plain, squared, proposed = share(grad_cam), share(grad_cam**2), share(guided)
    gain = proposed - plain
    return Answers(
        (squared - plain) / gain,
        {
            "that is the squared map's share as a part of GMCAM's; compare the gains over plain Grad-CAM": (
                squared / proposed
            ),
            "that is the gain itself; divide it by GMCAM's": squared - plain,
            "that is the gain of the guidance map; square Grad-CAM": (share(guide) - plain) / gain,
        },
    )


@exercise("guided_aggregation.5")
def earlier() -> Answers:
    """Shares in the cup of Grad-CAM, guidance map and GMCAM for it, at the 32 × 32 layer."""
    both, net = cat_and_cup(), network()
    mask = torch.from_numpy(both.mask("cup"))[None]

    def shares(layer: str, label: str) -> Tensor:
        found = []
        for method in METHODS:
            raw = explain(net, both.image, label, method=method, layer=layer).raw
            found.append(share_inside(postprocess(raw, (256, 256))[0], mask))
        return torch.cat(found)

    right = shares("32x32", "cup")
    return Answers(
        right,
        {
            "that is the last layer": shares("16x16", "cup"),
            "that is the layer with 64 × 64 cells": shares("64x64", "cup"),
            "these are the cat's maps, measured on the cup": shares("32x32", "cat"),
            "the order is Grad-CAM, guidance map, GMCAM": right[[0, 2, 1]],
        },
    )
