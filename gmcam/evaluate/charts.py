"""A run's summary as a chart: dots with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gmcam.methods import METHODS
from gmcam.metrics import METRICS
from gmcam.show import INK, InlineFigure

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#D55E00")
_PANELS_ACROSS = (4, 3)


def intervals(summary: pd.DataFrame, zero: bool = False, beside: pd.DataFrame | None = None) -> InlineFigure:
    """A panel for each metric, a line in it for each method: the value and its 95 % interval.

    ``summary``: rows as ``gmcam.evaluate.summary`` or ``differences`` gives them, metrics of your own
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
    figure = InlineFigure(
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
        ax.hlines(places, rows["low"], rows["high"], color=COLOURS[0], linewidth=1.6, alpha=0.5)
        ax.plot(rows["value"], places, "o", color=COLOURS[0], markersize=4.5)
        if beside is not None:
            others = beside[beside["metric"] == metrics[index]].set_index("method").reindex(methods)
            ax.plot(others["value"], places, "D", color=COLOURS[1], markersize=4.5, fillstyle="none")
        ax.set_title(" ".join(METRICS.get(metrics[index], (metrics[index],))), fontsize=9, color=INK)
        ax.set_yticks(places, [METHODS[name].title if name in METHODS else name for name in methods])
        ax.tick_params(labelsize=8.5, colors=INK, length=2)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_ylim(-0.6, len(methods) - 0.4)
        for side in ("top", "left", "right"):
            ax.spines[side].set_visible(False)
    return figure
