"""Answers to *The global guidance map*."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network


@exercise("guidance_map.1", tolerance=1e-4)
def from_scratch() -> Answers:
    """Equation 5 as a function of M and C."""
    slips = {
        "the rectifier is missing; this is HiResCAM": equations.hires_cam,
        "this rectifies each channel, as LayerCAM does; rectify the sum": lambda M, C: (C * M).relu().sum(1),
        "each gradient map was averaged first; this is Grad-CAM": equations.grad_cam,
        "this is the mean over the channels, which divides the logits by K; add them up": lambda M, C: (
            (C * M).mean(1).relu()
        ),
        "here evidence against the class becomes evidence for it": lambda M, C: (C * M).sum(1).abs(),
    }
    return Answers(equations.guidance_map, slips, tried_on=captured())


def _agreement(layer: str, name: str = "collage-resnet", rectified: bool = True) -> Tensor:
    """Correlation of Grad-CAM and guidance map for the cat at one layer."""
    M, C = captured("cat", name, layer)
    guide = equations.guidance_map(M, C) if rectified else equations.hires_cam(M, C)
    return torch.corrcoef(torch.stack([equations.grad_cam(M, C).flatten(), guide.flatten()]))[0, 1]


@exercise("guidance_map.2", tolerance=0.01)
def at_an_earlier_layer() -> Answers:
    """Correlation of the two maps at ``stage2`` of ``collage-resnet``."""
    slips = {
        'this is the last layer, where the two maps are equal; use layer="stage2"': _agreement("stage4"),
        "this is stage3": _agreement("stage3"),
        "this is stage1": _agreement("stage1"),
        "this is collage-vgg": _agreement("stage2", "collage-vgg"),
        "this is HiResCAM, which is signed; Equation 5 rectifies": _agreement("stage2", rectified=False),
    }
    return Answers(_agreement("stage2"), slips)


def _sums_by_object(cells: Tensor) -> Tensor:
    """Sums of a map (h, w) over the cat, the cup and the background: (3,)."""
    both, parts = cat_and_cup(), []
    for name in both.labels:
        mask = torch.from_numpy(both.mask(name)).float()[None, None]
        parts.append((cells * F.interpolate(mask, cells.shape, mode="area")[0, 0]).sum())
    return torch.stack([*parts, cells.sum() - parts[0] - parts[1]])


@exercise("guidance_map.3")
def shared_out() -> Answers:
    """The parts of the cat's score, in logits, on the cat, on the cup and on the background."""
    M, C = captured()
    right = _sums_by_object(equations.hires_cam(M, C)[0])
    slips = {
        "the map is rectified, but cells with evidence against the cat count as well": _sums_by_object(
            equations.guidance_map(M, C)[0]
        ),
        "this is Grad-CAM's sum, with one weight per channel": _sums_by_object(
            equations.class_map(M, equations.channel_weights(C))[0]
        ),
        "these are means over all cells; add the cells up": right / M[0, 0].numel(),
        "this is the cup's score; use the gradient of the cat's": _sums_by_object(
            equations.hires_cam(*captured("cup"))[0]
        ),
        "the order is cat, cup, background": right[[1, 0, 2]],
        "these are shares of the sum; give the logits": right / right.sum(),
    }
    return Answers(right, slips)


@exercise("guidance_map.4")
def from_the_biases() -> Answers:
    """The contribution of the head's biases to the cat's logit: the logit minus all cells."""
    M, C = captured()
    net = network()
    cat = net.class_index("cat")
    with torch.no_grad():
        logit = net.module(net.prepare(cat_and_cup().image))[0, cat]
    cells = equations.hires_cam(M, C)
    slips = {
        "the map is rectified; only the signed cells add up to the logit": logit - cells.relu().sum(),
        "this is the last layer's bias; the hidden layer's biases also reach the logit": (
            net.module.get_submodule("head.3").get_parameter("bias").detach()[cat]
        ),
        "this is the contribution of the cells": cells.sum(),
        "this is the whole logit; subtract the cells": logit,
    }
    return Answers(logit - cells.sum(), slips)
