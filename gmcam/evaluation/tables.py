"""A run's records as tables: every metric of every method with its interval, and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gmcam.evaluation.measuring import MEANS
from gmcam.evaluation.metrics import METRICS
from gmcam.evaluation.runs import Run
from gmcam.evaluation.totals import Totals, interval
from gmcam.methods import METHODS


def summary(run: Run, mean: str | None = None, metrics: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row per method and metric: ``value``, ``low`` and ``high`` (95 % interval), ``count``.

    ``mean``: ``micro`` or ``class``, as in ``Choices``; the run's own without it. ``count``: the pairs of
    picture and class in which the metric is defined. Metrics that no pair defines, such as Dice without
    masks, are left out. ``metrics``: those that are wanted. Raises ``ValueError`` for another mean or an
    unknown metric.
    """
    for name in metrics:
        if name not in METRICS:
            raise ValueError(f"no metric is called {name!r}; there are {', '.join(METRICS)}")
    rows = []
    for method, means, counts in _means(run, mean):
        low, high = interval(means)
        for i, metric in enumerate(METRICS):
            if counts[i] and metric in metrics:
                rows.append((method, metric, means[0, i], low[i], high[i], int(counts[i])))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high", "count"])


def differences(run: Run, reference: str, mean: str | None = None) -> pd.DataFrame:
    """Each other method minus ``reference``, on the same pictures: columns as ``summary``'s.

    Raises ``ValueError`` for a reference that the run does not hold.
    """
    found = {method: (means, counts) for method, means, counts in _means(run, mean)}
    if reference not in found:
        raise ValueError(f"the run compares {', '.join(found)}, not {reference!r}")
    rows = []
    for method, (means, counts) in found.items():
        difference = means - found[reference][0]
        low, high = interval(difference)
        rows += [
            (method, metric, difference[0, i], low[i], high[i], int(counts[i]))
            for i, metric in enumerate(METRICS)
            if counts[i] and method != reference
        ]
    return pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high", "count"])


def status(run: Run) -> dict[str, int]:
    """How many pictures were measured, unreadable, without a known class, or failed."""
    pictures = {"measured": 0, "unreadable": 0, "no class": 0, "failed": 0}
    for block in run.blocks():
        frame = block.select(["picture", "status"]).to_pandas().drop_duplicates()
        for name, count in frame["status"].value_counts().items():
            pictures[str(name)] += int(count)
    return pictures


def table(rows: pd.DataFrame, signed: bool = False) -> pd.DataFrame:
    """``summary`` or ``differences`` to be read: a line per method, a column per metric, the interval
    in brackets. ``signed``: a plus before what is positive."""
    number = "{:+.3f}" if signed else "{:.3f}"
    text = [
        f"{number} [{number}, {number}]".format(row.value, row.low, row.high).replace("-", "−")
        for row in rows.itertuples()
    ]
    wide = rows.assign(text=text).pivot(index="method", columns="metric", values="text")
    wide = wide.loc[list(dict.fromkeys(rows["method"])), [c for c in METRICS if c in wide.columns]]
    wide.index = pd.Index([METHODS[name].title if name in METHODS else name for name in wide.index])
    return wide.rename(columns={name: " ".join(words) for name, words in METRICS.items()}).rename_axis(
        index="Method", columns=None
    )


def write_tables(run: Run) -> Path:
    """Write ``tables/summary`` and ``tables/differences-from-M``, with M GMCAM or else the first method, as
    CSV (numbers), Markdown and LaTeX (to be read); return the folder."""
    folder = run.folder / "tables"
    folder.mkdir(exist_ok=True)
    frame = summary(run)
    methods = list(dict.fromkeys(frame["method"]))
    frames = {"summary": frame}
    if len(methods) > 1:
        reference = "gmcam" if "gmcam" in methods else methods[0]
        frames[f"differences-from-{reference}"] = differences(run, reference)
    for name, rows in frames.items():
        rows.to_csv(folder / f"{name}.csv", index=False)
        wide = table(rows, signed=name != "summary")
        (folder / f"{name}.md").write_text(wide.to_markdown() + "\n", "utf-8")
        (folder / f"{name}.tex").write_text(wide.style.to_latex(hrules=True), "utf-8")
    return folder


def _means(run: Run, mean: str | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each method with its means (1 + replicates, metrics) and counts (metrics,)."""
    mean = mean or run.description["arguments"]["mean"]
    if mean not in MEANS:
        raise ValueError(f"a mean is {' or '.join(MEANS)}, not {mean!r}")
    methods: list[str] = run.description["arguments"]["methods"]
    groups: dict[str, dict[str, Totals]] = {method: {} for method in methods}
    for block in run.blocks():
        by = ["method", "label"] if mean == "class" else ["method"]
        for names, part in block.to_pandas().groupby(by):
            totals = groups[names[0]].setdefault(str(names[1:]), Totals.empty(len(METRICS)))
            totals.update(part["picture"].tolist(), part[list(METRICS)].to_numpy(float))
    for method in filter(groups.get, methods):
        found = groups[method].values()
        counts = np.sum([totals.counts[0] for totals in found], axis=0)
        yield method, _mean([totals.means() for totals in found]), counts


def _mean(means: Sequence[np.ndarray]) -> np.ndarray:
    """Over classes; one of which a replicate has no picture takes no part in it."""
    stacked = np.stack(means)
    known = (~np.isnan(stacked)).sum(0)
    total: np.ndarray = np.nansum(stacked, 0) / np.where(known > 0, known, np.nan)
    return total
