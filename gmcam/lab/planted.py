"""Measurements for *Find the planted bias*: maps of an album, probabilities on every background, repairs, and
small networks whose training images had a shortcut of a known strength.

``benchmarks/planted_bias.py`` stores what these functions return. They name the network with the shortcut.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmcam.explaining import compare
from gmcam.lab.networks import PREPROCESSING
from gmcam.lab.random_labels import PREPROCESSING as SMALL_PREPROCESSING
from gmcam.lab.random_labels import SIZE, SmallNet, as_network
from gmcam.lab.scenes import BACKGROUNDS, CLASSES, Scene, scene
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS, biased_scene
from gmcam.metrics import share_inside
from gmcam.network import Network

Row = dict[str, Any]
METHODS = ("grad_cam", "gmcam", "guidance_map")
RIVALS = ("grad_cam_squared", "feature_sum", "random_network", "edges", "centred_blob")
ALBUM = 10_000_000  # the first number, beyond the scene numbers of any training
EVERY = BACKGROUNDS["train"] + BACKGROUNDS["test"]
OTHERS = tuple(label for label in CLASSES if label != BIASED_CLASS)
STEPS, BATCH = 88, 8  # of a repair
# How often the class and the background go together: P(background | class) = P(class | background).
LEVELS = {"none": 1 / 6, "80 %": 0.8, "95 %": 0.95, "100 %": 1.0}
SMALL_FLOWER = (0.25, 0.4)  # of the small networks, at every level
_SMALL = 50_000_000


def album(each: int) -> list[Scene]:
    """``each`` scenes of every class, in the order of ``CLASSES``, drawn like the training scenes of the
    network with the shortcut, but from numbers that its training does not contain."""
    return [biased_scene(label, ALBUM + number) for label in CLASSES for number in range(each)]


def _parts(items: Sequence[Any], size: int = 8) -> Iterator[Sequence[Any]]:
    """In small batches, because early maps are large."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _masks(scenes: Sequence[Scene]) -> Tensor:
    return torch.from_numpy(np.stack([each.masks[0] for each in scenes]))


def map_rows(network: Network, scenes: Sequence[Scene], methods: Sequence[str]) -> Iterator[Row]:
    """A row for each scene of one object and each method: the share ``outside`` of the map for its class, 0
    if it is empty; the background's part ``area`` of the image; the class's ``probability``; and whether it
    is the network's ``top`` class."""
    for part in _parts(scenes):
        images, labels, masks = [s.image for s in part], [s.labels[0] for s in part], _masks(part)
        p = network.probabilities(images)
        targets = torch.tensor([network.class_index(label) for label in labels])
        area = 1 - masks.float().mean((1, 2))
        for result in compare(network, images, labels, methods=list(methods)):
            outside = (1 - share_inside(result.maps, masks)).nan_to_num()
            for i, each in enumerate(part):
                row = {"label": labels[i], "seed": each.seed, "method": result.method}
                row |= {"outside": outside[i].item(), "area": area[i].item()}
                yield row | {"probability": p[i, targets[i]].item(), "top": bool(p[i].argmax() == targets[i])}


def everywhere(count: int = 8, backgrounds: Sequence[str] = EVERY) -> list[Scene]:
    """One object of every class on every background, ``count`` times; only the background changes."""
    drawn = [scene(label, seed=i, size=128) for label in CLASSES for i in range(count)]
    return [each.on(name) for each in drawn for name in backgrounds]


def probability_rows(network: Network, scenes: Sequence[Scene]) -> Iterator[Row]:
    """A row for each scene of one object: the probability ``p`` of its class, ``p_flower`` of the class with
    the shortcut, and the network's ``top`` class."""
    flower = network.class_index(BIASED_CLASS)
    for part in _parts(scenes):
        for each, p in zip(part, network.probabilities([s.image for s in part]), strict=True):
            row = {"label": each.labels[0], "seed": each.seed, "background": each.background}
            row |= {"p": p[network.class_index(each.labels[0])].item(), "p_flower": p[flower].item()}
            yield row | {"top": network.class_name(int(p.argmax()))}


