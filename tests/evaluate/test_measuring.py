"""Rows of numbers against the functions of ``gmcam.metrics``, and choices that are refused."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gmcam
from gmcam import metrics
from gmcam.datasets import Record, Truth
from gmcam.evaluate import Choices, evaluate
from gmcam.evaluate.measuring import cases_of, fitted, grouped, measure
from gmcam.postprocess import upsample

GROUPS = {"red": (0,), "green": (1,), "blue": (2,)}


def rows_of(network, record, **choices):
    chosen = Choices(**{"methods": ("grad_cam",), "steps": 0, **choices})
    network = fitted(network, chosen.fit)
    return measure(network, cases_of(record, network.preprocess, GROUPS), chosen)


def test_a_row_has_the_values_of_the_metrics(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    row = rows_of(colour_network, record, methods=("grad_cam", "gmcam"), pixels=64)[1]
    assert (row["image"], row["label"], row["method"], row["rank"]) == ("squares 0", "red", "gmcam", 1)
    inputs = colour_network.prepare(record.image)
    result = gmcam.explain(colour_network, inputs, 0)
    before = colour_network.probabilities(inputs)[0, 0]
    salient, context = metrics.zones(inputs, result.maps)
    after, beside = (colour_network.probabilities(image)[0, 0] for image in (salient, context))
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
    # The map of red is the red channel: without smoothing it equals the mask, cell by cell.
    row = rows_of(colour_network, squares_dataset(1).read(0), sigma=0)[0]
    assert [row[name] for name in ("dice", "iou", "inside", "trace", "pointing")] == [1, 1, 1, 0, 1]


def test_a_case_with_an_image_without_the_object_has_a_fidelity(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    red, green = record.truths
    pixels = np.asarray(record.image).copy()
    pixels[red.mask] = 0
    known = dataclasses.replace(red, without=Image.fromarray(pixels))
    [red_row, blob, *greens] = rows_of(
        colour_network, Record("p", record.image, (known, green)), methods=("grad_cam", "centred_blob")
    )
    # The effect of red lies in red's pixels, and so does its map.
    assert (red_row["fidelity"], red_row["inside_error"]) == pytest.approx((1, 0), abs=1e-5)
    assert blob["fidelity"] < 0.5 and blob["inside_error"] < -0.5
    assert all(np.isnan(row[name]) for row in greens for name in ("fidelity", "inside_error"))
    assert "fidelity" not in rows_of(colour_network, record)[0]


def test_a_group_is_one_class(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)  # red is larger than green
    groups = {"red": (2, 0), "green": (1,)}
    network = grouped(fitted(colour_network, "squash"), groups)
    cases = cases_of(record, network.preprocess, groups)
    [red, green] = measure(network, cases, Choices(methods=("grad_cam",), steps=0))
    with torch.no_grad():
        logits = colour_network.module(network.prepare(record.image))[0]
    assert red["score"] == pytest.approx(torch.logsumexp(logits[[0, 2]], 0).item(), abs=1e-6)
    assert red["probability"] == pytest.approx(logits.softmax(0)[[0, 2]].sum().item(), abs=1e-6)
    assert (red["rank"], green["rank"]) == (1, 2)  # of two classes, for blue is in a group
    assert green["score"] == logits[1].item()


def test_batches_do_not_change_a_row(colour_network, squares_dataset):
    dataset = squares_dataset(5)
    network = fitted(colour_network, "squash")
    cases = [case for i in range(5) for case in cases_of(dataset.read(i), network.preprocess, GROUPS)]
    choices = Choices(methods=("grad_cam", "gmcam"), pixels=50)
    alone = [row for case in cases for row in measure(network, [case], choices)]
    for row, together in zip(alone, measure(network, cases, choices), strict=True):
        assert row == pytest.approx(together, abs=1e-6, nan_ok=True)


def test_void_pixels_difficult_boxes_and_other_objects(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    red, green = record.truths
    hard = dataclasses.replace(red, difficult=np.array([True]))
    void = np.zeros((16, 16), bool)
    void[:9, :9] = True  # red's corner
    row = rows_of(colour_network, Record("p", record.image, (hard, green), void))[0]
    assert np.isnan(row["pointing"])  # every object is difficult
    assert all(np.isnan(row[name]) for name in ("dice", "iou", "inside"))  # nothing of red counts
    assert np.isnan(row["trace"])  # green counts, but the map is zero where pixels count
    two = np.concatenate([red.boxes, [[0, 0, 1, 1]]])
    both = dataclasses.replace(red, boxes=two, difficult=np.array([True, False]))
    assert rows_of(colour_network, Record("p", record.image, (both, green)))[0]["pointing"] == 1


def test_a_class_without_masks_or_boxes_has_no_such_metric(colour_network, squares_dataset):
    row = rows_of(colour_network, Record("p", squares_dataset(1).read(0).image, (Truth("red"),)))[0]
    assert all(np.isnan(row[name]) for name in ("dice", "iou", "inside", "trace", "pointing"))
    assert row["salience_drop"] >= 0


def test_a_class_alone_in_its_image_has_no_trace(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    row = rows_of(colour_network, Record("p", record.image, record.truths[:1]))[0]
    assert np.isnan(row["trace"]) and row["inside"] > 0


def test_a_preprocessing_of_unknown_geometry_is_refused():
    network = gmcam.Network(nn.Conv2d(3, 1, 1), preprocess=lambda image: torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"expected a gmcam\.Preprocessing"):
        fitted(network, "squash")


def test_maps_are_measured_at_the_size_of_the_masks(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    network = fitted(colour_network, "squash")
    [case, _] = cases_of(record, network.preprocess, GROUPS)
    large = {
        name: getattr(case, name).repeat_interleave(3, 0).repeat_interleave(3, 1)
        for name in ("mask", "others", "counts")
    }
    enlarged = dataclasses.replace(case, **large, boxes=3 * case.boxes)
    choices = Choices(methods=("grad_cam",), steps=0, zone=None)
    [row] = measure(network, [enlarged], choices)
    maps = upsample(gmcam.explain(network, case.inputs[None], 0, method="grad_cam").maps, (48, 48))
    assert row["inside"] == metrics.share_inside(maps, large["mask"][None]).item()
    assert row["pointing"] == 1


def test_zones_and_curves_can_be_left_out(colour_network, squares_dataset):
    row = rows_of(colour_network, squares_dataset(1).read(0), zone=None)[0]
    assert not {"salience_drop", "context_increase", "insertion", "deletion"} & row.keys()
    assert {"dice", "pointing", "probability"} <= row.keys()


def test_a_number_of_pixels_replaces_the_number_of_steps(colour_network, squares_dataset):
    record = squares_dataset(1).read(0)
    by_steps, by_pixels, neither = (
        rows_of(colour_network, record, **sizes)[0]
        for sizes in ({"steps": 4}, {"steps": 50, "pixels": 64}, {"steps": 50, "pixels": 0})
    )
    assert by_steps["insertion"] == pytest.approx(by_pixels["insertion"])
    assert "insertion" not in neither


def test_methods_are_found_in_any_spelling():
    assert Choices(methods=("GradCAM", "Grad-CAM++")).methods == ("grad_cam", "grad_cam_pp")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"methods": ("saliency of mine",)}, "got 'saliency of mine'"),
        ({"methods": ("cam", "CAM")}, "expected each method once"),
        ({"zone": "firm"}, "expected zone to be one of .*, got 'firm'"),
        ({"fit": "stretch"}, "expected fit to be one of .*, got 'stretch'"),
        ({"mean": "macro"}, "expected mean to be one of .*, got 'macro'"),
        ({"batch": 0}, "expected a whole number from 1 on for batch, got 0"),
    ],
)
def test_unknown_choices_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        Choices(**{"methods": ("grad_cam",), **choice})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"methods": ()}, "expected a list of methods"),
        ({"threshold": 0.0}, "expected a threshold above 0"),
        ({"threshold": float("nan")}, "got nan"),
        ({"tolerance": -1}, "expected a tolerance of 0 or more"),
        ({"sigma": -0.5}, "sigma"),
        ({"sigma": float("inf")}, "sigma"),
        ({"steps": -1}, "for steps, got -1"),
        ({"pixels": -1}, "for pixels, got -1"),
    ],
)
def test_choices_out_of_range_are_refused_before_the_first_image(
    choice, message, colour_network, squares_dataset, tmp_path
):
    def read(index):
        raise AssertionError("the run has begun")

    choices = Choices(**{"methods": ("grad_cam",), **choice})
    with pytest.raises(ValueError, match=message):
        evaluate(colour_network, squares_dataset(2, read), choices, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
