"""Images with ground truth: PASCAL VOC 2012, COCO and ImageNet, opened alike."""

from gmcam.datasets.matching import IMAGENET_CLASSES, MATCHES, Match, class_groups
from gmcam.datasets.opening import VOC_CLASSES, coco, imagenet, open_dataset, voc
from gmcam.datasets.records import Dataset, Record, Truth

__all__ = [
    "IMAGENET_CLASSES",
    "MATCHES",
    "VOC_CLASSES",
    "Dataset",
    "Match",
    "Record",
    "Truth",
    "class_groups",
    "coco",
    "imagenet",
    "open_dataset",
    "voc",
]
