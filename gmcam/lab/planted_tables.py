"""The stored album of *Find the planted bias*, with intervals.

``benchmarks/planted_bias.py`` writes it and describes its columns. Both name the network with the
shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcam._extras import require
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, interval
from gmcam.lab.pictures import Dot
from gmcam.lab.planted import METHODS
from gmcam.lab.scenes import CLASSES
from gmcam.lab.train import BIASED_CLASS
from gmcam.methods import METHODS as REGISTERED

if TYPE_CHECKING:
    from pandas import DataFrame

LETTERS = "ABC"
PLANTED = LETTERS.index("B"), CLASSES.index(BIASED_CLASS)
MEASURES = ("share", "ratio", "avoidance")


def over(values: Sequence[float] | np.ndarray, labels: Sequence[str] | None = None) -> Dot:
    """The mean, its 95 % interval over images, or over the classes ``labels`` crossed with the images, and
    the values (of the classes, if given) as small dots."""
    array = np.asarray(values, float)
    clusters = None if labels is None else [(label,) for label in labels]
    weights = bootstrap_weights([str(number) for number in range(len(array))], clusters)
    means = bootstrap_means(weights, array[:, None])
    (low,), (high,) = interval(means)
    small = array.tolist()
    if labels is not None:
        names = np.array(labels)
        small = [float(array[names == label].mean()) for label in dict.fromkeys(labels)]
    return float(means[0, 0]), float(low), float(high), small


def suspicion(share: np.ndarray, area: np.ndarray, measure: str) -> np.ndarray:
    """A measure of a map's share on the background and of the background's part ``area`` of the image.

    "share": itself; "ratio": share over area; "avoidance": ``1 − (1 − share) / (1 − area)``, which is 0 for a
    map that ignores the object and 1 for a map that has nothing on it, whatever the object's size.
    """
    if measure == "share":
        return share
    scores: np.ndarray = share / area if measure == "ratio" else 1 - (1 - share) / (1 - area)
    return scores


def signed(dot: Dot, digits: int = 2) -> str:
    """Value and interval with signs: "+0.87 [+0.84, +0.90]"."""
    value, low, high = (f"{round(number, digits) + 0.0:+.{digits}f}" for number in dot[:3])  # no −0
    return f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def read(folder: str | Path, part: str) -> DataFrame:
    """The table ``planted_bias_PART.parquet`` of a folder. Raises ``FileNotFoundError`` without it."""
    rows: DataFrame = require("pandas", "evaluate").read_parquet(
        Path(folder) / f"planted_bias_{part}.parquet"
    )
    return rows


class Album:
    """Shares of maps on the background, from ``planted_bias_album.parquet`` in a ``folder``: 16 images of
    every class, each explained for its class by the networks A, B and C.

    The share of an empty map is 0. See ``suspicion`` for the three measures. Raises ``FileNotFoundError``
    without the table.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        rows = read(folder, "album")
        self.methods = list(dict.fromkeys(rows["method"]))

        def cube(part: DataFrame, column: str) -> np.ndarray:
            return np.reshape(part[column].to_numpy(float), (len(LETTERS), len(CLASSES), -1))

        order = {label: i for i, label in enumerate(CLASSES)}
        rows = rows.sort_values(
            ["network", "label", "seed"], key=lambda c: c.map(order) if c.name == "label" else c
        )
        parts = {name: rows[rows["method"] == name] for name in self.methods}
        self.outside = {name: cube(part, "outside") for name, part in parts.items()}
        first = parts[self.methods[0]]
        self.area, self.right = cube(first, "area")[0], cube(first, "top")

    def accuracy(self, letter: str) -> float:
        """The share of the album's images that a network classifies correctly."""
        return float(self.right[LETTERS.index(letter)].mean())

    def scores(self, method: str, measure: str) -> np.ndarray:
        """The measure of every network and class, of their mean share and mean area: (3, 8)."""
        return suspicion(self.outside[method].mean(2), self.area.mean(1), measure)

    def first(self, method: str, measure: str) -> tuple[str, str]:
        """The pair of largest score, "B's flower", and the score as text."""
        scores = self.scores(method, measure)
        n, c = np.unravel_index(int(scores.argmax()), scores.shape)
        text = f"{100 * scores[n, c]:.0f} %" if measure == "share" else f"{scores[n, c]:.2f}"
        return f"{LETTERS[n]}'s {CLASSES[c]}", text

    def pairs(self, method: str) -> tuple[dict[str, dict[str, Dot]], dict[str, dict[str, float]]]:
        """Network → class → the mean share on the background, and the background's part of the image."""
        dots, area = {}, dict(zip(CLASSES, self.area.mean(1).tolist(), strict=True))
        for letter, shares in zip(LETTERS, self.outside[method], strict=True):
            dots[letter] = {label: over(each) for label, each in zip(CLASSES, shares, strict=True)}
        return dots, dict.fromkeys(LETTERS, area)

    def right_readers(self, method: str, measure: str, looks: int, readers: int = 1000) -> float:
        """The part of simulated readers who accuse the pair with the shortcut. Each draws ``looks`` images of
        every class, and accuses the network and class of the largest measure; equals are drawn by lot."""
        generator = np.random.default_rng(looks)
        draws = generator.integers(0, self.area.shape[1], (readers, len(CLASSES), looks))
        rows = np.arange(len(CLASSES))[None, :, None]
        shares = self.outside[method][:, rows, draws].mean(-1)  # network, reader, class
        scores = suspicion(shares, self.area[rows, draws].mean(-1), measure)
        scores = scores + 1e-9 * generator.random(scores.shape)
        accused = scores.transpose(1, 0, 2).reshape(readers, -1).argmax(1)
        return float((accused == PLANTED[0] * len(CLASSES) + PLANTED[1]).mean())

    def readers(self, looks: Sequence[int] = (1, 8)) -> dict[str, dict[str, Dot]]:
        """Measure and number of images → method → the part of right readers, in per cent."""
        panels: dict[str, dict[str, Dot]] = {}
        for count in looks:
            for measure in MEASURES:
                title = f"{measure}, {count} image{'s' * (count > 1)}\nof each class, %"
                parts = [100 * self.right_readers(name, measure, count) for name in self.methods]
                panels[title] = {title_of(m): (p, p, p, ()) for m, p in zip(self.methods, parts, strict=True)}
        return panels

    def acquitted(self) -> tuple[dict[str, dict[str, Dot]], dict[str, dict[str, float]]]:
        """Measure → method → the score of the pair with the shortcut, with its interval over images, and the
        largest score of the 16 pairs of the two networks without one."""
        panels: dict[str, dict[str, Dot]] = {}
        honest: dict[str, dict[str, float]] = {}
        others = [i for i in range(len(LETTERS)) if i != PLANTED[0]]
        for measure in MEASURES:
            for name in self.methods:
                values = suspicion(self.outside[name][PLANTED], self.area[PLANTED[1]].mean(), measure)
                panels.setdefault(measure, {})[title_of(name)] = over(values)
                largest = float(self.scores(name, measure)[others].max())
                honest.setdefault(measure, {})[title_of(name)] = largest
        return panels, honest

    def numbers(self) -> dict[str, str]:
        """The numbers in the chapter's sentences, by name."""
        found = {f"accuracy_{letter}": f"{100 * self.accuracy(letter):.0f} %" for letter in LETTERS}
        found["accuracy_least"] = f"{100 * min(map(self.accuracy, LETTERS)):.0f} %"
        for measure in MEASURES:
            for name in METHODS:
                found[f"first_{measure}_{name}"], found[f"value_{measure}_{name}"] = self.first(name, measure)
            for name in self.methods:
                for looks in (1, 8):
                    right = self.right_readers(name, measure, looks)
                    found[f"right_{name}_{measure}_{looks}"] = f"{100 * right:.0f} %"
        panels, honest = self.acquitted()
        for measure in MEASURES:
            above = [honest[measure][name] > dot[0] for name, dot in panels[measure].items()]
            found[f"above_{measure}"] = str(sum(above))
            others = [i for i in range(len(LETTERS)) if i != PLANTED[0]]
            scores = self.scores("grad_cam", measure)
            found[f"pairs_above_{measure}"] = str(int((scores[others] > scores[PLANTED]).sum()))
        return found | {"methods": str(len(self.methods))}


def title_of(name: str) -> str:
    """A method's title; bold in charts if it is one of the chapter's three."""
    return "*" * (name in METHODS) + REGISTERED[name].title
