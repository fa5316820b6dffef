"""Answers to *CAM: the classifier's own weights*."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.capture import capture
from gmcam.lab import Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.postprocess import smooth


@cache
def _motorbike_and_flower() -> Scene:
    return scene("motorbike", "flower", seed=12)


@cache
def _maps(layer: str = "stage4") -> Tensor:
    """Feature maps (1, K, h, w) of the chapter's scene on ``collage-resnet``."""
    net = network("collage-resnet")
    inputs = net.prepare(_motorbike_and_flower().image)
    return capture(net.module, inputs, layers=[layer], gradients=False).maps[layer]


def _classifier() -> tuple[Tensor, Tensor]:
    """Weights (classes, K) and bias (classes,) of ``collage-resnet``."""
    linear = network("collage-resnet").module.get_submodule("fc")
    return linear.get_parameter("weight").detach(), linear.get_parameter("bias").detach()


def _class_map(label: str = "flower") -> Tensor:
    """The class map (h, w) of one class of the chapter's scene."""
    return equations.class_map(_maps(), _classifier()[0][network("collage-resnet").class_index(label)])[0]


@exercise("cam.1", tolerance=0.002)
def from_the_flower() -> Answers:
    """How many logits of the flower's score come from the cells on the flower."""
    cells, bias = _class_map(), _classifier()[1][network("collage-resnet").class_index("flower")]
    mask = torch.from_numpy(_motorbike_and_flower().mask("flower")).float()[None, None]
    weight = F.interpolate(mask, cells.shape, mode="area")[0, 0]
    right = (cells * weight).mean()
    return Answers(
        right,
        {
            "that is the sum over the flower's cells; each cell enters the logit with 1/Z": (
                cells * weight
            ).sum(),
            "that is the mean over the flower's cells alone; Z counts all cells of the map": (
                (cells * weight).sum() / weight.sum()
            ),
            "the bias lies on no cell; leave it out": right + bias,
            "that is what comes from all the other cells": (cells * (1 - weight)).mean(),
            "these are the motorbike's weights; take the flower's row": (
                (_class_map("motorbike") * weight).mean()
            ),
            "that is a mean over the pixels of a map that was scaled to [0, 1]; logits need the raw one": (
                ((cells - cells.min()) / (cells.max() - cells.min()) * weight).mean()
            ),
        },
    )


@exercise("cam.2", tolerance=1e-4)
def logits_from_maps() -> Answers:
    """Class maps first, logits from them: (N, K, h, w), (classes, K), (classes,) → (N, classes)."""

    def class_maps(M: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("ck,nkhw->nchw", weights, M)

    weights, bias = _classifier()
    # Two pictures, the second one the first on its head and half as strong.
    M = torch.cat([_maps(), _maps().flip(2) / 2])
    return Answers(
        lambda M, w, b: class_maps(M, w).mean((2, 3)) + b,
        {
            "the bias is missing: mean + bias is the logit": lambda M, w, b: class_maps(M, w).mean((2, 3)),
            "the cells are summed; the pooling takes their mean": lambda M, w, b: (
                class_maps(M, w).sum((2, 3)) + b
            ),
            "the bias enters once per class, not once per cell": lambda M, w, b: (
                class_maps(M, w).mean((2, 3)) + b * M[0, 0].numel()
            ),
            "the maps are rectified; cells that speak against a class count as well": lambda M, w, b: (
                class_maps(M, w).relu().mean((2, 3)) + b
            ),
            "that is each map's brightest cell; this network's pooling takes the mean": lambda M, w, b: (
                class_maps(M, w).amax((2, 3)) + b
            ),
            "that is softmax of the logits; the logits come before it": lambda M, w, b: (
                class_maps(M, w).mean((2, 3)) + b
            ).softmax(1),
        },
        tried_on=(M, weights, bias),
    )


def suspects() -> dict[str, Tensor]:
    """Four maps (h, w) for the flower, by letter. The shapes fitted in all of them; one is its class map."""
    net = network("collage-resnet")
    flower = net.class_index("flower")
    weights = _classifier()[0]
    M, earlier = _maps(), _maps("stage3")
    strongest_first = M[0].mean((1, 2)).argsort(descending=True)
    made = {
        "a": equations.class_map(earlier, weights[flower]),
        "b": equations.class_map(M[:, strongest_first], weights[flower]),
        "c": equations.class_map(M, weights[flower]),
        "d": equations.class_map(M, weights[flower + 1]),
    }
    return {letter: cells[0] for letter, cells in made.items()}


@exercise("cam.3")
def the_class_map() -> Answers:
    """Which of the four ``suspects`` is the class map; found by mean + bias = logit."""
    net = network("collage-resnet")
    flower, (weights, bias) = net.class_index("flower"), _classifier()
    logit = F.linear(_maps().mean((2, 3)), weights, bias)[0, flower]
    misses = {letter: abs(float(m.mean() + bias[flower] - logit)) for letter, m in suspects().items()}
    return Answers(
        min(misses, key=lambda letter: misses[letter]),
        {
            "a has the right weights on the wrong layer's maps: stage3 has 128 channels too, but the weights "
            "belong to stage4's. It looks no worse than the right one, but mean + bias is not the logit": "a",
            "in b the maps are sorted by strength and the weights are not, so that each weight meets another "
            "channel's map; mean + bias is not the logit": "b",
            "d has the next class's row: its mean and bias make the pagoda's logit, not the flower's": "d",
        },
    )


@exercise("cam.4", tolerance=0.002)
def where_the_shapes_fit() -> Answers:
    """mean + bias − logit for the cup, from ``collage-vgg``'s last weights on ``stage3``'s 96 maps."""
    net = network()
    found = capture(net.module, net.prepare(cat_and_cup().image), layers=["stage3"], gradients=False)
    last = net.module.get_submodule("head.3")
    weights, bias = last.get_parameter("weight").detach(), last.get_parameter("bias").detach()
    cat, cup = net.class_index("cat"), net.class_index("cup")
    maps = equations.class_map(found.maps["stage3"].expand(2, -1, -1, -1), weights[[cat, cup]])
    promised = maps.mean((1, 2)) + bias[[cat, cup]]
    logits = found.logits[0, [cat, cup]]
    return Answers(
        promised[1] - logits[1],
        {
            "that is mean + bias alone; subtract the logit": promised[1],
            "that is the logit alone": logits[1],
            "the cells are summed; the identity has their mean": maps[1].sum() + bias[cup] - logits[1],
            "that is the cat's": promised[0] - logits[0],
            "that is the cat's map against the cup's logit": promised[0] - logits[1],
        },
    )


@exercise("cam.5")
def where_zero_lands() -> Answers:
    """The value that min–max scaling gives to a cell of zero in the flower's class map."""

    def zero(cells: Tensor) -> Tensor:
        return -cells.min() / (cells.max() - cells.min())

    cells = _class_map()
    return Answers(
        zero(cells),
        {
            "the smallest value is scaled to 0, and it is negative": 0.0,
            "that holds only where the map reaches as far below zero as above": 0.5,
            "divide by the whole range, max − min, not by the maximum": -cells.min() / cells.max(),
            "that is the motorbike's map; take the flower's": zero(_class_map("motorbike")),
            "that is the smoothed map; take the raw one": zero(smooth(cells[None])[0]),
            "that is the share of the cells below zero, not a value of the scale": (cells < 0).float().mean(),
        },
    )
