"""PASCAL VOC 2012."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from gmcam.datasets.records import Dataset, Objects, Record, Root, Truth, existing
from gmcam.reading import open_image

_NAMES = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor"""
VOC_CLASSES = tuple(_NAMES.split())  # value v of a mask is class v − 1; 0 is the background
_VOID = 255  # value of undecided pixels
_LAYOUT = "the root holds VOCdevkit/VOC2012 of torchvision's VOCSegmentation(root, download=True)"


def voc(root: Root, split: str = "val") -> Dataset:
    """The images of a segmentation split of PASCAL VOC 2012: ``train``, ``val`` or ``trainval``.
    A mask is the union of a class's objects. Boxes start at pixel 0 and exclude their last side; in the files
    they start at 1 and include it. ``void``: the undecided border of the masks. ``ValueError`` for a missing
    folder or split. Source: Everingham et al., *The Pascal VOC Challenge: A Retrospective*, 2015."""
    folder = Path(root, "VOCdevkit", "VOC2012")
    for part in ("JPEGImages", "SegmentationClass", "Annotations"):
        existing(folder / part, _LAYOUT)
    names = existing(folder / f"ImageSets/Segmentation/{split}.txt", _LAYOUT).read_text("utf-8").split()
    return Dataset(f"voc-{split}", VOC_CLASSES, tuple(names), partial(_read, folder, names))


def _read(folder: Path, names: Sequence[str], index: int) -> Record:
    name = names[index]
    image = open_image(folder / "JPEGImages" / f"{name}.jpg")
    values = read_mask(folder / "SegmentationClass" / f"{name}.png", image.size)
    objects: defaultdict[str, Objects] = defaultdict(list)
    for entry in ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot().findall("object"):
        sides = {"xmin": 1, "ymin": 1, "xmax": 0, "ymax": 0}
        box = [float(entry.findtext(f"bndbox/{side}", "")) - start for side, start in sides.items()]
        objects[entry.findtext("name", "")].append((box, entry.findtext("difficult") == "1"))
    masks = {label: values == value for value, label in enumerate(VOC_CLASSES, 1)}
    labels = [label for label in VOC_CLASSES if label in objects or masks[label].any()]
    truths = tuple(Truth.of(label, masks[label], objects[label]) for label in labels)
    return Record(name, image, truths, void if (void := values == _VOID).any() else None)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Class numbers (H, W) of an image of ``size`` (W, H): 0 to 20, and 255 for void."""
    try:
        with Image.open(path) as mask:
            values = np.asarray(mask)
            # A mask saved again in colour has lost its class numbers.
            if mask.mode not in ("P", "L") or mask.size != size or (values[values != _VOID] > 20).any():
                raise ValueError(f"mode {mask.mode}, size {mask.size}, values up to {values.max()}")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        expected = f"class numbers 0 to 20 and {_VOID} for {size[0]} × {size[1]} pixels"
        raise ValueError(f"expected {expected}, got {path} ({error}): unpack the dataset again") from None
    return values
