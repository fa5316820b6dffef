"""The stored measurements of *Monday morning: debug a classifier*: how they are made, and what it shows.

One row an image and measurement, in ``monday_morning_steps.parquet``: ``step`` ("maps", "clusters", "edits",
"confirmed" or "repairs"), ``network``, ``arm``, ``image``, ``label``, ``background``, ``value``, ``right``.
The value is the part of the map on the background in per cent, the number of the cluster, or the probability
of the right class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcam import Network
from gmcam._extras import require
from gmcam.lab import debug_study as study
from gmcam.lab.debugging import accuracy, estimate, gap, outcomes, outside
from gmcam.lab.pictures import Dot

if TYPE_CHECKING:
    from pandas import DataFrame

FILE, PHOTOS = "monday_morning_steps.parquet", "monday_morning.parquet"
LITE = "efficientnet-lite0"
MAPS = {
    "grad_cam": "*Grad-CAM",
    "grad_cam_squared": "Grad-CAM squared",
    "feature_sum": "feature sum, no class",
    "random_network": "random network",
    "edges": "edges",
    "centred_blob": "centred blob",
    "area": "area: noise",
}
MEANS, CONTRIBUTIONS = "*channels' means, no class", "channels' contributions, right class"
Row = dict[str, Any]


def map_rows(network: Network, images: study.Images, methods: Iterable[str] = MAPS) -> Iterator[Row]:
    """Where the maps of the predicted classes are, and whether the predictions are right."""
    top = study.top_classes(network, images.inputs)
    right = outcomes(network, images.inputs, images.targets)[1]
    for name in methods:
        yield from _rows(
            images, outside(network, images.inputs, top, images.masks, name), right, "maps", network, name
        )


def cluster_rows(network: Network, images: study.Images) -> Iterator[Row]:
    """The clusters of the ``divisions``."""
    right = outcomes(network, images.inputs, images.targets)[1]
    for name, numbers in study.divisions(network, images).items():
        yield from _rows(images, numbers, right, "clusters", network, name)


def edit_rows(network: Network, images: study.Images, step: str = "edits") -> Iterator[Row]:
    """Outcomes of the images, ``"unchanged"``, and of each of the ``edits``."""
    for name, inputs in ({"unchanged": images.inputs} | study.edits(images)).items():
        chance, right = outcomes(network, inputs, images.targets)
        yield from _rows(images, chance, right, step, network, name)


def repair_rows(network: Network, repairs: Mapping[str, Network]) -> Iterator[Row]:
    """Outcomes of the images that are ``held_out``, of each network; an arm is "before: other objects"."""
    for what, images in study.held_out(network).items():
        for when, each in repairs.items():
            chance, right = outcomes(each, images.inputs, images.targets)
            yield from _rows(images, chance, right, "repairs", network, f"{when}: {what}")


def _rows(
    images: study.Images, values: np.ndarray, right: np.ndarray, step: str, network: Network, arm: str
) -> Iterator[Row]:
    for each, value, hit in zip(images.scenes, values.tolist(), right.tolist(), strict=True):
        yield {
            "step": step,
            "network": network.name,
            "arm": arm,
            "image": f"{each.labels[0]}-{each.background}-{each.seed}",
            "label": each.labels[0],
            "background": each.background,
            "value": float(value),
            "right": bool(hit),
        }


class Steps:
    """The stored measurements in a ``folder``. Raises ``FileNotFoundError`` if one of both files is missing.

    ``table``: one row an image and measurement; ``photos``: one row a photograph, with whether it is right
    before the repair, after the careful one and after the careless one.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        pandas = require("pandas", "evaluate")
        self.table: DataFrame = pandas.read_parquet(Path(folder) / FILE)
        photos: DataFrame = pandas.read_parquet(Path(folder) / PHOTOS)
        self.photos = photos.pivot(index="photo", columns="network", values="right").astype(float)

    def rows(self, step: str, arm: str, network: str = LITE) -> DataFrame:
        """The rows of one measurement. Raises ``KeyError`` if there are none."""
        table = self.table
        rows = table[(table["step"] == step) & (table["arm"] == arm) & (table["network"] == network)]
        if rows.empty:
            raise KeyError(f"expected a measurement of {network}, got {step!r}, {arm!r}")
        return rows.reset_index(drop=True)

    def arms(self, step: str, network: str = LITE) -> list[str]:
        table = self.table
        return list(table[(table["step"] == step) & (table["network"] == network)]["arm"].unique())

    def maps(self) -> dict[str, Dot]:
        """By method: the part of the map on the background, misclassified minus right images, in points."""
        found = {title: self.rows("maps", name) for name, title in MAPS.items()}
        return {title: gap(rows["value"], ~rows["right"]) for title, rows in found.items()}

    def clusters(self) -> dict[str, Dot]:
        """By what is clustered: the accuracy of the better cluster minus that of the other, in points."""
        panel = {}
        for name in self.arms("clusters"):
            rows = self.rows("clusters", name)
            better = rows.groupby("value")["right"].mean().idxmax()
            panel[name] = gap(100 * rows["right"], rows["value"] == better)
        return panel

    def changes(self, network: str = LITE, step: str = "edits") -> dict[str, Dot]:
        """By edit: the paired change of the right class's probability.

        Intervals are over the images, crossed with objects where there are several.
        """
        before, panel = self.rows(step, "unchanged", network), {}
        clusters = list(before["label"]) if before["label"].nunique() > 1 else None
        for name in self.arms(step, network):
            if name not in ("unchanged", "mirrored"):
                after = self.rows(step, name, network)
                panel[name] = estimate(after["value"] - before["value"], clusters)
        return panel

    def accuracy(self, arm: str, network: str = LITE) -> Dot:
        """The accuracy in per cent with an edit, or ``"unchanged"``."""
        return accuracy(self.rows("edits", arm, network)["right"])

    def repairs(self, *when: str) -> dict[str, dict[str, Dot]]:
        """By "before" and "after", and by what the images show: the accuracy in per cent."""
        panels: dict[str, dict[str, Dot]] = {each: {} for each in when}
        for network in (LITE, study.BIASED):
            for arm in self.arms("repairs", network):
                moment, _, what = arm.partition(": ")
                if moment in when:
                    panels[moment][what] = accuracy(self.rows("repairs", arm, network)["right"])
        return panels

    def numbers(self) -> dict[str, str]:
        """The numbers that the chapter's sentences show, by name."""
        changes, maps, clusters = self.changes(), self.maps(), self.clusters()
        panels = self.repairs("before", "after", "careless")
        gravel, flowers = "pagodas, unseen texture", "flowers, unseen backgrounds"
        again = self.changes(step="confirmed")
        flat, control = "*background flat", "as much elsewhere, flat"
        found = {
            "fresh": share(self.accuracy("unchanged")),
            "flat": share(self.accuracy(flat)),
            "else": share(self.accuracy(control)),
            "map_grad_cam": points(maps["*Grad-CAM"]),
            "map_sum": points(maps[MAPS["feature_sum"]]),
            "map_area": points(maps[MAPS["area"]]),
            "map_edges": points(maps[MAPS["edges"]]),
            "gap_contributions": points(clusters[CONTRIBUTIONS]),
            "gap_means": points(clusters[MEANS]),
            "gap_cells": points(clusters["cells of Grad-CAM"]),
            "gain": change(changes[flat]),
            "loss": change(changes[control]),
            "gain_again": change(again[flat]),
            "loss_again": change(again[control]),
            "colour": change(changes["background without colour"]),
            "known_gain": change(self.changes(study.BIASED)[flat]),
            "known_before": share(self.accuracy("unchanged", study.BIASED)),
            "known_after": share(self.accuracy(flat, study.BIASED)),
            "before": share(panels["before"][gravel], ends=False),
            "after": share(panels["after"][gravel], ends=False),
            "seen_before": share(panels["before"]["pagodas, seen textures"], ends=False),
            "seen_after": share(panels["after"]["pagodas, seen textures"], ends=False),
            "after_interval": share(panels["after"][gravel]),
            "kept_before": share(panels["before"]["other objects"], ends=False),
            "kept_after": share(panels["after"]["other objects"], ends=False),
            "kept_careless": share(panels["careless"]["other objects"], ends=False),
            "flowers_seen": share(panels["after"]["flowers, seen backgrounds"], ends=False),
            "flowers_unseen": share(panels["after"][flowers]),
            "photos_before": share(estimate(100 * self.photos["before"]), ends=False, digits=1),
            "photos_careful": share(estimate(100 * self.photos["careful"]), ends=False, digits=1),
            "price": points(estimate(100 * (self.photos["careful"] - self.photos["before"])), digits=1),
        }
        return found | self._of_clusters()

    def _of_clusters(self) -> dict[str, str]:
        rows, found = self.rows("clusters", MEANS), {}
        accuracy = rows.groupby("value")["right"].mean().sort_values()
        for word, number in zip(("low", "high"), accuracy.index, strict=True):
            part = rows[rows["value"] == number]
            found[f"accuracy_{word}"] = f"{100 * accuracy[number]:.0f} %"
            shares = (rows["value"] == number).groupby(rows["background"]).mean()
            found[f"backgrounds_{word}"] = listed(shares.index[shares == 1])
            found[f"images_{word}"] = str(len(part))
        divided = (rows["value"] == accuracy.index[0]).groupby(rows["background"]).mean()
        found["backgrounds_divided"] = listed(divided.index[divided.between(0, 1, inclusive="neither")])
        return found

    def entries(self) -> dict[str, str]:
        """The report's fields, filled."""
        n = self.numbers()
        return {
            "network": "EfficientNet-Lite0 of `gmcam.load`, trained on ImageNet.",
            "slice": f"Pagodas on nine backgrounds, 36 fresh collages of one pagoda: accuracy {n['fresh']}.",
            "maps": f"Part of Grad-CAM on the background, misclassified − right: {n['map_grad_cam']} points; "
            f"edges {n['map_edges']}; noise {n['map_area']}. No evidence beyond edges.",
            "clusters": f"Mean activations of channels, two clusters: accuracy {n['accuracy_low']} (all on "
            f"{n['backgrounds_low']}) and {n['accuracy_high']} (all on {n['backgrounds_high']}).",
            "hypothesis": "Flattened backgrounds raise the pagodas' probability by at least 0.2; as much "
            "flattened elsewhere does not.",
            "edit": f"Background flat: {n['gain']}; accuracy {n['flat']}. "
            f"On further pagodas: {n['gain_again']}. Without colour: {n['colour']}.",
            "control": f"As much elsewhere: {n['loss']}; accuracy {n['else']}. "
            "Weak, because it covers part of the object.",
            "repair": "Last layer retrained on 24 pagodas on brick, grass and moon; 36 images kept. "
            f"On gravel, not used: {n['before']} before, {n['after_interval']} after.",
            "price": f"200 photographs, one a class: {n['photos_before']} before, "
            f"{n['photos_careful']} after, change {n['price']} points. "
            f"Other objects: {n['kept_before']} before, {n['kept_after']} after.",
            "test": "test_pagodas_on_gravel, both thresholds 0.9: fails before, passes after.",
            "untested": "Other pagodas, photographs of pagodas, other textures than gravel, other layers.",
        }


def share(dot: Dot, ends: bool = True, digits: int = 0) -> str:
    """A share in per cent and its interval: "54 % [40, 67]"."""
    value, low, high = (f"{number:.{digits}f}" for number in dot[:3])
    return f"{value} % [{low}, {high}]" if ends else f"{value} %"


def points(dot: Dot, digits: int = 0) -> str:
    """A difference and its interval, without its unit: "+12 [+4, +21]"."""
    value, low, high = (f"{round(number, digits) + 0.0:+.{digits}f}" for number in dot[:3])
    return f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def change(dot: Dot) -> str:
    """A change of a probability and its interval: "+0.31 [+0.22, +0.40]"."""
    return points(dot, digits=2)


def listed(words: Iterable[str]) -> str:
    """Words in a sentence: "brick, grass and moon"; "none" without words."""
    *first, last = list(words) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
