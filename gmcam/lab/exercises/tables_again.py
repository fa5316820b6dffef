"""Answers to *The article's tables, on a real network*."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gmcam.evaluate import Choices, evaluate
from gmcam.lab import collage
from gmcam.lab.article_tables import stored
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network


@exercise("tables_again.1")
def possible_reasons() -> Answers:
    """What allows a mean IoU below f(mean Dice): another threshold or kind of mean, for one alone."""
    right = {"a", "d"}
    slips = {
        "b: mean IoU ≥ f(mean Dice) holds in every class, and once more for the mean of the classes": right
        | {"b"},
        "c: for pixels pooled into one count, IoU = D / (2 − D) exactly, like for one image": right | {"c"},
        "e: IoU follows from Dice for objects of any size": right | {"e"},
        "a is possible, too: at a higher threshold a mask shrinks, and its IoU may fall": {"d"},
        "d is possible, too: a few large objects, covered badly, lower the pooled IoU alone": {"a"},
    }
    return Answers(right, slips)


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


@exercise("tables_again.3")
def class_means() -> Answers:
    """GMCAM's lead over Grad-CAM in VOC's pointing game as a mean of class means: of all classes, and of
    those with at least five pairs."""
    records = stored("voc-efficientnet-lite0-14x14")
    wide = records.pivot(index=["image", "label"], columns="method", values="pointing").astype(float)
    lead = wide["gmcam"] - wide["grad_cam"]
    by_class = lead.groupby("label")
    many = by_class.mean()[by_class.count() >= 5]
    right = [float(by_class.mean().mean()), float(many.mean())]
    slips = {
        "these are means over pairs; average each class first": [
            float(lead.mean()),
            float(lead[lead.index.get_level_values("label").isin(many.index)].mean()),
        ],
        "these are means over images; group by class": [float(lead.groupby("image").mean().mean()), right[1]],
        "this is GMCAM's own score; subtract Grad-CAM's": [
            float(wide["gmcam"].groupby("label").mean().mean()),
            float(wide["gmcam"].groupby("label").mean()[many.index].mean()),
        ],
        "the second number keeps the classes with five pairs or more, the first all": right[::-1],
        "this is Grad-CAM minus GMCAM": [-each for each in right],
    }
    return Answers(right, slips)


@exercise("tables_again.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a claim about the article's layer."""
    right = {"a", "b", "d"}
    slips = {
        "finer cells are no objection here: the claim is about 14 × 14 cells": right | {"c"},
        "Holm's adjustment does not matter: the claim is an agreement, and no test shows one": right | {"e"},
        "an interval that wide holds many values, the article's among them: a is missing": right - {"a"},
        "one method does not use a single layer, and it disagrees most: b is missing": right - {"b"},
        "another network and other photographs can agree by chance: d is missing": right - {"d"},
    }
    return Answers(right, slips)
