"""Charts over layers: every value is drawn, rivals are grey, and labels keep apart."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import same_color

from gmcam.lab.layer_pictures import _LABEL, _apart, layer_lines
from gmcam.show import SOFT

LAYERS = ["stage1", "stage2", "stage3"]
PANEL = {"ours": [0.2, 0.5, 0.9], "theirs": [0.1, 0.4, 0.8], "blob": 0.3, "edges": [0.3]}


def by_name(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_lines_have_a_value_per_layer_and_a_single_value_is_flat():
    figure = layer_lines({"share": PANEL}, LAYERS, rivals=("blob", "edges"))
    (ax,) = figure.axes
    drawn = {name: line.get_ydata().tolist() for name, line in by_name(ax).items() if name in PANEL}
    assert drawn == {**PANEL, "blob": [0.3] * 3, "edges": [0.3] * 3}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == LAYERS
    assert ax.get_title(loc="left") == "share"


def test_seeds_are_a_band_around_the_line_of_their_means():
    seeds = [[0.2, 0.4, 0.9], [0.4, 0.8, 0.7]]
    (ax,) = layer_lines({"share": {"ours": np.array(seeds), "theirs": [0.1, 0.1, 0.1]}}, LAYERS).axes
    assert by_name(ax)["ours"].get_ydata() == pytest.approx([0.3, 0.6, 0.8])
    (band,) = ax.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.round(6)}
    assert {(1, 0.4), (1, 0.8), (2, 0.7), (2, 0.9)} <= corners


def test_rivals_are_thin_and_grey_and_the_others_keep_their_colours_in_all_panels():
    swapped = dict(reversed(PANEL.items()))
    first, second = layer_lines({"a": PANEL, "b": swapped}, LAYERS, rivals=("blob", "edges")).axes
    looks = {name: line for name, line in by_name(first).items() if name in PANEL}
    assert [same_color(line.get_color(), SOFT) for line in looks.values()] == [False, False, True, True]
    assert looks["blob"].get_linewidth() < looks["ours"].get_linewidth()
    assert not same_color(looks["ours"].get_color(), looks["theirs"].get_color())
    for name, line in looks.items():
        assert same_color(line.get_color(), by_name(second)[name].get_color())
        assert line.get_zorder() == (2 if name in ("blob", "edges") else 3)


def test_every_line_is_labelled_and_a_leader_joins_label_and_end():
    (ax,) = layer_lines({"share": PANEL}, LAYERS, rivals=("blob", "edges")).axes
    low, high = ax.get_ylim()
    labels = {text.get_text(): text for text in ax.texts}
    assert set(labels) == set(PANEL)
    assert [labels[name].get_fontweight() for name in PANEL] == ["bold", "bold", "normal", "normal"]
    for name, line in ((name, by_name(ax)[name]) for name in PANEL):
        leader = by_name(ax)[f"_{name}"].get_ydata()
        assert leader[0] == pytest.approx((line.get_ydata()[-1] - low) / (high - low))
        assert leader[1] == labels[name].get_position()[1]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], []),
        ([0.2, 0.7], [0.2, 0.7]),  # far apart, they stay
        ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6]),  # equal ones are spread around their place
        ([0.98, 1.0], [0.9, 1.0]),  # inside the chart
        ([0.0, 0.02], [0.0, 0.1]),
        ([0.3, 0.5, 0.52, 0.54], [0.3, 0.42, 0.52, 0.62]),
    ],
)
def test_labels_keep_apart_near_their_lines(ends, expected):
    assert _apart(ends) == pytest.approx(expected)


def test_labels_of_two_lines_have_twice_the_room():
    assert _apart([0.5, 0.5], [1, 2]) == pytest.approx([0.425, 0.575])
    assert _apart([0.0, 0.05, 0.9], [2, 2, 1]) == pytest.approx([0.0, 0.2, 0.9])


def test_labels_keep_their_distance_even_where_the_chart_is_full():
    heights = _apart([0.5] * 20)
    assert heights[0] == 0
    assert all(b - a == pytest.approx(_LABEL) for a, b in pairwise(heights))


def test_panels_of_a_row_share_their_axis_and_empty_places_have_none():
    figure = layer_lines({"a": {"x": [0, 0, 1]}, "b": {"x": [0, 0, 5]}, "c": {"x": [0, 0, 2]}}, LAYERS)
    first, second, third, empty = figure.axes
    assert first.get_ylim() == second.get_ylim() != third.get_ylim()
    assert third.axison and not empty.axison and not empty.texts


def test_on_a_phone_panels_are_below_each_other():
    figure = layer_lines({"a": PANEL, "b": PANEL}, LAYERS)
    spec = figure.stacked().axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == (2, 1)


@pytest.mark.parametrize(
    ("panels", "columns", "message"),
    [
        ({}, 2, "expected a panel and a column, got 0 and 2"),
        ({"a": PANEL}, 0, "expected a panel and a column, got 1 and 0"),
        ({"a": {"x": [1, 2]}}, 1, r"expected a value or 3 of them in a line, got \[2\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panels, columns, message):
    with pytest.raises(ValueError, match=message):
        layer_lines(panels, LAYERS, columns=columns)
