"""Answers to *The global guidance map: one weight per channel, or one per cell?*."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import equations
from gmcam.capture import capture
from gmcam.lab import Scene, effects, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


@cache
def _scene() -> Scene:
    """The chapter's scene."""
    return scene("cat", "cup", seed=15)


def _captured(labels: Sequence[str], drawn: Scene, layer: str = "stage4") -> tuple[Tensor, Tensor]:
    """Feature maps and gradient maps (T, K, h, w) of a scene for several classes."""
    net = network()
    found = capture(net.module, net.prepare(drawn.image), [net.class_index(name) for name in labels], layer)
    return found.maps[layer], found.gradients[layer]


@exercise("guidance_map.1", tolerance=1e-3)
def missed() -> Answers:
    """The share of each guidance map in cells where Grad-CAM is zero; (N, K, h, w) twice → (N,)."""

    def share(maps: Tensor, where: Tensor) -> Tensor:
        return (maps * where).sum((1, 2)) / maps.sum((1, 2))

    def zero(M: Tensor, C: Tensor) -> Tensor:
        return equations.grad_cam(M, C) == 0

    def cells(M: Tensor, C: Tensor) -> Tensor:
        return share((equations.guidance_map(M, C) > 0).double(), zero(M, C))

    def one_number(M: Tensor, C: Tensor) -> Tensor:
        guidance = equations.guidance_map(M, C)
        return ((guidance * zero(M, C)).sum() / guidance.sum()).expand(len(M))

    slips = {
        "this counts cells; add up the guidance map in them": cells,
        "this is the share of all cells in which Grad-CAM is zero": lambda M, C: (
            zero(M, C).double().mean((1, 2))
        ),
        "this is the share where both maps are above zero": lambda M, C: share(
            equations.guidance_map(M, C), ~zero(M, C)
        ),
        "this is the share of Grad-CAM in cells where the guidance map is zero": lambda M, C: share(
            equations.grad_cam(M, C), equations.guidance_map(M, C) == 0
        ),
        "this map still has negative cells; rectify it first": lambda M, C: share(
            equations.hires_cam(M, C), zero(M, C)
        ),
        "this is one value for all images; each needs its own": one_number,
    }
    tried_on = _captured(("cat", "cup"), _scene(), "stage2")
    return Answers(lambda M, C: share(equations.guidance_map(M, C), zero(M, C)), slips, tried_on)


@exercise("guidance_map.2")
def what_differs() -> Answers:
    """Four pairs of maps: only one of them shows what the mean costs."""
    right = {"a network", "b mean", "c none", "d contrast"}
    instead = {
        "a compares two networks, which also differ in depth, resolution and training": ["a mean"],
        "in b the guidance map is no power of Grad-CAM: it highlights other cells": ["b contrast"],
        "in c the gradient is flat, so each cell has the mean gradient already": ["c mean"],
        "in d both maps use the mean; a square changes only the contrast": ["d mean"],
        "average pooling follows the last map in c, and not in b": ["b none", "c mean"],
    }
    slips = {}
    for slip, words in instead.items():
        letters = {word[0] for word in words}
        slips[slip] = {word for word in right if word[0] not in letters} | set(words)
    return Answers(right, slips)


def _sums(cells: Tensor, drawn: Scene) -> Tensor:
    """Sums of a map (h, w) over the cells of each object: (n,)."""
    cover = F.interpolate(torch.from_numpy(drawn.masks).float()[None], cells.shape, mode="area")
    return (cells * cover[0]).sum((1, 2))


@exercise("guidance_map.3")
def sums_and_effects() -> Answers:
    """Logits in the ledger on two objects, and the objects' removal effects."""
    drawn = scene("motorbike", "flower", seed=0)
    first = drawn.labels[0]
    (M, C), (_, others) = (_captured((label,), drawn) for label in drawn.labels)
    found = [effects(network(), drawn, label, first) for label in drawn.labels]
    removal = torch.cat([each.removal for each in found])
    ledger = _sums(equations.hires_cam(M, C)[0], drawn)
    right = torch.cat([ledger, removal])
    slips = {
        "the ledger is rectified here; cells against the class count as well": torch.cat(
            [_sums(equations.guidance_map(M, C)[0], drawn), removal]
        ),
        "these are Grad-CAM's cells, with one weight a map": torch.cat(
            [_sums(equations.class_map(M, equations.channel_weights(C))[0], drawn), removal]
        ),
        "these effects are those of adding the object to the bare background": torch.cat(
            [ledger, *(each.addition for each in found if each.addition is not None)]
        ),
        "this is the ledger of the other class": torch.cat(
            [_sums(equations.hires_cam(M, others)[0], drawn), removal]
        ),
        "the order is cells, cells, effect, effect": right[[0, 2, 1, 3]],
        "the effects come last": right[[2, 3, 0, 1]],
    }
    return Answers(right, slips)


@exercise("guidance_map.4")
def from_the_biases() -> Answers:
    """Logits from the biases of the hidden layer and of the last layer."""
    net, (M, C) = network(), _captured(("cat",), _scene())
    cat, inputs = net.class_index("cat"), net.prepare(_scene().image)
    with torch.no_grad():
        logit = net.module(inputs)[0, cat]
    hidden, out = (net.module.get_submodule(f"head.{n}") for n in (0, 3))
    biases = [layer.get_parameter("bias").detach() for layer in (hidden, out)]
    weights = out.get_parameter("weight").detach()[cat]
    last, rest = biases[1][cat], logit - equations.hires_cam(M, C).sum()
    right = torch.stack([rest - last, last])
    slips = {
        "the hidden layer's biases reach the logit by the weights behind them": torch.stack(
            [biases[0].sum(), last]
        ),
        "some rectifiers are closed: their biases do not count": torch.stack(
            [(biases[0] * weights).sum(), last]
        ),
        "this is the sum of all biases; subtract the last layer's": torch.stack([rest, last]),
        "the hidden layer comes first": right.flip(0),
        "only the bias of the class reaches its logit": torch.stack([right[0], biases[1].sum()]),
        "subtract the cells; the rest comes from the biases": torch.stack([logit - last, last]),
    }
    return Answers(right, slips)
