"""Answers to *What would have happened without the cup?*"""

from typing import cast

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab import dual_class_scenes, effect_map
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.metrics import fidelity, inside_error
from gmcam.preprocessing import Preprocessing

POWERS = (0.25, 0.5, 1, 2, 4)


@exercise("without_the_cup.1", tolerance=0.01)
def two_cats() -> Answers:
    """The removal effect of one of two cats of which each suffices, that of both, and a Shapley value."""
    both, one, none = 4.0, 4.0, 0.0
    removal, addition = both - one, one - none
    together, shapley = both - none, (removal + addition) / 2
    slips = {
        "this is the addition effect; removal starts from the image with both cats": [
            addition,
            together,
            shapley,
        ],
        "the removals of the two cats do not add up to the effect of removing both": [
            removal,
            2 * removal,
            shapley,
        ],
        "the Shapley value is the mean of removal and addition, not the removal": [
            removal,
            together,
            removal,
        ],
        "the Shapley value is the mean of removal and addition, not their sum": [
            removal,
            together,
            removal + addition,
        ],
        "an effect is the logit with the cats minus the logit without them": [removal, -together, -shapley],
    }
    return Answers([removal, together, shapley], slips)


def pooled_effect(M: Tensor, M_without: Tensor, W: Tensor, b: Tensor, target: int) -> Tensor:
    """The effect map (h, w) before average pooling and a linear layer: it adds up to the removal effect."""
    return torch.einsum("k,khw->hw", W[target], M - M_without) / M[0].numel()


