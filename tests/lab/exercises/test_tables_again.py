"""Exercises on the article's tables: the answers by other ways."""

import numpy as np
import pandas as pd
import pytest

from gmcam.lab.article_tables import stored
from gmcam.lab.exercises import check
from gmcam.lab.exercises.tables_again import class_means


def least(dice):
    return dice / (2 - dice)


def test_same_masks_and_means_never_go_below_the_bound():
    """Random masks: means over images, means of class means, and pooled pixels."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        common = generator.integers(0, 100, 40)
        areas = 2 * common + generator.integers(1, 900, 40)  # both masks' pixels
        dice, iou = 2 * common / areas, common / (areas - common)
        assert iou == pytest.approx(least(dice))  # of an image, whatever the object's size
        frame = pd.DataFrame({"dice": dice, "iou": iou, "label": generator.integers(0, 7, 40)})
        for means in (frame[["dice", "iou"]].mean(), frame.groupby("label").mean().mean()):
            assert means["iou"] >= least(means["dice"]) - 1e-12
        assert common.sum() / (areas - common).sum() == pytest.approx(least(2 * common.sum() / areas.sum()))


def test_another_threshold_or_another_kind_of_mean_goes_below_it():
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    saliency = np.array([0.9, 0.6, 0.6, 0.6, 0.1, 0.1, 0.1, 0.1])
    masks = {at: saliency >= at for at in (0.5, 0.8)}
    dice = 2 * (masks[0.5] & (truth == 1)).sum() / (masks[0.5].sum() + truth.sum())
    iou = (masks[0.8] & (truth == 1)).sum() / (masks[0.8] | (truth == 1)).sum()
    assert iou < least(dice)  # a
    common, areas = np.array([9, 9, 9, 10]), np.array([20, 20, 20, 1000])
    assert common.sum() / (areas - common).sum() < least((2 * common / areas).mean())  # d
    assert check("tables_again.1", {"a", "d"})


def test_class_means_by_hand():
    rows = stored("voc-efficientnet-lite0-14x14")
    means = []
    for label in sorted(rows["label"].dropna().unique()):
        of_class = rows[rows["label"] == label]
        ours, theirs = (
            of_class.loc[of_class["method"] == m, "pointing"].astype(float) for m in ("gmcam", "grad_cam")
        )
        means.append((ours.mean() - theirs.mean(), len(ours)))
    every, many = ([value for value, count in means if count >= least] for least in (1, 5))
    assert class_means().right == pytest.approx([np.mean(every), np.mean(many)])
    assert len(every) == 16 and len(many) == 7
