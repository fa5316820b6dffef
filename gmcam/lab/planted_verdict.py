"""The stored measurements of *The planted bias: the verdict*, with their intervals.

``benchmarks/planted_bias.py`` writes them and describes their columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.lab.pictures import Dot
from gmcam.lab.planted import LEVELS, METHODS, OTHERS, RIVALS, chance_of_grass
from gmcam.lab.planted_tables import LETTERS, over, read, signed, suspicion
from gmcam.lab.scenes import BACKGROUNDS, CLASSES
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS
from gmcam.methods import METHODS as REGISTERED

if TYPE_CHECKING:
    from pandas import DataFrame

_SEEN = [name for name in BACKGROUNDS["train"] if name != BIASED_BACKGROUND]
NETWORKS = {"B": "B", "biased": "B, then biased", "unbiased": "*B, then unbiased", "A": "A"}


class Verdict:
    """Three tables ``planted_bias_*.parquet`` in a ``folder``: probabilities on nine backgrounds ("effects"),
    maps after the repair ("repairs"), and small networks ("graded").

    Raises ``FileNotFoundError`` for a missing table.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        self.effects, self.maps, self.small = (
            read(folder, part) for part in ("effects", "repairs", "graded")
        )

    def swing(
        self,
        network: str,
        label: str,
        background: str,
        column: str = "p",
        among: Sequence[str] = BACKGROUNDS["train"],
    ) -> np.ndarray:
        """Object by object, a probability on a background minus its mean on the others ``among`` several."""
        rows = self.effects[(self.effects["network"] == network) & (self.effects["label"] == label)]
        wide = rows.pivot(index="seed", columns="background", values=column)[list(among)]
        gap: np.ndarray = (wide[background] - wide.drop(columns=background).mean(axis=1)).to_numpy(float)
        return gap

    def own(self) -> dict[str, dict[str, Dot]]:
        """Network → class → the effect of grass on the probability of the object's class."""
        return {
            letter: {
                "*" * (label == BIASED_CLASS) + label: over(self.swing(letter, label, BIASED_BACKGROUND))
                for label in CLASSES
            }
            for letter in LETTERS
        }

    def of_others(self, network: str, column: str = "p_flower") -> Dot:
        """The effect of grass on the flower's probability, over the seven other classes and their images."""
        parts = [self.swing(network, label, BIASED_BACKGROUND, column) for label in OTHERS]
        labels = [label for label, part in zip(OTHERS, parts, strict=True) for _ in part]
        return over(np.concatenate(parts), labels)

    def flower(self) -> dict[str, dict[str, Dot]]:
        """Network → class → the effect of grass on the flower's probability, for the seven other classes."""
        panels = {}
        for letter in LETTERS:
            panels[letter] = {"*mean, over classes": self.of_others(letter)}
            for label in OTHERS:
                panels[letter][label] = over(self.swing(letter, label, BIASED_BACKGROUND, "p_flower"))
        return panels

    def search(self) -> DataFrame:
        """All effects of the six training backgrounds on the object's class: network, label, background and
        mean ``effect``, largest first."""
        rows = [
            {
                "network": letter,
                "label": label,
                "background": name,
                "effect": self.swing(letter, label, name).mean(),
            }
            for letter in LETTERS
            for label in CLASSES
            for name in BACKGROUNDS["train"]
        ]
        return require("pandas", "evaluate").DataFrame(rows).sort_values("effect", ascending=False)

    def accuracies(self) -> dict[str, dict[str, Dot]]:
        """Network → images → accuracy in per cent. A retrained network is the mean of three trainings, the
        small dots; its interval is over images, and for other objects over their classes too."""
        kinds = {"flower, grass": (True, [BIASED_BACKGROUND]), "flower, other seen": (True, _SEEN)}
        kinds |= {f"flower, {name}": (True, [name]) for name in BACKGROUNDS["test"]}
        kinds |= {"others, grass": (False, [BIASED_BACKGROUND]), "others, other seen": (False, _SEEN)}
        kinds["others, unseen"] = False, list(BACKGROUNDS["test"])
        panels: dict[str, dict[str, Dot]] = {}
        rows = self.effects.assign(right=100.0 * (self.effects["top"] == self.effects["label"]))
        rows["run"] = rows["network"]
        rows["network"] = rows["network"].str.split().str[0]
        for network, title in NETWORKS.items():
            mine = rows[rows["network"] == network]
            for name, (flower, backgrounds) in kinds.items():
                part = mine[
                    ((mine["label"] == BIASED_CLASS) == flower) & mine["background"].isin(backgrounds)
                ]
                means = part.groupby(["label", "seed"], sort=False)["right"].mean()
                labels = None if flower else means.index.get_level_values("label").tolist()
                runs = part.groupby("run")["right"].mean().tolist()
                dot = over(means.to_numpy(), labels)
                panels.setdefault(title.strip("*"), {})[name] = (*dot[:3], runs if len(runs) > 1 else ())
        return panels

    def shares(self) -> dict[str, dict[str, Dot]]:
        """Map → network → its share on the background of 16 flowers on grass, in per cent."""
        rows = self.maps.assign(network=self.maps["network"].str.split().str[0])
        panels: dict[str, dict[str, Dot]] = {}
        for method in (*METHODS, *RIVALS[:2]):
            for network, title in NETWORKS.items():
                part = rows[(rows["method"] == method) & (rows["network"] == network)]
                means = 100 * part.groupby("seed")["outside"].mean()
                panels.setdefault(REGISTERED[method].title, {})[title] = over(means.to_numpy())
        return panels

    def area(self) -> float:
        """The background's part of the images of ``shares``, in per cent: the share of a map that ignores the
        flower."""
        return 100 * float(self.maps["area"].mean())

    def graded(self) -> dict[str, dict[str, Dot]]:
        """Measure → strength of the shortcut → its mean over the trainings, which are the small dots."""
        panels: dict[str, dict[str, Dot]] = {}
        for level in LEVELS:
            mine = self.small[self.small["level"] == level]
            runs = [_graded(level, part) for _, part in mine.groupby("network")]
            for title in runs[0]:
                values = [run[title] for run in runs]
                mean = float(np.mean(values))
                panels.setdefault(title, {})[level] = (mean, mean, mean, values)
        return panels

    def ranks(self, measure: str = "avoidance") -> dict[str, dict[str, Dot]]:
        """Strength of the shortcut → map → the flower's rank among eight classes by a measure of suspicion, 1
        the first suspect: the mean over the trainings, which are the small dots."""
        panels: dict[str, dict[str, Dot]] = {}
        for level in LEVELS:
            mine = self.small[self.small["level"] == level]
            for method in (*METHODS, *RIVALS[:2]):
                ranks = [_rank(part, method, measure) for _, part in mine.groupby("network")]
                mean = float(np.mean(ranks))
                name = "*" * (method in METHODS) + REGISTERED[method].title
                panels.setdefault(level, {})[name] = (mean, mean, mean, ranks)
        return panels

    def numbers(self) -> dict[str, str]:
        """The numbers in the chapter's sentences, by name."""
        found = {}
        for letter in LETTERS:
            for label in (BIASED_CLASS, "person"):
                found[f"own_{letter}_{label}"] = signed(over(self.swing(letter, label, BIASED_BACKGROUND)))
            found[f"others_{letter}"] = signed(self.of_others(letter))
        for name in ("unbiased", "biased"):
            for words, label in (("flower", BIASED_CLASS), ("person", "person")):
                column = "p_flower" if label == BIASED_CLASS else "p"
                parts = [self.swing(f"{name} {i}", label, BIASED_BACKGROUND, column) for i in range(3)]
                found[f"{name}_{words}"] = signed(over(np.mean(parts, 0)))
            parts = [
                self.swing(f"{name} {i}", label, BIASED_BACKGROUND, "p_flower")
                for i in range(3)
                for label in OTHERS
            ]
            means = np.mean(np.reshape(parts, (3, len(OTHERS), -1)), 0)
            labels = [label for label in OTHERS for _ in range(means.shape[1])]
            found[f"{name}_others"] = signed(over(means.ravel(), labels))
        search = self.search()
        honest = search[search["network"] != "B"]
        found["effects"] = str(len(search))
        found["honest_most"] = f"{honest['effect'].abs().max():.2f}"
        row = honest.loc[honest["effect"].abs().idxmax()]
        found["honest_pair"] = f"{row['network']}'s {row['label']} on {row['background']}"
        found["first_effect"] = f"{search['effect'].iloc[0]:+.2f}"
        for letter in "AB":  # grass is not among the backgrounds, because it lowers the others' baseline
            means = [self.swing(letter, "person", name, among=_SEEN).mean() for name in _SEEN]
            found[f"person_most_{letter}"] = f"{np.abs(means).max():.2f}"
        for network, rows in self.accuracies().items():
            for name, dot in rows.items():
                found[f"{network.strip('*')}: {name}"] = f"{dot[0]:.0f} %"
        for network in NETWORKS.values():
            shares = [rows[network][0] for rows in self.shares().values()]
            found[f"maps {network.strip('*')}"] = f"{min(shares):.0f} to {max(shares):.0f} %"
        for title, rows in self.graded().items():
            for level, dot in rows.items():
                unit = " %" if title.endswith("%") else ""
                key = title.replace(",", "").replace("\n", " ").removesuffix(" %")
                found[f"{key}: {level}"] = f"{dot[0]:.0f} %" if unit else f"{dot[0]:.2f}"
        for method in ("Grad-CAM", "GMCAM", "Guidance map", "Feature sum"):
            panels = [panel for level, panel in self.ranks().items() if level != "none"]
            dots = [panel.get(f"*{method}") or panel[method] for panel in panels]
            planted = [rank for dot in dots for rank in dot[3]]
            found[f"finds {method}"] = str(planted.count(1))
            found["trainings"] = str(len(planted))
        return {
            re.sub(r"\W+", "_", name): text.replace("-", "\N{MINUS SIGN}") for name, text in found.items()
        }


