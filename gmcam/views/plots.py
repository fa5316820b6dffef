"""Measurements as pictures: lines, beside pictures where they belong together, and dots with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter

from gmcam.evaluation.metrics import METRICS
from gmcam.methods import METHODS
from gmcam.views.figures import INK, Panel, Picture, as_array

if TYPE_CHECKING:
    import pandas as pd

# Okabe and Ito's colours, which all common colour blindnesses tell apart; the dashes tell them twice.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
_WIDTH, _HEIGHT, _DPI = 7.6, 2.3, 144  # inches: all columns, one row
_LETTERS = 105  # of a legend, in one row
_PANELS_ACROSS = (4, 3)  # of dots

Line = tuple[Any, Any]


def lines(
    panels: Sequence[Panel | Mapping[str, Line]],
    titles: Sequence[str] = (),
    columns: int = 2,
    x: str = "",
    y: str = "",
) -> Picture:
    """Charts of lines, and pictures, side by side.

    A chart maps names to lines (x values, y values); x values may be words. A name has one look in all
    charts and stands in one legend. The vertical axis is the same everywhere: from 0, or the lowest
    value if that is below, to 1, or the highest value if that is above. NaN leaves a gap. ``x`` and
    ``y`` name the axes. Raises ``ValueError`` without a column, or a chart with a value in it.
    """
    drawn = [panel for panel in panels if isinstance(panel, Mapping)]
    if columns < 1:
        raise ValueError(f"lines needs at least one column, not {columns}")
    if not any(np.size(line[1]) for panel in drawn for line in panel.values()):
        raise ValueError("lines needs at least one panel that maps names to lines, with values")
    names = list(dict.fromkeys(name for panel in drawn for name in panel))
    looks = {name: _look(index) for index, name in enumerate(names)}
    values = np.concatenate([np.ravel(line[1]) for panel in drawn for line in panel.values()])
    low, high = min(0.0, np.nanmin(values)), max(1.0, np.nanmax(values))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Picture(figsize=(_WIDTH, rows * _HEIGHT + 0.4), dpi=_DPI, layout="constrained")
    # A column of pictures alone is narrower.
    widths = [0.7 + 0.3 * any(isinstance(one, Mapping) for one in panels[c::columns]) for c in range(columns)]
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    for index, ax in enumerate(axes.flat):
        panel = panels[index] if index < len(panels) else None
        if isinstance(panel, Mapping):
            for name, (across, up) in panel.items():
                ax.plot(np.asarray(across), np.asarray(up), label=name, **looks[name])
            ax.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
            leftmost = not any(isinstance(one, Mapping) for one in panels[index - index % columns : index])
            lowest = not any(isinstance(one, Mapping) for one in panels[index + columns :: columns])
            _label(ax, x if lowest else "", y if leftmost else "")
        else:
            ax.set_axis_off()
            if panel is not None:
                ax.imshow(as_array(panel), interpolation="antialiased")
        ax.set_title(titles[index] if index < len(titles) else "", fontsize=10, color=INK, pad=5)
    shown = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(shown), _LETTERS // (max(map(len, shown)) + 8))),  # 8: the line itself
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=3,
    )
    return figure


def intervals(summary: pd.DataFrame, zero: bool = False, beside: pd.DataFrame | None = None) -> Picture:
    """A panel for each metric, a line in it for each method: the value and its 95 % interval.

    ``summary``: rows as ``gmcam.evaluation.summary`` or ``differences`` gives them, metrics of your own
    among them, which come last. The arrow in a panel's title says which end is the good one. ``zero``:
    mark zero, for differences. ``beside``: rows of other values, by ``method`` and ``metric``, that are
    drawn as diamonds. Raises ``ValueError`` for a summary without rows.
    """
    present = list(dict.fromkeys(summary["metric"]))
    metrics = [name for name in METRICS if name in present]
    metrics += [name for name in present if name not in METRICS]
    if not metrics:
        raise ValueError("there is nothing to draw: the summary has no rows")
    methods = list(dict.fromkeys(summary["method"]))[::-1]
    # Whichever leaves fewer places empty.
    columns = min(len(metrics), min(_PANELS_ACROSS, key=lambda columns: -len(metrics) % columns))
    down = -(-len(metrics) // columns)
    figure = Picture(
        figsize=(1.8 * columns + 1.3, down * (0.24 * len(methods) + 0.85)), dpi=144, layout="constrained"
    )
    axes = figure.subplots(down, columns, squeeze=False, sharey=True)
    for index, ax in enumerate(axes.flat):
        if index >= len(metrics):
            ax.set_axis_off()
            continue
        rows = summary[summary["metric"] == metrics[index]].set_index("method").reindex(methods)
        places = range(len(methods))
        if zero:
            ax.axvline(0, color="#999999", linewidth=0.8)
        ax.hlines(places, rows["low"], rows["high"], color=LINE_COLOURS[0], linewidth=1.6, alpha=0.5)
        ax.plot(rows["value"], places, "o", color=LINE_COLOURS[0], markersize=4.5)
        if beside is not None:
            others = beside[beside["metric"] == metrics[index]].set_index("method").reindex(methods)
            ax.plot(others["value"], places, "D", color=LINE_COLOURS[1], markersize=4.5, fillstyle="none")
        ax.set_title(" ".join(METRICS.get(metrics[index], (metrics[index],))), fontsize=9, color=INK)
        ax.set_yticks(places, [METHODS[name].title if name in METHODS else name for name in methods])
        ax.tick_params(labelsize=8.5, colors=INK, length=2)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_ylim(-0.6, len(methods) - 0.4)
        for side in ("top", "left", "right"):
            ax.spines[side].set_visible(False)
    return figure


def _look(index: int) -> dict[str, Any]:
    colour, dash = LINE_COLOURS[index % len(LINE_COLOURS)], _DASHES[index % len(_DASHES)]
    return {"color": colour, "linestyle": dash, "linewidth": 1.8}


def _label(ax: Axes, x: str, y: str) -> None:
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(labelsize=8, colors=INK, length=2)
    if isinstance(ax.xaxis.get_major_formatter(), StrCategoryFormatter):
        for word in ax.get_xticklabels():
            word.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)
