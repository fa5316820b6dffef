"""Pictures with ground truth: collage scenes, PASCAL VOC 2012, COCO and ImageNet, opened alike.

The datasets are read where they were unpacked, in the layout that torchvision reads. Opening one reads
its lists; a picture and its annotation are read when they are asked for, and nothing is kept, so that
several threads may read at once.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torchvision.datasets import CocoDetection, ImageFolder, VOCDetection, VOCSegmentation
from torchvision.models.segmentation import FCN_ResNet50_Weights

from gmcam.datasets.matching import IMAGENET_CLASSES
from gmcam.datasets.records import Dataset, Record, Truth
from gmcam.reading import open_image

Root = str | os.PathLike[str]
# The value v of a mask is the class v − 1; 0 is the background.
VOC_CLASSES: tuple[str, ...] = tuple(FCN_ResNet50_Weights.DEFAULT.meta["categories"][1:])
_VOC_VOID = 255
_VOC_SPLITS = ("train", "trainval", "val")
_LAYOUTS = {
    "voc": "voc's root holds VOCdevkit/VOC2012 with JPEGImages, SegmentationClass, Annotations and "
    "ImageSets/Segmentation, as torchvision.datasets.VOCSegmentation(root, download=True) unpacks it",
    "coco": "coco's root holds a folder of photos, such as val2017, and annotations/instances_val2017.json, "
    "both from https://cocodataset.org/#download",
    "imagenet": "imagenet's root holds a split, such as val, with a folder for each class, such as "
    "val/n01440764, made from the archives of ILSVRC 2012 on https://image-net.org",
}
# What one picture's annotation says of one class: boxes, each with its flag "difficult".
Objects = list[tuple[Sequence[float], bool]]


def open_dataset(
    name: str, root: Root | None = None, split: str | None = None, limit: int | None = None
) -> Dataset:
    """One of ``collage``, ``voc``, ``coco`` and ``imagenet``; see the function of that name.

    ``root``: the folder it was unpacked in; the collage scenes, which are drawn, have none. ``split``:
    the validation split without it. ``limit``: only the first so many pictures, in the dataset's own
    order; those of an ImageNet folder come class by class. Raises ``ValueError`` for an unknown name or
    split, a limit below 1, files that are missing or not as expected, and a split without pictures.
    """
    openers = {"voc": voc, "coco": coco, "imagenet": imagenet}
    registered = entry_points(group="gmcam.datasets")
    if name in registered.names:
        if root is not None or split is not None:
            raise ValueError(f"expected neither root nor split for {name}, which needs no files")
        opened: Dataset = registered[name].load()(limit=limit)
        return opened
    if name not in openers:
        raise ValueError(
            f"no dataset is called {name!r}; there are {', '.join([*registered.names, *openers])}"
        )
    if root is None:
        raise ValueError(f"{name} is read from disk, so give its root; {_LAYOUTS[name]}")
    chosen = {} if split is None else {"split": split}
    return openers[name](root, limit=limit, **chosen)


def voc(root: Root, split: str = "val", limit: int | None = None) -> Dataset:
    """PASCAL VOC 2012, the pictures of a segmentation split: ``train``, ``val`` or ``trainval``.

    A class's mask is the union of its objects. Boxes count pixels from 1 and include the last one in the
    files, and are given from 0 without it. ``void`` is the border that the masks leave undecided. A class
    that only the boxes or only the mask know has an empty mask or no box. Boxes are looked up by the
    picture's name, since the detection lists hold other pictures. Source: Everingham et al., *The Pascal
    Visual Object Classes Challenge: A Retrospective*, 2015. Raises ``ValueError`` as ``open_dataset``.
    """
    folder = Path(root, "VOCdevkit", "VOC2012")
    lists = folder / "ImageSets" / "Segmentation"
    _check_folders("voc", folder / "JPEGImages", folder / "SegmentationClass", folder / "Annotations", lists)
    _check_split(split, [name for name in _VOC_SPLITS if (lists / f"{name}.txt").is_file()], lists)
    _check_limit(limit)
    try:
        listed = VOCSegmentation(os.fspath(root), "2012", split).images
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{lists / split}.txt cannot be read as a list of pictures ({_reason(error)})"
        ) from None
    stems = [stem for stem in (Path(photo).name.removesuffix(".jpg") for photo in listed) if stem][:limit]

    def read(index: int) -> Record:
        stem = stems[index]
        image = open_image(folder / "JPEGImages" / f"{stem}.jpg")
        values = _voc_mask(folder / "SegmentationClass" / f"{stem}.png", image)
        objects = _voc_objects(folder / "Annotations" / f"{stem}.xml")
        truths = [
            Truth(label, values == value, *_as_arrays(objects[label]))
            for value, label in enumerate(VOC_CLASSES, 1)
            if label in objects or (values == value).any()
        ]
        void = values == _VOC_VOID
        return Record(stem, image, tuple(truths), void if void.any() else None)

    return _dataset(f"voc-{split}", VOC_CLASSES, stems, read, lists / f"{split}.txt")


def coco(root: Root, split: str = "val2017", limit: int | None = None) -> Dataset:
    """COCO's objects in the photos of a split, such as ``val2017``. Needs pycocotools.

    A class's mask is the union of its single objects. A crowd, drawn round many objects at once, is a
    difficult box; its pixels are void where no single object of any class lies. A class that is there
    only as a crowd has an empty mask. Boxes keep COCO's fractions of a pixel. Source: Lin et al.,
    *Microsoft COCO: Common Objects in Context*, 2014. Raises ``ValueError`` as ``open_dataset``.
    """
    folder, lists = Path(root, split), Path(root, "annotations")
    _check_folders("coco", lists)
    splits = [path.stem.removeprefix("instances_") for path in sorted(lists.glob("instances_*.json"))]
    _check_split(split, splits, lists)
    _check_folders("coco", folder)
    _check_limit(limit)
    source = lists / f"instances_{split}.json"
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints how it gets on
            listed = CocoDetection(os.fspath(folder), os.fspath(source))
        api, numbers = listed.coco, listed.ids[:limit]
        labels: dict[int, str] = {number: api.cats[number]["name"] for number in sorted(api.cats)}
        files = [str(api.imgs[number]["file_name"]) for number in numbers]
        if not labels:
            raise KeyError("categories")
    except ImportError:
        raise ValueError("COCO's masks need pycocotools; pip install pycocotools") from None
    except Exception as error:  # pycocotools indexes whatever the file holds, and asserts
        raise ValueError(f"{source} is no file of COCO instances ({_reason(error)})") from None

    def read(index: int) -> Record:
        image = open_image(folder / files[index])
        single, crowd = np.zeros((2, *image.size[::-1]), bool)
        masks: dict[str, np.ndarray] = {}
        objects: defaultdict[str, Objects] = defaultdict(list)
        for entry in api.loadAnns(api.getAnnIds(imgIds=numbers[index])):
            try:
                label, is_crowd = labels[entry["category_id"]], bool(entry.get("iscrowd"))
                left, upper, width, height = entry["bbox"]
                mask = api.annToMask(entry).astype(bool)
                objects[label].append(((left, upper, left + width, upper + height), is_crowd))
            except Exception as error:  # as above; the C code beneath raises its own kinds
                raise ValueError(
                    f"annotation {entry.get('id')} of {files[index]} in {source} is broken ({_reason(error)})"
                ) from None
            _check_size(mask.shape, image, f"the mask of annotation {entry.get('id')} in {source}")
            whole = masks.setdefault(label, np.zeros_like(single))
            for union in (crowd,) if is_crowd else (single, whole):
                union |= mask
        void = crowd & ~single
        truths = [
            Truth(label, masks[label], *_as_arrays(objects[label]))
            for label in labels.values()
            if label in objects
        ]
        return Record(names[index], image, tuple(truths), void if void.any() else None)

    names = [Path(file).with_suffix("").as_posix() for file in files]
    return _dataset(f"coco-{split}", tuple(labels.values()), names, read, source)


def imagenet(root: Root, split: str = "val", limit: int | None = None) -> Dataset:
    """ImageNet's pictures (ILSVRC 2012), in one folder per class, named by its WordNet id.

    There are neither masks nor boxes. The label is torchvision's name of the class. Source: Russakovsky
    et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015. Raises ``ValueError`` as
    ``open_dataset``, and for a folder that is none of the 1000.
    """
    folder = Path(root, split)
    _check_folders("imagenet", Path(root))
    _check_split(split, sorted(path.name for path in Path(root).iterdir() if path.is_dir()), Path(root))
    _check_limit(limit)
    try:
        listed = ImageFolder(folder, allow_empty=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} has no folder for any class; {_LAYOUTS['imagenet']}") from None
    for found in listed.classes:
        if found not in imagenet_indices():
            raise ValueError(f"{folder / found} is named by none of ImageNet's 1000 ids, such as n01440764")
    samples = [(Path(path), listed.classes[number]) for path, number in listed.samples[:limit]]

    def read(index: int) -> Record:
        path, wnid = samples[index]
        label = IMAGENET_CLASSES[imagenet_indices()[wnid]]
        return Record(names[index], open_image(path), (Truth(label),))

    names = [path.relative_to(folder).with_suffix("").as_posix() for path, _ in samples]
    return _dataset(f"imagenet-{split}", IMAGENET_CLASSES, names, read, folder)


@lru_cache(maxsize=1)
def imagenet_indices() -> dict[str, int]:
    """WordNet id → index of the logit: the ids of the ILSVRC 2012 synset list, sorted."""
    ids = Path(__file__).with_name("imagenet.txt").read_text("ascii").split()
    return {wnid: index for index, wnid in enumerate(ids)}


def _voc_mask(path: Path, image: Image.Image) -> np.ndarray:
    """The class mask of a picture, values 0 to 20 and 255: (H, W) uint8."""
    try:
        with Image.open(path) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a mask ({_reason(error)})") from None
    if mode not in ("P", "L"):  # saved again in colour, the numbers of the palette are lost
        raise ValueError(f"{path} has mode {mode}; a mask is a palette or grey picture of class numbers")
    unknown = sorted(set(np.unique(values).tolist()) - {*range(len(VOC_CLASSES) + 1), _VOC_VOID})
    if unknown:
        raise ValueError(f"{path} has values such as {unknown[0]}; a mask holds 0 to 20 and {_VOC_VOID}")
    _check_size(values.shape, image, f"the mask {path}")
    return values


def _voc_objects(path: Path) -> defaultdict[str, Objects]:
    """The boxes of an annotation file by class."""
    objects: defaultdict[str, Objects] = defaultdict(list)
    try:
        tree: dict[str, Any] = VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())
        for entry in tree["annotation"]["object"]:
            if entry["name"] not in VOC_CLASSES:
                raise ValueError(f"no class is called {entry['name']!r}")
            left, upper, right, lower = (
                float(entry["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult = entry.get("difficult", "0") == "1"
            objects[entry["name"]].append(((left - 1, upper - 1, right, lower), difficult))
    except (OSError, ElementTree.ParseError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an annotation of VOC ({_reason(error)})") from None
    return objects


def _as_arrays(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (k, 4) float and difficult (k,) bool."""
    boxes = np.array([box for box, _ in objects], float).reshape(-1, 4)
    return boxes, np.array([difficult for _, difficult in objects], bool)


def _dataset(
    name: str, classes: tuple[str, ...], names: list[str], read: Callable[[int], Record], source: Path
) -> Dataset:
    if not names:
        raise ValueError(f"{source} holds no picture")
    return Dataset(name, classes, tuple(names), read)


def _check_folders(name: str, *folders: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; {_LAYOUTS[name]}")


def _check_split(split: str, splits: list[str], where: Path) -> None:
    if split not in splits:
        found = ", ".join([*splits[:3], "…"] if len(splits) > 3 else splits) or "none"
        raise ValueError(f"there is no split {split!r} in {where}, which has {found}")


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"a dataset is limited to one picture or more, not to {limit}")


def _check_size(shape: tuple[int, ...], image: Image.Image, what: str) -> None:
    if shape != image.size[::-1]:
        raise ValueError(
            f"{what} has {shape[1]} × {shape[0]} pixels and its photo {image.width} × {image.height}"
        )


def _reason(error: Exception) -> str:
    """What went wrong, in one line; of a file without the path, which the sentence names."""
    said = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {said}".removesuffix(": ")
