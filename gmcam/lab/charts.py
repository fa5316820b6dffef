"""A summary as a chart: dots with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gmcam.evaluate.tables import in_order
from gmcam.methods import METHODS
from gmcam.metrics import METRICS
from gmcam.show import DPI, INK, InlineFigure

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = ("#0072B2", "#D55E00")


def intervals(summary: DataFrame, zero: bool = False, published: DataFrame | None = None) -> InlineFigure:
    """Draw a panel per metric with a line per method: the value and its 95 % interval.
    ``summary``: rows of ``gmcam.evaluate.summary`` or ``differences``; the arrow in a title points to better
    values. ``zero``: draw a line at 0, for differences. ``published``: values from elsewhere, in the columns
    ``method``, ``metric`` and ``value``, drawn as diamonds. ``ValueError`` for a summary without rows."""
    metrics, methods = in_order(summary["metric"]), list(dict.fromkeys(summary["method"]))[::-1]
    if not metrics:
        raise ValueError("expected a summary with rows, got none: evaluate at least one image")
    columns = min(len(metrics), 3 if -len(metrics) % 3 < -len(metrics) % 4 else 4)  # fewer empty places
    rows, places = -(-len(metrics) // columns), range(len(methods))
    size = (1.8 * columns + 1.3, rows * (0.24 * len(methods) + 0.85))
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        values = summary[summary["metric"] == metric].set_index("method").reindex(methods)
        if zero:
            ax.axvline(0, color="#999999", linewidth=0.8)
        ax.hlines(places, values["low"], values["high"], color=COLOURS[0], linewidth=1.6, alpha=0.5)
        ax.plot(values["value"], places, "o", color=COLOURS[0], markersize=4.5)
        if published is not None:
            others = published[published["metric"] == metric].set_index("method").reindex(methods)
            ax.plot(others["value"], places, "D", color=COLOURS[1], markersize=4.5, fillstyle="none")
        ax.set_title(" ".join(METRICS.get(metric, (metric,))), fontsize=9, color=INK)
        ax.set_yticks(places, [METHODS[name].title if name in METHODS else name for name in methods])
        ax.tick_params(labelsize=8.5, colors=INK, length=2)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_ylim(-0.6, len(methods) - 0.4)
        ax.spines[["top", "left", "right"]].set_visible(False)
    for ax in axes.flat[len(metrics) :]:
        ax.set_axis_off()
    return figure
