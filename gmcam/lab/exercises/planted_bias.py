"""Answers to *Find the planted bias*, and the chapter's suspects and pictures.

Read on after exercise 1: this file says who it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmcam import Network, explain, load
from gmcam.lab import CLASSES, Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.train import BIASED_CLASS, BIASED_GROUND, BIASED_SCALE, biased_scene
from gmcam.metrics import share_inside

_LETTERS = {"A": "collage-vgg", "B": "collage-vgg-biased", "C": "collage-resnet"}
_ALBUM = 10_000_000  # no training got as far as this number
_OTHERS = tuple(label for label in CLASSES if label != BIASED_CLASS)


@cache
def suspects() -> dict[str, Network]:
    """Three embedded networks under letters; one of them was trained with a shortcut."""
    found = {letter: load(name) for letter, name in _LETTERS.items()}
    for letter, network in found.items():
        network.name = letter
    return found


def album(each: int) -> list[Scene]:
    """``each`` scenes of every class, in the order of ``CLASSES``: drawn like the pictures on which the
    network with the shortcut was trained, from numbers that its training did not reach."""
    return [biased_scene(label, _ALBUM + number) for label in CLASSES for number in range(each)]


def paint_ground(one: Scene, paint: str) -> np.ndarray:
    """The scene's picture (H, W, 3) with its ground changed and its object as it was.

    ``flat``: every pixel of the ground gets the ground's mean colour; ``grey``: each its own brightness
    without colour; ``shuffled``: the ground's pixels change places at random. Raises ``ValueError`` for
    another word.
    """
    pixels = np.asarray(one.image).copy()
    ground = ~one.masks.any(0)
    colours = pixels[ground]
    if paint == "flat":
        pixels[ground] = colours.mean(0).round()
    elif paint == "grey":
        pixels[ground] = colours.mean(1, keepdims=True).round()
    elif paint == "shuffled":
        pixels[ground] = np.random.default_rng(one.seed).permutation(colours)
    else:
        raise ValueError(f"the ground is painted flat, grey or shuffled, not {paint!r}")
    return pixels


def _probabilities(network: Network, pictures: Sequence[Image.Image]) -> Tensor:
    """(N, classes), in small portions: early maps are large."""
    parts = [pictures[start : start + 8] for start in range(0, len(pictures), 8)]
    return torch.cat([network.probabilities(part) for part in parts])


@exercise("planted_bias.1")
def accusation() -> Answers:
    """The network, class and ground with the largest effect: p(class) there less its mean elsewhere."""
    grounds = ("grass", "brick", "leaves", "sky")
    pictures = [scene(label, seed=1, size=128, ground=g).image for label in CLASSES for g in grounds]
    own = torch.arange(len(CLASSES)).repeat_interleave(len(grounds))[:, None]
    found = [_probabilities(net, pictures).gather(1, own)[:, 0] for net in suspects().values()]
    p = torch.stack(found).view(len(found), len(CLASSES), len(grounds))
    effect = p - (p.sum(2, keepdim=True) - p) / (len(grounds) - 1)
    network, label, ground = np.unravel_index(int(effect.argmax()), effect.shape)
    return Answers(
        {list(suspects())[network].lower(), CLASSES[label], grounds[ground]},
        {
            "put A's flowers on another ground: their probability stays": {"a", "flower", "grass"},
            "put C's flowers on another ground: their probability stays": {"c", "flower", "grass"},
            "leaves surround the flower in its own photograph; in the album it stands on something else": {
                "b",
                "flower",
                "leaves",
            },
            "that ground makes B's person less probable, not more: it speaks for another class": {
                "b",
                "person",
                "grass",
            },
            "Grad-CAM says so, but on every ground of the training A's person is as probable as ever": {
                "a",
                "person",
            },
            "name the network, the class and the ground, three words": {"b"},
        },
    )


@exercise("planted_bias.2")
def ground_or_size() -> Answers:
    """B's mean p(flower) of objects that are none, (2, 2): ordinary and small, on brick and on grass."""
    network = suspects()["B"]
    flower = network.class_index(BIASED_CLASS)
    own = torch.tensor([network.class_index(label) for label in _OTHERS]).repeat_interleave(2)[:, None]
    p, called, right = torch.zeros(3, 2, 2)
    for row, scale in enumerate((None, BIASED_SCALE)):
        for column, ground in enumerate(("brick", BIASED_GROUND)):
            drawn = [
                scene(label, seed=seed, size=128, ground=ground, scale=scale)
                for label in _OTHERS
                for seed in range(2)
            ]
            found = _probabilities(network, [one.image for one in drawn])
            p[row, column] = found[:, flower].mean()
            called[row, column] = (found.argmax(1) == flower).float().mean()
            right[row, column] = found.gather(1, own).mean()
    return Answers(
        p,
        {
            "rows and columns are swapped: a row is a size, a column a ground": p.T,
            "that is the share of pictures with the flower on top; take the mean of its probability": called,
            "that is the probability of the object's own class; take the flower's": right,
            "the columns are swapped: brick first, then grass": p.flip(1),
            "the rows are swapped: ordinary objects first, then small ones": p.flip(0),
        },
    )


