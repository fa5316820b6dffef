"""Answers to *The article's tables, measured again*."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from gmcam.evaluate import Choices, Run, differences, evaluate, status, summary
from gmcam.lab import collage
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


@cache
def _voc() -> Run:
    """The run on VOC that lies beside the chapter."""
    places = (Path("runs"), Path(__file__).parents[3] / "book" / "runs")
    return Run.open(next((place for place in places if place.exists()), places[1]) / "voc-squeezenet1_0")


@exercise("tables_again.1", tolerance=0.01)
def both_bounds() -> Answers:
    """f(D) ≤ mean IoU ≤ D, with f(D) = D / (2 − D), for a mean Dice D of one half."""
    D = 0.5
    least = D / (2 - D)
    return Answers(
        [least, D],
        {
            "the lower end first": [D, least],
            "IoU is at most Dice in every picture, so its mean is at most the mean Dice": [least, 1],
            "the lower bound is Jensen's: f(D), not 0": [0, D],
            "there is more than one possible mean: f(D) is reached only where all pictures have one Dice": (
                [least, least]
            ),
            "that is the way back, Dice from IoU: 2 I / (1 + I)": [D, 2 * D / (1 + D)],
        },
    )


@exercise("tables_again.2")
def what_a_square_keeps() -> Answers:
    """The metrics that cannot differ between a map and its square, without smoothing."""
    asked = ["dice", "iou", "inside", "trace", "pointing", "insertion", "deletion"]
    chosen = Choices(("grad_cam", "gmcam"), sigma=0, pixels=4096, batch=2)
    with TemporaryDirectory() as folder:
        run = evaluate(network("collage-resnet"), collage(4), chosen, Path(folder, "run"))
        rows = pd.concat([block.to_pandas() for block in run.blocks()])
    wide = rows.pivot(index=["picture", "label"], columns="method", values=asked)
    gap = (wide.xs("gmcam", axis=1, level=1) - wide.xs("grad_cam", axis=1, level=1)).abs().max()
    same = set(gap.index[gap < 1e-6])
    return Answers(
        same,
        {
            "the cells keep their order, the pixels between them do not: up-sampling acts on the squares": (
                same | {"insertion", "deletion"}
            ),
            "Dice and IoU cut at half the maximum, and squaring moves what lies above it": (
                same | {"dice", "iou"}
            ),
            "squaring gives the bright pixels more of the whole, so the shares move": (
                same | {"inside", "trace"}
            ),
            "every metric that uses more than the place of the maximum moves": set(asked),
            "the maximum stays in its cell, so one metric is the same": set(),
        },
    )


@exercise("tables_again.3", tolerance=0.03)
def enough_pictures() -> Answers:
    """Pictures for a half interval of two hundredths: n (half / 0.02)²."""
    run = _voc()
    pictures = status(run)["measured"]

    def half(frame: pd.DataFrame) -> float:
        row = frame.query("method == 'gmcam' and metric == 'pointing'").iloc[0]
        return float(row["high"] - row["low"]) / 2

    paired = half(differences(run, "grad_cam")) / 0.02
    return Answers(
        pictures * paired**2,
        {
            "the interval narrows with the square root: half of it takes four times the pictures": (
                pictures * paired
            ),
            "that is the whole interval; the difference must be larger than its half": (
                pictures * (2 * paired) ** 2
            ),
            "that is GMCAM's own interval; take that of the difference, from `differences`": (
                pictures * (half(summary(run)) / 0.02) ** 2
            ),
            "that is how many times as many it takes; multiply by those there are": paired**2,
        },
    )


@exercise("tables_again.4")
def class_mean() -> Answers:
    """VOC's pointing game for GMCAM as the mean of the classes' means."""
    rows = pd.concat([block.to_pandas() for block in _voc().blocks()]).query("method == 'gmcam'")

    def mean(by: str) -> float:
        return float(rows.groupby(by)["pointing"].mean().mean())

    return Answers(
        mean("label"),
        {
            "that is the micro mean, over all pairs": float(rows["pointing"].mean()),
            "that is a mean over pictures; group by class": mean("picture"),
        },
    )


@exercise("tables_again.5")
def by_chance() -> Answers:
    """One in twenty of 9 × 11 intervals leaves zero out where there is no difference."""
    marks = 9 * 11
    return Answers(
        0.05 * marks,
        {
            "that is one side; a mark is ▲ or ▼": 0.025 * marks,
            "that is for a single comparison; there are 9 × 11": 0.05,
            "that is for a single metric; there are 11": 0.05 * 9,
            "that is for a single method; there are 9": 0.05 * 11,
            "those are the intervals that hold zero": 0.95 * marks,
        },
    )