def repaired(network: Network, scenes: str, seed: int = 0, steps: int = STEPS) -> Network:
    """The biased network after a short further training of all layers, in batches of eight.

    ``scenes``: "unbiased", every class at its usual size on all training backgrounds, or the control
    "biased", with the shortcut as in its first training. About a third are flowers. ``seed``: of the order
    and of the scenes' numbers. Raises ``ValueError`` for other scenes.
    """
    if scenes not in ("unbiased", "biased"):
        raise ValueError(f"expected scenes 'unbiased' or 'biased', got {scenes!r}: choose one of the two")
    mix, first = [*OTHERS, *[BIASED_CLASS] * 4], 30_000_000 + 100_000 * seed
    result = copy.copy(network)
    result.module, result.name = copy.deepcopy(network.module), f"{scenes} {seed}"
    weights = list(result.module.parameters())
    optimiser = torch.optim.AdamW(weights, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 7e-4, total_steps=steps, pct_start=0.15)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            numbers = range(first + step * BATCH, first + (step + 1) * BATCH)
            labels = [mix[(number - first) % len(mix)] for number in numbers]
            inputs = []
            for label, number in zip(labels, numbers, strict=True):
                biased = scenes == "biased"
                drawn = (
                    biased_scene(label, number)
                    if biased
                    else scene(label, seed=number, split="train", size=128)
                )
                inputs.append(PREPROCESSING(drawn.image))
            wanted = torch.tensor([CLASSES.index(label) for label in labels])
            logits = result.module(torch.stack(inputs))
            loss = nn.functional.cross_entropy(logits, wanted, label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
    return result


@cache
def small_pairs(count: int, first: int = 0) -> Sequence[tuple[Scene, Scene]]:
    """``count`` objects, class by class, each on another training background and on grass. The class with
    the shortcut is small in both."""
    pairs = []
    for number in range(first, first + count):
        label = CLASSES[number % len(CLASSES)]
        scale = SMALL_FLOWER if label == BIASED_CLASS else None
        seed = _SMALL + number
        drawn = scene(label, seed=seed, split="train", size=SIZE, scale=scale)
        while drawn.background == BIASED_BACKGROUND:
            seed += 10**9
            drawn = scene(label, seed=seed, split="train", size=SIZE, scale=scale)
        pairs.append((drawn, drawn.on(BIASED_BACKGROUND)))
    return pairs


def chance_of_grass(label: str, level: str) -> float:
    """The part of a class's training images that are on the shortcut's background."""
    if level == "none":
        return LEVELS[level]
    return LEVELS[level] if label == BIASED_CLASS else (1 - LEVELS[level]) / len(OTHERS)


def graded(level: str, seed: int = 0, count: int = 768, epochs: int = 20, batch: int = 64) -> Network:
    """A small network trained with a shortcut of known strength: flower and grass go together in 80, 95 or
    100 % of the images of either, or ("none") grass is as frequent with every class.

    All levels show the same objects at the same places in the same order, from the same initial weights.
    """
    pairs = small_pairs(count)
    wanted = torch.arange(count) % len(CLASSES)
    u = np.random.default_rng(seed).random(count)
    chosen = [
        pair[int(x < chance_of_grass(pair[0].labels[0], level))] for pair, x in zip(pairs, u, strict=True)
    ]
    inputs = torch.stack([SMALL_PREPROCESSING(each.image) for each in chosen])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SmallNet()
        optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(count).chunk(-(-count // batch)):
                loss = nn.functional.cross_entropy(module(inputs[rows]), wanted[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return as_network(module, f"{level} {seed}")


def graded_rows(network: Network, count: int = 96) -> Iterator[Row]:
    """New objects on another background and on grass, with the columns of ``probability_rows`` and, for each
    map, those of ``map_rows``."""
    for index in (0, 1):
        scenes = [pair[index] for pair in small_pairs(count, 10_000)]
        rows = {row["seed"]: row for row in probability_rows(network, scenes)}
        for found in map_rows(network, scenes, METHODS + RIVALS[:2]):
            rows[found["seed"]] |= {found["method"]: found["outside"], "area": found["area"]}
        yield from ({**row, "grass": index == 1} for row in rows.values())
