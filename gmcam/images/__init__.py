"""Pictures: collage scenes and datasets with ground truth, the photographs the scenes are made of, the
reader's own."""

from gmcam.images.datasets import VOC_CLASSES, coco, collage, imagenet, open_dataset, voc
from gmcam.images.matching import IMAGENET_CLASSES, MATCHES, Match, class_groups
from gmcam.images.mosaics import GREY, mosaic
from gmcam.images.photos import PHOTOS, Photo, photo
from gmcam.images.reading import Picture, open_picture
from gmcam.images.records import Dataset, Record, Truth
from gmcam.images.scenes import CLASSES, GROUNDS, Scene, dual_class_scenes, scene

__all__ = [
    "CLASSES",
    "GREY",
    "GROUNDS",
    "IMAGENET_CLASSES",
    "MATCHES",
    "PHOTOS",
    "VOC_CLASSES",
    "Dataset",
    "Match",
    "Photo",
    "Picture",
    "Record",
    "Scene",
    "Truth",
    "class_groups",
    "coco",
    "collage",
    "dual_class_scenes",
    "imagenet",
    "mosaic",
    "open_dataset",
    "open_picture",
    "photo",
    "scene",
    "voc",
]
