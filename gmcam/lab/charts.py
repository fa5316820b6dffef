"""A summary as a chart: dots with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import in_order
from gmcam.lab.pictures import Dot, dots
from gmcam.methods import METHODS
from gmcam.metrics import METRICS
from gmcam.show import InlineFigure

if TYPE_CHECKING:
    from pandas import DataFrame


def intervals(
    summary: DataFrame,
    zero: bool = False,
    published: DataFrame | None = None,
    *,
    rules: Sequence[int] = (),
    log: bool = False,
    x: str = "",
) -> InlineFigure:
    """Draw a panel per metric with a row per method: the value and its 95 % interval, as ``dots`` does.

    ``summary``: rows of ``gmcam.evaluate.summary`` or ``differences``, with the small dots of ``by_class`` if
    it has added them; the arrow in a title points to better values. ``zero``: draw a line at 0, for
    differences. ``published``: values from elsewhere, in the columns ``method``, ``metric`` and ``value``,
    drawn as diamonds. ``rules``, ``log``, ``x``: as in ``dots``. Raises ``ValueError`` for a summary without
    rows."""
    metrics, methods = in_order(summary["metric"]), list(dict.fromkeys(summary["method"]))
    if not metrics:
        raise ValueError("expected a summary with rows, got none: evaluate at least one image")
    names = {method: METHODS[method].title if method in METHODS else method for method in methods}
    panels, elsewhere = dict[str, dict[str, Dot]](), dict[str, dict[str, float]]()
    for metric in metrics:
        title = " ".join(METRICS.get(metric, (metric,)))
        rows = summary[summary["metric"] == metric].set_index("method").reindex(methods)
        classes = rows["classes"] if "classes" in rows else [()] * len(rows)
        values = zip(rows["value"], rows["low"], rows["high"], classes, strict=True)
        panels[title] = dict(zip(names.values(), values, strict=True))
        if published is not None:
            others = published[published["metric"] == metric].set_index("method")["value"]
            elsewhere[title] = {
                name: float(others[method]) for method, name in names.items() if method in others.index
            }
    columns = 3 if -len(metrics) % 3 < -len(metrics) % 4 else 4  # fewer empty places
    chance = 0.0 if zero else None
    return dots(panels, chance, columns, shared=log, published=elsewhere, rules=rules, log=log, x=x)


def by_class(rows: DataFrame, records: Run | DataFrame, reference: str | None = None) -> DataFrame:
    """Rows of ``summary`` or, with their ``reference``, of ``differences``, and in the column ``classes`` the
    mean of each class in the ``records``, without NaN: what a cluster bootstrap draws, made visible."""
    metrics = list(dict.fromkeys(rows["metric"]))
    frame = records.records() if isinstance(records, Run) else records
    frame = frame.dropna(subset="method").set_index(["image", "label"])
    frame = frame[["method", *metrics]].astype(dict.fromkeys(metrics, float))
    if reference is not None:
        base, frame = frame[frame["method"] == reference], frame[frame["method"] != reference]
        frame = frame.assign(**(frame[metrics] - base[metrics].reindex(frame.index)))
    means = frame.groupby(["method", "label"])[metrics].mean()
    classes = [
        means.loc[method, metric].dropna().tolist() if method in means.index else ()
        for method, metric in zip(rows["method"], rows["metric"], strict=True)
    ]
    return rows.assign(classes=classes)
