"""Answers to *Write your own metric*."""

from functools import cache

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import Preprocessing, compare
from gmcam.evaluate import differences, summary
from gmcam.lab import collage
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network

_NEAR = "Near ↑"


def _near(maps: Tensor, masks: Tensor, margin: int) -> Tensor:
    """Share of each map (N, H, W) at most ``margin`` rows and columns away from its mask."""
    area = F.max_pool2d(masks.float(), 2 * margin + 1, stride=1, padding=margin) > 0
    return (maps * area).sum((1, 2)) / maps.sum((1, 2))


@exercise("own_metric.1")
def by_hand() -> Answers:
    """The share of the map of sixteen cells that lies at most one cell from the coin."""
    quarters = torch.tensor([[[0.0, 0, 2, 0], [1, 4, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]])
    coin = torch.zeros(1, 4, 4, dtype=torch.bool)
    coin[:, 3, :2] = True
    inside = (quarters[:, 2:, :3]).sum()
    no_corner = inside - quarters[0, 2, 2]
    total = quarters.sum()
    return Answers(
        _near(quarters, coin, margin=1).item(),
        {
            "that is the share inside, the margin 0": _near(quarters, coin, margin=0).item(),
            "those are quarters; divide by what the whole map adds up to": inside.item(),
            "that is the sum of the values; divide by that of the whole map": inside.item() / 4,
            "that is what a flat map gets; weigh the cells by the map": 6 / 16,
            "the margin is a square: row 2, column 2 is one row and one column away": (
                no_corner / total
            ).item(),
            "the rim alone was counted; the object belongs to it": ((inside - 2) / total).item(),
            "that is the mean over the six cells; a share divides by the whole map's sum": inside.item() / 24,
        },
    )


@cache
def _three_maps() -> Tensor:
    """Maps (3, 16, 16) of different brightness and spread."""
    across = torch.linspace(-1, 1, 16)
    distance = across**2 + across[:, None] ** 2
    return torch.stack(
        [torch.exp(-distance / 0.1), 0.3 * torch.exp(-distance), 1.0 * (across > 0).expand(16, 16)]
    )


@exercise("own_metric.2", tolerance=1e-4)
def effective_area() -> Answers:
    """(ΣS)² / (HW ΣS²): 1 for a flat map, 1/HW for a single pixel, B's share of the picture for a mask."""
    return Answers(
        lambda maps: maps.sum((1, 2)) ** 2 / (maps[0].numel() * (maps**2).sum((1, 2))),
        {
            "that is a number of pixels; divide by H·W": lambda maps: (
                maps.sum((1, 2)) ** 2 / (maps**2).sum((1, 2))
            ),
            "the batch was added up; every map has an area of its own": lambda maps: (
                maps.sum() ** 2 / (maps.numel() * (maps**2).sum())
            ).expand(len(maps)),
            "the square of the sum is not the sum of the squares": lambda maps: torch.full(
                (len(maps),), 1 / maps[0].numel()
            ),
            "this is the map's mean, which changes when the map is scaled": lambda maps: maps.mean((1, 2)),
            "this is the salient area at one half; it does not ask how bright its pixels are": lambda maps: (
                (maps >= maps.amax((1, 2), keepdim=True) / 2).float().mean((1, 2))
            ),
            "this is upside down": lambda maps: (
                maps[0].numel() * (maps**2).sum((1, 2)) / maps.sum((1, 2)) ** 2
            ),
        },
        tried_on=(_three_maps(),),
    )


@exercise("own_metric.3")
def in_the_limit() -> Answers:
    """Of a high power of a map only the maximum is left."""
    return Answers(
        "pointing game",
        {
            "that is Near with the margin 0, and no power makes the margin smaller": "share inside",
            "Dice compares areas, and of a high power next to no area is left": "dice",
            "that asks about the other object, which Near does not know": "trace",
        },
    )


@cache
def _few() -> pd.DataFrame:
    """Near of Grad-CAM and GMCAM on the first 14 pictures, one row per picture, class and method."""
    net, dataset, rows = network(), collage(14), []
    assert isinstance(net.preprocess, Preprocessing)
    for picture in map(dataset.read, range(len(dataset))):
        labels = [truth.label for truth in picture.truths]
        places = [net.preprocess.place_mask(truth.mask) for truth in picture.truths if truth.mask is not None]
        for result in compare(net, picture.image, labels, methods=("grad_cam", "gmcam")):
            scores = _near(result.maps, torch.stack(places), 8).nan_to_num().tolist()
            rows += [
                (picture.name, label, result.method, score)
                for label, score in zip(labels, scores, strict=True)
            ]
    return pd.DataFrame(rows, columns=["picture", "label", "method", _NEAR])


@exercise("own_metric.4", tolerance=0.03)
def paired() -> Answers:
    """The interval (2,) of GMCAM's Near less Grad-CAM's, picture by picture."""
    records = _few()
    ends = differences(records, "grad_cam", metrics=[_NEAR])[["low", "high"]].to_numpy()[0]
    alone = summary(records, metrics=[_NEAR]).set_index("method")[["low", "high"]]
    ours, theirs = alone.loc["gmcam"].to_numpy(), alone.loc["grad_cam"].to_numpy()
    return Answers(
        ends,
        {
            "this is Grad-CAM less GMCAM": -ends[::-1],
            "this is GMCAM's own interval": ours,
            "this is Grad-CAM's own interval": theirs,
            "these are the extremes of two separate intervals; the same pictures are in both, so pair them": (
                [ours[0] - theirs[1], ours[1] - theirs[0]]
            ),
            "the ends of the two intervals were subtracted; the interval is that of the differences": (
                ours - theirs
            ),
        },
    )
