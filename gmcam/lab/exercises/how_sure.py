"""Answers to *How sure is a number?*, and the chapter's measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise, permutations, product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gmcam import Network
from gmcam._extras import require
from gmcam.datasets import Record, Truth
from gmcam.evaluate import (
    Choices,
    bootstrap_means,
    bootstrap_weights,
    differences,
    draws,
    holm,
    interval,
    recognised,
    summary,
)
from gmcam.evaluate.measuring import Case, cases_of, measure
from gmcam.lab import CLASSES, Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.pictures import Dot
from gmcam.metrics import (
    METRICS,
    curves,
    dice,
    drop,
    effect_map,
    fidelity,
    increase,
    inside_error,
    iou,
    points_inside,
    share_inside,
    zones,
)

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ARTICLE = ["grad_cam", "grad_cam_pp", "x_grad_cam", "cameras", "full_grad", "smooth_full_grad"]
ARTICLE += ["integrated_grad_cam", "score_cam", "relevance_cam", "gmcam"]
UNITS = {"over images": None, "over objects": "label"}  # → the column whose values are drawn


def measured(network: Network, scenes: Sequence[Scene], methods: Sequence[str]) -> DataFrame:
    """Records of every object of the scenes, as of ``evaluate``: localisation and Dice at all thresholds."""
    choices, rows = Choices(tuple(methods), zone=None, steps=0), []
    for each in scenes:
        rows += measure(network, _cases(network, each), choices)
    return require("pandas", "evaluate").DataFrame(rows)


def more_scenes(network: Network, records: DataFrame, counts: Sequence[int] = (28, 56, 112)) -> DataFrame:
    """XGrad-CAM minus Grad-CAM in the pointing game, with more and more scenes of the same eight objects:
    rows of ``differences`` with their ``unit``, "over images" or "over objects", and number of ``scenes``.
    ``records``: of the first 56 scenes; as many are drawn and explained here."""
    methods, pandas = ["grad_cam", "x_grad_cam"], require("pandas", "evaluate")
    drawn = [scene(*pair, seed=56 + i) for i, pair in enumerate(permutations(CLASSES, 2))]
    both = [records[records["method"].isin(methods)], measured(network, drawn, methods)]
    columns = ["image", "label", "method", "pointing"]
    rows = pandas.concat([part[columns] for part in both], ignore_index=True).astype({"pointing": float})
    names = sorted(rows["image"].unique(), key=lambda image: int(image.split("-")[-1]))
    parts = []
    for count in counts:  # each ordered pair of objects as often, or of every second pair one
        part = rows[rows["image"].isin(names[:56:2] if count == 28 else names[:count])]
        for unit, clusters in UNITS.items():
            found = differences(part, "grad_cam", metrics=["pointing"], clusters=clusters)
            parts.append(found.assign(unit=unit, scenes=count))
    return pandas.concat(parts, ignore_index=True)


def leads(records: DataFrame, claims: Mapping[str, str]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """The difference from Grad-CAM and its interval, by metric and unit. ``claims``: metric → method."""
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for unit, clusters in UNITS.items():
        rows = differences(records, "grad_cam", metrics=claims, clusters=clusters)
        rows = rows.set_index(["metric", "method"])[["value", "low", "high"]]
        found |= {(metric, unit): tuple(rows.loc[metric, method]) for metric, method in claims.items()}
    return found


def counted_marks(records: DataFrame, methods: Sequence[str], reference: str = "gmcam") -> DataFrame:
    """How many differences from ``reference``, of all methods in the article's seven metrics, are marked: "in
    the run", and "by chance", the mean over all ways to give each object's differences a sign, in all columns
    at once. Rows: over images and over objects, without and with Holm's adjustment (see ``marks``)."""
    others, seven = [name for name in methods if name != reference], list(METRICS)[:7]
    wide = records.pivot(index=["image", "label"], columns="method", values=seven)
    parts = [wide[metric][others].sub(wide[metric][reference], axis=0) for metric in seven]
    values = np.hstack([part.to_numpy(float) for part in parts])
    images, labels = (wide.index.get_level_values(name) for name in ("image", "label"))
    objects, codes = np.unique(labels, return_inverse=True)
    signs = np.array(list(product([1, -1], repeat=len(objects))))[: 2 ** (len(objects) - 1)]  # and reversed
    counts = []
    for clusters, units in ((None, images.nunique()), ([i.split("-")[:2] for i in images], len(objects))):
        weights = bootstrap_weights(images, clusters)
        by_chance = [marks(values * sign[codes, None], weights, units) for sign in signs]
        counts += list(zip(marks(values, weights, units), np.mean(by_chance, 0), strict=True))
    rows = [unit + end for unit in UNITS for end in ("", ", Holm")]
    frame = require("pandas", "evaluate").DataFrame(counts, rows, ["in the run", "by chance"])
    return frame.assign(comparisons=values.shape[1])


