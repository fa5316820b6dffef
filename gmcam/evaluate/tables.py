"""Records as tables and a figure: every metric of every method with its interval, and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam.evaluate.measuring import MEANS
from gmcam.evaluate.runs import KEPT, Run, disk, locked
from gmcam.evaluate.totals import Totals, interval
from gmcam.files import written_whole
from gmcam.methods import METHODS
from gmcam.metrics import METRICS

if TYPE_CHECKING:  # heavy: those who only measure do not wait for it
    import pandas as pd

COLUMNS = ["method", "metric", "value", "low", "high", "count"]
KEYS = ["picture", "label", "method"]  # what tells the rows of a run's records apart


def summary(
    records: Run | pd.DataFrame, mean: str | None = None, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row per method and metric: ``value``, ``low`` and ``high`` (95 % interval), ``count``.

    ``records``: a run, or a frame of records with a ``picture``, a ``label`` and a ``method`` in each row
    and a column per metric, some of which may be the caller's own. ``mean``: ``micro`` or ``class``, as in
    ``Choices``; without it the run's own, and ``micro`` for a frame. ``metrics``: those that are wanted;
    without them all of ``METRICS``. ``count``: the pairs of picture and class in which the metric is
    defined. Metrics that no pair defines, such as Dice without masks, are left out. Raises
    ``ValueError`` for another mean, an unknown metric or a frame without one of the three columns.
    """
    wanted = _wanted(records, metrics)
    rows = []
    for method, means, counts in _means(records, mean, wanted):
        low, high = interval(means)
        rows += [
            (method, metric, means[0, i], low[i], high[i], int(counts[i]))
            for i, metric in enumerate(wanted)
            if counts[i]
        ]
    import pandas as pd

    return pd.DataFrame(rows, columns=COLUMNS)


