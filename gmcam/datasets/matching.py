"""Which of a network's classes stand for a dataset's class, such as 118 breeds for VOC's dog.

``matching.json`` matches the objects of PASCAL VOC and COCO with ImageNet's classes, and gives a reason
for each. An ImageNet class counts where what it usually names is such an object. Left out are things
named for what they carry or hold, and parts, unless ImageNet has no class for the whole. Where VOC's
annotation guidelines (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/guidelines.html) draw a line, it is
drawn there; the others are this project's choice, made with WordNet's definitions of ImageNet's classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.models import SqueezeNet1_0_Weights

# Torchvision's names of the 1000 classes, in the order of the logits; all its ImageNet weights share them.
IMAGENET_CLASSES: tuple[str, ...] = tuple(SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"])
_RUN = " ... "


@dataclass(frozen=True)
class Match:
    """The ImageNet classes that stand for an object, by index, and why these; none for some objects."""

    indices: tuple[int, ...]
    why: str


def _indices(entry: str) -> range:
    """The index of ``"name"``, or those of the run ``"first ... last"``."""
    ends = [IMAGENET_CLASSES.index(name) for name in entry.split(_RUN)]
    return range(ends[0], ends[-1] + 1)


_TABLE = json.loads(Path(__file__).with_name("matching.json").read_text("utf-8"))
_ALIASES: dict[str, str] = _TABLE["aliases"]
# Every object of COCO by its name there, and of VOC by its own.
MATCHES = {
    name: Match(tuple(index for run in entry["classes"] for index in _indices(run)), entry["why"])
    for name, entry in _TABLE["objects"].items()
}
MATCHES |= {alias: MATCHES[name] for alias, name in _ALIASES.items()}


def class_groups(network_classes: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each class of a dataset, the indices of the network's classes that stand for it.

    ``network_classes``: one name per logit. ``labels``: all classes of the dataset; its own 1000 tell
    ImageNet, where a kite is a bird, from COCO, where it flies on a string. A network trained on ImageNet
    has ``MATCHES`` for any other dataset. Otherwise equal names match: spelt alike or, where there is
    none, in whatever case or under VOC's and COCO's two names for one thing. A label that no class stands
    for is left out. Raises ``ValueError`` where that leaves none.

    >>> from gmcam.datasets import class_groups
    >>> class_groups(["cat", "cup"], ["Cat", "dog"])
    {'Cat': (0,)}
    """
    if tuple(network_classes) == IMAGENET_CLASSES and set(labels) != set(IMAGENET_CLASSES):
        groups = {label: MATCHES[label].indices for label in labels if label in MATCHES}
    else:
        groups = {label: _namesakes(network_classes, label) for label in labels}
    found = {label: indices for label, indices in groups.items() if indices}
    if not found:
        raise ValueError(
            f"none of the dataset's classes ({_some(labels)}) is among the network's "
            f"({_some(network_classes)})"
        )
    return found


def _namesakes(names: Sequence[str], label: str) -> tuple[int, ...]:
    # ImageNet has a dog called Cardigan and a garment called cardigan: letter by letter comes first.
    exact = tuple(index for index, name in enumerate(names) if name == label)
    return exact or tuple(index for index, name in enumerate(names) if _plain(name) == _plain(label))


def _plain(name: str) -> str:
    return _ALIASES.get(name.casefold(), name.casefold())


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], "…"] if len(names) > 3 else names) or "without names"
