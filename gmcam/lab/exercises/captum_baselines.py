"""Answers to *Captum baselines*."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations, explain
from gmcam._extras import require
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured_for, network, undecided
from gmcam.postprocess import min_max, upsample

PIXEL_METHODS = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "occlusion",
    "deep_lift",
)
# Small batches: a page holds little memory.
FEW: dict[str, Any] = {"integrated_gradients": {"steps": 5}, "occlusion": {"chunk_size": 2}}


def gain(name: str, label: str = "cup") -> tuple[float, float]:
    """The logits of the scene and of the zero input, on the network called ``name``."""
    net = network(name)
    inputs = net.prepare(undecided().image)
    with torch.no_grad():
        logits = net.module(torch.cat([inputs, torch.zeros_like(inputs)]))
    of_image, of_zeros = logits[:, net.class_index(label)].tolist()
    return of_image, of_zeros


def integrated() -> Tensor:
    """Captum's integrated gradients of the cup on ``collage-resnet``, (1, 3, H, W)."""
    net = network("collage-resnet")
    algorithm = require("captum.attr", "captum").IntegratedGradients(net.module)
    attributions: Tensor = algorithm.attribute(
        net.prepare(undecided().image),
        target=net.class_index("cup"),
        internal_batch_size=5,
    )
    return attributions.detach()


@exercise("captum_baselines.1", tolerance=1e-3)
def from_signed() -> Answers:
    """Post-process a signed map (N, 1, h, w) without smoothing: rectify, normalise, up-sample."""
    M, C = captured_for(network().class_index("cat"))
    signed = equations.class_map(M, equations.channel_weights(C)).unsqueeze(1)

    def scaled(signed: Tensor) -> Tensor:
        return min_max(signed[:, 0].relu())[0]

    slips = {
        "the rectifier is missing, so the scale starts at the evidence against the class": (
            lambda signed, size: upsample(min_max(signed[:, 0])[0], size)
        ),
        "the absolute value shows evidence against the class as evidence for it": (
            lambda signed, size: upsample(min_max(signed[:, 0].abs())[0], size)
        ),
        "each cell is repeated; use bilinear interpolation": lambda signed, size: F.interpolate(
            scaled(signed).unsqueeze(1), size
        )[:, 0],
        "aligned corners move the centres of the cells": lambda signed, size: F.interpolate(
            scaled(signed).unsqueeze(1), size, mode="bilinear", align_corners=True
        )[:, 0],
        "rectify before up-sampling: a mean of negative and positive cells is not the mean of the "
        "rectified ones": lambda signed, size: upsample(signed[:, 0] / signed.max(), size).relu(),
        "normalise before up-sampling, because interpolation lowers the maximum": (
            lambda signed, size: min_max(upsample(signed[:, 0].relu(), size))[0]
        ),
        "the map is not scaled to [0, 1]": lambda signed, size: upsample(signed[:, 0].relu(), size),
        "the values are right, but remove the axis of the channels: maps are (N, H, W)": (
            lambda signed, size: upsample(scaled(signed), size).unsqueeze(1)
        ),
    }
    return Answers(lambda signed, size: upsample(scaled(signed), size), slips, tried_on=(signed, (128, 128)))


@exercise("captum_baselines.2", tolerance=0.01)
def rectified_sum() -> Answers:
    """The sum of the rectified attributions of all pixels, divided by the gain."""
    of_image, of_zeros = gain("collage-resnet")
    whole = of_image - of_zeros
    attribution = integrated()
    per_pixel = attribution.sum(1)
    positive = per_pixel.relu().sum()
    slips = {
        "the signed attributions are complete; the map drops the negative ones": attribution.sum() / whole,
        "sum the colours of each pixel first, then rectify": attribution.relu().sum() / whole,
        "this is the negative part, which the map drops": (-per_pixel).relu().sum() / whole,
        "this is the sum of the absolute values; drop the negative part": per_pixel.abs().sum() / whole,
        "this is the sum; divide it by the gain": positive,
        "the gain is the image's logit minus that of the empty image, which is not zero": positive / of_image,
        "this is the sum of the map scaled to [0, 1]; use the raw map": positive / whole / per_pixel.max(),
    }
    return Answers(positive / whole, slips)


@exercise("captum_baselines.3")
def nothing_to_see() -> Answers:
    """The methods that are zero on the zero input, because they multiply by the difference from it."""
    net = network()
    zeros = torch.zeros_like(net.prepare(undecided().image))
    right = {
        name
        for name in PIXEL_METHODS
        if explain(net, zeros, "cup", method=f"captum.{name}", **FEW.get(name, {})).raw.abs().max() < 1e-5
    }
    slips = {
        "two of these methods use only gradients, which an empty image has too": set(PIXEL_METHODS),
        "these are the two complete ones; other methods multiply by the input or replace parts of it by "
        "zeros": {"integrated_gradients", "deep_lift"},
        "occlusion replaces zeros by zeros here, which changes nothing": right - {"occlusion"},
        "not only a product with the input is zero, but also one with the difference from the empty image": {
            "input_x_gradient"
        },
        "these are gradients, which an empty image has too; name the others": {"saliency", "guided_backprop"},
    }
    return Answers(right, slips)


@exercise("captum_baselines.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a share inside that is credited to the class."""
    right = {"a", "c", "e"}
    slips = {
        "a map of the second class shows whether the first depends on the class: a is missing": right - {"a"},
        "edges know no class: c is missing": right - {"c"},
        "squaring adds no knowledge and raises the share: e is missing": right - {"e"},
        "b changes how both look, and neither depends more on its class": right | {"b"},
        "d is no objection: the intervals of two methods on the same scenes may overlap although the "
        "difference is clear; ask for the interval of the difference": right | {"d"},
    }
    return Answers(right, slips)
