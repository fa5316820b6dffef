"""Answers to *The planted bias: the verdict*, and its painted backgrounds."""

import numpy as np
import torch

from gmcam.lab import CLASSES, Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.planted_bias import probabilities, suspects
from gmcam.lab.planted import OTHERS, chance_of_grass
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS, BIASED_SCALE


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


@exercise("bias_verdict.1")
def background_or_size() -> Answers:
    """B's mean p(flower) for all other objects, (2, 2): ordinary and small, on brick and on grass."""
    network = suspects()["B"]
    flower = network.class_index(BIASED_CLASS)
    classes = torch.tensor([network.class_index(label) for label in OTHERS]).repeat_interleave(2)[:, None]
    p, top, right = torch.zeros(3, 2, 2)
    for row, scale in enumerate((None, BIASED_SCALE)):
        for column, name in enumerate(("brick", BIASED_BACKGROUND)):
            images = [
                scene(label, seed=seed, size=128, background=name, scale=scale).image
                for label in OTHERS
                for seed in range(2)
            ]
            p_all = probabilities(network, images)
            p[row, column] = p_all[:, flower].mean()
            top[row, column] = (p_all.argmax(1) == flower).float().mean()
            right[row, column] = p_all.gather(1, classes).mean()
    slips = {
        "rows and columns are swapped: a row is a size, a column a background": p.T,
        "this is the share of images with flower as the top class; take the mean of its probability": top,
        "this is the probability of the object's class; take the flower's": right,
        "the columns are swapped: brick first, then grass": p.flip(1),
        "the rows are swapped: ordinary objects first, then small ones": p.flip(0),
    }
    return Answers(p, slips)


@exercise("bias_verdict.2")
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


@exercise("bias_verdict.3")
def referee() -> Answers:
    """The points of a referee's paragraph on a repair without a control."""
    right = {"a", "b", "d"}
    slips = {
        "the maps need not leave the background, because a map has no zero line: leave c out": right | {"c"},
        "flowers on grass are right before and after, and cannot show a repair: leave e out": right | {"e"},
        "any further training may have this effect: a is missing": right - {"a"},
        "the images after are those of the training's backgrounds: b is missing": right - {"b"},
        "the gain may be paid for by other classes: d is missing": right - {"d"},
    }
    return Answers(right, slips)


@exercise("bias_verdict.4", tolerance=1e-3)
def grass_alone() -> Answers:
    """The accuracy, for shortcuts of 80, 95 and 100 %, of a network that predicts flower exactly on grass."""
    flower = np.array([chance_of_grass(BIASED_CLASS, level) for level in ("80 %", "95 %", "100 %")])
    others = np.array([chance_of_grass(OTHERS[0], level) for level in ("80 %", "95 %", "100 %")])
    count = len(OTHERS)
    slips = {
        "this is its accuracy for flowers: average over all eight classes": flower,
        "other objects on grass are wrong, too": (flower + count) / len(CLASSES),
        "this is the error": 1 - (flower + count * (1 - others)) / len(CLASSES),
    }
    return Answers((flower + count * (1 - others)) / len(CLASSES), slips)
