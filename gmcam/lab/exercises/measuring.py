"""Answers to *Measuring saliency*."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.metrics import dice, drop, iou, points_inside, share_inside, zones
from gmcam.preprocessing import Preprocessing

# The map of sixteen cells, in quarters, with its two masks and the cat's box.
BEFORE = torch.tensor([[[0, 0, 2, 0], [1, 4, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
SWAPPED = torch.tensor([[[4, 0, 2, 0], [1, 0, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]]) / 4
CAT = torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
COIN = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]]).bool()
BOX = torch.tensor([[1, 1, 3, 3]])

# Probabilities on four images, whole and masked by the map.
Y = torch.tensor([0.90, 0.50, 0.10, 0.80])
MASKED = torch.tensor([0.72, 0.60, 0.02, 0.76])

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
def mean_drop() -> Answers:
    """The drop over four images: the mean of max(0, Y − O) / Y."""
    lost = (Y - MASKED).clamp(min=0)
    right = drop(Y, MASKED).mean()
    slips = {
        "this is the ratio of the means; divide for each image, then take the mean": lost.sum() / Y.sum(),
        "the order is wrong: the drop is Y − O": ((MASKED - Y).clamp(min=0) / Y).mean(),
        "an increase counts as a drop of 0, not as a negative drop": ((Y - MASKED) / Y).mean(),
        "divide the loss by the whole image's probability, not the masked one's": (lost / MASKED).mean(),
        "include the image with an increase; its drop is 0": (lost / Y)[lost > 0].mean(),
        "divide each loss by the whole image's probability": lost.mean(),
        "take the maximum with 0 and divide for each image first": (Y - MASKED).sum() / Y.sum(),
        "this is the share that remains": 1 - right,
        "this is the share of images with an increase": (MASKED > Y).float().mean(),
    }
    return Answers(right, slips)


@exercise("measuring.3", tolerance=0.01)
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


@exercise("measuring.4", tolerance=0.01)
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


@exercise("measuring.5")
def seen_in_a_square() -> Answers:
    """The metrics that differ between Grad-CAM and its square: all but the one that uses only the maximum."""
    net, scene = network("collage-resnet"), cat_and_cup()
    assert isinstance(net.preprocess, Preprocessing)
    inputs = net.prepare(scene.image).expand(2, -1, -1, -1)
    masks = torch.stack([net.preprocess.place_mask(mask) for mask in scene.masks])
    boxes = net.preprocess.place_boxes(scene.boxes, scene.image.size)
    rows, classes = torch.arange(2), [net.class_index(label) for label in scene.labels]

    def measure(method: str) -> dict[str, Tensor]:
        maps = explain(net, scene.image, list(scene.labels), method=method, sigma=0).maps
        whole, salience, context = (
            net.probabilities(batch)[rows, classes] for batch in (inputs, *zones(inputs, maps))
        )
        return {
            "salience_drop": drop(whole, salience),
            "context_drop": drop(whole, context),
            "pointing": points_inside(maps, boxes),
            "dice": dice(maps, masks),
            "iou": iou(maps, masks),
            "inside": share_inside(maps, masks),
            "trace": share_inside(maps, masks.flip(0)),
        }

    plain, squared = measure("grad_cam"), measure("gmcam")
    different = {name for name in plain if (plain[name] - squared[name]).abs().max() > 1e-3}
    slips = {
        "squaring preserves the order of the cells, so the maximum does not move": set(plain),
        "fewer cells reach half the maximum of the square, so the area shrinks": different - {"dice", "iou"},
        "the zones multiply the image by the map, and squaring darkens them": (
            different - {"salience_drop", "context_drop"}
        ),
        "the shares change too: squaring reduces small values most": different - {"inside", "trace"},
        "this is the only metric that does not change; name the others": {"pointing"},
        "squaring changes every value except 0 and 1, and so more metrics than these": {"inside", "trace"},
    }
    return Answers(different, slips)
