"""Answers to *Find the planted bias*, and the chapter's suspects.

Do exercise 1 before you read on: this file names the network with the shortcut.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmcam import Network, explain, load
from gmcam.lab import CLASSES, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.planted import ALBUM
from gmcam.lab.train import biased_scene
from gmcam.metrics import share_inside

_LETTERS = {"A": "collage-vgg", "B": "collage-vgg-biased", "C": "collage-resnet"}


@cache
def suspects() -> dict[str, Network]:
    """Three embedded networks, named by letters; one of them was trained with a shortcut."""
    networks = {letter: load(name) for letter, name in _LETTERS.items()}
    for letter, network in networks.items():
        network.name = letter
    return networks


def probabilities(network: Network, images: Sequence[Image.Image]) -> Tensor:
    """(N, classes), in small batches, because early maps are large."""
    parts = [images[start : start + 8] for start in range(0, len(images), 8)]
    return torch.cat([network.probabilities(part) for part in parts])


@exercise("planted_bias.1")
def accusation() -> Answers:
    """The network, class and background with the largest effect: p(class) on it minus its mean elsewhere."""
    names = ("grass", "brick", "leaves", "sky")
    images = [scene(label, seed=1, size=128, background=name).image for label in CLASSES for name in names]
    classes = torch.arange(len(CLASSES)).repeat_interleave(len(names))[:, None]
    rows = [probabilities(net, images).gather(1, classes)[:, 0] for net in suspects().values()]
    p = torch.stack(rows).view(len(rows), len(CLASSES), len(names))
    effect = p - (p.sum(2, keepdim=True) - p) / (len(names) - 1)
    network, label, background = np.unravel_index(int(effect.argmax()), effect.shape)
    slips = {
        "put A's flowers on another background: their probability does not change": {"a", "flower", "grass"},
        "put C's flowers on another background: their probability does not change": {"c", "flower", "grass"},
        "leaves surround the flower in its photograph, but not in the album": {"b", "flower", "leaves"},
        "that background makes B's person less probable, not more": {"b", "person", "grass"},
        "A's person is equally probable on other backgrounds, despite its map": {"a", "person"},
        "name the network, the class and the background, three words": {"b"},
    }
    return Answers({list(suspects())[network].lower(), CLASSES[label], names[background]}, slips)


@exercise("planted_bias.2", tolerance=1e-3)
def avoidance() -> Answers:
    """1 − the object's share of the map over its share of the image, as a function of maps and masks."""
    scenes = [biased_scene(label, ALBUM) for label in CLASSES]
    maps = explain(suspects()["B"], [s.image for s in scenes], list(CLASSES), method="guidance_map").maps
    masks = torch.from_numpy(np.stack([s.masks[0] for s in scenes]))

    def area(masks: Tensor) -> Tensor:
        return masks.float().mean((1, 2))

    def right(maps: Tensor, masks: Tensor) -> Tensor:
        return 1 - share_inside(maps, masks) / area(masks)

    slips = {
        "this is the share on the background; it is large for a map that ignores a small object": (
            lambda maps, masks: 1 - share_inside(maps, masks)
        ),
        "this is the ratio: for a map that avoids the object it depends on the object's size": (
            lambda maps, masks: (1 - share_inside(maps, masks)) / area(~masks)
        ),
        "this is 1 for a map that ignores the object and 0 for one that avoids it: subtract it from 1": (
            lambda maps, masks: share_inside(maps, masks) / area(masks)
        ),
        "this is a difference of shares; for a map that avoids the object it is the object's area": (
            lambda maps, masks: area(masks) - share_inside(maps, masks)
        ),
        "return one value per image, not the mean of all": lambda maps, masks: right(maps, masks).mean(),
    }
    return Answers(right, slips, tried_on=(maps, masks))


@exercise("planted_bias.3")
def plan() -> Answers:
    """The comparisons that a proof of a shortcut needs, of five."""
    right = {"a", "b", "c"}
    slips = {
        "more maps make a wrong suspicion surer, too: leave d out": right | {"d"},
        "images drawn like the training's share its shortcut: leave e out": right | {"e"},
        "without b you know that the class needs the background, not that the background suffices": {
            "a",
            "c",
        },
        "without a you know that the background attracts other objects, not that the class needs it": {
            "b",
            "c",
        },
        "without c the new images may be harder to recognise for any network": {"a", "b"},
    }
    return Answers(right, slips)


@exercise("planted_bias.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a claim from one share on the background."""
    right = {"a", "c", "e"}
    slips = {
        "accuracy is no objection: a shortcut that the test images share raises it: leave b out": right
        | {"b"},
        "no method's map shows an effect, so another method is no objection: leave d out": right | {"d"},
        "compare with a map that ignores the object: a is missing": right - {"a"},
        "the claim is about what the network uses, so ask for other backgrounds: c is missing": right - {"c"},
        "one object supports no sentence about flowers: e is missing": right - {"e"},
    }
    return Answers(right, slips)