def signed(value: float, *ends: float) -> str:
    """A difference, with the ends of its interval: "+0.09 [−0.07, +0.32]"."""
    numbers = [f"{round(number, 2) + 0.0:+.2f}" for number in (value, *ends)]  # no −0.00
    text = numbers[0] + (f" [{', '.join(numbers[1:])}]" if ends else "")
    return text.replace("-", "\N{MINUS SIGN}")


def lead_numbers(
    gaps: Mapping[str, Series], ends: Mapping[tuple[str, str], tuple[float, float, float]]
) -> dict[str, str]:
    """The numbers that the chapter names: of the leads (``gaps``, by image and label) and their ``leads``."""
    pointing, inside = (gaps[metric] for metric in ("pointing", "inside"))
    means = pointing.groupby("label").mean().sort_values()
    shows_person = pointing.index.get_level_values("image").str.contains("person")
    absent = draws(means.index)["person"][1:] == 0
    numbers = {unit.replace(" ", "_"): signed(*ends["pointing", unit]).split(" ", 1)[1] for unit in UNITS}
    return numbers | {
        "lead": signed(pointing.mean()),
        "least": signed(means.iloc[0]),
        "most": signed(means.iloc[-2]),
        "person": signed(means.iloc[-1]),
        "without_person": signed(pointing[~shows_person].mean()),
        "nobody": f"{100 * absent.mean():.0f} %",
        "inside_objects": signed(*ends["inside", "over objects"]),
        "gaining": str(int((inside.groupby("label").mean() > 0).sum())),
    }


