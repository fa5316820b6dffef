"""COCO."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gmcam._extras import require
from gmcam.datasets.records import Dataset, Objects, Record, Root, Truth, existing
from gmcam.reading import open_image

_LAYOUT = "the root holds val2017 and annotations/instances_val2017.json of https://cocodataset.org/#download"


def coco(root: Root, split: str = "val2017") -> Dataset:
    """COCO's photos of a split, such as ``val2017``, with their objects. Needs pycocotools.
    A mask is the union of a class's single objects. A crowd, one annotation of many objects, is a difficult
    box; its pixels are void unless a single object covers them. A class only in a crowd has an empty mask.
    ``ValueError`` for a missing folder or split. Source: Lin et al., *Microsoft COCO*, 2014."""
    source = existing(Path(root, "annotations", f"instances_{split}.json"), _LAYOUT)
    folder = existing(Path(root, split), _LAYOUT)
    pycocotools = require("pycocotools.coco", "datasets")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        api = pycocotools.COCO(str(source))
    labels = {number: api.cats[number]["name"] for number in sorted(api.cats)}
    files = [Path(api.imgs[number]["file_name"]) for number in sorted(api.imgs)]
    names = tuple(file.with_suffix("").as_posix() for file in files)
    return Dataset(f"coco-{split}", tuple(labels.values()), names, partial(_read, folder, api, labels, files))


def _read(folder: Path, api: Any, labels: dict[int, str], files: Sequence[Path], index: int) -> Record:
    image = open_image(folder / files[index])
    single, crowd = np.zeros((2, *image.size[::-1]), bool)
    masks: defaultdict[str, np.ndarray] = defaultdict(partial(np.zeros_like, single))
    objects: defaultdict[str, Objects] = defaultdict(list)
    for entry in api.loadAnns(api.getAnnIds(imgIds=sorted(api.imgs)[index])):
        label, is_crowd = labels[entry["category_id"]], bool(entry.get("iscrowd"))
        left, upper, width, height = entry["bbox"]
        objects[label].append(((left, upper, left + width, upper + height), is_crowd))
        mask = api.annToMask(entry).astype(bool)
        for union in (crowd,) if is_crowd else (single, masks[label]):
            union |= mask
    truths = [Truth.of(label, masks[label], objects[label]) for label in labels.values() if label in objects]
    void, name = crowd & ~single, files[index].with_suffix("").as_posix()
    return Record(name, image, tuple(truths), void if void.any() else None)
