"""Comparisons of stored runs with each other and with the article's Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate import Run, bootstrap_means, bootstrap_weights, differences, interval, recognised
from gmcam.evaluate.bootstrap import REPLICATES
from gmcam.lab.pictures import Dot
from gmcam.methods import METHODS
from gmcam.metrics import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

SIGNS = {"better": "▲", "worse": "▼"}
DATA = {"voc": "VOC", "coco": "COCO", "imagenet": "ImageNet"}
NETS = {f"efficientnet-lite0-{n}x{n}": f"Lite0, {n} × {n}" for n in (7, 14)}
NETS["squeezenet1_0"] = "SqueezeNet"


@cache
def stored(name: str) -> DataFrame:
    """The records of a run of the book by its folder's name in ``book/runs``, read once."""
    folders = (Path("runs"), Path(__file__).parents[2] / "book" / "runs")
    folder = next((folder for folder in folders if (folder / name).exists()), None)
    if folder is None:
        raise ValueError(f"expected a folder in book/runs, got {name!r}: choose one, in the book's checkout")
    return Run.open(folder / name).records()


def title_of(name: str) -> str:
    """A stored run's name for a row: "voc-efficientnet-lite0-7x7" → "VOC, Lite0, 7 × 7"."""
    data, _, network = name.partition("-")
    if data not in DATA:
        return name
    return f"{DATA[data]}, {NETS.get(network.removesuffix('-part'), network)}"


def panel(rows: DataFrame, bold: str = "gmcam", flip: bool = False) -> dict[str, Dot]:
    """Rows of ``gmcam.lab.dots`` from rows of ``summary`` or ``differences`` in one metric, with the small
    dots of ``by_class`` if it has added them. ``bold``: the method in bold. ``flip``: the reference minus
    each method."""
    dots = dict[str, Dot]()
    classes = rows["classes"] if "classes" in rows else [()] * len(rows)
    for row, each in zip(rows.itertuples(), classes, strict=True):
        name = "*" * (row.method == bold) + METHODS[row.method].title
        value, low, high = row.value, row.low, row.high
        if flip:
            value, low, high, each = 0 - value, 0 - high, 0 - low, [0 - mean for mean in each]
        dots[name] = (value, low, high, each)
    return dots


def lead(rows: DataFrame, method: str = "grad_cam") -> str:
    """The reference minus ``method`` in words: its only row in ``differences`` and the interval's ends."""
    row = rows.set_index("method").loc[method]
    value, *ends = (f"{round(-row[name], 2) + 0.0:+.2f}" for name in ("value", "high", "low"))  # no −0.00
    return f"{value} [{', '.join(ends)}]".replace("-", "\N{MINUS SIGN}")


def sizes(records: DataFrame) -> dict[str, int]:
    """How many pairs of image and class there are, their classes, and pairs of VOC's pose dataset's five."""
    labels = records.drop_duplicates(["image", "label"])["label"]
    animals = labels.isin(["cat", "cow", "dog", "horse", "sheep"])
    return {"pairs": len(labels), "classes": labels.nunique(), "animals": int(animals.sum())}


def several(records: DataFrame, pairs: int = 5) -> DataFrame:
    """The rows of classes with at least so many pairs of image and class: the mean of fewer says little."""
    return records[records.groupby(["method", "label"])["label"].transform("size") >= pairs]


def marks(records: DataFrame, reference: str = "gmcam") -> DataFrame:
    """Rows of ``differences`` with a ``mark``: ▲ where ``reference`` is better, ▼ where it is worse, with
    p < 0.05 after Holm's adjustment for all rows, and · elsewhere. *Inside error* counts by its distance
    from zero."""
    frame = records.dropna(subset="method")
    if "inside_error" in frame:
        frame = frame.assign(inside_error=frame["inside_error"].astype(float).abs())
    rows = differences(frame, reference)
    better = (rows["value"] < 0) == rows["metric"].map(lambda name: METRICS[name][1] == "↑")
    mark = better.map({True: SIGNS["better"], False: SIGNS["worse"]})
    return rows.assign(mark=mark.where(rows["p"] < 0.05, "·"))


