from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gmcam
from gmcam.evaluate import Run, bootstrap_weights, differences
from gmcam.lab.exercises import all_exercises
from gmcam.lab.exercises.how_sure import (
    agreement,
    bare,
    by_probability,
    counted_marks,
    coverage,
    known_maps,
    leads,
    marks,
    measured,
    more_scenes,
    reliability,
    signed,
)
from gmcam.metrics import dice, share_inside

BOOK = Path(__file__).parents[3] / "book"
NETWORK, SCENE = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
EIGHT = bootstrap_weights(None, [[str(number)] for number in range(8)])


def test_records_of_a_scene_are_the_metrics_of_its_maps():
    records = measured(NETWORK, [SCENE], ["grad_cam", "gmcam"])
    assert list(zip(records["image"], records["label"], records["method"], strict=True)) == [
        ("cat-cup-3", label, method) for label in ("cat", "cup") for method in ("grad_cam", "gmcam")
    ]
    maps = gmcam.explain(NETWORK, SCENE.image, ["cat", "cup"], method="gmcam").maps
    masks = NETWORK.preprocess.place_mask(SCENE.masks[0]), NETWORK.preprocess.place_mask(SCENE.masks[1])
    rows = records[records["method"] == "gmcam"].to_dict("records")
    for row, each, mask, other in zip(rows, maps, masks, masks[::-1], strict=True):
        assert row["inside"] == pytest.approx(share_inside(each[None], mask[None]).item(), abs=1e-5)
        assert row["trace"] == pytest.approx(share_inside(each[None], other[None]).item(), abs=1e-5)
        assert row["dice_25"] == pytest.approx(dice(each[None], mask[None], threshold=0.25).item(), abs=1e-3)


