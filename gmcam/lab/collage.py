"""Collage scenes as a dataset with ground truth."""

from __future__ import annotations

import itertools

from gmcam.datasets.opening import _as_arrays, _check_limit
from gmcam.datasets.records import Dataset, Record, Truth
from gmcam.lab.scenes import CLASSES, scene


def collage(count: int = 504, *, limit: int | None = None) -> Dataset:
    """The scenes of ``dual_class_scenes(count)``, drawn one by one; 504 is nine of each ordered pair.

    Masks and boxes are exact. Raises ``ValueError`` for a count below 1.
    """
    count = count if limit is None else limit
    _check_limit(count)
    pairs = itertools.islice(itertools.cycle(itertools.permutations(CLASSES, 2)), count)
    recipes = list(enumerate(pairs))

    def read(index: int) -> Record:
        seed, labels = recipes[index]
        drawn = scene(*labels, seed=seed)
        truths = [
            Truth(label, mask, *_as_arrays([(box, False)]))
            for label, mask, box in zip(drawn.labels, drawn.masks, drawn.boxes.tolist(), strict=True)
        ]
        return Record(names[index], drawn.image, tuple(truths))

    names = [f"{first}-{second}-{seed}" for seed, (first, second) in recipes]
    return Dataset("collage", CLASSES, tuple(names), read)