def counted(records: DataFrame, part: str = "all") -> DataFrame:
    """The ``marks`` of a run's records, counted in each metric: ``comparisons``, ``better``, ``worse``, the
    intervals without zero before Holm's adjustment (``unadjusted``), and the distance from Grad-CAM squared
    (``squared``). ``part``: "all" targets, or those that are "recognised"."""
    rows = marks(recognised(records) if part == "recognised" else records)
    counts = []
    for metric, each in rows.groupby("metric", sort=False):
        squared = each.loc[each["method"] == "grad_cam_squared", "value"].abs().max()
        unadjusted = ((each["low"] > 0) | (each["high"] < 0)).sum()
        signs = [int((each["mark"] == sign).sum()) for sign in SIGNS.values()]
        counts.append((part, metric, len(each), *signs, int(unadjusted), squared))
    columns = ["part", "metric", "comparisons", *SIGNS, "unadjusted", "squared"]
    return require("pandas", "evaluate").DataFrame(counts, columns=columns)


def rank_agreement(
    records: DataFrame, published: DataFrame, replicates: int = REPLICATES
) -> dict[str, tuple[float, float, float]]:
    """Spearman's correlation between the methods' order in a run and in a published table, by metric, with
    its 95 % interval over classes and images: r between the ranks of the mean values, in the data and in each
    replicate of the crossed cluster bootstrap. Methods that either lacks are left out. ``published``: the
    columns ``method``, ``metric`` and ``value``. Source: Spearman, *The Proof and Measurement of Association
    between Two Things*, 1904."""
    theirs = published.pivot(index="method", columns="metric", values="value")
    metrics = [name for name in METRICS if name in theirs]
    frame = records[records["method"].isin(theirs.index)]
    members = frame.groupby("image", sort=False)["label"].unique()
    weights = bootstrap_weights(list(members.index), list(members), replicates)
    means = {}
    for method, rows in frame.groupby("method"):
        columns = weights[:, members.index.get_indexer(rows["image"])]
        means[method] = bootstrap_means(columns, rows[metrics].to_numpy(float))
    theirs = theirs.loc[list(means), metrics]
    stacked = np.stack(list(means.values()), 1).round(9)  # (1 + replicates, methods, metrics)
    pairs = stacked[:, :, None], stacked[:, None]
    ranks = np.greater(*pairs).sum(2) + np.equal(*pairs).sum(2) / 2 + 0 * stacked  # NaN stays NaN
    ranks = ranks - ranks.mean(1, keepdims=True)
    others = theirs.rank().to_numpy() - theirs.rank().to_numpy().mean(0)
    with np.errstate(invalid="ignore"):  # all methods alike: no order
        r = (ranks * others).sum(1) / np.sqrt((ranks**2).sum(1) * (others**2).sum(0))
    low, high = interval(r)
    return {name: (r[0, i], low[i], high[i]) for i, name in enumerate(metrics)}


def agreement_numbers(
    panels: Mapping[str, Mapping[str, Dot]], known: Mapping[str, Mapping[str, float]], methods: int = 6
) -> dict[str, str]:
    """The correlations of all panels in words: how many, how many below zero and beyond the ``limit`` of
    ``unrelated``, and the largest with its interval. ``known``: those of recognised targets, counted above
    the limit."""
    rows, limit = [row for panel in panels.values() for row in panel.values()], unrelated(methods)
    value, low, high, *_ = max(rows, key=lambda row: row[0])
    values = np.array([row[0] for row in rows])
    seen = np.array([r for panel in known.values() for r in panel.values()])
    counts = {"all": len(rows), "negative": (values < 0).sum(), "above": (values >= limit).sum()}
    counts |= {"below": (values <= -limit).sum(), "known": (seen >= limit).sum()}
    numbers = {"limit": f"{limit:.2f}", "most": f"{value:.2f} [{low:.2f}, {high:.2f}]"}
    texts = {name: str(int(count)) for name, count in counts.items()} | numbers
    return {name: text.replace("-", "\N{MINUS SIGN}") for name, text in texts.items()}


