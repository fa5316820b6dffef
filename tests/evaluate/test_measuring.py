"""Rows of numbers against the metrics' own functions, and choices that cannot be."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam.datasets import Record, Truth
from gmcam.evaluate import Choices, metrics
from gmcam.evaluate.measuring import cases_of, fitted, measure

GROUPS = {"red": (0,), "green": (1,), "blue": (2,)}


def rows_of(network, record, **choices):
    chosen = Choices(**{"methods": ("grad_cam",), "pixels": 0, **choices})
    network = fitted(network, chosen.fit)
    return measure(network, cases_of(record, network.preprocess, GROUPS), chosen)


def test_a_row_holds_what_the_metrics_say(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    row = rows_of(colour_network, record, methods=("grad_cam", "gmcam"), pixels=64)[1]
    assert (row["picture"], row["label"], row["method"], row["target"]) == ("squares 0", "red", "gmcam", 0)
    inputs = colour_network.prepare(record.image)
    result = gmcam.explain(colour_network, inputs, 0)
    before = colour_network.probabilities(inputs)[0, 0]
    salient, context = metrics.zones(inputs, result.maps)
    after, beside = (colour_network.probabilities(picture)[0, 0] for picture in (salient, context))
    mask = torch.from_numpy(record.truths[0].mask)[None]
    expected = {
        "probability": before,
        "score": result.score[0],
        "salience_drop": metrics.drop(before[None], after[None])[0],
        "salience_increase": float(after > before),
        "context_drop": metrics.drop(before[None], beside[None])[0],
        "context_increase": float(beside > before),
        "pointing": 1.0,
        "dice": metrics.dice(result.maps, mask)[0],
        "iou": metrics.iou(result.maps, mask)[0],
        "inside": metrics.share_inside(result.maps, mask)[0],
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(float(value), abs=1e-6), name
    assert 0 < row["deletion"] < row["insertion"] < 1


def test_the_perfect_map_scores_one(colour_network, squares_dataset):
    # The map of red is the red of the picture: without smoothing it is the mask, cell by cell.
    row = rows_of(colour_network, squares_dataset(1).read(0), sigma=0)[0]
    assert [row[name] for name in ("dice", "iou", "inside", "trace", "pointing")] == [1, 1, 1, 0, 1]


def test_the_highest_logit_of_a_group_is_the_target(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)  # red is larger than green
    network = fitted(colour_network, "squash")
    [case, _] = cases_of(record, network.preprocess, {"red": (2, 0, 1), "green": (1,)})
    [row] = measure(network, [case], Choices(methods=("grad_cam",), pixels=0))
    assert row["target"] == 0


def test_batches_do_not_change_a_row(colour_network, squares_dataset):
    dataset = squares_dataset(5)
    network = fitted(colour_network, "squash")
    cases = [case for i in range(5) for case in cases_of(dataset.read(i), network.preprocess, GROUPS)]
    few, many = (
        measure(network, cases, Choices(methods=("grad_cam", "gmcam"), pixels=50, batch=batch))
        for batch in (1, 16)
    )
    for one, other in zip(few, many, strict=True):
        assert one == pytest.approx(other, abs=1e-6, nan_ok=True)


def test_void_pixels_difficult_boxes_and_other_objects(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    red, green = record.truths
    hard = dataclasses.replace(red, difficult=np.array([True]))
    void = np.zeros((16, 16), bool)
    void[:9, :9] = True  # red's corner
    row = rows_of(colour_network, Record("p", record.image, (hard, green), void))[0]
    assert np.isnan(row["pointing"])  # every object is difficult
    assert all(np.isnan(row[name]) for name in ("dice", "iou", "inside"))  # nothing of red counts
    assert row["trace"] == 0  # green does, and the map of red is not there
    two = np.concatenate([red.boxes, [[0, 0, 1, 1]]])
    both = dataclasses.replace(red, boxes=two, difficult=np.array([True, False]))
    assert rows_of(colour_network, Record("p", record.image, (both, green)))[0]["pointing"] == 1


def test_a_class_without_masks_or_boxes_has_no_such_metric(colour_network, squares_dataset):
    row = rows_of(colour_network, Record("p", squares_dataset(1).read(0).image, (Truth("red"),)))[0]
    assert all(np.isnan(row[name]) for name in ("dice", "iou", "inside", "trace", "pointing"))
    assert row["salience_drop"] >= 0


def test_a_class_alone_in_its_picture_has_no_trace(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    row = rows_of(colour_network, Record("p", record.image, record.truths[:1]))[0]
    assert np.isnan(row["trace"]) and row["inside"] > 0


def test_a_preprocessing_of_unknown_geometry_is_refused():
    network = gmcam.Network(nn.Conv2d(3, 1, 1), preprocess=lambda picture: torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"needs a gmcam\.networks\.Preprocessing"):
        fitted(network, "squash")


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"methods": ("gradcam",)}, "no method is called 'gradcam'"),
        ({"methods": ()}, "at least one method"),
        ({"methods": ("cam", "cam")}, "each once"),
        ({"zone": "firm"}, "soft or hard, not 'firm'"),
        ({"fit": "stretch"}, "squash or crop, not by 'stretch'"),
        ({"mean": "macro"}, "micro or class, not 'macro'"),
        ({"threshold": 0.0}, "not at 0.0"),
        ({"threshold": float("nan")}, "not at nan"),
        ({"tolerance": -1}, "0 or more, not -1"),
        ({"sigma": -0.5}, "0 or more"),
        ({"sigma": float("inf")}, "not 0 and inf"),
        ({"pixels": -1}, "pixels are 0 or more"),
        ({"batch": 0}, "a batch 1 or more"),
    ],
)
def test_choices_that_cannot_be_are_refused(choice, says):
    with pytest.raises(ValueError, match=says):
        Choices(**{"methods": ("grad_cam",), **choice})