def recognised_numbers(photographs: DataFrame, scenes: DataFrame) -> dict[str, str]:
    """GMCAM's lead over Grad-CAM in the drop of the salience zone on ``all`` photographs and on those that
    are ``known``, and XGrad-CAM's in the pointing game on scenes that are ``seen``, with at least 0.2."""
    seen = scenes[scenes["probability"] >= 0.2]
    compared = {
        "all": (photographs, "salience_drop", "gmcam"),
        "known": (recognised(photographs), "salience_drop", "gmcam"),
        "seen": (seen, "pointing", "x_grad_cam"),
    }
    numbers: dict[str, str] = {}
    for name, (records, metric, method) in compared.items():
        row = differences(records, "grad_cam", metrics=[metric]).set_index("method").loc[method]
        numbers |= {
            f"lead_{name}": signed(*row[["value", "low", "high"]]),
            f"pairs_{name}": str(row["count"]),
        }
    methods = scenes["method"].nunique()
    numbers["persons_seen"] = str((seen["label"] == "person").sum() // methods)
    return numbers | {"pairs_recognised": str(len(recognised(scenes)) // methods)}


def marks(values: np.ndarray, weights: np.ndarray, units: int) -> list[int]:
    """How many columns of differences (n, columns) are marked: by an interval without zero, and by p < 0.05
    after Holm's adjustment, as in ``differences``. ``weights`` (1 + replicates, n): ``bootstrap_weights``.
    ``units``: what was drawn."""
    means = bootstrap_means(weights, values)
    low, high = interval(means)
    ratios = np.abs(means[0]) / (np.nanstd(means[1:], 0) + 1e-12)  # 0 where no row differs
    p = 2 * require("scipy.stats", "evaluate").t.sf(ratios, units - 1)
    return [int(((low > 0) | (high < 0)).sum()), int((holm(p) < 0.05).sum())]


def agreement(
    records: DataFrame, metric: str, methods: Sequence[str], halves: Sequence[np.ndarray]
) -> list[float]:
    """Spearman's rank correlation of the methods' mean values between two halves of the pairs of image and
    class, one for each division. ``halves``: for each division, whether a pair, in the order of image and
    label, is in the first half."""
    table = records.pivot(index=["image", "label"], columns="method", values=metric)[list(methods)]
    means = [(table[half].astype(float).mean(), table[~half].astype(float).mean()) for half in halves]
    return [float(first.corr(second, method="spearman")) for first, second in means]


def reliability(
    records: DataFrame, metrics: Sequence[str], methods: Sequence[str]
) -> dict[str, dict[str, Dot]]:
    """For each metric, the median ``agreement`` of two halves of the run's "scenes", drawn 35 times, and of
    its eight "objects", in all 35 divisions; with the middle 95 % and every value."""
    pairs = records.pivot(index=["image", "label"], columns="method", values="probability").index
    images, labels = (pairs.get_level_values(name) for name in ("image", "label"))
    generator, names, objects = np.random.default_rng(0), images.unique(), sorted(labels.unique())
    scenes = [images.isin(generator.permutation(names)[: len(names) // 2]) for _ in range(35)]
    firsts = [half for half in combinations(objects, len(objects) // 2) if objects[0] in half]
    rows: dict[str, dict[str, Dot]] = {}
    for unit, halves in (("scenes", scenes), ("objects", [labels.isin(half) for half in firsts])):
        for metric in metrics:
            each = agreement(records, metric, methods, halves)
            low, median, high = np.nanpercentile(each, [2.5, 50, 97.5])  # NaN: no method leads
            rows.setdefault(unit, {})[metric] = (median, low, high, each)
    return rows


def by_probability(records: DataFrame, metric: str, edges: Sequence[float]) -> dict[str, Dot]:
    """Grad-CAM's mean of a share, in per cent, with its interval over classes and all methods' means, where
    the class's probability is below the first edge, between the edges, and from the last one on. The names
    end with the number of pairs of image and class."""
    bounds, rows = [0.0, *edges, 2.0], {}
    for low, high in pairwise(bounds):
        part = records[(records["probability"] >= low) & (records["probability"] < high)]
        means = summary(part, metrics=[metric]).set_index("method")
        row = means.loc["grad_cam"]
        name = (
            f"{low:g} to {high:g}" if low and high < 2 else f"below {high:g}" if high < 2 else f"from {low:g}"
        )
        value, *ends = (100 * float(row[column]) for column in ("value", "low", "high"))
        rows[f"{name} ({row['count']:.0f})"] = (value, *ends, 100 * means["value"].to_numpy())
    return rows


def bare(values: Series) -> dict[str, Dot]:
    """Rows of ``gmcam.lab.dots`` without intervals."""
    return {str(name): (value, value, value, ()) for name, value in values.items()}


def coverage(objects: int, rare: bool, studies: int = 1000) -> dict[str, Dot]:
    """In how many per cent of simulated studies the 95 % interval, "over images" or "over objects", contains
    the true mean difference of two methods; with the simulation's own error. Each study draws ``objects`` new
    objects, which have to divide 56, and makes 56 scenes of two of them, both explained. A difference depends
    on the explained object and on chance: normal, with standard deviations of 0.07 and 0.11; or, if ``rare``,
    one object in eight gains a hit in four of five pairs, and all others none."""
    shifts = range(1, 56 // objects + 1)
    pairs = [(a, (a + shift) % objects) for shift in shifts for a in range(objects)]
    targets, generator = np.ravel(pairs), np.random.default_rng(0)
    if rare:
        means = 0.8 * (generator.random((studies, objects)) < 1 / 8)
        values = (generator.random((studies, len(targets))) < means[:, targets]).astype(float)
    else:
        means = generator.normal(0, 0.07, (studies, objects))
        values = means[:, targets] + generator.normal(0, 0.11, (studies, len(targets)))
    truth = 0.1 if rare else 0.0
    images = [f"{a} {b}" for a, b in pairs for _ in range(2)]
    shares: dict[str, Dot] = {}
    for unit, clusters in (("over images", None), ("over objects", [image.split() for image in images])):
        low, high = interval(bootstrap_means(bootstrap_weights(images, clusters), values.T))
        share = float(((low <= truth) & (truth <= high)).mean())
        error = 1.96 * (share * (1 - share) / studies) ** 0.5
        shares[unit] = (100 * share, 100 * (share - error), 100 * (share + error), ())
    return shares


def known_maps(network: Network, scenes: Sequence[Scene]) -> DataFrame:
    """Mean metrics, one per row, of maps of which everything is known: the object's mask, and an empty, a
    uniform and a random map. NaN where undefined. ``within_1``: the pointing game with a tolerance
    of one pixel. Effect maps along 8 parts of the way; curves of 10 steps, for the first object of a scene
    alone, since they take most of the time."""
    cases = [case for each in scenes for case in _cases(network, each)]
    inputs, masks = torch.stack([c.inputs for c in cases]), torch.stack([c.mask for c in cases])
    others, boxes = torch.stack([c.others for c in cases]), torch.stack([c.boxes for c in cases])
    targets = torch.tensor([case.indices for case in cases])

    def probability(images: Tensor) -> Tensor:
        parts = [network.probabilities(images[start : start + 8]) for start in range(0, len(images), 8)]
        return torch.cat(parts).gather(1, targets)[:, 0]

    removed = torch.stack([network.prepare(s.without(label).image)[0] for s in scenes for label in s.labels])
    effect = effect_map(network, inputs, removed, targets[:, 0], steps=8)
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
        found = curves(network, inputs[::2], targets[::2, 0], each[::2], steps=10)
        values |= {"insertion": found.insertion_area, "deletion": found.deletion_area}
        values |= {"fidelity": fidelity(each, effect), "inside_error": inside_error(each, effect, masks)}
        means[name] = {metric: float(value.float().nanmean()) for metric, value in values.items()}
    return require("pandas", "evaluate").DataFrame(means)


def _cases(network: Network, drawn: Scene) -> list[Case]:
    objects = zip(drawn.labels, drawn.masks, drawn.boxes.tolist(), strict=True)
    truths = tuple(Truth.of(label, mask, [(box, False)]) for label, mask, box in objects)
    record = Record("-".join([*drawn.labels, str(drawn.seed)]), drawn.image, truths)
    groups = {label: (network.class_index(label),) for label in drawn.labels}
    return cases_of(record, network.preprocess, groups)  # type: ignore[arg-type]


@exercise("how_sure.1")
def left_out() -> Answers:
    """The objects without whose scenes the interval over images includes zero, of eight objects."""
    eight = set(CLASSES)
    slips = {
        "you drew objects: over them every interval includes zero; pass clusters=None": (eight),
        "these are the objects without which the lead stays: give the others": eight - {"person"},
        "without the coin the lead is larger, because the coin has the only negative difference": {"coin"},
        "without the rocket the lead is smaller, but its interval still excludes zero": {"person", "rocket"},
    }
    return Answers({"person"}, slips)


@exercise("how_sure.2", tolerance=1e-6)
def families() -> Answers:
    """By how many comparisons Holm's method multiplies the smallest p in four reports."""
    slips = {
        "in b all nine comparisons were made and would have been reported": [1, 1, 63, 63],
        "in c the metric was chosen after all seven had been seen": [1, 9, 9, 63],
        "in d the other 62 comparisons were made, although they are not printed": [1, 9, 63, 1],
        "in a one comparison was fixed before the run; the others do not count": [63, 9, 63, 63],
        "count comparisons, not metrics": [1, 9, 7, 63],
    }
    return Answers([1, 9, 63, 63], slips)


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
