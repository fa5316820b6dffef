"""The images, edits and repairs of *Monday morning: debug a classifier*.

The steps themselves, for any network, are in ``gmcam.lab.debugging``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gmcam import Network, Preprocessing, explain, group
from gmcam.groups import Group
from gmcam.lab import BACKGROUNDS, CLASSES, Scene, scene
from gmcam.lab.debugging import (
    AT_ONCE,
    activations,
    cluster,
    contributions,
    elsewhere,
    flattened,
    outcomes,
)
from gmcam.lab.retraining import retrained
from gmcam.metrics import filled

BIASED = "collage-vgg-biased"
EVERYWHERE = BACKGROUNDS["train"] + BACKGROUNDS["test"]
TEXTURES = ("brick", "grass", "moon")  # those of the repair's images
# ImageNet's classes for four objects that EfficientNet-Lite0 recognises on some backgrounds.
TARGETS = {
    "cat": group(["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"], "cat"),
    "cup": group(["cup", "coffee mug", "espresso"], "cup"),
    "pagoda": group(["stupa", "palace", "monastery", "bell cote"], "pagoda"),
    "motorbike": group(["moped", "motor scooter"], "motorbike"),
}


_FLAT = cast(Any, None)  # the layout of a scene that is not drawn again


@dataclass(frozen=True, eq=False)
class Images:
    """Images as the steps take them: prepared ``inputs`` (N, C, H, W), the right ``targets``, and the regions
    of the objects, ``masks`` (N, H, W) bool; with the scenes and their ``labels`` and ``backgrounds``."""

    scenes: tuple[Scene, ...]
    inputs: Tensor
    masks: Tensor
    targets: Sequence[str | Group]

    @property
    def labels(self) -> list[str]:
        return [each.labels[0] for each in self.scenes]

    @property
    def backgrounds(self) -> list[str]:
        return [each.background for each in self.scenes]


def collages(
    network: Network,
    labels: Sequence[str],
    backgrounds: Sequence[str] = EVERYWHERE,
    each: int = 1,
    first: int = 0,
) -> Images:
    """``each`` collages of every label on every background, no seed twice on one label's backgrounds; the
    seeds begin at ``first``. The targets are ``TARGETS`` on ImageNet's network, else the labels."""
    own = network.classes == CLASSES
    places = [(label, name, row) for label in labels for row in range(each) for name in backgrounds]
    drawn = [
        replace(  # a layout holds further images
            scene(
                label,
                seed=first + row * len(backgrounds) + backgrounds.index(name),
                size=128 if own else 256,
                background=name,
            ),
            _layout=_FLAT,
        )
        for label, name, row in places
    ]
    assert isinstance(network.preprocess, Preprocessing)
    masks = torch.stack([network.preprocess.place_mask(each.masks[0]) for each in drawn])
    targets = [label if own else TARGETS[label] for label, *_ in places]
    first_input = network.prepare(drawn[0].image)
    inputs = first_input.new_empty(len(drawn), *first_input.shape[1:])  # filled in place: held once
    for number, drawing in enumerate(drawn):
        inputs[number] = network.prepare(drawing.image)[0]
    return Images(tuple(drawn), inputs, masks, targets)


def untrained(network: Network) -> Network:
    """The network with random weights, from a fixed seed: a rival that has learned nothing."""
    other = copy.copy(network)
    other.module = copy.deepcopy(network.module)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for part in other.module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
    return other


def top_classes(network: Network, inputs: Tensor) -> list[str | int]:
    """The class with the largest logit of each image."""
    parts = [network.probabilities(part).argmax(1) for part in torch.split(inputs, AT_ONCE)]
    return [int(index) for index in torch.cat(parts)]


def divisions(network: Network, images: Images) -> dict[str, np.ndarray]:
    """The cluster of each image, 0 or 1, by what is clustered; maps are for the right class of the first."""
    target, rival = images.targets[0], untrained(network)
    parts = torch.split(images.inputs, AT_ONCE)
    cells = [explain(network, part, target, method="grad_cam").raw for part in parts]
    vectors = {
        "*channels' means, no class": activations(network, images.inputs),
        "channels' contributions, right class": contributions(network, images.inputs, target),
        "cells of Grad-CAM": torch.cat(cells),
        "contributions, random network": contributions(rival, images.inputs, target),
        "mean colour": images.inputs.mean((2, 3)) - images.inputs.mean((0, 2, 3)),
    }
    return {name: cluster(rows) for name, rows in vectors.items()}


def edits(images: Images) -> dict[str, Tensor]:
    """The inputs with the background edited in five ways, with as large a region flattened elsewhere, and
    mirrored as a whole."""
    background, inputs = ~images.masks, images.inputs
    grey = inputs.mean(1, keepdim=True).expand_as(inputs)
    return {
        "*background flat": flattened(inputs, background),
        "background in the object's colour": filled(inputs, background, "mean"),
        "background blurred": filled(inputs, background, "blur"),
        "background zero": filled(inputs, background, "zero"),
        "background without colour": torch.where(background[:, None], grey, inputs),
        "as much elsewhere, flat": flattened(inputs, elsewhere(background)),
        "mirrored": inputs.flip(3),
    }


