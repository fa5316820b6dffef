"""The stored grid pointing game of the chapter *On ImageNet*, and its statistics.

``benchmarks/grid_pointing.py`` writes it and describes its columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from gmcam._extras import require
from gmcam.datasets.records import Record
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, interval
from gmcam.lab.grid_pointing import play
from gmcam.lab.mosaics import mosaic
from gmcam.lab.photos import photo
from gmcam.lab.pictures import Dot, dots
from gmcam.loading import load, weights_on_disk
from gmcam.methods import METHODS
from gmcam.network import Network

if TYPE_CHECKING:
    from IPython.display import Markdown
    from pandas import DataFrame

    from gmcam.show import InlineFigure

NAMES: tuple[str, ...] = ("chelsea", "coffee", "motorcycle", "rocket", "camera")
NAMES += ("flower", "china", "grace_hopper", "astronaut", "coins")
PLAYERS: tuple[str, ...] = ("centred_blob", "edges", "area", "feature_sum", "eigen_cam", "random_network")
PLAYERS += ("grad_cam_pp", "grad_cam", "grad_cam_squared", "guidance_map", "gmcam")
LAYERS = ("7x7", "14x14")
SCORES = ("inside", "pointing")


def central(image: Image.Image) -> Image.Image:
    """The middle square of an image."""
    return ImageOps.fit(image, (min(image.size),) * 2)


def book_photos() -> dict[str, Image.Image]:
    """Name → the middle square of each photograph that is installed with the book's requirements."""
    return {name: central(photo(name)) for name in NAMES}


def book_mosaics(network: Network, cells: int, least: float = 0.3) -> Iterator[Record]:
    """All ordered pairs, or all sets of ``cells``, of the book's photographs whose first class has a
    probability of ``least``; a photograph is labelled with that class."""
    chosen: dict[str, Image.Image] = {}
    for image in book_photos().values():
        chances = network.probabilities(image)[0]
        if chances.max() >= least and network.classes is not None:
            chosen[network.classes[int(chances.argmax())]] = image
    for names in permutations(chosen, 2) if cells == 2 else combinations(chosen, cells):
        yield mosaic([chosen[name] for name in names], names, fill=True)


def signed(points: float) -> str:
    """A difference without decimals, with its sign, and 0 without one."""
    return f"{points:+.0f}".replace("-", "\N{MINUS SIGN}") if round(points) else "0"


