"""Which of a network's classes stand for a dataset's class, such as 118 breeds for VOC's dog.
``matching.json`` matches the objects of PASCAL VOC and COCO with ImageNet's classes, each with a reason. An
ImageNet class counts if it usually names such an object. Objects named for what they carry or hold are left
out, and so are parts, unless ImageNet has no class for the whole. The table follows VOC's guidelines
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/guidelines.html), or else WordNet's definitions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gmcam.datasets.imagenet import IMAGENET_CLASSES


class Match(NamedTuple):
    """The ImageNet classes that stand for an object, by index, and the reason; none for some objects."""

    indices: tuple[int, ...]
    why: str


_TABLE = json.loads(Path(__file__).with_name("matching.json").read_text("utf-8"))
_ALIASES: dict[str, str] = _TABLE["aliases"]
MATCHES: dict[str, Match] = {}  # every object of COCO by COCO's name, and of VOC by VOC's
for _name, _entry in _TABLE["objects"].items():  # classes are names, or runs "first ... last"
    _runs = [[IMAGENET_CLASSES.index(end) for end in run.split(" ... ")] for run in _entry["classes"]]
    _indices = tuple(index for run in _runs for index in range(run[0], run[-1] + 1))
    MATCHES[_name] = Match(_indices, _entry["why"])
MATCHES |= {alias: MATCHES[name] for alias, name in _ALIASES.items()}


def class_groups(network_classes: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each class of a dataset, the indices of the network's classes that stand for it.
    ``network_classes``: one name per logit. ``labels``: all classes of the dataset. For a network with
    ImageNet's 1000 classes, ``MATCHES`` decides, unless the dataset has these too. Otherwise equal names
    match, or else names equal up to case and VOC's and COCO's synonyms. Labels without a match are left out;
    ``ValueError`` if none is left.

    >>> gmcam.datasets.class_groups(["cat", "cup"], ["Cat", "dog"])
    {'Cat': (0,)}
    """

    def plain(name: str) -> str:
        return _ALIASES.get(name.casefold(), name.casefold())

    if tuple(network_classes) == IMAGENET_CLASSES and set(labels) != set(IMAGENET_CLASSES):
        groups = {label: MATCHES[label].indices for label in labels if label in MATCHES}
    else:  # exact names first: ImageNet has a dog called Cardigan and a garment called cardigan
        groups = {}
        for label in labels:
            exact = [i for i, name in enumerate(network_classes) if name == label]
            alike = (i for i, name in enumerate(network_classes) if plain(name) == plain(label))
            groups[label] = tuple(exact or alike)
    if not (groups := {label: indices for label, indices in groups.items() if indices}):
        theirs, expected = (", ".join(names[:3]) or "none" for names in (network_classes, labels))
        raise ValueError(f"expected classes such as {expected}, got {theirs}: choose another dataset")
    return groups
