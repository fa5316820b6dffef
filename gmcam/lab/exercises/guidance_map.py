"""Answers to *The global guidance map*."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network


@exercise("guidance_map.1", tolerance=1e-4)
def from_scratch() -> Answers:
    """Equation 5 as a function of M and C."""
    return Answers(
        equations.guidance_map,
        {
            "you forgot the rectifier; that is HiResCAM": equations.hires_cam,
            "each channel is rectified, as in LayerCAM; Equation 5 rectifies the sum": lambda M, C: (
                (C * M).relu().sum(1)
            ),
            "each gradient map was averaged first; that is Grad-CAM": equations.grad_cam,
            "the channels are averaged, not added: GM would be in logits divided by K": lambda M, C: (
                (C * M).mean(1).relu()
            ),
            "the sizes are taken, so that cells against the class count for it": lambda M, C: (
                (C * M).sum(1).abs()
            ),
        },
        tried_on=captured(),
    )


def _agreement(layer: str, name: str = "collage-resnet", rectified: bool = True) -> Tensor:
    """Correlation of Grad-CAM and guidance map for the cat at one layer."""
    M, C = captured("cat", name, layer)
    guide = equations.guidance_map(M, C) if rectified else equations.hires_cam(M, C)
    return torch.corrcoef(torch.stack([equations.grad_cam(M, C).flatten(), guide.flatten()]))[0, 1]


@exercise("guidance_map.2", tolerance=0.01)
def at_an_earlier_layer() -> Answers:
    """Correlation of the two maps at ``stage2`` of ``collage-resnet``."""
    return Answers(
        _agreement("stage2"),
        {
            'that is the last layer, where the two coincide; give layer="stage2"': _agreement("stage4"),
            "that is stage3": _agreement("stage3"),
            "that is stage1": _agreement("stage1"),
            "that is collage-vgg": _agreement("stage2", "collage-vgg"),
            "that is HiResCAM, signed; Equation 5 rectifies": _agreement("stage2", rectified=False),
        },
    )


def _shared_out(cells: Tensor) -> Tensor:
    """Sums of a map (h, w) over the cat, the cup and the ground: (3,)."""
    both, parts = cat_and_cup(), []
    for name in both.labels:
        mask = torch.from_numpy(both.mask(name)).float()[None, None]
        parts.append((cells * F.interpolate(mask, cells.shape, mode="area")[0, 0]).sum())
    return torch.stack([*parts, cells.sum() - parts[0] - parts[1]])


@exercise("guidance_map.3")
def shared_out() -> Answers:
    """Logits of the cat's score on the cat, on the cup and on the ground."""
    M, C = captured()
    right = _shared_out(equations.hires_cam(M, C)[0])
    return Answers(
        right,
        {
            "the map is rectified; cells against the cat count as well": _shared_out(
                equations.guidance_map(M, C)[0]
            ),
            "that is Grad-CAM's sum, with one weight per channel": _shared_out(
                equations.class_map(M, equations.channel_weights(C))[0]
            ),
            "these are means over all cells; add the cells up": right / M[0, 0].numel(),
            "that is the cup's score; take the gradient of the cat's": _shared_out(
                equations.hires_cam(*captured("cup"))[0]
            ),
            "the order is cat, cup, ground": right[[1, 0, 2]],
            "these are shares of the sum; the answer is in logits": right / right.sum(),
        },
    )


@exercise("guidance_map.4")
def from_the_biases() -> Answers:
    """What the head's biases contribute to the cat's logit: the logit less all cells."""
    M, C = captured()
    net = network()
    cat = net.class_index("cat")
    with torch.no_grad():
        logit = net.module(net.prepare(cat_and_cup().image))[0, cat]
    cells = equations.hires_cam(M, C)
    return Answers(
        logit - cells.sum(),
        {
            "the map is rectified; the cells add up to the logit only before that": (
                logit - cells.relu().sum()
            ),
            "that is the last layer's bias alone; the hidden layer's pass through its weights as well": (
                net.module.get_submodule("head.3").get_parameter("bias").detach()[cat]
            ),
            "that is what the cells contribute": cells.sum(),
            "that is the whole logit": logit,
        },
    )