def differences(
    records: Run | pd.DataFrame,
    reference: str,
    mean: str | None = None,
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Each other method minus ``reference``, on the same pictures: arguments and columns as ``summary``'s.

    Where a frame has no value of a metric for one of the two, the other's does not count either.

    Raises ``ValueError`` as ``summary`` does, and for a reference that the records do not hold.
    """
    wanted = _wanted(records, metrics)
    methods = _methods(records)
    if reference not in methods:
        held = "run compares" if isinstance(records, Run) else "records compare"
        raise ValueError(f"the {held} {', '.join(methods)}, not {reference!r}")
    others = [method for method in methods if method != reference]
    # What a picture defines in a run, it defines for every method.
    parts = (
        [records] if isinstance(records, Run) else [_common(records, reference, o, wanted) for o in others]
    )
    rows = []
    for part in parts:
        found = {method: (means, counts) for method, means, counts in _means(part, mean, wanted)}
        for method in filter(others.__contains__, found):
            difference, counts = found[method][0] - found[reference][0], found[method][1]
            low, high = interval(difference)
            rows += [
                (method, metric, difference[0, i], low[i], high[i], int(counts[i]))
                for i, metric in enumerate(wanted)
                if counts[i]
            ]
    import pandas as pd

    return pd.DataFrame(rows, columns=COLUMNS)


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
    in brackets. ``signed``: a plus before what is positive. A metric of the caller's own comes after
    those of ``METRICS``, under the name that it has."""
    number = "{:+.3f}" if signed else "{:.3f}"
    text = [
        f"{number} [{number}, {number}]".format(row.value, row.low, row.high).replace("-", "−")
        for row in rows.itertuples()
    ]
    wide = rows.assign(text=text).pivot(index="method", columns="metric", values="text")
    held = list(dict.fromkeys(rows["metric"]))
    order = [*(name for name in METRICS if name in held), *(name for name in held if name not in METRICS)]
    wide = wide.loc[list(dict.fromkeys(rows["method"])), order]
    import pandas as pd

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
        (folder / f"{name}.md").write_text(as_markdown(wide) + "\n", "utf-8")
        (folder / f"{name}.tex").write_text(as_latex(wide), "utf-8")
    return folder


def write_figures(run: Run) -> Path:
    """Draw ``figures/summary.png``, every metric with its intervals; return the folder.

    Raises ``ValueError`` where the disk takes no more, or another process works on the folder.
    ``evaluate`` leaves this to its callers, since to draw takes longer than to measure a few pictures; the
    command line does it.
    """
    from gmcam.evaluate.charts import intervals

    folder = run.folder / "figures"
    chart = intervals(summary(run))
    with locked(run.folder), disk(folder, KEPT):
        folder.mkdir(exist_ok=True)
        with written_whole(folder / "summary.png") as unfinished:
            chart.savefig(unfinished, format="png", bbox_inches="tight")
    return folder


def as_markdown(wide: pd.DataFrame) -> str:
    """A ``table`` in Markdown, in which names stay text whatever they hold."""

    def text(name: str) -> str:
        return escape(name).replace("|", r"\|")

    written: str = wide.rename(index=text, columns=text).to_markdown()
    return written


def as_latex(wide: pd.DataFrame) -> str:
    """A ``table`` in LaTeX, in which names stay text whatever they hold."""
    style = wide.style.format(escape="latex")
    for axis in (0, 1):
        style = style.format_index(escape="latex", axis=axis)
    written: str = style.to_latex(hrules=True)
    return written


def _wanted(records: Run | pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """The metrics that are asked for, those of ``METRICS`` first."""
    known = list(METRICS)
    if not isinstance(records, Run):
        lost = [name for name in KEYS if name not in records.columns]
        if lost:
            raise ValueError(f"records have the columns {', '.join(KEYS)}; here there is no {lost[0]!r}")
        numbers = records.select_dtypes(["number", "bool"]).columns
        known = [name for name in METRICS if name in numbers]
        known += [name for name in numbers if name not in METRICS]
    for name in metrics or ():
        if name not in known:
            raise ValueError(f"no metric is called {name!r}; there are {', '.join(known)}")
    return [name for name in known if name in (METRICS if metrics is None else metrics)]


def _methods(records: Run | pd.DataFrame) -> list[str]:
    """Those that the records hold, in their order."""
    if isinstance(records, Run):
        return list(records.description["arguments"]["methods"])
    return list(dict.fromkeys(records["method"].dropna()))


def _common(frame: pd.DataFrame, one: str, other: str, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of two methods, with values only of pairs of picture and class for which both have one."""
    rows = frame[frame["method"].isin([one, other])]
    keys = [rows[key] for key in KEYS]
    known = rows[metrics].notna().groupby(keys).any().unstack("method", fill_value=False)
    both = known.T.groupby(level=0).all().T[metrics]
    pairs = list(zip(rows["picture"], rows["label"], strict=True))
    return rows.assign(**rows[metrics].where(both.reindex(pairs).to_numpy(bool)))


def _means(
    records: Run | pd.DataFrame, mean: str | None, metrics: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each method with its means (1 + replicates, metrics) and counts (metrics,)."""
    if isinstance(records, Run):
        mean = mean or records.description["arguments"]["mean"]
    mean = mean or MEANS[0]
    methods = _methods(records)
    if mean not in MEANS:
        raise ValueError(f"a mean is {' or '.join(MEANS)}, not {mean!r}")
    # For a thousand classes, the replicates of ten methods would fill the memory: two at a time, at most.
    for together in [[method] for method in methods] if mean == "class" else [methods]:
        groups: dict[str, dict[str, Totals]] = {method: {} for method in together}
        for rows in _frames(records):
            by = ["method", "label"] if mean == "class" else ["method"]
            for names, part in rows[rows["method"].isin(together)].groupby(by):
                totals = groups[names[0]].setdefault(str(names[1:]), Totals.empty(len(metrics)))
                totals.update(part["picture"].tolist(), part[list(metrics)].to_numpy(float))
        for method in filter(groups.get, together):
            found = groups[method].values()
            counts = np.sum([totals.counts[0] for totals in found], axis=0)
            yield method, _mean([totals.means() for totals in found]), counts


def _frames(records: Run | pd.DataFrame) -> Iterator[pd.DataFrame]:
    if isinstance(records, Run):
        yield from (block.to_pandas() for block in records.blocks())
    else:
        yield records


def _mean(means: Sequence[np.ndarray]) -> np.ndarray:
    """Over classes; one of which a replicate has no picture takes no part in it."""
    stacked = np.stack(means)
    known = (~np.isnan(stacked)).sum(0)
    total: np.ndarray = np.nansum(stacked, 0) / np.where(known > 0, known, np.nan)
    return total
