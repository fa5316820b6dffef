"""Photos side by side: pictures of which it is certain where each class is, and where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from gmcam.datasets.records import Record, Truth
from gmcam.reading import ImageSource, open_image

GREY = (124, 116, 104)  # ImageNet's mean colour, which a network's normalisation turns into zero


def mosaic(pictures: Sequence[ImageSource], labels: Sequence[str], size: int = 448) -> Record:
    """The middle squares of n ``pictures`` as the cells of a square picture of ``size`` pixels a side.

    The grid has ⌈√n⌉ columns and is filled row by row; its rows stand in the middle. What is left over is
    ``GREY`` and void: two pictures stand beside each other between two grey bands, four fill a grid of
    2 × 2. A label's mask is its cell, and so is its box; a label given twice has the cells of both. Source:
    Böhle, Fritz and Schiele, *Convolutional Dynamic Alignment Networks for Interpretable Classifications*,
    CVPR 2021, where the cells fill the grid. Raises ``ValueError`` without a picture, for other than one
    label per picture, for cells of no pixel, and for a picture that cannot be read.

    >>> from gmcam.lab import mosaic
    >>> record = mosaic([gmcam.lab.photo("chelsea"), gmcam.lab.photo("rocket")], ["cat", "rocket"], size=64)
    >>> {truth.label: truth.boxes.tolist() for truth in record.truths}
    {'cat': [[0.0, 16.0, 32.0, 48.0]], 'rocket': [[32.0, 16.0, 64.0, 48.0]]}
    """
    if not pictures or len(labels) != len(pictures):
        raise ValueError(
            f"a mosaic takes one label for each of its pictures, not {len(labels)} for {len(pictures)}"
        )
    columns = math.isqrt(len(pictures) - 1) + 1
    cell = size // columns
    if cell < 1:
        raise ValueError(f"{columns} cells a row do not fit into {size} pixels")
    upper = (size - -(-len(pictures) // columns) * cell) // 2
    image = Image.new("RGB", (size, size), GREY)
    void = np.ones((size, size), dtype=bool)
    boxes: dict[str, list[tuple[int, int, int, int]]] = {label: [] for label in labels}
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = index % columns * cell, upper + index // columns * cell
        square = ImageOps.fit(open_image(picture), (cell, cell), Image.Resampling.BICUBIC)
        image.paste(square, (x, y))
        void[y : y + cell, x : x + cell] = False
        boxes[label].append((x, y, x + cell, y + cell))
    truths = [
        Truth(label, _inside(found, size), np.array(found, dtype=float)) for label, found in boxes.items()
    ]
    return Record(", ".join(labels), image, tuple(truths), void if void.any() else None)


def _inside(boxes: Sequence[tuple[int, int, int, int]], size: int) -> np.ndarray:
    """The pixels of the boxes: (size, size) bool."""
    mask = np.zeros((size, size), dtype=bool)
    for left, upper, right, lower in boxes:
        mask[upper:lower, left:right] = True
    return mask
