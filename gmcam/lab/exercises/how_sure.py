"""Answers to *How sure is a number?*, and the chapter's measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gmcam import Network
from gmcam._extras import require
from gmcam.datasets import Record, Truth
from gmcam.evaluate import Choices, bootstrap_means, holm, interval
from gmcam.evaluate.measuring import Case, cases_of, measure
from gmcam.lab import Scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.metrics import dice, drop, increase, iou, points_inside, share_inside, zones

if TYPE_CHECKING:
    from pandas import DataFrame

ARTICLE = ["grad_cam", "grad_cam_pp", "x_grad_cam", "cameras", "full_grad", "smooth_full_grad"]
ARTICLE += ["integrated_grad_cam", "score_cam", "relevance_cam", "gmcam"]

_DRAWN = {"cat": 1, "cup": 1, "coin": 0, "person": 2}
_SCENES = (("cat", "cup", 0.0), ("cat", "person", 1.0), ("cup", "coin", -1.0), ("person", "cup", 0.5))
_P = np.array([0.2, 0.024, 0.004, 0.02, 0.011])


def measured(network: Network, scenes: Sequence[Scene], methods: Sequence[str]) -> DataFrame:
    """Records of every object of the scenes, as of ``evaluate``: localisation and Dice at all thresholds."""
    choices, rows = Choices(tuple(methods), zone=None, steps=0), []
    for scene in scenes:
        rows += measure(network, _cases(network, scene), choices)
    return require("pandas", "evaluate").DataFrame(rows)


def marks(values: np.ndarray, weights: np.ndarray, units: int) -> list[int]:
    """How many columns of differences (n, columns) are marked: by an interval without zero, and by p < 0.05
    after Holm's adjustment, as in ``differences``. ``weights`` (1 + replicates, n): ``bootstrap_weights``.
    ``units``: what was drawn."""
    means = bootstrap_means(weights, values)
    low, high = interval(means)
    ratios = np.abs(means[0]) / (means[1:].std(0) + 1e-12)  # 0 where no row differs
    p = 2 * require("scipy.stats", "evaluate").t.sf(ratios, units - 1)
    return [int(((low > 0) | (high < 0)).sum()), int((holm(p) < 0.05).sum())]


def agreement(records: DataFrame, metric: str, methods: Sequence[str], halves: Sequence[np.ndarray]) -> float:
    """Median rank correlation of the methods' mean values between two halves of the pairs of image and class.
    ``halves``: for each division, whether a pair, in the order of image and label, is in the first half."""
    table = records.pivot(index=["image", "label"], columns="method", values=metric)[list(methods)]
    means = [(table[half].astype(float).mean(), table[~half].astype(float).mean()) for half in halves]
    return float(np.median([first.corr(second, method="spearman") for first, second in means]))


def known_maps(network: Network, scenes: Sequence[Scene]) -> DataFrame:
    """Mean metrics, one per row, of maps of which everything is known: the object's mask, and an empty, a
    uniform and a random map. NaN where undefined. ``within_1``: the pointing game with a tolerance
    of one pixel."""
    cases = [case for scene in scenes for case in _cases(network, scene)]
    inputs, masks = torch.stack([c.inputs for c in cases]), torch.stack([c.mask for c in cases])
    others, boxes = torch.stack([c.others for c in cases]), torch.stack([c.boxes for c in cases])
    targets = torch.tensor([case.indices for case in cases])

    def probability(images: Tensor) -> Tensor:
        parts = [network.probabilities(images[start : start + 8]) for start in range(0, len(images), 8)]
        return torch.cat(parts).gather(1, targets)[:, 0]

    before, means = probability(inputs), {}
    random = torch.rand(masks.shape, generator=torch.Generator().manual_seed(0))
    maps = {"mask": masks.float(), "empty": torch.zeros(masks.shape), "uniform": torch.ones(masks.shape)}
    for name, each in (maps | {"random": random}).items():
        values = {"pointing": points_inside(each, boxes), "within_1": points_inside(each, boxes, tolerance=1)}
        values |= {"dice": dice(each, masks), "iou": iou(each, masks)}
        values |= {"inside": share_inside(each, masks), "trace": share_inside(each, others)}
        for zone, images in zip(("salience", "context"), zones(inputs, each), strict=True):
            after = probability(images)
            values |= {f"{zone}_drop": drop(before, after), f"{zone}_increase": increase(before, after)}
        means[name] = {metric: float(value.float().nanmean()) for metric, value in values.items()}
    return require("pandas", "evaluate").DataFrame(means)


def _cases(network: Network, scene: Scene) -> list[Case]:
    objects = zip(scene.labels, scene.masks, scene.boxes.tolist(), strict=True)
    truths = tuple(Truth.of(label, mask, [(box, False)]) for label, mask, box in objects)
    record = Record("-".join([*scene.labels, str(scene.seed)]), scene.image, truths)
    groups = {label: (network.class_index(label),) for label in scene.labels}
    return cases_of(record, network.preprocess, groups)  # type: ignore[arg-type]


@exercise("how_sure.1", tolerance=0.01)
def crossed_weights() -> Answers:
    """The mean of one replicate, in which each scene weighs the product of its objects' draws."""
    draws = np.array([[_DRAWN[first], _DRAWN[second]] for first, second, _ in _SCENES])
    gaps = np.array([gap for _, _, gap in _SCENES])
    weights = draws.prod(1)
    slips = {
        "you added the two draws; a scene weighs their product": np.average(gaps, weights=draws.sum(1)),
        "you weighed by the first object alone; the second is drawn as well": np.average(
            gaps, weights=draws[:, 0]
        ),
        "you divided by the number of scenes; divide by the sum of their weights": weights @ gaps / 4,
        "this is the mean without weights": gaps.mean(),
        "you counted each scene once; two of them weigh 2": gaps[weights > 0].mean(),
    }
    return Answers(np.average(gaps, weights=weights), slips)


