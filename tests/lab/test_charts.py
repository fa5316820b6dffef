"""The means of classes, which charts show as small dots."""

import pandas as pd
import pytest

from gmcam.evaluate import differences, summary
from gmcam.lab import by_class, intervals

NAN = float("nan")
RECORDS = pd.DataFrame(
    [
        ("1", "cat", "grad_cam", 0.2, 1.0),
        ("1", "cat", "gmcam", 0.5, 1.0),
        ("2", "cat", "grad_cam", 0.4, 0.0),
        ("2", "cat", "gmcam", 0.3, NAN),
        ("3", "cup", "grad_cam", 0.6, NAN),
        ("3", "cup", "gmcam", 0.9, NAN),
    ],
    columns=["image", "label", "method", "dice", "pointing"],
)


def each(rows):
    return {(row.method, row.metric): row.classes for row in rows.itertuples()}


def test_each_class_has_its_mean_and_none_without_a_value():
    rows = by_class(summary(RECORDS, metrics=["dice", "pointing"]), RECORDS)
    assert each(rows) == {
        ("grad_cam", "dice"): pytest.approx([0.3, 0.6]),
        ("gmcam", "dice"): pytest.approx([0.4, 0.9]),
        ("grad_cam", "pointing"): [0.5],
        ("gmcam", "pointing"): [1.0],
    }


def test_classes_of_a_difference_are_paired():
    rows = by_class(differences(RECORDS, "grad_cam", metrics=["dice", "pointing"]), RECORDS, "grad_cam")
    assert each(rows) == {("gmcam", "dice"): pytest.approx([0.1, 0.3]), ("gmcam", "pointing"): [0.0]}


def test_a_chart_shows_a_small_dot_for_each_class():
    rows = summary(RECORDS, metrics=["dice"])
    counts = [
        sum(len(line.get_xdata()) for line in intervals(table).axes[0].lines if line.get_marker() == "o")
        for table in (rows, by_class(rows, RECORDS))
    ]
    assert counts == [0, 4]
