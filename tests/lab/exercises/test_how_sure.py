import numpy as np
import pandas as pd
import pytest

import gmcam
from gmcam.evaluate import bootstrap_weights
from gmcam.lab.exercises.how_sure import agreement, known_maps, marks, measured
from gmcam.metrics import dice, share_inside

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
    assert agreement(records, "dice", list("xyz"), [np.array([True, False])]) == pytest.approx(expected)
