"""The stored measurements of *Break it*, with their intervals.

``benchmarks/break_it.py`` writes them and describes their columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gmcam._extras import require
from gmcam.lab.attacks import METHODS, NETWORKS
from gmcam.lab.pictures import Dot
from gmcam.lab.planted_tables import over
from gmcam.methods import METHODS as REGISTERED

if TYPE_CHECKING:
    from pandas import DataFrame

CHOICES = {
    "right": "*right class",
    "power": "right class, power 8",
    "wrong": "best of 7 wrong classes",
    "untrained": "best of 40 untrained",
    "wrong mean": "mean of 7 wrong classes",
    "untrained mean": "mean of 40 untrained",
    "area": "map that ignores all",
}
FOOLED = {
    "biased": "biased",
    "painted": "*painted",
    "guarded": "*guarded",
    "collage-vgg": "honest VGG",
    "collage-resnet": "honest ResNet",
}
FILLS = {"zero": "grey", "road": "ROAD"}


class Attacks:
    """Tables ``break_it_*.parquet`` in a ``folder``: maps that were chosen, maps of attacked networks, and
    deletion in them. Raises ``FileNotFoundError`` for a missing table."""

    def __init__(self, folder: str | Path = ".") -> None:
        pandas = require("pandas", "evaluate")
        tables = (
            pandas.read_parquet(Path(folder) / f"break_it_{name}.parquet")
            for name in ("chosen", "fooled", "deletion")
        )
        self.choices: DataFrame
        self.maps: DataFrame
        self.areas: DataFrame
        self.choices, self.maps, self.areas = tables

    def chosen(self) -> dict[str, dict[str, Dot]]:
        """Network → choice → the mean share inside, in per cent, over the classes crossed with the images."""
        panels: dict[str, dict[str, Dot]] = {}
        for network in NETWORKS:
            rows = self.choices[self.choices["network"] == network]
            labels = rows["label"].tolist()
            panels[network] = {title: over(100 * rows[name], labels) for name, title in CHOICES.items()}
        return panels

    def fooled(self) -> dict[str, dict[str, Dot]]:
        """Method → network → the share on the background of flowers on grass, in per cent, over images."""
        panels: dict[str, dict[str, Dot]] = {}
        for method in METHODS:
            for network, title in FOOLED.items():
                rows = self.maps[(self.maps["method"] == method) & (self.maps["network"] == network)]
                panels.setdefault(REGISTERED[method].title, {})[title] = over(100 * rows["outside"])
        return panels

    def probabilities(self, network: str) -> tuple[float, float]:
        """The flower's mean probability on grass and on brick."""
        rows = self.maps[self.maps["network"] == network]
        return float(rows["p"].mean()), float(rows["p_brick"].mean())

    def deletion(self) -> dict[str, dict[str, Dot]]:
        """Fill → network → the deletion area of the flower's mask minus that of the biased network's map,
        over images: below 0, the mask is the better map."""
        panels: dict[str, dict[str, Dot]] = {}
        for fill, title in FILLS.items():
            for network in ("biased", "guarded", "collage-vgg"):
                rows = self.areas[(self.areas["fill"] == fill) & (self.areas["network"] == network)]
                wide = rows.pivot(index="seed", columns="map", values="deletion").astype(float)
                gap = (wide["mask"] - wide["grad_cam"]).to_numpy()
                panels.setdefault(title, {})[FOOLED[network]] = over(gap)
        return panels

    def numbers(self) -> dict[str, str]:
        """The numbers in the chapter's sentences, by name."""
        found = {}
        for panel, method in zip(self.fooled().values(), METHODS, strict=True):
            for network, title in FOOLED.items():
                found[f"{network}_{method}"] = f"{panel[title][0]:.0f} %"
        for network in FOOLED:
            grass, brick = self.probabilities(network)
            found[f"{network}_grass"], found[f"{network}_brick"] = (
                f"{100 * grass:.0f} %",
                f"{100 * brick:.0f} %",
            )
        for network, panel in self.chosen().items():
            for name, title in CHOICES.items():
                found[f"{name.replace(' ', '_')}_{network}"] = f"{panel[title][0]:.0f} %"
        for fill, panel in self.deletion().items():
            for title, dot in panel.items():
                value, low, high = (f"{x:+.2f}" for x in dot[:3])
                text = f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")
                found[f"{fill}_{title.strip('*').replace(' ', '_')}"] = text
        return found
