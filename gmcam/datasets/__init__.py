"""Images with ground truth: PASCAL VOC 2012, COCO and ImageNet, and datasets that packages register."""

from dataclasses import replace
from importlib.metadata import entry_points

from gmcam.datasets.coco import coco
from gmcam.datasets.imagenet import IMAGENET_CLASSES, imagenet
from gmcam.datasets.matching import MATCHES, Match, class_groups
from gmcam.datasets.records import Dataset, Record, Root, Truth
from gmcam.datasets.voc import VOC_CLASSES, voc

__all__ = ["IMAGENET_CLASSES", "MATCHES", "VOC_CLASSES", "Dataset", "Match", "Record", "Truth"]
__all__ += ["class_groups", "coco", "imagenet", "open_dataset", "voc"]
_ON_DISK = {"voc": voc, "coco": coco, "imagenet": imagenet}


def open_dataset(
    name: str, root: Root | None = None, split: str | None = None, limit: int | None = None
) -> Dataset:
    """``voc``, ``coco``, ``imagenet``, or a dataset that a package registers, such as ``collage``.
    ``root``: the folder that it was unpacked in. ``split``: the validation split by default. A registered
    dataset takes neither: it is a function without arguments, an entry point of the group ``gmcam.datasets``.
    ``limit``: only the first images; ImageNet's are sorted by class. ``ValueError`` for an unknown name or
    split, missing files, or a limit below 1."""
    registered = entry_points(group="gmcam.datasets")
    if name in registered.names and root is None and split is None:
        dataset: Dataset = registered[name].load()()
    elif name in _ON_DISK and root is not None:
        dataset = _ON_DISK[name](root) if split is None else _ON_DISK[name](root, split)
    else:
        usage = f"{', '.join(_ON_DISK)} with a root, or {', '.join(sorted(registered.names))} without"
        raise ValueError(f"expected {usage}, got {name!r} with root {root} and split {split}: choose one")
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least one image, got {limit}: raise it")
    return replace(dataset, names=dataset.names[:limit])
