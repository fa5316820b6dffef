"""The grid pointing game on EfficientNet-Lite0: ``book/grid_pointing.parquet``.

    GMCAM_DATA=… python benchmarks/grid_pointing.py

Two sets of photographs. *book*: those installed with the book's requirements whose first class has a
probability of at least 0.3, in all ordered pairs (halves) and all sets of four (quarters). *sample*: one
photograph a class of the folder ``imagenet_sample``, of sixty random ones among the classes with a photograph
whose first class is the label, with a probability of at least 0.5; in a random circle, neighbours are a pair,
in both orders, and each photograph and its next three are four. One row a mosaic, target, layer and map, as
``gmcam.lab.play`` writes them, with ``photos``, ``cells`` (2 or 4) and ``layer``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

import gmcam
from gmcam.datasets import Record, imagenet
from gmcam.lab import mosaic, play
from gmcam.lab.grid_study import LAYERS, PLAYERS, book_mosaics, central

OUT = Path(__file__).parents[1] / "book" / "grid_pointing.parquet"
LEAST, KEPT = 0.5, 60


def sample(network: gmcam.Network, root: Path) -> dict[str, Image.Image]:
    """Class → its first photograph that the network classifies rightly and with confidence."""
    photos: dict[str, Image.Image] = {}
    data = imagenet(root)
    for index in range(len(data)):
        record = data.read(index)
        label, image = record.truths[0].label, central(record.image)
        if label in photos or network.classes is None:
            continue
        chances = network.probabilities(image)[0]
        if chances.argmax() == network.class_index(label) and chances.max() >= LEAST:
            photos[label] = image
    names = sorted(photos)
    random.Random(0).shuffle(names)
    return {name: photos[name] for name in names[:KEPT]}


def circle(photos: dict[str, Image.Image], cells: int) -> Iterator[Record]:
    """Neighbours in a circle: pairs in both orders, or fours."""
    names = list(photos)
    for index in range(len(names)):
        group = [names[(index + step) % len(names)] for step in range(cells)]
        for order in [group, group[::-1]] if cells == 2 else [group]:
            yield mosaic([photos[name] for name in order], order, fill=True)


def rows(
    network: gmcam.Network, photos: str, cells: int, records: Sequence[Record]
) -> Iterator[pd.DataFrame]:
    """The game of each layer."""
    for layer in LAYERS:
        game = play(network, records, PLAYERS, layer)
        yield game.assign(members=game["members"].map(list), photos=photos, cells=cells, layer=layer)
        print(photos, cells, layer, len(records), flush=True)


def main() -> None:
    network = gmcam.load("efficientnet-lite0")
    chosen = sample(network, Path(os.environ["GMCAM_DATA"], "imagenet_sample"))
    parts = []
    for cells in (2, 4):
        parts += rows(network, "book", cells, list(book_mosaics(network, cells)))
        parts += rows(network, "sample", cells, list(circle(chosen, cells)))
    table = pd.concat(parts, ignore_index=True).astype({"inside": "float32", "pointing": "float32"})
    table.to_parquet(OUT, index=False, compression="zstd")
    print(f"{OUT}: {len(table)} rows, {len(chosen)} sampled photographs")


if __name__ == "__main__":
    main()
