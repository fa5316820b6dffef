"""Answers to *Measuring saliency*."""

import torch
from torch import Tensor

from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.metrics import dice, iou, points_inside, share_inside

# The map of sixteen cells, in quarters, with its two masks and the cat's box.
BEFORE = torch.tensor([[[0, 0, 2, 0], [1, 4, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
SWAPPED = torch.tensor([[[4, 0, 2, 0], [1, 0, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
CAT = torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
COIN = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]]).bool()
BOX = torch.tensor([[1, 1, 3, 3]])

# Seven images of the pointing game: hit or not, and which of the objects are difficult.
HITS = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
DIFFICULT = ([False], [True], [False, True], [False], [False], [True, True], [False])

MEAN_DICE = 0.4321  # Table 1 of the article, its proposed method


def five(maps: Tensor, area: Tensor | None = None) -> list[float]:
    """Dice, IoU, share inside, trace and hit; Dice and IoU of ``area`` if it is given."""
    marked = maps if area is None else area.to(maps.dtype)
    values = (
        dice(marked, CAT),
        iou(marked, CAT),
        share_inside(maps, CAT),
        share_inside(maps, COIN),
        points_inside(maps, BOX),
    )
    return [value.item() for value in values]


@exercise("measuring.1")
def swapped() -> Answers:
    """Dice, IoU, share inside, trace and hit of the map whose maximum has moved to a corner."""
    right = five(SWAPPED)
    d, i, inside, trace, hit = right
    total = SWAPPED.sum().item()
    areas = (SWAPPED >= 0.5).sum().item() + CAT.sum().item()
    ratio = ((SWAPPED >= 0.5) & CAT).sum().item() / areas
    slips = {
        "these are the values of the map before the swap": five(BEFORE),
        "Dice and IoU are swapped; Dice comes first": [i, d, inside, trace, hit],
        "Dice counts the common cells twice": [ratio, i, inside, trace, hit],
        "the union counts the common cells once": [d, ratio, inside, trace, hit],
        "this uses half the mean; use half the maximum": five(SWAPPED, SWAPPED.ge(0.5 * SWAPPED.mean())),
        "a cell of exactly half the maximum belongs to the area": five(SWAPPED, SWAPPED > 0.5),
        "divide the shares by the sum of the whole map": [d, i, inside * total, trace * total, hit],
        "the maximum is in the corner now, outside the box": [d, i, inside, trace, 1.0],
    }
    return Answers(right, slips)


@exercise("measuring.2", tolerance=0.01)
def pointing() -> Answers:
    """The pointing game over seven images, in some of which objects are difficult."""
    counted = torch.tensor([not all(objects) for objects in DIFFICULT])
    clean = torch.tensor([not any(objects) for objects in DIFFICULT])
    strict = HITS.clone()
    strict[2] = 0
    slips = {
        "images with difficult objects only do not count": HITS.mean(),
        "images with difficult objects only are not misses; they do not count": (HITS * counted).mean(),
        "image c has an object that is not difficult, so it counts": HITS[clean].mean(),
        "if one object is not difficult, every box counts, so c is a hit": strict[counted].mean(),
        "image b does not count, although its maximum is in the box": HITS[counted | (HITS > 0)].mean(),
        "this is hits over misses; divide by both": HITS[counted].sum() / (1 - HITS[counted]).sum(),
    }
    return Answers(HITS[counted].mean(), slips)


@exercise("measuring.3", tolerance=0.01)
def least_mean_iou() -> Answers:
    """The smallest mean IoU for a given mean Dice: that of images which all have this Dice."""
    d = MEAN_DICE
    slips = {
        "this is the table's value, which is smaller than possible": 0.1321,
        "this converts IoU to Dice, 2 I / (1 + I); convert Dice to IoU": 2 * d / (1 + d),
        "half of Dice is too small: D / (2 − D) reaches it only at D = 0": d / 2,
        "this is the largest one: Dice is 1 on a share D of the images and 0 on the others": d,
        "an image with IoU 0 has Dice 0, and then the mean Dice would be 0": 0.0,
        "IoU is not the square of Dice": d**2,
    }
    return Answers(d / (2 - d), slips)


@exercise("measuring.4")
def referee() -> Answers:
    """The points of a referee's paragraph on a trace of zero and a Dice at one half."""
    slips = {
        "pairs of the same eight objects add no object; say what happened to the empty maps": {"a", "b", "e"},
        "pairs of the same eight objects add no object; name what else scores a trace of 0": {"b", "d", "e"},
        "pairs of the same eight objects add no object; the threshold is missing": {"a", "d", "e"},
        "masks are finer than boxes; say what happened to the empty maps": {"a", "b", "c"},
        "masks are finer than boxes; name what else scores a trace of 0": {"b", "c", "d"},
        "masks are finer than boxes; the threshold is missing": {"a", "c", "d"},
        "tick three points; boxes and more pairs do not help": {"a", "b", "c", "d", "e"},
    }
    return Answers({"a", "b", "d"}, slips)
