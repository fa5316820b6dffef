"""Records as tables and a chart: every metric of every method with its interval, and differences."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate.bootstrap import bootstrap_means, interval
from gmcam.evaluate.measuring import MEANS
from gmcam.evaluate.runs import Run
from gmcam.methods import METHODS
from gmcam.metrics import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ["method", "metric", "value", "low", "high", "count"]
KEYS = ["image", "label", "method"]  # identify a row of the records
_ESCAPED = {"\\": r"\textbackslash ", "~": r"\textasciitilde ", "^": r"\textasciicircum "}
_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | _ESCAPED)


def summary(records: Run | DataFrame, mean: str | None = None, metrics: Iterable[str] = ()) -> DataFrame:
    """One row per method and metric: ``value``, ``low`` and ``high`` (95 % interval), ``count``.
    ``records``: a run, or a frame with ``image``, ``label``, ``method`` and metrics. ``mean``: "micro" or
    "class", as in ``Choices``; by default the run's, or "micro". ``metrics``: columns; those of ``METRICS``
    by default. ``count``: pairs with a value; metrics without any are left out. ``ValueError`` for another
    mean and a missing column."""
    frame, mean, names = _read(records, mean, metrics)
    rows: list[tuple[object, ...]] = []
    for method, part in frame.groupby("method", sort=False):
        groups = [part] if mean == "micro" else [group for _, group in part.groupby("label")]
        means = np.stack([bootstrap_means(list(g["image"]), g[names].to_numpy(float)) for g in groups])
        known = (~np.isnan(means)).sum(0)  # a replicate may have no image of a class
        total = np.nansum(means, 0) / np.where(known > 0, known, np.nan)
        columns = zip(names, total[0], *interval(total), part[names].count(), strict=True)
        rows += [(method, *column) for column in columns if column[-1]]
    return require("pandas", "evaluate").DataFrame(rows, columns=COLUMNS)


def differences(
    records: Run | DataFrame, reference: str, mean: str | None = None, metrics: Iterable[str] = ()
) -> DataFrame:
    """Each other method minus ``reference``, over the pairs of image and class in which both have a value;
    arguments, columns and errors as ``summary``."""
    frame, mean, names = _read(records, mean, metrics)
    if reference not in (methods := list(frame["method"].dropna().unique())):
        raise ValueError(f"expected a method among {', '.join(methods)}, got {reference!r}: choose one")
    frame = frame.set_index(["image", "label"]).astype(dict.fromkeys(names, float))
    base, others = frame[frame["method"] == reference], frame[frame["method"] != reference]
    paired = others[names] - base[names].reindex(others.index)
    return summary(others.assign(**paired).reset_index(), mean, names)


def status(run: Run) -> dict[str, int]:
    """How many images were measured, unreadable, without a known class, or failed."""
    counts = run.records().drop_duplicates("image")["status"].value_counts()
    return {name: int(counts.get(name, 0)) for name in ("measured", "unreadable", "no class", "failed")}


def table(rows: DataFrame, signed: bool = False) -> DataFrame:
    """``summary`` or ``differences`` for reading, a line per method; ``signed``: a plus if positive."""
    text = "{0:+.3f} [{1:+.3f}, {2:+.3f}]" if signed else "{0:.3f} [{1:.3f}, {2:.3f}]"
    cells = [text.format(row.value, row.low, row.high).replace("-", "−") for row in rows.itertuples()]
    wide = rows.assign(text=cells).pivot(index="method", columns="metric", values="text").fillna("")
    wide = wide.loc[list(dict.fromkeys(rows["method"])), in_order(rows["metric"])]
    wide.index = [METHODS[name].title if name in METHODS else name for name in wide.index]
    wide.columns = [" ".join(METRICS.get(name, (name,))) for name in wide.columns]
    return wide.rename_axis(index="Method")


def write_tables(run: Run) -> Path:
    """Write the summary, and differences from GMCAM or the first method, as CSV, Markdown and LaTeX."""
    folder, methods = run.folder / "tables", run.description["arguments"]["methods"]
    reference = "gmcam" if "gmcam" in methods else methods[0]
    frames = {"summary": summary(run), f"differences-from-{reference}": differences(run, reference)}
    folder.mkdir(exist_ok=True)
    for name, rows in frames.items():
        if len(rows):
            rows.to_csv(folder / f"{name}.csv", index=False)
            wide = table(rows, signed=name != "summary")
            (folder / f"{name}.md").write_text(as_markdown(wide), "utf-8")
            (folder / f"{name}.tex").write_text(as_latex(wide), "utf-8")
    return folder


def write_figures(run: Run) -> Path:
    """Draw ``figures/summary.png``, every metric with its intervals; return the folder. Needs matplotlib."""
    from gmcam.evaluate.charts import intervals

    (folder := run.folder / "figures").mkdir(exist_ok=True)
    intervals(summary(run)).savefig(folder / "summary.png", format="png", bbox_inches="tight")
    return folder


def as_markdown(wide: DataFrame) -> str:
    """A ``table`` in Markdown, its names escaped."""
    cells = [["Method", *wide.columns], *wide.reset_index().to_numpy()]
    head, *rows = [[escape(cell).replace("|", r"\|") for cell in row] for row in cells]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, [":--"] * len(head), *rows))


def as_latex(wide: DataFrame) -> str:
    """A ``table`` in LaTeX with booktabs, its names escaped."""
    cells = [["Method", *wide.columns], *wide.reset_index().to_numpy()]
    head, *rows = (" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in cells)
    lines = [r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * (1 + wide.shape[1])}}}", *lines, r"\end{tabular}", ""])


def in_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once, those of ``METRICS`` first."""
    names = dict.fromkeys(metrics)
    return [*(name for name in METRICS if name in names), *(name for name in names if name not in METRICS)]


def _read(frame: Run | DataFrame, mean: str | None, names: Iterable[str]) -> tuple[DataFrame, str, list[str]]:
    if isinstance(frame, Run):
        mean, frame = mean or frame.description["arguments"]["mean"], frame.records()
    if (mean := mean or "micro") not in MEANS:
        raise ValueError(f"expected mean to be {' or '.join(MEANS)}, got {mean!r}: choose one")
    known = list(frame.select_dtypes(["number", "bool"]).columns)
    names = in_order(names) or [name for name in METRICS if name in known]
    for name in (*KEYS, *names):
        if name not in (frame.columns if name in KEYS else known):
            raise ValueError(f"expected a column {name!r} in the records, got {', '.join(known)}: add it")
    return frame, mean, names
