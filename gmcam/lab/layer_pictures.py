"""Charts of values over the layers of a network, with every line labelled at its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcam.show import DPI, INK, InlineFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIVAL, SOFT = "#9AA5B4", "#586274"
_COLOURS = (INK, "#009E73", "#CC79A7")  # of Okabe and Ito; every line is told apart by its label, too
_WIDTH, _HEIGHT, _LABEL = 7.6, 2.1, 0.1  # inches: the page's text, a row; a label's share of a row


def layer_lines(
    panels: Mapping[str, Mapping[str, Sequence[float] | float]],
    layers: Sequence[str],
    rivals: Collection[str] = (),
    columns: int = 2,
) -> InlineFigure:
    """Draw a chart per panel with a line per name over ``layers``, each line labelled at its right end.

    ``panels``: title → name → values, one per layer; a single number is a flat line, of a map that depends on
    no layer. ``rivals``: names whose lines are thin, grey and behind the others. The panels of a row share
    their vertical axis. Raises ``ValueError`` without a panel or a column, and for a line of another length.
    """
    if not panels or columns < 1:
        raise ValueError(f"expected a panel and a column, got {len(panels)} and {columns}: pass some")
    lengths = {np.size(values) for lines in panels.values() for values in lines.values()}
    if not lengths <= {1, len(layers)}:
        raise ValueError(f"expected a value or {len(layers)} of them in a line, got {sorted(lengths)}")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    names = dict.fromkeys(name for lines in panels.values() for name in lines if name not in rivals)
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    figure = InlineFigure(figsize=(_WIDTH, rows * _HEIGHT + 0.3), dpi=DPI)
    figure.set_layout_engine("constrained", h_pad=0.09)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, values in lines.items():
            look: dict[str, Any] = {"color": RIVAL, "linewidth": 1.0, "zorder": 2}
            if name in colours:
                look = {"color": colours[name], "linewidth": 2.0, "marker": "o", "markersize": 4, "zorder": 3}
            ax.plot(range(len(layers)), np.broadcast_to(values, len(layers)), label=name, **look)
        ax.set_title(title, fontsize=10, color=INK, loc="left", pad=8)
        ax.set_xticks(range(len(layers)), layers)
        ax.set_xlim(-0.15, len(layers) - 0.85)
        ax.tick_params(labelsize=8.5, colors=INK, length=2)
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color("#888888")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes.flat[: len(panels)]:
        _label_ends(ax)
    return figure


def _label_ends(ax: Axes) -> None:
    """Each line's name to the right of its end, moved up or down where names would overlap."""
    low, high = ax.get_ylim()
    ends = [((np.asarray(line.get_ydata())[-1] - low) / (high - low), line) for line in ax.get_lines()]
    ends.sort(key=lambda end: float(end[0]))
    for (end, line), height in zip(ends, _apart([end for end, _ in ends]), strict=True):
        name, rival = str(line.get_label()), line.get_color() == RIVAL
        inside: dict[str, Any] = {"transform": ax.transAxes}
        text = ax.text(1.08, height, name, va="center", fontsize=8.5, **inside)
        text.set(color=SOFT if rival else INK, fontweight="normal" if rival else "bold")
        inside |= {"color": line.get_color(), "linewidth": 0.7, "clip_on": False}
        ax.plot([1.0, 1.07], [end, height], label=f"_{name}", **inside)


def _apart(ends: Sequence[float]) -> list[float]:
    """Heights in [0, 1], as near to the rising ``ends`` as labels of the height ``_LABEL`` can be."""
    groups: list[tuple[float, int]] = []  # labels that touch: the lowest one's height, and how many they are
    for index, end in enumerate(ends):
        height, count = end - index * _LABEL, 1
        while groups and groups[-1][0] > height:
            below, members = groups.pop()
            height, count = (below * members + height * count) / (members + count), members + count
        groups.append((height, count))
    room = max(0.0, 1 - _LABEL * (len(ends) - 1))
    lowest = [min(max(height, 0.0), room) for height, count in groups for _ in range(count)]
    return [height + index * _LABEL for index, height in enumerate(lowest)]
