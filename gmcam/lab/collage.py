"""Collage scenes as a dataset with ground truth."""

from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice, permutations

from gmcam.datasets.records import Dataset, Record, Truth
from gmcam.lab.scenes import CLASSES, scene


def collage(count: int = 504) -> Dataset:
    """The scenes of ``dual_class_scenes(count)``, drawn as they are read; 504 is nine of each ordered pair.

    Masks and boxes are exact, and each class has the image without its object. Raises ``ValueError`` for a
    count below 1.
    """
    pairs = list(islice(cycle(permutations(CLASSES, 2)), max(count, 0)))
    names = tuple(f"{first}-{second}-{seed}" for seed, (first, second) in enumerate(pairs))
    return Dataset("collage", CLASSES, names, partial(_read, pairs, names))


def _read(pairs: Sequence[tuple[str, ...]], names: Sequence[str], index: int) -> Record:
    drawn = scene(*pairs[index], seed=index)
    objects = zip(drawn.labels, drawn.masks, drawn.boxes.tolist(), strict=True)
    truths = tuple(
        Truth.of(label, mask, [(box, False)], drawn.without(label).image) for label, mask, box in objects
    )
    return Record(names[index], drawn.image, truths)
