"""Answers to *Write your own metric*."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam import Preprocessing, compare
from gmcam._extras import require
from gmcam.evaluate import differences, summary
from gmcam.lab import collage
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network

if TYPE_CHECKING:
    import pandas as pd

_NEAR = "Near ↑"


def _near(maps: Tensor, masks: Tensor, margin: int) -> Tensor:
    """The share of each map (N, H, W) at most ``margin`` rows and columns away from its mask."""
    area = F.max_pool2d(masks.float(), 2 * margin + 1, stride=1, padding=margin) > 0
    return (maps * area).sum((1, 2)) / maps.sum((1, 2))


@exercise("own_metric.1")
def by_hand() -> Answers:
    """The share of the map of sixteen cells that is at most one cell away from the coin."""
    quarters = torch.tensor([[[0.0, 0, 2, 0], [1, 4, 3, 0], [0, 2, 1, 1], [2, 0, 0, 0]]])
    coin = torch.zeros(1, 4, 4, dtype=torch.bool)
    coin[:, 3, :2] = True
    inside, corner = quarters[:, 2:, :3].sum().item(), quarters[0, 2, 2].item()
    total = quarters.sum().item()
    slips = {
        "this is the share inside, with margin 0": _near(quarters, coin, margin=0).item(),
        "these are quarters; divide by the sum of the whole map": inside,
        "this is the sum of the values; divide by the sum of the whole map": inside / 4,
        "this is the result for a flat map; weight the cells by the map": 6 / 16,
        "the margin is a square: row 2, column 2 is one row and one column away": (inside - corner) / total,
        "this counts the margin alone; the object belongs to it": (inside - 2) / total,
        "this is the mean of the six cells; divide by the sum of the whole map": inside / 24,
    }
    return Answers(_near(quarters, coin, margin=1).item(), slips)


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
    """(ΣS)² / (HW ΣS²): 1 for a flat map, 1/HW for a single pixel, the covered share for a mask."""
    slips = {
        "this counts pixels; divide by H·W": lambda maps: maps.sum((1, 2)) ** 2 / (maps**2).sum((1, 2)),
        "this adds up the whole batch; each map needs its own value": lambda maps: (
            maps.sum() ** 2 / (maps.numel() * (maps**2).sum())
        ).expand(len(maps)),
        "the sum of squares is not the squared sum": lambda maps: torch.full(
            (len(maps),), 1 / maps[0].numel()
        ),
        "this is the map's mean, which changes when the map is scaled": lambda maps: maps.mean((1, 2)),
        "this is the salient area at one half, which ignores how bright its pixels are": lambda maps: (
            (maps >= maps.amax((1, 2), keepdim=True) / 2).float().mean((1, 2))
        ),
        "this is the inverse": lambda maps: maps[0].numel() * (maps**2).sum((1, 2)) / maps.sum((1, 2)) ** 2,
    }
    return Answers(
        lambda maps: maps.sum((1, 2)) ** 2 / (maps[0].numel() * (maps**2).sum((1, 2))),
        slips,
        tried_on=(_three_maps(),),
    )


@cache
def _few() -> pd.DataFrame:
    """Near of Grad-CAM and GMCAM on the first 14 images, one row per image, class and method."""
    net, dataset, rows = network(), collage(14), []
    assert isinstance(net.preprocess, Preprocessing)
    for record in map(dataset.read, range(len(dataset))):
        labels = [truth.label for truth in record.truths]
        masks = [net.preprocess.place_mask(truth.mask) for truth in record.truths if truth.mask is not None]
        for result in compare(net, record.image, labels, methods=["grad_cam", "gmcam"]):
            values = _near(result.maps, torch.stack(masks), 8).nan_to_num().tolist()
            pairs = zip(labels, values, strict=True)
            rows += [(record.name, label, result.method, value) for label, value in pairs]
    return require("pandas", "evaluate").DataFrame(rows, columns=["image", "label", "method", _NEAR])


@exercise("own_metric.3", tolerance=0.03)
def paired() -> Answers:
    """The interval (2,), over images alone, of the mean difference in Near between GMCAM and Grad-CAM."""
    records = _few()
    gap = differences(records, "grad_cam", metrics=[_NEAR], clusters=None)
    ends = gap[["low", "high"]].to_numpy()[0]
    rows = summary(records, metrics=[_NEAR], clusters=None).set_index("method")
    intervals = rows[["low", "high"]]
    gmcam, grad_cam = (intervals.loc[name].to_numpy() for name in ("gmcam", "grad_cam"))
    slips = {
        "this is Grad-CAM minus GMCAM": -ends[::-1],
        "this is GMCAM's interval; take that of the difference": gmcam,
        "this is Grad-CAM's interval; take that of the difference": grad_cam,
        "these are the extremes of two separate intervals; both use the same images, so pair them": (
            [gmcam[0] - grad_cam[1], gmcam[1] - grad_cam[0]]
        ),
        "this subtracts the ends of two intervals; take the interval of the differences": gmcam - grad_cam,
    }
    return Answers(ends, slips)
