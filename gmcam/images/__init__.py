"""Pictures: collage scenes with ground truth, the photographs they are made of, the reader's own."""

from gmcam.images.photos import PHOTOS, Photo, photo
from gmcam.images.reading import Picture, open_picture
from gmcam.images.scenes import CLASSES, GROUNDS, Scene, dual_class_scenes, scene

__all__ = [
    "CLASSES",
    "GROUNDS",
    "PHOTOS",
    "Photo",
    "Picture",
    "Scene",
    "dual_class_scenes",
    "open_picture",
    "photo",
    "scene",
]
