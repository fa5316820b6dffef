import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import same_color, to_rgb
from PIL import Image

from gmcam.evaluate.charts import intervals
from gmcam.lab.pictures import LINE_COLOURS, lines
from gmcam.metrics import METRICS

PICTURE = np.zeros((4, 6, 3), np.uint8)
X = [0, 0.5, 1]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def by_name(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_lines_show_the_values_they_were_given():
    figure = lines([{"one": (X, [0.1, np.nan, 0.3]), "two": (torch.tensor(X), torch.tensor([1.0, 0, 1]))}])
    found = by_name(figure.axes[0])
    assert np.array_equal(found["one"].get_xydata(), [[0, 0.1], [0.5, np.nan], [1, 0.3]], equal_nan=True)
    assert found["two"].get_xydata().tolist() == [[0, 1], [0.5, 0], [1, 1]]


def test_a_name_looks_alike_in_all_charts_and_no_two_names_do():
    names = [f"method {index}" for index in range(12)]
    figure = lines([dict.fromkeys(names, (X, X)), dict.fromkeys(names[::-1], (X, X))])
    first, second = map(by_name, figure.axes)
    looks = {
        name: (line.get_color(), str(line.get_linestyle()), line._dash_pattern)
        for name, line in first.items()
    }
    assert len(set(map(str, looks.values()))) == 12
    for name, line in second.items():
        assert same_color(line.get_color(), looks[name][0]) and line._dash_pattern == looks[name][2]
    assert legend(figure) == names


def test_colours_differ_in_lightness_or_hue_as_seen_without_one_kind_of_cone():
    # Viénot, Brettel and Mollon's projections for red and green blindness, on linear light.
    linear = np.array([to_rgb(colour) for colour in LINE_COLOURS]) ** 2.2
    for projection in (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    ):
        seen = (linear @ np.array(projection).T).clip(0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + 9 * np.eye(len(seen))
        assert apart.min() > 0.08


@pytest.mark.parametrize(
    ("values", "expected"), [([0.2, 0.4], (0, 1)), ([-0.5, 0.4], (-0.5, 1)), ([0.2, np.nan, 2.0], (0, 2))]
)
def test_all_charts_share_a_scale_that_holds_zero_one_and_every_value(values, expected):
    figure = lines([{"a": (range(len(values)), values)}, PICTURE, {"b": (X, X)}])
    for ax in (figure.axes[0], figure.axes[2]):
        low, high = ax.get_ylim()
        room = 0.02 * (expected[1] - expected[0])
        assert (low, high) == pytest.approx((expected[0] - room, expected[1] + room))


def test_pictures_stand_beside_charts_without_axes_in_a_narrower_column():
    figure = lines(
        [PICTURE, {"a": (X, X)}, {"a": (X, X)}] * 2, ["picture", "in", "out"], columns=3, x="s", y="p"
    )
    picture, left, right, lower_picture, lower_left, lower_right = figure.axes
    assert np.array_equal(picture.images[0].get_array(), PICTURE)
    assert not picture.axison and not lower_picture.axison
    assert picture.get_subplotspec().get_gridspec().get_width_ratios() == [0.7, 1, 1]
    assert [ax.get_title() for ax in figure.axes] == ["picture", "in", "out", "", "", ""]
    assert [ax.get_ylabel() for ax in (left, right, lower_left, lower_right)] == ["p", "", "p", ""]
    assert [ax.get_xlabel() for ax in (left, right, lower_left, lower_right)] == ["", "", "s", "s"]


def test_words_on_the_axis_are_written_at_a_slant():
    figure = lines([{"a": (["head", "stage4", "stage3"], [1, 0.5, 0])}])
    words = figure.axes[0].get_xticklabels()
    assert [word.get_text() for word in words] == ["head", "stage4", "stage3"]
    assert {word.get_rotation() for word in words} == {45}


def test_a_place_without_a_panel_stays_empty():
    figure = lines([{"a": (X, X)}] * 3, columns=2)
    assert len(figure.axes) == 4 and not figure.axes[3].axison
    assert figure.axes[1].get_subplotspec().get_gridspec().ncols == 2


def test_the_lowest_chart_of_a_column_names_the_axis_where_a_picture_lies_below():
    figure = lines([{"a": (X, X)}, {"a": (X, X)}, PICTURE, Image.fromarray(PICTURE).convert("L")], x="share")
    assert [ax.get_xlabel() for ax in figure.axes] == ["share", "share", "", ""]
    assert figure.axes[3].images[0].get_array().shape == PICTURE.shape  # grey is no map


def test_a_chart_has_a_column():
    with pytest.raises(ValueError, match="at least one column, not 0"):
        lines([{"a": (X, X)}], columns=0)


@pytest.mark.parametrize("panels", [[], [PICTURE], [{}], [{"a": ([], [])}]])
def test_nothing_to_chart_is_refused(panels):
    with pytest.raises(ValueError, match="lines needs at least one panel that maps names to lines"):
        lines(panels)


def test_a_chart_shows_itself_as_a_png_without_pyplot():
    assert lines([{"a": (X, X)}])._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


def rows(*metrics):
    values = [(m, metric, 0.5, 0.4, 0.7, 9) for metric in metrics for m in ("grad_cam", "mine")]
    return pd.DataFrame(values, columns=["method", "metric", "value", "low", "high", "count"])


def test_a_panel_per_metric_and_a_line_per_method():
    figure = intervals(rows("dice", "salience_drop", "iou", "inside", "trace"))
    shown = [ax for ax in figure.axes if ax.axison]
    # In the order of the article, whatever the order of the rows.
    expected = [name for name in METRICS if name in ("dice", "salience_drop", "iou", "inside", "trace")]
    assert [ax.get_title() for ax in shown] == [" ".join(METRICS[name]) for name in expected]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["mine", "Grad-CAM"]
    (dots,) = [line for line in shown[0].lines if line.get_marker() == "o"]
    assert dots.get_xdata().tolist() == [0.5, 0.5]
    assert shown[0].collections[0].get_segments()[0][:, 0].tolist() == [0.4, 0.7]


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 4), (7, 4), (9, 3), (11, 4)])
def test_panels_leave_few_places_empty(count, columns):
    figure = intervals(rows(*list(METRICS)[:count]))
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_a_metric_of_ones_own_comes_last_under_its_own_name():
    shown = intervals(rows("Near ↑", "dice")).axes
    assert [ax.get_title() for ax in shown] == [" ".join(METRICS["dice"]), "Near ↑"]


def test_zero_is_marked_where_it_is_asked_for():
    counts = [len(intervals(rows("dice"), zero=zero).axes[0].lines) for zero in (False, True)]
    assert counts == [1, 2]


def test_other_values_stand_beside_where_there_are_some():
    other = pd.DataFrame([("grad_cam", "dice", 0.9)], columns=["method", "metric", "value"])
    dice, iou = intervals(rows("dice", "iou"), beside=other).axes[:2]
    (diamonds,) = [line for line in dice.lines if line.get_marker() == "D"]
    assert diamonds.get_xdata()[1] == 0.9 and pd.isna(diamonds.get_xdata()[0])  # the methods from below
    assert all(pd.isna(line.get_xdata()).all() for line in iou.lines if line.get_marker() == "D")


def test_nothing_cannot_be_drawn():
    with pytest.raises(ValueError, match="no rows"):
        intervals(rows())
