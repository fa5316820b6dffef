"""The stored areas of the chapter *Insertion and deletion* with three fills, and their statistics.

``benchmarks/insertion_fills.py`` writes them and describes their columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, holm, interval
from gmcam.evaluate.tables import summary
from gmcam.lab.pictures import Dot
from gmcam.methods import METHODS

if TYPE_CHECKING:
    from pandas import DataFrame

FILLS = {"zero": "grey", "blur": "blur", "road": "ROAD"}
ORDERED: tuple[str, ...] = ("grad_cam", "gmcam", "guidance_map", "x_grad_cam", "grad_cam_pp")
ORDERED += ("feature_sum", "random_network", "edges", "centred_blob", "area")
SHOWN = ("gmcam", "grad_cam_squared", *ORDERED[2:], "mask")


class FillStudy:
    """Areas of maps on scenes of two objects, from ``insertion_fills.parquet`` in a ``folder``.

    Everything is paired: maps and fills are compared scene by scene. Intervals are of 95 %, from a bootstrap
    of the scenes' objects, crossed with the scenes. ``least``: only targets of at least this probability.
    Raises ``FileNotFoundError`` without the table.
    """

    def __init__(self, folder: str | Path = ".", least: float = 0) -> None:
        pandas = require("pandas", "evaluate")
        rows: DataFrame = pandas.read_parquet(Path(folder) / "insertion_fills.parquet")
        self.rows = rows[rows["probability"] >= least]

    def areas(self, network: str, area: str, fill: str) -> DataFrame:
        """The ``area``, "insertion" or "deletion", of each map with a fill: a row a scene, a column a map."""
        rows = self.rows[(self.rows["network"] == network) & (self.rows["fill"] == fill)]
        if rows.empty:
            raise ValueError(f"expected a stored network and fill, got {network!r} and {fill!r}: choose both")
        return rows.pivot(index=["first", "second"], columns="method", values=area).astype(float)

    def gaps(self, network: str, area: str, fill: str, base: str = "grad_cam") -> dict[str, Dot]:
        """The area of each map in ``SHOWN`` minus that of ``base``; the small dots are the targets."""
        table, gaps = self.areas(network, area, fill), {}
        for name in (each for each in SHOWN if each in table and each != base):
            title = METHODS[name].title if name in METHODS else f"object's {name}"
            gaps["*" * (name == "gmcam") + title] = self.gap(network, area, fill, name, base)
        return gaps

    def gap(self, network: str, area: str, fill: str, method: str, base: str = "grad_cam") -> Dot:
        """The area of one map minus that of another."""
        table = self.areas(network, area, fill)
        return _dot(table[method] - table[base])

    def change(
        self, network: str, area: str, fills: tuple[str, str], method: str, base: str = "grad_cam"
    ) -> Dot:
        """The gap between two maps with the first fill, minus their gap with the second."""
        first, second = (self.areas(network, area, fill) for fill in fills)
        return _dot(first[method] - first[base] - second[method] + second[base])

    def same_order(self, network: str, area: str, fills: tuple[str, str]) -> tuple[float, float, float]:
        """The share of pairs of maps whose mean areas are in the same order with both fills.

        Pairs with equal areas in every scene do not count: on a pooled network several maps are the same.
        """
        tables = [self.areas(network, area, fill) for fill in fills]
        pairs = list(combinations([name for name in ORDERED if name in tables[0]], 2))
        pairs = [pair for pair in pairs if any((t[pair[0]] != t[pair[1]]).any() for t in tables)]
        signs = [
            np.stack([np.sign(means[first] - means[second]) for first, second in pairs])
            for means in map(_means, tables)
        ]
        undrawn = np.isnan(signs[0]).any(0)  # a replicate of one object has no scene
        shares = np.where(undrawn, np.nan, (signs[0] == signs[1]).mean(0))[:, None]
        low, high = interval(shares)
        return float(shares[0, 0]), float(low[0]), float(high[0])

    def clear(self, network: str, area: str, fill: str) -> dict[tuple[str, str], int]:
        """Pairs of maps whose areas differ, after Holm over all pairs → the sign of their difference.

        At 5 %, two-sided, of Student's t for the mean over the bootstrap's standard error, with one degree of
        freedom less than there are objects.
        """
        table = self.areas(network, area, fill)
        pairs = list(combinations([name for name in ORDERED if name in table], 2))
        gaps = np.stack([table[first] - table[second] for first, second in pairs], 1)
        means = bootstrap_means(_weights(table), gaps)
        errors = np.nanstd(means[1:], 0)
        t = np.where(errors > 0, np.abs(means[0]) / np.where(errors > 0, errors, 1), 0)
        units = len({name for names in table.index for name in names})
        p = holm(2 * require("scipy.stats", "evaluate").t.sf(t, units - 1))
        return {pair: int(np.sign(m)) for pair, m, q in zip(pairs, means[0], p, strict=True) if q < 0.05}

    def reversed(self, network: str, area: str, fills: tuple[str, str]) -> list[tuple[str, str]]:
        """Pairs of maps that differ clearly with both fills, in opposite directions."""
        first, second = (self.clear(network, area, fill) for fill in fills)
        return [pair for pair, sign in first.items() if second.get(pair, sign) != sign]


def _weights(table: DataFrame) -> np.ndarray:
    return bootstrap_weights([" ".join(names) for names in table.index], list(table.index))


def _means(table: DataFrame) -> dict[str, np.ndarray]:
    """Map → its mean area in the data and in each replicate."""
    return dict(zip(table, bootstrap_means(_weights(table), table.to_numpy()).T, strict=True))


def _dot(values: DataFrame) -> Dot:
    """The mean of a value for each scene, its interval, and the means of the targets."""
    means = bootstrap_means(_weights(values), values.to_numpy(float)[:, None])
    low, high = interval(means)
    small = values.groupby(level="first").mean().to_list()
    return float(means[0, 0]), float(low[0]), float(high[0]), small


def signed(dot: tuple[float, float, float, object], digits: int = 3) -> str:
    """Value and interval with signs: "+0.012 [−0.003, +0.027]"."""
    value, low, high = (f"{round(number, digits) + 0.0:+.{digits}f}" for number in dot[:3])  # no −0
    return f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def photo_curves(folder: str | Path = ".") -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """The curves of ``insertion_photo.parquet``, by fill and map.

    "share", "deletion" and "insertion" are (S + 1,); "deletion_area" and "insertion_area", by the trapezoid
    rule, are ().
    """
    rows, curves = require("pandas", "evaluate").read_parquet(Path(folder) / "insertion_photo.parquet"), {}
    for key, part in rows.sort_values("share").groupby(["fill", "method"], sort=False):
        curve = {name: part[name].to_numpy(float) for name in ("share", "deletion", "insertion")}
        x = np.diff(curve["share"])
        for name in ("deletion", "insertion"):
            curve[f"{name}_area"] = (x * (curve[name][1:] + curve[name][:-1]) / 2).sum()
        curves[key] = curve
    return curves


def gaps_of_run(
    records: DataFrame, areas: Sequence[str], methods: Sequence[str], base: str = "grad_cam"
) -> dict[str, dict[str, Dot]]:
    """Area → method → its area minus that of ``base``, image by image, in the records of a stored run.

    Intervals are those of ``gmcam.evaluate.summary``: over classes, crossed with the images.
    """
    pairs = records.set_index(["image", "label"])
    columns = list(areas)
    other = pairs.loc[pairs["method"] == base, columns].reindex(pairs.index)
    gaps = pairs.assign(**(pairs[columns] - other)).reset_index()
    found = summary(gaps, metrics=columns).set_index(["metric", "method"])[["value", "low", "high"]]
    return {area: {name: (*found.loc[(area, name)], ()) for name in methods} for area in columns}
