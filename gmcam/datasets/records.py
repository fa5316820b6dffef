"""Images with ground truth, in the form that an evaluation reads."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

Root = str | os.PathLike[str]
Objects = list[tuple[Sequence[float], bool]]  # box and flag ``difficult`` of each object


@dataclass(frozen=True, eq=False)
class Truth:
    """All objects of one class in an image of H × W pixels; None for what the dataset does not provide.
    ``mask`` (H, W) bool: their union. ``boxes`` (k, 4) float: left, upper, right, lower of each, the last two
    exclusive. ``difficult`` (k,) bool: those that the dataset's authors advise to ignore. ``without``: the
    same image without them, from which ``evaluate`` takes the effect map."""

    label: str
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    difficult: np.ndarray | None = None
    without: Image.Image | None = None

    @classmethod
    def of(cls, label: str, mask: np.ndarray, objects: Objects, without: Image.Image | None = None) -> Self:
        """A class with a mask and any number of objects."""
        boxes = np.array([box for box, _ in objects], float).reshape(-1, 4)
        return cls(label, mask, boxes, np.array([difficult for _, difficult in objects], bool), without)


@dataclass(frozen=True, eq=False)
class Record:
    """An image and its classes. ``void`` (H, W) bool: pixels that count neither for nor against a map."""

    name: str
    image: Image.Image
    truths: tuple[Truth, ...]
    void: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images that are read one at a time. ``classes``: all labels. ``names``: one per image, unique, or
    ``ValueError``. ``read(index)``: an image with its ground truth, or an error; picklable for workers."""

    name: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[int], Record]

    def __post_init__(self) -> None:
        [(name, count)] = Counter(self.names).most_common(1) or [("no name", 0)]
        if count != 1:
            raise ValueError(f"expected unique names in {self.name}, got {name!r} {count} times: rename")

    def __len__(self) -> int:
        return len(self.names)


def existing(path: Path, layout: str) -> Path:
    """``path``; raise ``ValueError`` with its neighbours and the ``layout`` if it does not exist."""
    if not path.exists():
        neighbours = ", ".join(sorted(entry.name for entry in path.parent.glob("*"))[:4]) or "nothing"
        raise ValueError(f"expected {path}, got a folder with {neighbours}: choose another split; {layout}")
    return path