def _pooled_layer() -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Four signed maps with and without an object, a linear layer for three classes, and a class."""
    generator = torch.Generator().manual_seed(0)
    with_object, without = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return with_object, without, weights[:, :4], weights[:, 4], 1


@exercise("without_the_cup.2", tolerance=1e-4)
def exact_effect_map() -> Answers:
    """CAM with the object minus CAM without it, divided by the number of cells."""

    def rectified(M: Tensor, M0: Tensor, W: Tensor, b: Tensor, target: int) -> Tensor:
        cams = [torch.einsum("k,khw->hw", W[target], maps).relu() for maps in (M, M0)]
        return (cams[0] - cams[1]) / M[0].numel()

    slips = {
        "the logit averages the cells: divide by their number": lambda M, M0, W, b, target: (
            pooled_effect(M, M0, W, b, target) * M[0].numel()
        ),
        "the bias is in both logits, so it is no part of their difference": lambda M, M0, W, b, target: (
            pooled_effect(M, M0, W, b, target) + b[target] / M[0].numel()
        ),
        "subtract before you rectify, or not at all: an effect has a sign": rectified,
        "the effect has a sign: do not rectify it": lambda M, M0, W, b, target: pooled_effect(
            M, M0, W, b, target
        ).relu(),
        "these are the weights of another class": lambda M, M0, W, b, target: pooled_effect(
            M, M0, W, b, target - 1
        ),
        "this is without minus with: an effect is with minus without": lambda M, M0, W, b, target: (
            pooled_effect(M0, M, W, b, target)
        ),
        "this is the CAM with the object; subtract the CAM without it": lambda M, M0, W, b, target: (
            pooled_effect(M, torch.zeros_like(M), W, b, target)
        ),
    }
    return Answers(pooled_effect, slips, tried_on=_pooled_layer())


def balanced(estimates: Tensor, effects: Tensor) -> Tensor:
    """The mean of two hit rates: of the sign of the positive effects, and of that of the negative ones."""
    hits = [(estimates[sign * effects > 0] * sign > 0).double().mean() for sign in (1, -1)]
    return torch.stack(hits).mean()


def _estimates_and_effects() -> tuple[Tensor, Tensor]:
    """Effects of which nine are negative, three positive and two zero, and estimates that are often right."""
    effects = [-1.9, -0.4, -2.2, -0.1, -1.1, -0.6, -1.4, -0.3, -0.8, 0.5, 0.2, 1.3, 0.0, 0.0]
    estimates = [-1.0, 0.2, -1.7, -0.5, -0.9, -0.2, -1.0, 0.4, -1.0, 0.3, -0.6, -0.2, -0.4, 0.1]
    return torch.tensor(estimates).double(), torch.tensor(effects).double()


@exercise("without_the_cup.3", tolerance=0.002)
def sign_agreement() -> Answers:
    """A sign agreement in which "always against" has one half."""

    def hits(estimates: Tensor, effects: Tensor) -> Tensor:
        return (estimates * effects > 0).double()

    def by_size(estimates: Tensor, effects: Tensor) -> Tensor:
        parts = [effects.clamp(min=0), (-effects).clamp(min=0)]
        return torch.stack([(hits(estimates, effects) * p).sum() / p.sum() for p in parts]).mean()

    def zeros_are_hits(estimates: Tensor, effects: Tensor) -> Tensor:
        rates = [(estimates[effects > 0] > 0), (estimates[effects <= 0] <= 0)]
        return torch.stack([rate.double().mean() for rate in rates]).mean()

    slips = {
        "this is the plain share of hits, which “always against” wins where most effects are negative": (
            lambda estimates, effects: hits(estimates, effects)[effects != 0].mean()
        ),
        "this counts effects of zero as misses, and the two signs do not weigh the same": (
            lambda estimates, effects: hits(estimates, effects).mean()
        ),
        "an effect of zero has no sign: leave it out": zeros_are_hits,
        "this weighs hits by the size of the effect; count them": by_size,
        "divide by the number of effects of each sign, not of estimates": (
            lambda estimates, effects: balanced(effects, estimates)
        ),
    }
    return Answers(balanced, slips, tried_on=_estimates_and_effects())


@exercise("without_the_cup.4")
def which_power() -> Answers:
    """The powers of Grad-CAM with the highest r with the effect map, and with the largest share inside."""
    resnet = network("collage-resnet")
    place_mask = cast(Preprocessing, resnet.preprocess).place_mask
    fidelities, errors = [], []
    for scene in dual_class_scenes(56, step=7):
        target = scene.labels[0]
        effect = effect_map(resnet, scene, target, target, steps=1)[None]  # exact here
        raw = explain(resnet, scene.image, target, method="grad_cam").raw
        mask = place_mask(scene.masks[0])[None]
        fidelities.append([fidelity(raw**power, effect)[0] for power in POWERS])
        errors.append([inside_error(raw**power, effect, mask)[0] for power in POWERS])
    r, inside = torch.tensor(fidelities).mean(0), torch.tensor(errors).mean(0)
    nearest, sharpest = POWERS[int(r.argmax())], POWERS[int(inside.argmax())]
    slips = {
        "the square is GMCAM here: its share inside is larger, but it is further from the effect": [2, 4],
        "the largest share inside is not the highest r: the effect itself spreads beyond its object": [4, 4],
        "a root keeps the order of the cells, but r compares amounts": [0.5, 4],
        "the share inside keeps rising beyond the square": [1, 2],
        "the share inside rises with every power; the effect's own share does not": [1, 1],
    }
    return Answers([nearest, sharpest], slips)


@exercise("without_the_cup.5")
def referee() -> Answers:
    """The points of a referee's paragraph on a correlation with its interval over scenes."""
    right = {"base rate", "identities", "rivals"}
    slips = {
        "the paragraph must name the base rate: “always against” needs no map": right - {"base rate"},
        "the paragraph must name the unit: the scenes reuse eight objects": right - {"identities"},
        "the paragraph must name the rival: the same layer’s ledger": right - {"rivals"},
        "more scenes of the same eight objects narrow the wrong interval": right | {"more scenes"},
        "smoothing changes the drawing, not what a signed sum is worth": right | {"smoothing"},
        "a threshold discards the amounts that the correlation needs": right | {"threshold"},
    }
    return Answers(right, slips)
