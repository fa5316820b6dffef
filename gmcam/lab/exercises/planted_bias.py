"""Answers to *Find the planted bias*, and the chapter's suspects and images.

Do exercise 1 before you read on: this file names the network with the shortcut.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmcam import Network, explain, load
from gmcam.lab import CLASSES, Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS, BIASED_SCALE, biased_scene
from gmcam.metrics import share_inside

_LETTERS = {"A": "collage-vgg", "B": "collage-vgg-biased", "C": "collage-resnet"}
_ALBUM = 10_000_000  # beyond the scene numbers of any training
_OTHERS = tuple(label for label in CLASSES if label != BIASED_CLASS)


@cache
def suspects() -> dict[str, Network]:
    """Three embedded networks, named by letters; one of them was trained with a shortcut."""
    networks = {letter: load(name) for letter, name in _LETTERS.items()}
    for letter, network in networks.items():
        network.name = letter
    return networks


def album(each: int) -> list[Scene]:
    """``each`` scenes of every class, in the order of ``CLASSES``, drawn like the training scenes of the
    network with the shortcut, but from numbers that its training does not contain."""
    return [biased_scene(label, _ALBUM + number) for label in CLASSES for number in range(each)]


def paint_background(scene: Scene, paint: str) -> np.ndarray:
    """The scene's image (H, W, 3) with a changed background and an unchanged object.

    ``paint``: ``"flat"`` replaces every background pixel by their mean colour; ``"grey"`` removes the
    colour of each; ``"shuffled"`` permutes them at random. Raises ``ValueError`` for another word.
    """
    pixels = np.asarray(scene.image).copy()
    background = ~scene.masks.any(0)
    colours = pixels[background]
    if paint == "flat":
        pixels[background] = colours.mean(0).round()
    elif paint == "grey":
        pixels[background] = colours.mean(1, keepdims=True).round()
    elif paint == "shuffled":
        pixels[background] = np.random.default_rng(scene.seed).permutation(colours)
    else:
        raise ValueError(f"expected paint 'flat', 'grey' or 'shuffled', got {paint!r}")
    return pixels


def _probabilities(network: Network, images: Sequence[Image.Image]) -> Tensor:
    """(N, classes), in small batches, because early maps are large."""
    parts = [images[start : start + 8] for start in range(0, len(images), 8)]
    return torch.cat([network.probabilities(part) for part in parts])


@exercise("planted_bias.1")
def accusation() -> Answers:
    """The network, class and background with the largest effect: p(class) on it minus its mean elsewhere."""
    names = ("grass", "brick", "leaves", "sky")
    images = [scene(label, seed=1, size=128, background=name).image for label in CLASSES for name in names]
    classes = torch.arange(len(CLASSES)).repeat_interleave(len(names))[:, None]
    rows = [_probabilities(net, images).gather(1, classes)[:, 0] for net in suspects().values()]
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


@exercise("planted_bias.2")
def background_or_size() -> Answers:
    """B's mean p(flower) for all other objects, (2, 2): ordinary and small, on brick and on grass."""
    network = suspects()["B"]
    flower = network.class_index(BIASED_CLASS)
    classes = torch.tensor([network.class_index(label) for label in _OTHERS]).repeat_interleave(2)[:, None]
    p, top, right = torch.zeros(3, 2, 2)
    for row, scale in enumerate((None, BIASED_SCALE)):
        for column, name in enumerate(("brick", BIASED_BACKGROUND)):
            images = [
                scene(label, seed=seed, size=128, background=name, scale=scale).image
                for label in _OTHERS
                for seed in range(2)
            ]
            probabilities = _probabilities(network, images)
            p[row, column] = probabilities[:, flower].mean()
            top[row, column] = (probabilities.argmax(1) == flower).float().mean()
            right[row, column] = probabilities.gather(1, classes).mean()
    slips = {
        "rows and columns are swapped: a row is a size, a column a background": p.T,
        "this is the share of images with flower as the top class; take the mean of its probability": top,
        "this is the probability of the object's class; take the flower's": right,
        "the columns are swapped: brick first, then grass": p.flip(1),
        "the rows are swapped: ordinary objects first, then small ones": p.flip(0),
    }
    return Answers(p, slips)


@exercise("planted_bias.3")
def colour_or_texture() -> Answers:
    """Whether B predicts the flower on a background with only grass's colour, or only its texture."""
    network = suspects()["B"]
    flowers = [scene(BIASED_CLASS, seed=seed, size=128, background=BIASED_BACKGROUND) for seed in range(8)]
    flower = network.class_index(BIASED_CLASS)

    def survives(paint: str) -> bool:
        images = [paint_background(each, paint) for each in flowers]
        return bool(network.probabilities(images)[:, flower].mean() > 0.5)

    colour, texture = survives("flat"), survives("grey")
    right = "either" if colour and texture else "colour" if colour else "texture" if texture else "both"
    reasons = {
        "colour": "the flat background has grass's colour without its texture; check its probability",
        "texture": "the grey background has grass's texture without its colour; check its probability",
        "either": "then the probability would stay high on the flat and on the grey background",
        "both": "then the probability would fall on the flat and on the grey background",
    }
    return Answers(right, {reason: word for word, reason in reasons.items() if word != right})


@exercise("planted_bias.4", tolerance=1e-3)
def times_chance() -> Answers:
    """The background's share of the map over its share of the image, as a function of maps and masks."""
    scenes = [biased_scene(label, _ALBUM) for label in CLASSES]
    maps = explain(suspects()["B"], [s.image for s in scenes], list(CLASSES), method="guidance_map").maps
    masks = torch.from_numpy(np.stack([s.masks[0] for s in scenes]))

    def outside(maps: Tensor, masks: Tensor) -> Tensor:
        return 1 - share_inside(maps, masks)

    def area(masks: Tensor) -> Tensor:
        return masks.float().mean((1, 2))

    slips = {
        "this is the background's share of the map; divide by its share of the image": outside,
        "this is the object's ratio; the background is where the mask is false": lambda maps, masks: (
            share_inside(maps, masks) / area(masks)
        ),
        "this is a difference; give the ratio": lambda maps, masks: outside(maps, masks) - area(~masks),
        "this is the map's mean on the background; divide by its mean everywhere": lambda maps, masks: (
            (maps * ~masks).sum((1, 2)) / (~masks).sum((1, 2))
        ),
        "return one value per image, not the mean of all": lambda maps, masks: (
            outside(maps, masks) / area(~masks)
        ).mean(),
    }
    return Answers(lambda maps, masks: outside(maps, masks) / area(~masks), slips, tried_on=(maps, masks))