def pagodas(network: Network) -> Images:
    """The chapter's slice: 36 collages of the pagoda, four on each of nine backgrounds."""
    return collages(network, ["pagoda"], each=4, first=100)


def confirming(network: Network) -> Images:
    """36 further pagodas, which nothing in the chapter was chosen by."""
    return collages(network, ["pagoda"], each=4, first=7000)


def biased_images(network: Network) -> Images:
    """The objects that are not flowers, on grass, six of each."""
    return collages(network, [label for label in CLASSES if label != "flower"], ["grass"], 6, 100)


def repair(network: Network, careful: bool = True) -> Network:
    """EfficientNet-Lite0 with its last layer retrained on 24 pagodas on three textures.

    Careful: the predictions for 36 images of other objects, and the weights, stay near the old ones.
    """
    new = collages(network, ["pagoda"], TEXTURES, each=8, first=1000)
    if not careful:
        return retrained(network, new.inputs, new.targets, pull=0)
    keep = collages(network, ["cat", "cup", "motorbike"], BACKGROUNDS["train"], each=2, first=1000)
    return retrained(network, new.inputs, new.targets, keep.inputs)


def repair_biased(network: Network) -> Network:
    """``collage-vgg-biased`` with its last layer retrained on 82 images that contradict the shortcut."""
    others, seen = [label for label in CLASSES if label != "flower"], BACKGROUNDS["train"]
    on, off = (["grass"], [name for name in seen if name != "grass"])
    parts = [collages(network, others, on, 6, 3000), collages(network, ["flower"], off, 8, 3000)]
    keep = [collages(network, others, off, 1, 3000), collages(network, ["flower"], on, 6, 3000)]
    targets = [target for part in parts for target in part.targets]
    inputs, kept = (torch.cat([part.inputs for part in each]) for each in (parts, keep))
    return retrained(network, inputs, targets, kept)


def held_out(network: Network) -> dict[str, Images]:
    """Images of seeds that no repair has seen, by what they show."""
    if network.classes == CLASSES:
        others = [label for label in CLASSES if label != "flower"]
        return {
            "slice, new images": collages(network, others, ["grass"], 6, 4000),
            "flowers, seen backgrounds": collages(network, ["flower"], BACKGROUNDS["train"][1:], 6, 4000),
            "flowers, unseen backgrounds": collages(network, ["flower"], BACKGROUNDS["test"], 8, 4000),
            "other objects, unseen backgrounds": collages(network, others, BACKGROUNDS["test"], 2, 4000),
        }
    return {
        "pagodas, seen textures": collages(network, ["pagoda"], TEXTURES, 4, 2000),
        "pagodas, unseen texture": collages(network, ["pagoda"], ["gravel"], 12, 2000),
        "pagodas, plain backgrounds": collages(network, ["pagoda"], ["dusk", "leaves", "sky"], 4, 2000),
        "other objects": collages(network, ["cat", "cup", "motorbike"], EVERYWHERE, 2, 2000),
    }


def verdict(test: Callable[[Network], None], network: Network) -> str:
    """ "passes", or what the test's failed assertion says."""
    try:
        test(network)
    except AssertionError as error:
        return f"fails: {str(error).splitlines()[0]}"
    return "passes"


def seen(network: Network, inputs: Tensor) -> list[np.ndarray]:
    """Prepared inputs as images (H, W, 3) uint8 again."""
    assert isinstance(network.preprocess, Preprocessing)
    mean, std = (
        torch.tensor(each).view(3, 1, 1) for each in (network.preprocess.mean, network.preprocess.std)
    )
    return [((x * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy() for x in inputs]


def edited(network: Network, images: Images, index: int) -> tuple[list[np.ndarray], list[str]]:
    """Image ``index`` unchanged, with a flat background, and with as much flattened elsewhere.

    With titles: the top class and the probability of the right one.
    """
    one = slice(index, index + 1)
    arms = edits(replace(images, inputs=images.inputs[one], masks=images.masks[one]))
    names = {"unchanged": images.inputs[one], "flat background": arms["*background flat"]}
    names["as much elsewhere"] = arms["as much elsewhere, flat"]
    inputs = torch.cat(list(names.values()))
    chance = outcomes(network, inputs, [images.targets[index]] * 3)[0]
    tops = [network.class_name(int(top)) for top in top_classes(network, inputs)]
    label = images.labels[index]
    titles = [
        f"{name}\n{top}; {label} {100 * p:.0f} %" for name, top, p in zip(names, tops, chance, strict=True)
    ]
    return seen(network, inputs), titles