def _graded(level: str, rows: DataFrame) -> dict[str, float]:
    """Of one small network: accuracies in per cent, and effects of grass on the flower's probability."""
    right = rows["top"] == rows["label"]
    on = np.array([chance_of_grass(label, level) for label in rows["label"]])
    weights = np.where(rows["grass"], on, 1 - on)
    grass, flower = rows["grass"], rows["label"] == BIASED_CLASS

    def effect(chosen: DataFrame) -> float:
        return float(rows["p_flower"][chosen & grass].mean() - rows["p_flower"][chosen & ~grass].mean())

    return {
        "accuracy, like the\ntraining images, %": 100 * float((right * weights).sum() / weights.sum()),
        "accuracy, flowers\noff grass, %": 100 * float(right[flower & ~grass].mean()),
        "effect of grass on\np(flower): flowers": effect(flower),
        "effect on p(flower):\nother objects": effect(~flower),
    }


def _rank(rows: DataFrame, method: str, measure: str) -> int:
    """The flower's rank in the maps of one small network, with the flower on grass and the others not."""
    shown = rows[(rows["label"] == BIASED_CLASS) == rows["grass"]]
    means = shown.groupby("label")[[method, "area"]].mean()
    scores = suspicion(means[method].to_numpy(), means["area"].to_numpy(), measure)
    return 1 + int((scores > scores[list(means.index).index(BIASED_CLASS)]).sum())
