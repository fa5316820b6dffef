"""The stored measurements of the chapter *What would have happened without the cup?*, with their intervals.

``benchmarks/interventions.py`` writes them and describes their columns.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, interval
from gmcam.lab.pictures import Dot

if TYPE_CHECKING:
    from pandas import DataFrame

VGG, RESNET, LITE = "collage-vgg", "collage-resnet", "efficientnet-lite0"
BIASED = "collage-vgg-biased"
MAPS = {
    "effect": "effect itself",
    "grad_cam": "*Grad-CAM",
    "gmcam": "GMCAM",
    "grad_cam_squared": "Grad-CAM squared",
    "guidance_map": "guidance map",
    "mask": "object's mask",
    "feature_sum": "feature sum",
    "centred_blob": "centred blob",
    "area": "noise",
}
SUMS = {
    "hires_cam": "signed ledger",
    "signed_grad_cam": "signed Grad-CAM",
    "signed": "signed IG",
    "guidance_map": "guidance map",
    "gmcam": "GMCAM",
    "rectified": "rectified IG",
    "area": "object's area",
}
OTHERS = {  # of the target's class, then two that are not, and two that ignore the network
    "hires_cam": "signed ledger",
    "guidance_map": "guidance map",
    "grad_cam": "*Grad-CAM",
    "grad_cam_squared": "Grad-CAM squared",
    "gmcam": "GMCAM",
    "minus_grad_cam": "− Grad-CAM of the other class",
    "minus_mask": "− mask of the other object",
    "centred_blob": "centred blob",
    "area": "noise",
}
FILLS = {
    "road": "ROAD",
    "harmonic": "harmonic fill",
    "mean": "mean colour",
    "blur": "wide blur",
    "telea": "inpainting",
    "zero": "grey",
    "narrow_blur": "narrow blur",
    "mirror": "mirrored piece",
}
_CASE = ["first", "second", "seed", "target", "object"]


def dot(
    rows: DataFrame, value: str, other: str | None = None, *, scenes: bool = False, ratio: bool = False
) -> Dot:
    """A row of ``gmcam.lab.dots``: the mean of a column, or its Pearson correlation with an ``other`` one, or
    the ``ratio`` of its mean to the other's.

    ``rows``: scenes of two objects, in the columns ``first``, ``second``, ``seed`` and ``target``. The 95 %
    interval resamples the objects crossed with the scenes, or the ``scenes`` alone; the small dots are the
    targets.
    """
    columns = rows[[value] if other is None else [value, other]].to_numpy(float)
    statistic = _ratio if ratio else _statistic
    values = statistic(scene_weights(rows, scenes=scenes), columns)
    low, high = interval(values)
    targets = rows["target"].to_numpy()
    each = [columns[targets == target] for target in dict.fromkeys(targets)]
    clusters = [float(statistic(np.ones((1, len(part))), part)[0, 0]) for part in each]
    return float(values[0, 0]), float(low[0]), float(high[0]), clusters


def scene_weights(rows: DataFrame, *, scenes: bool = False) -> np.ndarray:
    """Weights of ``gmcam.evaluate.bootstrap_weights`` that resample objects, crossed with scenes, or the
    ``scenes`` alone: (replicates, n), for rows with the columns ``first``, ``second`` and ``seed``."""
    return _weights(tuple(zip(rows["first"], rows["second"], rows["seed"], strict=True)), scenes)


@lru_cache(maxsize=16)
def _weights(names: tuple[tuple[str, str, int], ...], scenes: bool) -> np.ndarray:
    images = [f"{first} {second} {seed}" for first, second, seed in names]
    return bootstrap_weights(images, None if scenes else [name[:2] for name in names])


def _ratio(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The weighted mean of the first of two columns (n, 2) over that of the second: (replicates, 1)."""
    first, second = bootstrap_means(weights, columns).T
    return np.asarray(first / second)[:, None]