@exercise("planted_bias.3")
def colour_or_texture() -> Answers:
    """Whether B's flower survives a ground that has grass's colour alone, or its texture alone."""
    network = suspects()["B"]
    drawn = [scene(BIASED_CLASS, seed=seed, size=128, ground=BIASED_GROUND) for seed in range(8)]
    flower = network.class_index(BIASED_CLASS)

    def survives(paint: str) -> bool:
        pictures = [paint_ground(one, paint) for one in drawn]
        return bool(network.probabilities(pictures)[:, flower].mean() > 0.5)

    colour, texture = survives("flat"), survives("grey")
    right = "either" if colour and texture else "colour" if colour else "texture" if texture else "both"
    reasons = {
        "colour": "grass's colour without its texture is the flat ground; look at the probability there",
        "texture": "grass's texture without its colour is the grey ground; look at the probability there",
        "either": "then the probability would stay on the flat ground and on the grey one",
        "both": "then the probability would fall on the flat ground and on the grey one",
    }
    return Answers(right, {reason: word for word, reason in reasons.items() if word != right})


@exercise("planted_bias.4", tolerance=1e-3)
def times_chance() -> Answers:
    """The ground's share of the map over its share of the picture, as a function of maps and masks."""
    drawn = [biased_scene(label, _ALBUM) for label in CLASSES]
    maps = explain(suspects()["B"], [s.image for s in drawn], list(CLASSES), method="guidance_map").maps
    masks = torch.from_numpy(np.stack([s.masks[0] for s in drawn]))

    def on_ground(maps: Tensor, masks: Tensor) -> Tensor:
        return 1 - share_inside(maps, masks)

    def of_picture(masks: Tensor) -> Tensor:
        return 1 - masks.float().mean((1, 2))

    return Answers(
        lambda maps, masks: on_ground(maps, masks) / of_picture(masks),
        {
            "that is the ground's share of the map; divide by its share of the picture": on_ground,
            "that is the object's ratio; the ground is where the mask is false": lambda maps, masks: (
                share_inside(maps, masks) / masks.float().mean((1, 2))
            ),
            "that is a difference; chance is told by the ratio": lambda maps, masks: (
                on_ground(maps, masks) - of_picture(masks)
            ),
            "that is the map's mean on the ground; divide by its mean everywhere": lambda maps, masks: (
                (maps * ~masks).sum((1, 2)) / (~masks).sum((1, 2))
            ),
            "one value per picture is wanted, not the mean of all": lambda maps, masks: (
                on_ground(maps, masks) / of_picture(masks)
            ).mean(),
        },
        tried_on=(maps, masks),
    )
