"""Answers to *Captum baselines*."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.postprocess import normalise, upsample

PIXEL_METHODS = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "guided_backprop",
    "occlusion",
    "deep_lift",
)


def gain(name: str, label: str = "cup") -> tuple[float, float]:
    """The logit of the scene, and of the zero input, on the network called ``name``."""
    net = network(name)
    inputs = net.prepare(cat_and_cup().image)
    with torch.no_grad():
        logits = net.module(torch.cat([inputs, torch.zeros_like(inputs)]))
    picture, empty = logits[:, net.class_index(label)].tolist()
    return picture, empty


def integrated(steps: int = 50, rule: str = "gausslegendre") -> Tensor:
    """Captum's integrated gradients of the cup on ``collage-resnet``, (1, 3, H, W)."""
    from captum.attr import IntegratedGradients

    net = network("collage-resnet")
    inputs = net.prepare(cat_and_cup().image)
    algorithm = IntegratedGradients(net.module)
    found: Tensor = algorithm.attribute(
        inputs, target=net.class_index("cup"), n_steps=steps, method=rule, internal_batch_size=5
    )
    return found.detach()


@exercise("captum_baselines.1", tolerance=1e-3)
def from_signed() -> Answers:
    """Rectify, scale, enlarge: the post-processing of a signed map (N, 1, h, w), without smoothing."""
    M, C = captured()
    signed = equations.class_map(M, equations.channel_weights(C)).unsqueeze(1)

    def blocks(signed: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(normalise(signed[:, 0].relu())[0].unsqueeze(1), size)[:, 0]

    def corners(signed: Tensor, size: tuple[int, int]) -> Tensor:
        scaled = normalise(signed[:, 0].relu())[0].unsqueeze(1)
        return F.interpolate(scaled, size, mode="bilinear", align_corners=True)[:, 0]

    return Answers(
        lambda signed, size: upsample(normalise(signed[:, 0].relu())[0], size),
        {
            "the rectifier is missing, so the scale starts at what speaks against the class": (
                lambda signed, size: upsample(normalise(signed[:, 0])[0], size)
            ),
            "the absolute value shows what speaks against the class as if it spoke for it": (
                lambda signed, size: upsample(normalise(signed[:, 0].abs())[0], size)
            ),
            "each cell is repeated; enlarge with bilinear interpolation": blocks,
            "the corners are aligned, which moves the centres of the cells": corners,
            "the rectifier comes after enlarging; a mean of negative and positive cells is not the "
            "mean of the rectified ones": (
                lambda signed, size: upsample(signed[:, 0] / signed.max(), size).relu()
            ),
            "the map is scaled after enlarging, when interpolation has lowered its maximum": (
                lambda signed, size: normalise(upsample(signed[:, 0].relu(), size))[0]
            ),
            "the map is not scaled to [0, 1]": lambda signed, size: upsample(signed[:, 0].relu(), size),
            "the steps are right, but the axis of the channels is left: the maps are (N, H, W)": (
                lambda signed, size: upsample(normalise(signed[:, 0].relu())[0], size).unsqueeze(1)
            ),
        },
        tried_on=(signed, (128, 128)),
    )


@exercise("captum_baselines.2", tolerance=0.01)
def rectified_sum() -> Answers:
    """What is left for the class when each pixel's attribution is rectified, as a multiple of the gain."""
    picture, empty = gain("collage-resnet")
    whole = picture - empty
    attribution = integrated()
    per_pixel = attribution.sum(1)
    kept = per_pixel.relu().sum() / whole
    return Answers(
        kept,
        {
            "completeness holds for the signed attributions; the map drops the negative ones": (
                attribution.sum() / whole
            ),
            "the colours of a pixel are summed first and rectified then": attribution.relu().sum() / whole,
            "this is the negative part, the one that is dropped": (-per_pixel).relu().sum() / whole,
            "this is the sum of the absolute values; the negative part is dropped": per_pixel.abs().sum()
            / whole,
            "this is the sum itself; divide it by the gain": kept * whole,
            "the gain is the picture's logit minus that of the empty picture, which is not zero": kept
            * whole
            / picture,
            "this adds up the map scaled to [0, 1]; take the raw one": kept / per_pixel.max(),
        },
    )


@exercise("captum_baselines.3")
def steps() -> Answers:
    """The smallest of five numbers of steps with which completeness holds to a hundredth of the gain."""
    picture, empty = gain("collage-resnet")
    whole = picture - empty

    def enough(rule: str) -> int:
        for count in (2, 5, 10, 20):
            if abs(integrated(count, rule).sum().item() - whole) < 0.01 * whole:
                return count
        return 50

    fewest = enough("gausslegendre")
    slips = {
        "with two steps the sum is far off": 2,
        "with five steps the sum is still off by more than a hundredth": 5,
        "fewer are enough already": 20,
        "that many are needed with equal steps from the left; Captum's default is Gauss–Legendre": enough(
            "riemann_left"
        ),
    }
    return Answers(fewest, {slip: count for slip, count in slips.items() if count != fewest})


@exercise("captum_baselines.4")
def nothing_to_see() -> Answers:
    """The methods that are zero on the zero input, since they multiply by the difference from it."""
    net = network()
    zeros = torch.zeros_like(net.prepare(cat_and_cup().image))
    found = {
        name
        for name in PIXEL_METHODS
        if explain(net, zeros, "cup", method=f"captum.{name}", sigma=0).raw.max() < 1e-5
    }
    return Answers(
        found,
        {
            "an empty picture has slopes too: two of these never look at the picture's values": set(
                PIXEL_METHODS
            ),
            "those are the two that are complete; whatever multiplies by the input or puts zeros in its "
            "place does the same": {"integrated_gradients", "deep_lift"},
            "occlusion puts the empty picture in place of the picture, and nothing changes": found
            - {"occlusion"},
            "not only a product with the input is zero: a difference from the empty picture is as well": {
                "input_x_gradient"
            },
            "it is the other way round: these two are slopes, and a slope is there without a picture": {
                "saliency",
                "guided_backprop",
            },
        },
    )


@exercise("captum_baselines.5", tolerance=0.01)
def one_square() -> Answers:
    """A square that covers the picture: each of its pixels is credited with the whole gain."""
    picture, empty = gain("collage-vgg")
    whole = picture - empty
    side, _ = network().prepare(cat_and_cup().image).shape[2:]
    return Answers(
        whole,
        {
            "the scaled map is empty, since it is flat; the raw one is not": 0.0,
            "the empty picture has a logit of its own, which is taken off": picture,
            "this is what is left when the picture is gone, not what is lost": empty,
            "the sign is turned: credit is what the score loses": -whole,
            "Captum credits each of the three colours with the loss; gmcam divides by their number": 3
            * whole,
            "the gain is not shared out among the pixels: each is credited with all of it": whole / side**2,
        },
    )