def _statistic(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The weighted mean of one column (n, 1), or the correlation of two (n, 2): (replicates, 1).

    Values that do not vary have a correlation of 0, as a flat map has a fidelity of 0.
    """
    if columns.shape[1] == 1:
        return bootstrap_means(weights, columns)
    x, y = (columns - columns.mean(0)).T
    ex, ey, xx, yy, xy = bootstrap_means(weights, np.stack([x, y, x * x, y * y, x * y], 1)).T
    spread = np.sqrt((xx - ex**2).clip(0) * (yy - ey**2).clip(0))
    varies = spread > 1e-9 * np.sqrt(xx * yy)  # beyond rounding
    return np.where(varies, (xy - ex * ey) / np.where(varies, spread, 1), 0)[:, None]


def with_interval(dot: Dot) -> str:
    """Value and interval in words, with true minus signs: "0.98 [0.96, 0.99]"."""
    value, low, high = (f"{round(number, 2) + 0.0:.2f}" for number in dot[:3])  # no −0.00
    return f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


class Study:
    """Tables ``interventions_*.parquet`` in a ``folder``, and the rows of the chapter's figures.

    EfficientNet-Lite0's scenes show one cat and one cup, so its intervals resample scenes; all others
    resample the eight objects, crossed with the scenes. Raises ``FileNotFoundError`` for a missing table.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        self.folder = Path(folder)

    def rows(self, table: str, **where: object) -> DataFrame:
        """The rows of a table whose columns have the given values."""
        rows = require("pandas", "evaluate").read_parquet(self.folder / f"interventions_{table}.parquet")
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.reset_index(drop=True)

    def cases(self, table: str, own: bool, **where: object) -> DataFrame:
        """Rows whose target is in the scene: ``own``, the target's object is removed; else the other one."""
        rows = self.rows(table, **where)
        shown = (rows["target"] == rows["first"]) | (rows["target"] == rows["second"])
        return rows[shown & ((rows["target"] == rows["object"]) == own)].reset_index(drop=True)

    def maps(self, network: str, layer: str, column: str = "r") -> dict[str, Dot]:
        """Fidelity ``r`` of each map to the effect of the target's own object, or its share ``inside``."""
        rows = self.cases("maps", True, network=network, layer=layer)
        by_map = dict(list(rows.groupby("map")))
        effect = by_map["mask"]
        by_map["effect"] = effect.assign(r=1.0, inside=effect["effect_inside"])
        return {title: dot(by_map[name], column, scenes=network == LITE) for name, title in MAPS.items()}

    def others(self, network: str, layer: str) -> dict[str, Dot]:
        """Pearson's r of each map of the target's class with the effect map of the other object."""
        by_map = dict(list(self.cases("maps", False, network=network, layer=layer).groupby("map")))
        by_map["minus_mask"] = by_map["mask"].assign(r=-by_map["mask"]["r"])
        return {title: dot(by_map[name], "r", scenes=network == LITE) for name, title in OTHERS.items()}

    def known(self, network: str, layer: str, name: str) -> DataFrame:
        """The cases of a map whose target has a probability of at least 0.2."""
        return self._recognised(self.cases("maps", True, network=network, layer=layer, map=name), network)

    def _recognised(self, rows: DataFrame, network: str) -> DataFrame:
        chances = self.rows("chances", network=network).drop(columns="network")
        rows = rows.merge(chances, on=_CASE[:4])
        return rows[rows["probability"] >= 0.2]

    def gap(self, network: str, layer: str, name: str, rival: str) -> DataFrame:
        """Cases with ``gap``: the fidelity of a map minus that of a rival."""
        rows = self.cases("maps", True, network=network, layer=layer)
        r = rows.pivot(index=_CASE, columns="map", values="r")
        return (r[name] - r[rival]).rename("gap").reset_index()

    def gaps(self, network: str, layer: str, name: str, rival: str) -> dict[str, Dot]:
        """Its mean, with the interval over scenes and the interval over identities."""
        rows = self.gap(network, layer, name, rival)
        units = {"over scenes": True, "over identities": False}
        return {title: dot(rows, "gap", scenes=scenes) for title, scenes in units.items()}

    def sums(self, network: str, own: bool, layer: str = "32x32") -> dict[str, Dot]:
        """Correlation of each map's sum on an object with the object's removal effect."""
        rows = self.cases("sums", own, network=network, layer=layer)
        for table, columns in (("pixels", ["signed", "rectified"]), ("effects", ["area"])):
            rows = rows.merge(self.rows(table, network=network)[_CASE + columns], on=_CASE)
        return {title: dot(rows, column, "removal") for column, title in SUMS.items()}

    def fills(self, network: str, own: bool) -> dict[str, Dot]:
        """Correlation of the effect that a filled mask estimates with the removal effect, within targets."""
        rows = self.cases("fills", own, network=network)
        pair = ["estimate", "removal"]
        rows[pair] -= rows.groupby(["fill", "target"])[pair].transform("mean")
        by_fill, scenes = dict(list(rows.groupby("fill"))), network == LITE
        return {title: dot(by_fill[name], *pair, scenes=scenes) for name, title in FILLS.items()}

    def on_grass(self, network: str, label: str, column: str) -> tuple[float, float]:
        """The mean of a column of the table ``bias`` on grass, and on the other backgrounds."""
        rows = self.rows("bias", network=network, label=label)
        grass = rows["background"] == "grass"
        return float(rows[column][grass].mean()), float(rows[column][~grass].mean())

    def planted(self) -> dict[str, dict[str, Dot]]:
        """Grass minus the other backgrounds, in logits: for each label the effect on its logit and on the
        background's ledger, for the biased and the honest network. The interval resamples the scenes."""
        rows = self.rows("bias")
        columns, networks = {"logit": "effect", "background_32": "ledger"}, {BIASED: "biased", VGG: "honest"}
        panels: dict[str, dict[str, Dot]] = {}
        for (label, network), column in product(product(("flower", "cat", "person"), networks), columns):
            part = rows[(rows["label"] == label) & (rows["network"] == network)]
            wide = part.pivot(index="seed", columns="background", values=column)
            gaps = (wide["grass"] - wide.drop(columns="grass").mean(axis=1)).to_numpy(float)
            means = bootstrap_means(bootstrap_weights([str(seed) for seed in wide.index]), gaps[:, None])
            (low,), (high,) = interval(means)
            panel = panels.setdefault(label, {})
            panel[f"{networks[network]}: {columns[column]}"] = (float(means[0, 0]), low, high, gaps)
        return panels

    def numbers(self) -> dict[str, str]:
        """The numbers in the chapter's sentences, by name."""
        parts = (self._traces, self._effects, self._maps, self._others, self._bias, self._lite)
        return {name: text for part in parts for name, text in part().items()}

    def _traces(self) -> dict[str, str]:
        trace = self.rows("trace", network=RESNET)
        numbers = {"trace_r": with_interval(dot(trace, "all", "removal"))}
        numbers["trace_grows"] = with_interval(dot(trace, "without_other", "all", ratio=True))
        for end, network in (("", RESNET), ("_vgg", VGG), ("_lite", LITE)):
            rows = self.rows("trace", network=network)
            left = dot(rows, "without_target", "all", ratio=True, scenes=network == LITE)
            numbers[f"trace_left{end}"] = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * x for x in left[:3]))
        return numbers

    def _effects(self) -> dict[str, str]:
        numbers = {}
        for name, network in (("vgg", VGG), ("resnet", RESNET)):
            own, other = (self.cases("effects", whose, network=network) for whose in (True, False))
            numbers[f"own_{name}"] = with_interval(dot(own, "removal"))
            numbers[f"other_{name}"] = with_interval(dot(other, "removal"))
            numbers[f"against_{name}"] = _percent((other["removal"] < 0).mean())
            share = other["interaction"].mean() / other["removal"].mean()
            numbers[f"interaction_{name}"] = _percent(share)
            rows = self.rows("effects", network=network)
            absent = rows[(rows["target"] != rows["first"]) & (rows["target"] != rows["second"])]
            same = absent["removal"] * absent["removal_log_probability"] > 0
            numbers[f"signs_{name}"] = _percent(same.mean())
            numbers["scenes"] = str(len(own) // 2)
            paths = self.cases("effect_maps", True, network=network, layer="32x32")["r_paths"]
            numbers[f"paths_{name}"] = f"{paths.mean():.2f}"
        answers = self.rows("backgrounds", network=RESNET)["bare_answer"].value_counts(normalize=True)
        return numbers | {"bare_answer": answers.index[0], "bare_share": _percent(answers.iloc[0])}

    def _maps(self) -> dict[str, str]:
        resnet, vgg = self.maps(RESNET, "16x16"), self.maps(VGG, "16x16")
        lite, inside = self.maps(LITE, "14x14"), self.maps(RESNET, "16x16", "inside")
        other = self.sums(VGG, False)
        dots = {
            "r_resnet": resnet["*Grad-CAM"],
            "r_vgg": vgg["*Grad-CAM"],
            "r_vgg_guidance": vgg["guidance map"],
            "r_lite": lite["*Grad-CAM"],
            "r_lite_mask": lite["object's mask"],
            "inside_effect": inside["effect itself"],
            "other_ledger": other["signed ledger"],
            "other_ig": other["signed IG"],
            "other_rectified": other["rectified IG"],
        }
        shares = self.cases("maps", True, network=RESNET, layer="16x16")
        shares["error"] = shares["inside"] - shares["effect_inside"]
        for name in ("grad_cam", "gmcam"):
            dots[f"error_{name}"] = dot(shares[shares["map"] == name], "error")
        for name, network, layer in (
            ("resnet", RESNET, "16x16"),
            ("vgg", VGG, "16x16"),
            ("lite", LITE, "14x14"),
        ):
            dots[f"known_{name}"] = dot(self.known(network, layer, "grad_cam"), "r", scenes=network == LITE)
        mean = FILLS["mean"]
        dots |= {"fill_resnet": self.fills(RESNET, False)[mean], "fill_lite": self.fills(LITE, False)[mean]}
        lite_cases = self.cases("maps", True, network=LITE, layer="14x14", map="mask")
        cases = {"cases_resnet": len(shares) // shares["map"].nunique(), "cases_lite": len(lite_cases)}
        return {name: with_interval(each) for name, each in dots.items()} | {
            k: str(n) for k, n in cases.items()
        }

    def _others(self) -> dict[str, str]:
        cells = self.cases("maps", False, network=RESNET, layer="16x16")
        negative = cells["map"] == "mask"
        cells["r"] = cells["r"].where(~negative, -cells["r"])
        numbers = {
            f"cell_{name}": with_interval(dot(cells[cells["map"] == name], "r"))
            for name in ("grad_cam", "minus_grad_cam", "mask")
        }
        by_object = [
            self.gap(VGG, "16x16", name, "mask").groupby("target")["gap"].mean()
            for name in ("grad_cam", "guidance_map")
        ]
        numbers["mask_ahead"] = str((by_object[0] < 0).sum())
        numbers["guidance_ahead"] = str((by_object[1] > 0).sum())
        for end, layer, name, rival in (
            ("mask", "16x16", "grad_cam", "mask"),
            ("guidance", "16x16", "guidance_map", "mask"),
            ("gain", "16x16", "gmcam", "grad_cam"),
            ("product", "16x16", "gmcam", "guidance_map"),
            ("finer", "32x32", "gmcam", "guidance_map"),
        ):
            gaps = self.gaps(VGG, layer, name, rival)
            numbers |= {key.replace("over", end).replace(" ", "_"): with_interval(gaps[key]) for key in gaps}
        known = self._recognised(self.gap(VGG, "16x16", "grad_cam", "mask"), VGG)
        numbers["mask_known"] = with_interval(dot(known, "gap"))
        claim = self.cases("sums", False, network=VGG, layer="32x32")
        numbers["claim_ledger"] = with_interval(dot(claim, "hires_cam", "removal", scenes=True))
        for name, column in (("signs", "signed_grad_cam"), ("ledger_signs", "hires_cam")):
            numbers[f"claim_{name}"] = _percent((claim[column] * claim["removal"] > 0).mean())
        for name, scenes in (("scenes", True), ("identities", False)):
            both = dot(claim, "signed_grad_cam", "removal", scenes=scenes)
            numbers[f"claim_{name}"] = with_interval(both)
        return numbers | self._named_by_another_class()

    def _named_by_another_class(self) -> dict[str, str]:
        """The lead of an object's own class's negative Grad-CAM over its negative mask."""
        numbers = {}
        for name, net, layer in (("resnet", RESNET, "16x16"), ("vgg", VGG, "16x16"), ("lite", LITE, "7x7")):
            cells = self.cases("maps", False, network=net, layer=layer)
            wide = cells.pivot(index=_CASE, columns="map", values="r").reset_index()
            wide["gap"] = wide["minus_grad_cam"] + wide["mask"]  # minus the negative mask
            numbers[f"own_class_{name}"] = with_interval(dot(wide, "gap", scenes=net == LITE))
        return numbers

    def _bias(self) -> dict[str, str]:
        numbers = {}
        for label, panel in self.planted().items():
            for name, row in panel.items():
                numbers[f"{name.replace(': ', '_')}_{label}"] = _signed(*row[:3])
        grass, elsewhere = self.on_grass(VGG, "flower", "background_16")
        return numbers | {"zero_grass": _signed(grass), "zero_elsewhere": _signed(elsewhere)}

    def _lite(self) -> dict[str, str]:
        last = self.cases("maps", True, network=LITE, layer="7x7", map="grad_cam")
        other = self.cases("sums", False, network=LITE, layer="7x7")
        filled = self.cases("fills", False, network=LITE, fill="mean")[["estimate", "removal"]].mean()
        seven = self.rows("orders", network=LITE, layer="7x7").set_index("map")["other"]
        cases = self.cases("library", True)
        library = cases.groupby("map")["r"].mean()
        rivals = {name: dot(cases[cases["map"] == name], "r") for name in ("mask", "random_network", "edges")}
        by_mask = library.drop(["mask", "signed_grad_cam"]) < library["mask"]
        others = self.cases("effects", False, network=VGG)
        paths = self.cases("effect_maps", True, network=LITE, layer="14x14")["r_paths"]
        gaps = self.gaps(LITE, "14x14", "guidance_map", "mask")
        return {
            **{f"library_{name}": with_interval(each) for name, each in rivals.items()},
            "interaction_share": with_interval(dot(others, "interaction", "removal", ratio=True)),
            "paths_lite": f"{paths.mean():.2f}",
            "lite_identities": with_interval(gaps["over scenes"]),
            "library_behind": str(by_mask.sum()),
            "library_all": str(len(by_mask)),
            "seven_ledger": f"{seven['hires_cam']:.2f}",
            "seven_pair": f"{seven['elsewhere']:.2f}",
            "lite_last": with_interval(dot(last, "r", scenes=True)),
            "lite_wrong": _percent((other["hires_cam"] * other["removal"] < 0).mean()),
            "lite_for": _percent((other["removal"] > 0).mean()),
            "lite_estimate": _signed(filled["estimate"]),
            "lite_removal": _signed(filled["removal"]),
        }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _signed(value: float, *ends: float) -> str:
    text = f"{value:+.1f}" + (" [{:+.1f}, {:+.1f}]".format(*ends) if ends else "")
    return text.replace("-", "\N{MINUS SIGN}")
