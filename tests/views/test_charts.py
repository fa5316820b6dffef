import pandas as pd
import pytest

from gmcam.evaluation import METRICS
from gmcam.views.charts import intervals


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
