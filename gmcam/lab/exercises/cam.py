"""Answers to *CAM: the classifier's own weights*."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.capture import capture
from gmcam.lab import Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.postprocess import smooth


@cache
def _motorbike_and_flower() -> Scene:
    return scene("motorbike", "flower", seed=12)


@cache
def _cat_and_cup() -> Scene:
    """The scene at the top of the page."""
    return scene("cat", "cup", seed=15)


@cache
def _maps(layer: str = "stage4") -> Tensor:
    """Feature maps (1, K, h, w) of the chapter's scene on ``collage-resnet``."""
    net = network("collage-resnet")
    inputs = net.prepare(_motorbike_and_flower().image)
    return capture(net.module, inputs, layer=layer, gradients=False).maps[layer]


def _classifier() -> tuple[Tensor, Tensor]:
    """Weights (classes, K) and bias (classes,) of ``collage-resnet``."""
    linear = network("collage-resnet").module.get_submodule("fc")
    return linear.get_parameter("weight").detach(), linear.get_parameter("bias").detach()


def _class_map(label: str = "flower") -> Tensor:
    """The class map (h, w) of one class of the chapter's scene."""
    return equations.class_map(_maps(), _classifier()[0][network("collage-resnet").class_index(label)])[0]


@exercise("cam.1", tolerance=0.002)
def from_the_flower() -> Answers:
    """The part of the flower's logit that comes from the cells on the flower."""
    cells, bias = _class_map(), _classifier()[1][network("collage-resnet").class_index("flower")]
    mask = torch.from_numpy(_motorbike_and_flower().mask("flower")).float()[None, None]
    weight = F.interpolate(mask, cells.shape, mode="area")[0, 0]
    right = (cells * weight).mean()
    slips = {
        "this is the sum over the flower's cells; each cell has weight 1/Z in the logit": (
            cells * weight
        ).sum(),
        "this is the mean over the flower's cells; Z is the number of all cells of the map": (
            (cells * weight).sum() / weight.sum()
        ),
        "the bias belongs to no cell; leave it out": right + bias,
        "this is the contribution of all other cells": (cells * (1 - weight)).mean(),
        "these are the motorbike's weights; use the flower's row": (_class_map("motorbike") * weight).mean(),
        "this map was scaled to [0, 1]; use the raw one, which is in logits": (
            ((cells - cells.min()) / (cells.max() - cells.min()) * weight).mean()
        ),
    }
    return Answers(right, slips)


@exercise("cam.2", tolerance=1e-4)
def divided_maxima() -> Answers:
    """A map whose sum is the logit of a max-pooled head, less its bias: (N, K, h, w), (K,) → (N, h, w)."""

    def weighted(M: Tensor, weights: Tensor) -> Tensor:
        return weights[:, None, None] * M

    def peaks(values: Tensor, axes: tuple[int, ...] = (2, 3)) -> Tensor:
        return values >= values.amax(axes, keepdim=True)

    def max_map(M: Tensor, weights: Tensor) -> Tensor:
        shared = peaks(M) / peaks(M).sum((2, 3), keepdim=True)  # ties share a channel's maximum
        return (weighted(M, weights) * shared).sum(1)

    weights = _classifier()[0][network("collage-resnet").class_index("flower")]
    # Two images; the second is half as strong, and symmetric, so that maxima tie.
    M = torch.cat([_maps(), _maps().maximum(_maps().flip(3)) / 2])
    slips = {
        "this is the class map of average pooling; of each channel only the maximum counts": (
            lambda M, w: weighted(M, w).sum(1)
        ),
        "this is the class map divided by the number of cells, whose sum is the average-pooled logit": (
            lambda M, w: weighted(M, w).sum(1) / M[0, 0].numel()
        ),
        "every cell has the whole score; give a channel's part to the cell of its maximum alone": (
            lambda M, w: weighted(M.amax((2, 3), keepdim=True).expand_as(M), w).sum(1)
        ),
        "this is the maximum over the channels of a cell; pooling takes it over the cells of a channel": (
            lambda M, w: (weighted(M, w) * peaks(M, (1,))).sum(1)
        ),
        "this takes the maximum after weighting, and for a negative weight that is another cell": (
            lambda M, w: (weighted(M, w) * peaks(weighted(M, w))).sum(1)
        ),
        "the map is rectified, but channels of negative weight count as well": (
            lambda M, w: max_map(M, w).relu()
        ),
        "a channel counts once for each of its maxima; divide its part by their number": (
            lambda M, w: (weighted(M, w) * peaks(M)).sum(1)
        ),
        "the weights are missing": lambda M, w: max_map(M, torch.ones_like(w)),
    }
    return Answers(max_map, slips, tried_on=(M, weights))


