"""Records as tables and a chart: every metric of every method with its interval, and differences."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, draws, holm, interval
from gmcam.evaluate.measuring import DICE_AT, MEANS
from gmcam.evaluate.runs import Run
from gmcam.methods import METHODS
from gmcam.metrics import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ["method", "metric", "value", "low", "high", "count", "units"]
_STAR = """
Star: p below 0.05 after Holm's adjustment for {} differences; unadjusted, chance alone would mark {:.3g}.
"""
KEYS = ["image", "label", "method"]  # identify a row of the records
_ESCAPED = {"\\": r"\textbackslash ", "~": r"\textasciitilde ", "^": r"\textasciicircum "}
_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | _ESCAPED)


def summary(
    records: Run | DataFrame,
    mean: str | None = None,
    metrics: Iterable[str] = (),
    clusters: str | None = "label",
) -> DataFrame:
    """One row per method and metric: ``value``, ``low`` and ``high`` (95 % interval), ``count``, ``units``.
    ``records``: a run, or a frame with ``image``, ``label``, ``method`` and metrics. ``mean``: "micro" or
    "class", as in ``Choices``; by default the run's, or "micro". ``metrics``: columns; those of ``METRICS``
    by default. ``clusters``: the column whose values the bootstrap draws, crossed with the images: an image
    weighs its own weight times that of each of its clusters. Under ten clusters, read an interval as rough;
    of one there is none (NaN). None: over images alone, which is too narrow for a sentence about classes.
    ``count``: pairs with a value; ``units``: clusters with one, or images. Metrics without any are left out.
    ``ValueError`` for another mean and a missing column."""
    frame, mean, names = _read(records, mean, metrics, clusters)
    rows = [(*key, *part[:-1]) for key, part in _bootstrapped(frame, mean, names, clusters).items()]
    return require("pandas", "evaluate").DataFrame(rows, columns=COLUMNS)


def differences(
    records: Run | DataFrame,
    reference: str,
    mean: str | None = None,
    metrics: Iterable[str] = (),
    clusters: str | None = "label",
) -> DataFrame:
    """Each other method minus ``reference``, over the pairs of image and class in which both have a value;
    arguments, columns and errors as ``summary``. ``p``: two-sided, of Student's t with units − 1 degrees of
    freedom for the value over the bootstrap's standard error, adjusted by ``holm`` for all rows."""
    frame, mean, names = _read(records, mean, metrics, clusters)
    if reference not in (methods := list(frame["method"].dropna().unique())):
        raise ValueError(f"expected a method among {', '.join(methods)}, got {reference!r}: choose one")
    frame = frame.set_index(["image", "label"]).astype(dict.fromkeys(names, float))
    base, others = frame[frame["method"] == reference], frame[frame["method"] != reference]
    paired = others.assign(**(others[names] - base[names].reindex(others.index))).reset_index()
    parts = _bootstrapped(paired, mean, names, clusters)
    rows = [(*key, *part[:-1]) for key, part in parts.items()]
    result = require("pandas", "evaluate").DataFrame(rows, columns=COLUMNS)
    errors = np.array([part[-1] for part in parts.values()], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(result["value"] == 0, 0, result["value"].abs() / errors).astype(float)
    p = 2 * require("scipy.stats", "evaluate").t.sf(t, result["units"].to_numpy(float) - 1)
    return result.assign(p=holm(np.where(result["low"].isna(), np.nan, p)))


def _bootstrapped(
    frame: DataFrame, mean: str, names: list[str], clusters: str | None
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Method and metric → value, low, high, count, units, standard error."""
    frame = frame.dropna(subset="method")
    if frame.empty:
        return {}
    members = frame.groupby("image", sort=False)[clusters or "label"].unique()
    weights = bootstrap_weights(list(members.index), list(members) if clusters else None)
    drawn = draws(frame["label"]) if clusters == "label" else {}
    found: dict[tuple[str, str], tuple[float, ...]] = {}
    for method, part in frame.groupby("method", sort=False):
        values, columns = part[names].to_numpy(float), weights[:, members.index.get_indexer(part["image"])]
        if mean == "micro":
            means = bootstrap_means(columns, values)
        else:  # a class drawn twice counts twice
            totals, counts = np.zeros((2, len(weights), len(names)))
            for label, indices in part.groupby("label").indices.items():
                of_class = bootstrap_means(columns[:, indices], values[indices])
                share = drawn.get(label, np.ones(len(weights)))[:, None]
                totals += share * np.nan_to_num(of_class)
                counts += share * ~np.isnan(of_class)
            means = totals / np.where(counts > 0, counts, np.nan)
        units = part.groupby(clusters or "image")[names].count().gt(0).sum()
        low, high = np.where(units > 1, interval(means), np.nan)
        errors = np.nanstd(np.where(np.isnan(low), 0, means[1:]), 0)
        rows = zip(means[0], low, high, part[names].count(), units, errors, strict=True)
        found |= {(method, name): row for name, row in zip(names, rows, strict=True) if row[3]}
    return found


def recognised(records: Run | DataFrame) -> DataFrame:
    """The rows whose class the network recognises: its probability is at least 0.2, or among the five
    highest. A map of a class that the network does not see explains little, and the zones' metrics measure
    the probability there."""
    frame = records.records() if isinstance(records, Run) else records
    return frame[(frame["probability"] >= 0.2) | (frame["rank"] <= 5)]


def at_best_threshold(records: Run | DataFrame) -> DataFrame:
    """The records with the columns ``Dice, best threshold ↑`` and ``IoU, best threshold ↑``.
    A class is measured at the threshold with the method's highest mean Dice over all other classes, so that
    none chooses its own. NaN where there is one class only."""
    frame = (records.records() if isinstance(records, Run) else records).reset_index(drop=True)
    dice = frame[DICE_AT].to_numpy(float)
    best = np.full(len(frame), np.nan)
    for _, of_method in frame.groupby("method").indices.items():
        labels = frame["label"].to_numpy()[of_method]
        for label in np.unique(labels):
            own, others = of_method[labels == label], dice[of_method[labels != label]]
            if (~np.isnan(others)).any():
                best[own] = dice[own, np.nanmean(others, 0).argmax()]
    return frame.assign(**{"Dice, best threshold ↑": best, "IoU, best threshold ↑": best / (2 - best)})


def status(run: Run) -> dict[str, int]:
    """How many images were measured, unreadable, without a known class, or failed."""
    counts = run.records().drop_duplicates("image")["status"].value_counts()
    return {name: int(counts.get(name, 0)) for name in ("measured", "unreadable", "no class", "failed")}


def table(rows: DataFrame, signed: bool = False, clusters: str | None = "label") -> DataFrame:
    """``summary`` or ``differences`` for reading, a line per method; ``signed``: a plus if positive. A star:
    p below 0.05 after Holm's adjustment. Without an interval, the cell says why: one class, with ``clusters``
    as in ``summary``, or few images."""
    text, sign = "{0:{3}.3f} [{1:{3}.3f}, {2:{3}.3f}]{4}", "+" if signed else "-"
    cells, one = [], f"one {'class' if clusters == 'label' else clusters or 'image'}"
    for row in rows.itertuples():
        why = f"{{0:{{3}}.3f}} ({one if row.units == 1 else 'few images'}: no interval)"
        form = why if np.isnan(row.low) else text
        star = "*" if getattr(row, "p", 1) < 0.05 else ""
        cells.append(form.format(row.value, row.low, row.high, sign, star).replace("-", "−"))
    wide = rows.assign(text=cells).pivot(index="method", columns="metric", values="text").fillna("")
    wide = wide.loc[list(dict.fromkeys(rows["method"])), in_order(rows["metric"])]
    wide.index = [METHODS[name].title if name in METHODS else name for name in wide.index]
    wide.columns = [" ".join(METRICS.get(name, (name,))) for name in wide.columns]
    return wide.rename_axis(index="Method")


def write_tables(run: Run) -> Path:
    """Write the summary, and differences from GMCAM or the first method, as CSV, Markdown and LaTeX: of all
    targets, and of those that are ``recognised``. A line below the differences explains their stars."""
    methods, mean = (run.description["arguments"][name] for name in ("methods", "mean"))
    reference = "gmcam" if "gmcam" in methods else methods[0]
    (folder := run.folder / "tables").mkdir(exist_ok=True)
    for suffix, records in (("", run.records()), ("-recognised", recognised(run))):
        if len(records):
            compared = differences(records, reference, mean)
            frames = {"summary": summary(records, mean), f"differences-from-{reference}": compared}
            for name, rows in ((name, rows) for name, rows in frames.items() if len(rows)):
                wide, stem = table(rows, signed=name != "summary"), folder / (name + suffix)
                note = _STAR.format(n, n / 20) if "p" in rows and (n := rows["p"].count()) else ""
                rows.to_csv(f"{stem}.csv", index=False)
                Path(f"{stem}.md").write_text(as_markdown(wide) + note, "utf-8")
                Path(f"{stem}.tex").write_text(as_latex(wide) + note, "utf-8")
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
    return sorted(dict.fromkeys(metrics), key=lambda name: [*METRICS, name].index(name))


def _read(
    frame: Run | DataFrame, mean: str | None, names: Iterable[str], clusters: str | None
) -> tuple[DataFrame, str, list[str]]:
    if isinstance(frame, Run):
        mean, frame = mean or frame.description["arguments"]["mean"], frame.records()
    if (mean := mean or "micro") not in MEANS:
        raise ValueError(f"expected mean to be {' or '.join(MEANS)}, got {mean!r}: choose one")
    known = list(frame.select_dtypes(["number", "bool"]).columns)
    names = in_order(names) or [name for name in METRICS if name in known]
    for name in (*KEYS, *([clusters] if clusters else []), *names):
        if name not in (known if name in names else frame.columns):
            raise ValueError(f"expected a column {name!r} in the records, got {', '.join(known)}: add it")
    return frame, mean, names