def test_known_maps_have_the_values_that_arithmetic_gives():
    known = known_maps(NETWORK, [SCENE])
    area = np.mean([NETWORK.preprocess.place_mask(mask).float().mean() for mask in SCENE.masks])
    for metric, value in {"dice": 1, "iou": 1, "inside": 1, "trace": 0, "within_1": 1}.items():
        assert known.loc[metric, "mask"] == pytest.approx(value), metric
    assert known.loc[["salience_drop", "salience_increase"], "uniform"].tolist() == [0, 0]
    assert known.loc[["context_drop", "context_increase"], "empty"].tolist() == [0, 0]
    assert known.loc[["inside", "trace"], "empty"].isna().all()
    assert known.loc[["inside", "trace"], "uniform"].tolist() == pytest.approx([area, area], abs=1e-5)
    assert known.loc["fidelity", ["empty", "uniform"]].tolist() == [0, 0]
    assert np.isnan(known.loc["inside_error", "empty"])
    assert known.loc["insertion", "empty"] == known.loc["insertion", "uniform"]  # ties in one random order
    # Both errors subtract the effect's share. In the effect map's cells, a part of the mask is outside it.
    masks = torch.stack([NETWORK.preprocess.place_mask(mask).float() for mask in SCENE.masks])
    cells = torch.nn.functional.avg_pool2d(masks, masks.shape[-1] // 16).flatten(1)
    shares = ((cells**2).sum(1) / cells.sum(1)).mean().item()
    errors = known.loc["inside_error", "mask"] - known.loc["inside_error", "uniform"]
    assert errors == pytest.approx(shares - area, abs=1e-4)
    assert known.loc["salience_drop", "empty"] == known.loc["context_drop", "uniform"] > 0


def test_a_column_without_a_difference_is_not_marked_and_one_without_spread_is():
    values = np.stack([np.ones(8), np.zeros(8), np.tile([1.0, -1.0], 4)], 1)
    assert marks(values, EIGHT, 8) == [1, 1]


@pytest.mark.parametrize(("copies", "counts"), [(1, [1, 1]), (10, [10, 0])])
def test_holms_method_counts_the_columns_and_the_interval_does_not(copies, counts):
    column = np.array([1, 1, 1, 1, 1, 1, -0.5, -0.5])  # t = 2.7 with 7 degrees of freedom
    assert marks(np.tile(column[:, None], copies), EIGHT, 8) == counts


@pytest.mark.parametrize(("last", "expected"), [([1, 2, 3], 1), ([3, 2, 1], -1)])
def test_two_halves_agree_on_the_order_of_the_methods(last, expected):
    records = pd.DataFrame({"image": list("aaabbb"), "label": "cat", "method": list("xyzxyz")})
    records["dice"] = [1, 2, 9, *last]
    assert agreement(records, "dice", list("xyz"), [np.array([True, False])]) == pytest.approx([expected])


SHIFTED = [("abcdefgh"[i], "abcdefgh"[(i + shift) % 8]) for shift in (1, 2, 3) for i in range(8)]
PAIRS = [f"{a}-{b}-{i}" for i, (a, b) in enumerate(SHIFTED)]


def run(value, pairs=PAIRS, methods=("grad_cam", "gmcam", "x_grad_cam")):
    """Records of scenes of two objects, each explained; ``value`` takes the method's number and the label."""
    rows = [
        {"image": image, "label": label, "method": method, "probability": 0.1 + 0.2 * (label in "ab")}
        | {metric: value(number, label) for metric in SEVEN}
        for image in pairs
        for label in image.split("-")[:2]
        for number, method in enumerate(methods)
    ]
    return pd.DataFrame(rows)


SEVEN = list(gmcam.metrics.METRICS)[:7]


def test_leads_have_an_interval_over_images_and_a_wider_one_over_objects():
    records = run(lambda number, label: float(number == 2 and label == "a"))
    found = leads(records, {"dice": "x_grad_cam"})
    (mean, low, high), (same, lower, higher) = (
        found["dice", f"over {unit}"] for unit in ("images", "objects")
    )
    assert mean == same == pytest.approx(1 / 8)
    assert higher - lower > high - low > 0


def test_marks_are_counted_in_the_run_and_where_signs_are_random():
    sure = counted_marks(run(lambda number, label: -float(number)), ["grad_cam", "gmcam", "x_grad_cam"])
    assert sure["comparisons"].tolist() == [14] * 4
    assert sure["in the run"].tolist() == [14] * 4  # every pair has the same difference
    # Where all eight signs are alike, 2 of 256, every column is marked; else the objects differ.
    by_chance = sure["by chance"]
    assert 14 * 2 / 256 <= by_chance["over objects"] < by_chance["over images"] < 14
    assert by_chance["over objects, Holm"] <= by_chance["over objects"]


def test_simulated_intervals_over_images_are_too_narrow_and_miss_rare_objects():
    even, rare = (coverage(8, rare=each, studies=300) for each in (False, True))
    assert even["over images"][0] < 75 and 90 < even["over objects"][0] <= 100
    # Where no object carries the difference, every value is 0 and the interval misses 0.1.
    assert rare["over objects"][0] < 100 * (1 - 0.875**8) + 8
    for value, low, high, small in (*even.values(), *rare.values()):
        assert low <= value <= high and small == ()


def test_one_object_a_scene_needs_no_clusters():
    share, low, high, _ = coverage(56, rare=False, studies=300)["over images"]
    assert 80 < share < 97 and high - low == pytest.approx(3.92 * (share * (100 - share) / 300) ** 0.5)


def test_more_scenes_of_the_same_pairs(monkeypatch):
    records = run(lambda number, label: float(number == 2), [f"a-b-{i}" for i in range(56)])
    fresh = run(lambda number, label: 0.0, [f"a-b-{i}" for i in range(56, 112)])
    fresh = fresh[fresh["method"].isin(["grad_cam", "x_grad_cam"])]  # those that are asked for
    drawn = []
    monkeypatch.setattr(
        "gmcam.lab.exercises.how_sure.measured", lambda _, scenes, __: drawn.extend(scenes) or fresh
    )
    rows = more_scenes(NETWORK, records)
    assert [(each.labels, each.seed) for each in drawn[:2]] == [(("cat", "cup"), 56), (("cat", "flower"), 57)]
    assert rows[["unit", "scenes", "units", "value"]].to_numpy().tolist() == [
        ["over images", 28, 28, 1],
        ["over objects", 28, 2, 1],
        ["over images", 56, 56, 1],
        ["over objects", 56, 2, 1],
        ["over images", 112, 112, 0.5],
        ["over objects", 112, 2, 0.5],
    ]


def test_reliability_is_one_where_all_halves_rank_alike_and_less_where_objects_differ():
    alike = reliability(run(lambda number, label: number), ["dice"], ["grad_cam", "gmcam"])
    for rows in alike.values():
        assert rows["dice"][:3] == pytest.approx((1, 1, 1))
    assert [len(rows["dice"][3]) for rows in alike.values()] == [35, 35]
    apart = run(lambda number, label: number * (1 if label in "abcd" else -1))
    _, low, high, each = reliability(apart, ["dice"], ["grad_cam", "gmcam"])["objects"]["dice"]
    assert np.nanmin(each) == pytest.approx(-1) == low < high + 1e-9


def test_groups_by_probability_are_named_with_their_pairs():
    rows = by_probability(run(lambda number, label: label in "ab"), "dice", [0.2])
    assert [(name, *row[:3]) for name, row in rows.items()] == [
        ("below 0.2 (36)", 0, 0, 0),
        ("from 0.2 (12)", 100, 100, 100),
    ]


def test_numbers_are_written_with_their_signs():
    assert signed(0.094, -0.0712, 0.32) == "+0.09 [−0.07, +0.32]" and signed(-0.001) == "+0.00"
    assert bare(pd.Series({"x": 2})) == {"x": (2, 2, 2, ())}


def test_only_the_person_carries_the_lead():
    """The oracle of exercise 1: the stored run, with each object left out."""
    records = Run.open(BOOK / "runs" / "collage-vgg").records()
    records = records[records["method"].isin(["grad_cam", "x_grad_cam"])]
    carriers = set()
    for label in gmcam.lab.CLASSES:
        rows = records[~records["image"].str.contains(label)]
        gap = differences(rows, "grad_cam", metrics=["pointing"], clusters=None).iloc[0]
        carriers |= {label} if gap["low"] <= 0 <= gap["high"] else set()
    assert carriers == all_exercises()["how_sure.1"].answers().right
