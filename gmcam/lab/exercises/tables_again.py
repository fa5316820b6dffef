"""Answers to *The article's tables, measured again*."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from gmcam.evaluate import Choices, Run, differences, evaluate, status, summary
from gmcam.lab import collage
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network

if TYPE_CHECKING:
    import pandas as pd


@cache
def _voc() -> Run:
    """The run on VOC at 14 × 14 cells that is stored next to the chapter."""
    folders = (Path("runs"), Path(__file__).parents[3] / "book" / "runs")
    folder = next((folder for folder in folders if folder.exists()), folders[1])
    return Run.open(folder / "voc-efficientnet-lite0-14x14")


@exercise("tables_again.1", tolerance=0.01)
def both_bounds() -> Answers:
    """f(D) ≤ mean IoU ≤ D, with f(D) = D / (2 − D), for a mean Dice D of one half."""
    D = 0.5
    least = D / (2 - D)
    slips = {
        "give the lower bound first": [D, least],
        "IoU is at most Dice for every image, so its mean is at most the mean Dice": [least, 1],
        "the lower bound is Jensen's f(D), not 0": [0, D],
        "the mean is not determined: it is f(D) only if all images have the same Dice": [least, least],
        "this converts IoU to Dice, 2 I / (1 + I); convert Dice to IoU": [D, 2 * D / (1 + D)],
    }
    return Answers([least, D], slips)


@exercise("tables_again.2")
def what_a_square_keeps() -> Answers:
    """The metrics that are equal for a map and its square, without smoothing."""
    metrics = ["dice", "iou", "inside", "trace", "pointing", "insertion", "deletion"]
    choices = Choices(("grad_cam", "gmcam"), sigma=0, pixels=4096, batch=2)
    scenes = [collage(4).read(index) for index in range(4)]
    scenes = [
        replace(s, truths=tuple(replace(t, without=None) for t in s.truths)) for s in scenes
    ]  # no effect maps
    dataset = replace(collage(4), read=scenes.__getitem__)
    with TemporaryDirectory() as folder:
        rows = evaluate(network("collage-resnet"), dataset, choices, Path(folder, "run")).records()
    wide = rows.pivot(index=["image", "label"], columns="method", values=metrics)
    gap = (wide.xs("gmcam", axis=1, level=1) - wide.xs("grad_cam", axis=1, level=1)).abs().max()
    same = set(gap.index[gap < 1e-6])
    slips = {
        "squaring preserves the order of cells, but not of the pixels interpolated between them": (
            same | {"insertion", "deletion"}
        ),
        "fewer pixels reach half the maximum of a square, so areas shrink": same | {"dice", "iou"},
        "squaring increases the bright pixels' share, so the shares change": same | {"inside", "trace"},
        "every metric that uses more than the position of the maximum changes": set(metrics),
        "the maximum stays in its cell, so one metric is the same": set(),
    }
    return Answers(same, slips)


@exercise("tables_again.3", tolerance=0.03)
def enough_images() -> Answers:
    """The number of images for half an interval of 0.02, over images alone: n (half / 0.02)²."""
    run, pointing = _voc(), ["pointing"]
    images = status(run)["measured"]

    def half(frame: pd.DataFrame) -> float:
        row = frame.set_index("method").loc["gmcam"]
        return float(row["high"] - row["low"]) / 2

    ratio = half(differences(run, "guidance_map", metrics=pointing, clusters=None)) / 0.02
    slips = {
        "the interval narrows with the square root: half of it needs four times the images": (images * ratio),
        "this uses the whole interval; the difference must exceed half of it": images * (2 * ratio) ** 2,
        "this uses GMCAM's interval; use that of the difference, from `differences`": (
            images * (half(summary(run, metrics=pointing, clusters=None)) / 0.02) ** 2
        ),
        "this uses the interval over classes; take the one over images alone, `clusters=None`": (
            images * (half(differences(run, "guidance_map", metrics=pointing)) / 0.02) ** 2
        ),
        "this is the factor; multiply it by the number of images": ratio**2,
    }
    return Answers(images * ratio**2, slips)


@exercise("tables_again.4")
def class_mean() -> Answers:
    """VOC's pointing game for GMCAM as the mean of the classes' means."""
    rows = _voc().records().query("method == 'gmcam'")

    def mean(by: str) -> float:
        return float(rows.groupby(by)["pointing"].mean().mean())

    slips = {
        "this is the micro mean, over all pairs": float(rows["pointing"].mean()),
        "this is a mean over images; group by class": mean("image"),
    }
    return Answers(mean("label"), slips)


@exercise("tables_again.5")
def by_chance() -> Answers:
    """Without any difference, one in twenty of 13 × 9 intervals excludes zero."""
    marks = 13 * 9
    slips = {
        "this counts one side; a mark is ▲ or ▼": 0.025 * marks,
        "this is for a single comparison; there are 13 × 9": 0.05,
        "this is for a single metric; there are 9": 0.05 * 13,
        "this is for a single method; there are 13": 0.05 * 9,
        "this counts the intervals that include zero": 0.95 * marks,
        "this is with Holm's adjustment; the question is about intervals without it": 0,
    }
    return Answers(0.05 * marks, slips)