@exercise("how_sure.2", tolerance=0.005)
def holm_by_hand() -> Answers:
    """Five p-values adjusted, in the order in which they are given."""
    order = np.argsort(_P)
    rank = np.argsort(order)  # 0 for the smallest
    slips = {
        "this is Bonferroni's method, which multiplies all by 5; Holm's multiplies the next by 4": np.minimum(
            5 * _P, 1
        ),
        "keep the running maximum: no adjusted value is below that of a smaller p": _P * (5 - rank),
        "this divides by the rank, as Benjamini and Hochberg do for the share of false marks": 5
        * _P
        / (rank + 1),
        "these are the right values in ascending order; give them in the order of the table": holm(_P)[order],
        "these are the values as given; multiply the smallest by 5, the next by 4": _P,
    }
    return Answers(holm(_P), slips)


@exercise("how_sure.3")
def units() -> Answers:
    """What varies in the population of which each of four sentences speaks."""
    right = {"a nothing", "b scenes", "c objects", "d networks"}

    def instead(wrong: str) -> set[str]:
        return {wrong if wrong[0] == each[0] else each for each in right}

    slips = {
        "sentence a is about these 56 scenes, and all of them were measured": instead("a scenes"),
        "sentence b keeps the eight objects; only the scenes are new": instead("b objects"),
        "sentence c names no object; another test would have others": instead("c scenes"),
        "sentence d is about networks, and we measured one: no interval covers it": instead("d objects"),
        "sentence d is about networks, and no number of scenes shows how these differ": instead("d scenes"),
    }
    return Answers(right, slips)


@exercise("how_sure.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a claim from Dice at one half."""
    right = {"b", "c", "e"}
    slips = {
        "a is no objection: a paired interval is the right one, even if the methods' own overlap": right
        | {"a"},
        "more scenes of the same eight objects leave the interval over objects as wide": right | {"d"},
        "the interval draws scenes, and the claim is about objects: e is missing": right - {"e"},
        "a threshold of one half measures how sharp a map is: b is missing": right - {"b"},
        "a map that ignores the network scores higher than the loser: c is missing": right - {"c"},
    }
    return Answers(right, slips)
