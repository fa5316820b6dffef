"""Mosaics: photos side by side, so that the cell of each class is known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from gmcam.datasets.records import Record, Truth
from gmcam.reading import ImageSource, open_image

GREY = (124, 116, 104)  # ImageNet's mean colour: zero after a network's normalisation


def mosaic(
    images: Sequence[ImageSource], labels: Sequence[str], size: int = 448, fill: bool = False
) -> Record:
    """Put the central squares of n ``images`` into the cells of a square image of ``size`` pixels a side.

    The grid has ⌈√n⌉ columns and is filled row by row; its rows are centred vertically. Pixels outside the
    cells are ``GREY`` and void: two images are side by side between two grey bands, four fill a 2 × 2 grid.
    ``fill``: cells are as high as the grid allows instead, so that two images fill a half each. Each label's
    mask and box are its cell; a repeated label has several cells. Source: Böhle, Fritz and Schiele,
    *Convolutional Dynamic Alignment Networks for Interpretable Classifications*, CVPR 2021, where the cells
    fill the grid. Raises ``ValueError`` without an image, unless there is one label per image, if a cell
    would have no pixel, and for an image that cannot be read.

    >>> from gmcam.lab import mosaic
    >>> record = mosaic([gmcam.lab.photo("chelsea"), gmcam.lab.photo("rocket")], ["cat", "rocket"], size=64)
    >>> {truth.label: truth.boxes.tolist() for truth in record.truths}
    {'cat': [[0.0, 16.0, 32.0, 48.0]], 'rocket': [[32.0, 16.0, 64.0, 48.0]]}
    """
    if not images or len(labels) != len(images):
        raise ValueError(f"expected one label per image, got {len(labels)} labels for {len(images)} images")
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    cell = size // columns
    height = size // rows if fill else cell
    if cell < 1:
        raise ValueError(f"expected a size of at least {columns} pixels for {len(images)} images, got {size}")
    upper = (size - rows * height) // 2
    canvas = Image.new("RGB", (size, size), GREY)
    void = np.ones((size, size), dtype=bool)
    boxes: dict[str, list[tuple[int, int, int, int]]] = {label: [] for label in labels}
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = index % columns * cell, upper + index // columns * height
        part = ImageOps.fit(open_image(image), (cell, height), Image.Resampling.BICUBIC)
        canvas.paste(part, (x, y))
        void[y : y + height, x : x + cell] = False
        boxes[label].append((x, y, x + cell, y + height))
    truths = [
        Truth(label, _inside(cells, size), np.array(cells, dtype=float)) for label, cells in boxes.items()
    ]
    return Record(", ".join(labels), canvas, tuple(truths), void if void.any() else None)


def _inside(boxes: Sequence[tuple[int, int, int, int]], size: int) -> np.ndarray:
    """The pixels of the boxes: (size, size) bool."""
    mask = np.zeros((size, size), dtype=bool)
    for left, upper, right, lower in boxes:
        mask[upper:lower, left:right] = True
    return mask
