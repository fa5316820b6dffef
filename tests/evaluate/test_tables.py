"""Tables of records made by hand: intervals over classes, marks, recognised targets, the best threshold."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from gmcam.evaluate import (
    Run,
    at_best_threshold,
    differences,
    draws,
    holm,
    recognised,
    summary,
    table,
    write_tables,
)
from gmcam.evaluate.measuring import DICE_AT


def scores(values):
    """Records of a metric: ``values`` (images, labels, methods), with the labels a, b, … in each image."""
    return pd.DataFrame(
        [(f"image {i}", "abcdefgh"[j], f"method {k}", value) for (i, j, k), value in np.ndenumerate(values)],
        columns=["image", "label", "method", "score"],
    )


def test_an_interval_over_classes_is_wider_where_one_class_makes_the_difference():
    """One of eight classes gains, in every image: over images that is certain, over classes it is not."""
    values = np.random.default_rng(0).normal(0, 0.02, (60, 8, 2))
    values[:, 3, 1] += 0.8
    frame = scores(values)
    frame = frame[frame["image"].str[6:].astype(int) % 8 == frame["label"].map("abcdefgh".index)]  # one each
    images, classes = (
        differences(frame, "method 0", metrics=["score"], clusters=name).iloc[0] for name in (None, "label")
    )
    assert images["value"] == classes["value"] == pytest.approx(0.1, abs=0.03)
    assert images["low"] > 0 > classes["low"]
    assert images["p"] < 0.05 < classes["p"]
    assert (images["units"], classes["units"]) == (60, 8)
    by_class = frame[frame["label"] == "d"]
    rows = differences(by_class, "method 0", metrics=["score"])
    alone = rows.iloc[0]
    assert alone["units"] == 1 and np.isnan([alone["low"], alone["high"], alone["p"]]).all()
    words = f"+{alone['value']:.3f} (one class: no interval)"
    assert table(rows, signed=True).loc["method 1", "score"] == words


@pytest.mark.parametrize(
    ("images", "clusters", "why"), [(1, None, "one image"), (1, "label", "few images"), (9, None, "")]
)
def test_a_cell_without_an_interval_says_why(images, clusters, why):
    frame = scores(np.random.default_rng(0).normal(-0.5, 0.02, (images, 8, 1)))
    cell = table(summary(frame, metrics=["score"], clusters=clusters), clusters=clusters).iloc[0, 0]
    assert cell.endswith(f" ({why}: no interval)" if why else "]") and cell.startswith("−0.")


def test_a_line_below_the_differences_explains_their_stars(tmp_path, monkeypatch):
    frame = scores(np.random.default_rng(1).normal(0, 0.02, (60, 8, 3)))
    frame = frame[frame["image"].str[6:].astype(int) % 8 == frame["label"].map("abcdefgh".index)]  # one each
    frame = frame.rename(columns={"score": "inside"}).assign(probability=1.0, rank=1)

    def folder(records):
        arguments = {"methods": ["method 0", "method 1", "method 2"], "mean": "micro"}
        monkeypatch.setattr(Run, "records", lambda run: records)
        return write_tables(Run(tmp_path, {"arguments": arguments}))

    for kind in ("md", "tex"):
        text = (folder(frame) / f"differences-from-method 0.{kind}").read_text()
        line = "Star: p below 0.05 after Holm's adjustment for 2 differences; "
        assert text.endswith(f"\n\n{line}unadjusted, chance alone would mark 0.1.\n")
        assert "Star" not in (folder(frame) / f"summary.{kind}").read_text()
        one_class = folder(frame[frame["label"] == "a"])
        assert "Star" not in (one_class / f"differences-from-method 0.{kind}").read_text()  # no p


def test_p_is_that_of_a_paired_t_test_adjusted_for_the_rows_of_the_table():
    values = np.random.default_rng(1).normal(0, 1, (80, 1, 4)) + np.array([0, 0, 0.3, 1])
    frame = scores(values).assign(label=lambda rows: rows["image"])  # as many classes as images
    rows = differences(frame, "method 0", metrics=["score"], clusters=None)
    exact = [ttest_rel(values[:, 0, k], values[:, 0, 0]).pvalue for k in (1, 2, 3)]
    assert rows["p"].tolist() == pytest.approx(holm(np.array(exact)), rel=0.3, abs=1e-6)
    wide = table(rows, signed=True)["score"]
    assert [cell.endswith("*") for cell in wide] == [p < 0.05 for p in rows["p"]] == [False, False, True]


def test_a_class_drawn_twice_counts_twice_in_the_mean_of_classes():
    """Without differences between images, the mean of classes is the mean of those drawn."""
    frame = scores(np.broadcast_to(np.arange(5.0)[None, :, None] ** 2, (6, 5, 1)))
    frame["image"] += frame["label"]  # an image has one class
    row = summary(frame, "class", ["score"]).iloc[0]
    drawn = draws("abcde")
    means = sum(drawn[name] * k**2.0 for k, name in enumerate("abcde")) / 5
    low, high = np.percentile(means[1:], [2.5, 97.5])
    # The images' own weights let a class drop out now and then.
    assert (row["value"], row["units"]) == (6.0, 5)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.3)


def test_recognised_targets_are_probable_or_among_the_first_five():
    frame = pd.DataFrame({"probability": [0.2, 0.19, 0.01, 0.9], "rank": [9, 5, 6, 1]})
    assert recognised(frame).index.tolist() == [0, 1, 3]


def test_the_best_threshold_is_chosen_on_the_other_classes():
    rows = [("a", "cat"), ("b", "cat"), ("c", "dog"), ("d", "cow")]
    frame = pd.DataFrame(rows, columns=["image", "label"]).assign(method="x", **dict.fromkeys(DICE_AT, 0.0))
    frame["dice_30"] = [0.8, 0.8, 0.1, 0.5]  # best for cats, not for dogs
    frame["dice_60"] = [0.2, 0.2, 0.9, 0.4]
    measured = at_best_threshold(frame)
    # Cats take what is best for dog and cow, 60 %; dogs take 30 %, the best of cats and cow; so does the cow.
    assert measured["Dice, best threshold ↑"].tolist() == [0.2, 0.2, 0.1, 0.5]
    assert measured["IoU, best threshold ↑"].tolist() == pytest.approx(
        [0.2 / 1.8, 0.2 / 1.8, 0.1 / 1.9, 1 / 3]
    )
    assert at_best_threshold(frame[:2])["Dice, best threshold ↑"].isna().all()  # one class