class GridStudy:
    """The game from ``grid_pointing.parquet`` in a ``folder``.

    Intervals are of 95 %, from resampling the photographs: a mosaic weighs the product of its members'
    weights, the same for all its targets, so that a map that ignores the class scores 1/n in every replicate.
    Raises ``FileNotFoundError`` without the table.
    """

    def __init__(self, folder: str | Path = ".") -> None:
        self.rows: DataFrame = require("pandas", "evaluate").read_parquet(
            Path(folder, "grid_pointing.parquet")
        )

    def game(self, photos: str, cells: int, layer: str, recognised: bool = False) -> DataFrame:
        """The rows of one game; ``recognised``: of the mosaics in which all targets are recognised."""
        rows = self.rows[
            (self.rows["photos"] == photos) & (self.rows["cells"] == cells) & (self.rows["layer"] == layer)
        ]
        if rows.empty:
            raise ValueError(f"expected a stored game, got {photos!r}, {cells}, {layer!r}: choose another")
        rows = rows.assign(members=rows["members"].map(tuple))
        whole = rows.groupby("members")["recognised"].transform("all")
        return rows[whole] if recognised else rows

    def score(self, game: DataFrame, method: str, score: str, base: str = "") -> Dot:
        """The mean score of a method, or its difference from ``base``: value, ends, means of classes."""
        table = game.pivot(index=["members", "label"], columns="method", values=score).astype(float)
        values = table[method] - (table[base] if base else 0)
        members = [list(names) for names in values.index.get_level_values("members")]
        means = bootstrap_means(bootstrap_weights(clusters=members), values.to_numpy()[:, None])
        low, high = interval(means)
        classes = values.groupby(level="label").mean()
        return float(means[0, 0]), float(low[0]), float(high[0]), tuple(classes)

    def panel(self, game: DataFrame, score: str) -> dict[str, Dot]:
        """Title → score of each player, for ``dots``; fewer than ten photographs are shown as small dots."""
        titles = {name: "*" * (name == "gmcam") + METHODS[name].title for name in PLAYERS}
        panel = {title: self.score(game, name, score) for name, title in titles.items()}
        few = self.counts(game)[0] < 10
        return {title: (*dot[:3], dot[3] if few else ()) for title, dot in panel.items()}

    def said(self, game: DataFrame, method: str, score: str, base: str = "") -> str:
        """A share in per cent, or a difference in points of per cent, with its interval, for a sentence."""
        value, low, high, _ = self.score(game, method, score, base)
        numbers = [signed(100 * each) if base else f"{100 * each:.0f}" for each in (value, low, high)]
        return f"{numbers[0]}{'' if base else ' %'} [{numbers[1]}, {numbers[2]}]"

    def counts(self, game: DataFrame) -> tuple[int, int, int]:
        """How many photographs, mosaics and, of these, mosaics with all targets recognised."""
        one = game[game["method"] == PLAYERS[0]]
        whole = one.groupby("members")["recognised"].all()
        return one["label"].nunique(), len(whole), int(whole.sum())


def texts(study: GridStudy) -> dict[str, str]:
    """The numbers of the chapter's text."""
    halves = {layer: study.game("sample", 2, layer) for layer in LAYERS}
    found = dict[str, str]()
    for layer, game in halves.items():
        size = layer.partition("x")[0]
        for name in PLAYERS:
            found |= {f"{score}_{name}_{size}": study.said(game, name, score) for score in SCORES}
    for base in ("grad_cam", "grad_cam_squared", "guidance_map"):
        for score in SCORES:
            found[f"gain_{score}_{base}"] = study.said(halves["14x14"], "gmcam", score, base)
    four, book = study.game("sample", 4, "14x14"), study.game("book", 2, "14x14")
    known = study.game("sample", 2, "14x14", recognised=True)
    for title, game in (("four", four), ("book", book), ("known", known)):
        for name in ("grad_cam", "guidance_map", "gmcam"):
            found[f"{title}_{name}"] = study.said(game, name, "pointing")
    for title, game in (("", halves["14x14"]), ("four_", four), ("book_", book)):
        counts = zip(("photos", "mosaics", "whole"), study.counts(game), strict=True)
        found |= {f"{title}{word}": str(count) for word, count in counts}
    return found


def bring(name: str, least: float = 0.3) -> InlineFigure | Markdown:
    """Play halves with a torchvision network at its last map, on the book's photographs; a sentence if its
    weights are not on this machine; nothing is downloaded. Of several sets of weights torchvision's default
    comes first; the titles name the set."""
    from IPython.display import Markdown

    if not (weights := weights_on_disk(name)):
        return Markdown(f"The weights of `{name}` are not on this machine.")  # type: ignore[no-untyped-call]
    network = load(name, weights[0])
    game = play(network, book_mosaics(network, 2, least), PLAYERS)
    means = game.groupby("method")[list(SCORES)].mean()
    titles = {each: "*" * (each == "gmcam") + METHODS[each].title for each in PLAYERS}
    panels = dict[str, dict[str, Dot]]()
    for score, word in zip(SCORES, ("share", "pointing"), strict=True):
        values = {title: means.loc[each, score] for each, title in titles.items()}
        title = f"{name}, {word}\n{weights[0]}"
        panels[title] = {each: (value, value, value, ()) for each, value in values.items()}
    return dots(panels, chance=0.5)
