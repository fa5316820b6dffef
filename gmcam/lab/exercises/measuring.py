"""Answers to *Measuring saliency*."""

from __future__ import annotations

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.metrics import dice, drop, iou, points_inside, share_inside, zones
from gmcam.preprocessing import Preprocessing

# The map of sixteen cells, in quarters, and its two masks and the cat's box.
BEFORE = torch.tensor([[[0, 0, 2, 0], [1, 4, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
SWAPPED = torch.tensor([[[4, 0, 2, 0], [1, 0, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
CAT = torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
COIN = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]]).bool()
BOX = torch.tensor([[1, 1, 3, 3]])

# Probabilities of four pictures, whole and seen through the map.
Y = torch.tensor([0.90, 0.50, 0.10, 0.80])
SEEN = torch.tensor([0.72, 0.60, 0.02, 0.76])

# Seven pictures of the pointing game: hit or not, and which of the objects are difficult.
HITS = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
DIFFICULT = ([False], [True], [False, True], [False], [False], [True, True], [False])

MEAN_DICE = 0.4321  # Table 1 of the article, its own method


def five(map_: Tensor, area: Tensor | None = None) -> list[float]:
    """Dice, IoU, share inside, trace and hit; Dice and IoU of ``area`` where it is given."""
    marked = map_ if area is None else area.to(map_.dtype)
    values = (
        dice(marked, CAT),
        iou(marked, CAT),
        share_inside(map_, CAT),
        share_inside(map_, COIN),
        points_inside(map_, BOX),
    )
    return [value.item() for value in values]


@exercise("measuring.1")
def swapped() -> Answers:
    """Dice, IoU, share inside, trace and hit of the map whose maximum has moved to a corner."""
    right = five(SWAPPED)
    d, i, inside, trace, hit = right
    total = SWAPPED.sum().item()
    without_two = (SWAPPED >= 0.5).sum().item() + CAT.sum().item()
    both = ((SWAPPED >= 0.5) & CAT).sum().item()
    return Answers(
        right,
        {
            "those are the numbers of the map before the swap": five(BEFORE),
            "Dice and IoU have changed places; Dice comes first": [i, d, inside, trace, hit],
            "Dice counts the common cells twice": [both / without_two, i, inside, trace, hit],
            "the union counts the common cells once: take them off the sum of the two areas": [
                d,
                both / without_two,
                inside,
                trace,
                hit,
            ],
            "the area is cut at half the mean; it is cut at half the maximum": five(
                SWAPPED, SWAPPED.ge(0.5 * SWAPPED.mean())
            ),
            "a cell of exactly half the maximum belongs to the area": five(SWAPPED, SWAPPED > 0.5),
            "the share inside and the trace are divided by the whole map's sum": [
                d,
                i,
                inside * total,
                trace * total,
                hit,
            ],
            "the maximum is in the corner now, and out of the box": [d, i, inside, trace, 1.0],
        },
    )


@exercise("measuring.2", tolerance=0.01)
def mean_drop() -> Answers:
    """The drop over four pictures: the mean of max(0, Y − O) / Y."""
    lost = (Y - SEEN).clamp(min=0)
    return Answers(
        drop(Y, SEEN).mean(),
        {
            "this is the ratio of the means; divide in each picture, then take the mean": lost.sum()
            / Y.sum(),
            "the order is wrong: a drop is Y − O, where O is smaller": ((SEEN - Y).clamp(min=0) / Y).mean(),
            "a gain counts as a drop of 0, not as a negative one": ((Y - SEEN) / Y).mean(),
            "the loss is divided by the probability on the whole picture, not by what is left": (
                lost / SEEN
            ).mean(),
            "a picture that gained takes part, with a drop of 0": (lost / Y)[lost > 0].mean(),
            "each loss is divided by the probability it started from": lost.mean(),
            "the maximum with 0 and the division stand inside the mean, one picture at a time": (
                Y - SEEN
            ).sum()
            / Y.sum(),
            "this is the share that is kept": 1 - drop(Y, SEEN).mean(),
            "that is the share of pictures with an increase": (SEEN > Y).float().mean(),
        },
    )


@exercise("measuring.3", tolerance=0.01)
def pointing() -> Answers:
    """The pointing game over seven pictures, some of whose objects are difficult."""
    asked = torch.tensor([not all(picture) for picture in DIFFICULT])
    clean = torch.tensor([not any(picture) for picture in DIFFICULT])
    strict = HITS.clone()
    strict[2] = 0
    return Answers(
        HITS[asked].mean(),
        {
            "pictures of nothing but difficult objects take no part": HITS.mean(),
            "pictures of nothing but difficult objects are no misses: they take no part": (
                HITS * asked
            ).mean(),
            "picture c has an object that is not difficult, so it takes part": HITS[clean].mean(),
            "where one object is not difficult, every box of the class counts: c is a hit": strict[
                asked
            ].mean(),
            "picture b takes no part, as f, although its maximum lies in the box": HITS[
                asked | (HITS > 0)
            ].mean(),
            "this is hits over misses; divide by both": HITS[asked].sum() / (1 - HITS[asked]).sum(),
        },
    )


@exercise("measuring.4", tolerance=0.01)
def least_mean_iou() -> Answers:
    """The smallest mean IoU beside a given mean Dice: that of pictures which all have this Dice."""
    d = MEAN_DICE
    return Answers(
        d / (2 - d),
        {
            "that is what the table says, and less than is possible": 0.1321,
            "that turns an IoU into a Dice, 2 I / (1 + I); the question goes the other way": 2 * d / (1 + d),
            "half of Dice is too small: D / (2 − D) comes down to that only where D is 0": d / 2,
            "that is the largest one: D in a share of the pictures is 1, and 0 in the others": d,
            "a picture of IoU 0 has Dice 0, and then the mean Dice would be 0": 0.0,
            "IoU is not the square of Dice": d**2,
        },
    )


@exercise("measuring.5")
def seen_in_a_square() -> Answers:
    """The metrics that tell Grad-CAM from its square: all but the one that asks for the maximum alone."""
    net, scene = network("collage-resnet"), cat_and_cup()
    assert isinstance(net.preprocess, Preprocessing)
    inputs = net.prepare(scene.image).expand(2, -1, -1, -1)
    masks = torch.stack([net.preprocess.place_mask(mask) for mask in scene.masks])
    boxes = net.preprocess.place_boxes(scene.boxes, scene.image.size)
    found = []
    for method in ("grad_cam", "gmcam"):
        result = explain(net, scene.image, list(scene.labels), method=method, sigma=0)
        rows, targets = torch.arange(2), [net.class_index(label) for label in scene.labels]
        before, *after = (
            net.probabilities(picture)[rows, targets] for picture in (inputs, *zones(inputs, result.maps))
        )
        found.append(
            {
                "salience_drop": drop(before, after[0]),
                "context_drop": drop(before, after[1]),
                "pointing": points_inside(result.maps, boxes),
                "dice": dice(result.maps, masks),
                "iou": iou(result.maps, masks),
                "inside": share_inside(result.maps, masks),
                "trace": share_inside(result.maps, masks.flip(0)),
            }
        )
    one, other = found
    apart = {name for name in one if (one[name] - other[name]).abs().max() > 1e-3}
    return Answers(
        apart,
        {
            "a square keeps the order of the cells, so its maximum is where it was": set(one),
            "half the maximum of the square is more than half of the map's: the area shrinks too": apart
            - {"dice", "iou"},
            "the zones multiply by the map, and a square dims them": apart
            - {"salience_drop", "context_drop"},
            "the shares move as well: the square takes most from the small values": apart
            - {"inside", "trace"},
            "it is the other way round: this one alone cannot see it": {"pointing"},
            "a square changes every value but 0 and 1, so more than these": {"inside", "trace"},
        },
    )