def suspects() -> dict[str, Tensor]:
    """Four maps (h, w) for the flower, by letter. All shapes fit, but only one is its class map."""
    flower, weights = network("collage-resnet").class_index("flower"), _classifier()[0]
    M, earlier = _maps(), _maps("stage3")
    strongest_first = M[0].mean((1, 2)).argsort(descending=True)
    return {
        "a": equations.class_map(earlier, weights[flower])[0],
        "b": equations.class_map(M[:, strongest_first], weights[flower])[0],
        "c": equations.class_map(M, weights[flower])[0],
        "d": equations.class_map(M, weights[flower + 1])[0],
    }


@exercise("cam.3")
def the_class_map() -> Answers:
    """The one of the four ``suspects`` that is the class map, identified by mean + bias = logit."""
    flower, (weights, bias) = network("collage-resnet").class_index("flower"), _classifier()
    logit = F.linear(_maps().mean((2, 3)), weights, bias)[0, flower]
    misses = {letter: abs(float(m.mean() + bias[flower] - logit)) for letter, m in suspects().items()}
    slips = {
        "a applies the right weights to the wrong layer: stage3 has 128 channels too, but the weights "
        "belong to stage4. The map looks convincing, but mean + bias is not the logit": "a",
        "in b the maps are sorted by strength but the weights are not, so each weight multiplies another "
        "channel's map; mean + bias is not the logit": "b",
        "d uses the next class's row: its mean + bias is the pagoda's logit, not the flower's": "d",
    }
    return Answers(min(misses, key=lambda letter: misses[letter]), slips)


@exercise("cam.4", tolerance=0.002)
def where_the_shapes_fit() -> Answers:
    """mean + bias − logit for the cup, from ``collage-vgg``'s last weights on ``stage3``'s 96 maps."""
    net = network()
    result = capture(net.module, net.prepare(_cat_and_cup().image), layer="stage3", gradients=False)
    last = net.module.get_submodule("head.3")
    weights, bias = last.get_parameter("weight").detach(), last.get_parameter("bias").detach()
    cat, cup = net.class_index("cat"), net.class_index("cup")
    maps = equations.class_map(result.maps["stage3"].expand(2, -1, -1, -1), weights[[cat, cup]])
    sums = maps.mean((1, 2)) + bias[[cat, cup]]  # mean + bias
    logits = result.logits[0, [cat, cup]]
    slips = {
        "this is mean + bias; subtract the logit": sums[1],
        "this is the logit; subtract it from mean + bias": logits[1],
        "the cells are added up; the identity uses their mean": maps[1].sum() + bias[cup] - logits[1],
        "this is the cat's difference; take the cup's": sums[0] - logits[0],
        "this compares the cat's map with the cup's logit": sums[0] - logits[1],
    }
    return Answers(sums[1] - logits[1], slips)


@exercise("cam.5")
def where_zero_lands() -> Answers:
    """The value to which min–max scaling maps zero in the flower's class map."""

    def zero(cells: Tensor) -> Tensor:
        return -cells.min() / (cells.max() - cells.min())

    cells = _class_map()
    slips = {
        "the smallest value becomes 0, and it is negative": 0.0,
        "this holds only if the map reaches as far below zero as above": 0.5,
        "divide by the whole range, max − min, not by the maximum": -cells.min() / cells.max(),
        "this is the motorbike's map; use the flower's": zero(_class_map("motorbike")),
        "this is the smoothed map; use the raw one": zero(smooth(cells[None])[0]),
        "this is the share of cells below zero, not a value on the scale": (cells < 0).float().mean(),
    }
    return Answers(zero(cells), slips)