def unrelated(methods: int) -> float:
    """The rank correlation that unrelated orders of so many methods exceed, up or down, once in twenty."""
    orders = permutations(range(methods))
    return float(np.quantile([abs(np.corrcoef(range(methods), order)[0, 1]) for order in orders], 0.95))


def counted_numbers(counts: DataFrame) -> dict[str, str]:
    """The numbers of ``stored_marks`` that the chapter names, over all targets."""
    fine, every = "efficientnet-lite0-14x14", counts[counts["part"] == "all"]
    whole, parts = (every[every["run"].str.endswith("-part") == is_part] for is_part in (False, True))
    curves = parts[parts["metric"].isin(["insertion", "deletion"])]
    on_voc = whole[whole["run"] == f"voc-{fine}"].set_index("metric")
    on_imagenet = whole[whole["run"] == f"imagenet-{fine}"]
    numbers = {"ahead_inside": on_voc.at["inside", "better"], "behind_dice": on_voc.at["dice", "worse"]}
    for name, rows in {"imagenet": on_imagenet, "parts": parts, "curves": curves, "marks": whole}.items():
        sums = rows[["comparisons", *SIGNS]].sum()
        numbers |= {f"{name}_all": sums["comparisons"], f"{name}_marks": sums["better"] + sums["worse"]}
        numbers |= {f"{name}_{sign}": sums[sign] for sign in SIGNS}
    squared = whole.loc[whole["run"] == "voc-squeezenet1_0", "squared"].max()
    return {name: f"{number:,}" for name, number in numbers.items()} | {"squeezed": f"{squared:.3f}"}


def stored_marks(runs: Mapping[str, Run]) -> DataFrame:
    """``counted`` of runs, of all targets and of the recognised ones, in the column ``run`` by name."""
    tables = [
        counted(run.records(), part).assign(run=name)
        for name, run in runs.items()
        for part in ("all", "recognised")
    ]
    return require("pandas", "evaluate").concat(tables, ignore_index=True)


def full_size(folder: Path, images: int, pairs: float) -> dict[str, float | str]:
    """Hours for the article's ten methods, seven metrics and both curves with ResNet50, 224 pixels a step, on
    so many images of so many explained classes each: ``cpu``, at the stored rate of bare forward passes on
    two threads, which passes with gradients do not reach, and ``gpu``, at that of a whole run on few images.
    ``card`` names the GPU, and ``date`` the day of its measurement. ``folder``: the tables of ``make bench``.
    """
    pandas = require("pandas", "evaluate")
    gpu = pandas.read_csv(folder / "cuda" / "article.csv").set_index(["network", "pixels"])
    bare = pandas.read_csv(folder / "cpu" / "methods.csv")
    bare = bare.query("network == 'resnet50' and batch == 1 and library == 'bare'")
    bare = bare.loc[bare["method"] == "forward pass", "milliseconds"].item()
    # For a map: ResNet50's 2,048 channels in Score-CAM, CAMERAS' enlarged images by their areas, counted by a
    # hook. For the metrics: two zones and two curves a method.
    maps = 1 + 1 + 1 + 62 + 1 + 26 + 51 + 2049 + 2 + 1
    passes = maps + 10 * 2 + 10 * 2 * 224
    rates = {"cpu": 1000 / bare, "gpu": gpu.at[("resnet50", 224), "passes a second"]}
    machine = pandas.read_csv(folder / "cuda" / "machine.csv", index_col="What")["Which"]
    hours: dict[str, float | str] = {
        name: float(images * pairs * passes / rate / 3600) for name, rate in rates.items()
    }
    return hours | {"card": machine["Device"], "date": machine["Date"]}
