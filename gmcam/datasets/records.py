"""What the evaluation asks of a dataset: pictures, one by one, with what is known about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Truth:
    """One class in one picture of H × W pixels, all its objects together.

    ``mask`` (H, W) bool, None where the dataset has no masks. ``boxes`` (k, 4) float (left, upper,
    right, lower; right and lower exclusive), one per object, None where it has none. ``difficult``
    (k,) bool: objects that the dataset's authors advise not to count.
    """

    label: str
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    difficult: np.ndarray | None = None


@dataclass(frozen=True)
class Record:
    """A picture and the classes in it. ``void`` (H, W) bool: pixels that belong to nobody and count
    neither for nor against a map, None where there are none."""

    name: str
    image: Image.Image
    truths: tuple[Truth, ...]
    void: np.ndarray | None = None


@dataclass(frozen=True)
class Dataset:
    """``names``: one per picture, no two alike. ``classes``: what pictures are labelled with.
    ``read(index)`` opens a picture, or raises ``ValueError`` or ``OSError`` where it cannot be read.
    """

    name: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[int], Record]

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(
                f"{self.name} holds two pictures called {twice[0]}; every picture has a name of its own"
            )

    def __len__(self) -> int:
        return len(self.names)
