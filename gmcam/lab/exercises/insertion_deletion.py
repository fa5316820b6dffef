"""Answers to *Insertion and deletion*."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.metrics import pixel_ranks


@exercise("insertion_deletion.1", tolerance=0.01)
def two_hidden_pixels() -> Answers:
    """ROAD's equations for two hidden neighbours whose other neighbours are 12 on the left and 0 elsewhere.

    The left pixel has three neighbours of 12, one direct and two diagonal: p = 12/6 + 2·12/12 + q/6. The
    right one has p alone: q = p/6.
    """

    def solved(left: float, coupling: float) -> list[float]:
        matrix = np.array([[1, -coupling], [-coupling, 1]])
        return [float(value) for value in np.linalg.solve(matrix, [left, 0])]

    slips = {
        "a hidden neighbour counts too, with its filled value, so solve both equations together": [
            4,
            0,
        ],
        "diagonal neighbours count too, with half the weight of direct ones": solved(12 / 4, 1 / 4),
        "a diagonal neighbour has half the weight of a direct one": solved(3 * 12 / 8, 1 / 8),
        "one round is not the solution: p changes again once q is no longer zero": [4, 4 / 6],
    }
    return Answers(solved(4, 1 / 6), slips)


def linear(values: Tensor, hidden: Tensor) -> Tensor:
    """The mean of both neighbours in one dimension: a straight line between the nearest visible values."""
    places = np.arange(len(values))
    seen = ~hidden.numpy()
    return torch.from_numpy(np.interp(places, places[seen], values.numpy()[seen])).to(values)


def _once(values: Tensor, hidden: Tensor, start: float | None) -> Tensor:
    """One mean of the two neighbours, which are as given, or ``start`` where hidden."""
    known = values if start is None else values.masked_fill(hidden, start)
    padded = torch.cat([known[:1], known, known[-1:]])
    return torch.where(hidden, (padded[:-2] + padded[2:]) / 2, values)


def _extended(values: Tensor, hidden: Tensor) -> Tensor:
    """Straight lines that go on beyond the first and the last visible value."""
    filled, seen = linear(values, hidden), (~hidden).nonzero().flatten().tolist()
    for end, (near, far) in ((0, seen[:2]), (len(values) - 1, seen[:-3:-1])):
        slope = (values[near] - values[far]) / (near - far)
        for place in range(min(end, near), max(end, near) + 1):
            filled[place] = values[near] + slope * (place - near)
    return filled


def _nearest(values: Tensor, hidden: Tensor) -> Tensor:
    seen = (~hidden).nonzero().flatten()
    distances = (torch.arange(len(values))[:, None] - seen).abs()
    return values[seen[distances.argmin(1)]]


@exercise("insertion_deletion.2")
def a_row_of_pixels() -> Answers:
    """Each hidden value is the mean of its neighbours: linear interpolation, constant beyond the ends."""
    values = torch.tensor([7.0, 2, 9, 9, 9, 6, 1, 5, 8])
    hidden = torch.tensor([True, False, True, True, True, False, False, True, True])
    slips: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "this uses the values that are hidden": lambda v, h: _once(v, h, None),
        "one round is not the solution: hidden neighbours are filled as well": lambda v, h: _once(v, h, 0.0),
        "a value at the end has one neighbour and is equal to it, so the line does not go on": _extended,
        "this copies the nearest visible value; the mean of both neighbours gives a line": _nearest,
        "this is the mean of all visible values": lambda v, h: torch.where(h, v[~h].mean(), v),
    }
    return Answers(linear, slips, (values, hidden))


@exercise("insertion_deletion.3")
def order_alone() -> Answers:
    """The changes that preserve the order of the pixels, tried on a map of 64 values."""
    maps = torch.randperm(64, generator=torch.Generator().manual_seed(0)).reshape(1, 8, 8).double() / 64
    changes = {
        "square": maps**2,
        "root": maps**0.5,
        "plus one": maps + 1,
        "clamp at one half": maps.clamp(max=0.5),
        "minus": -maps,
        "smooth": torch.nn.functional.avg_pool2d(maps, 3, 1, 1),
    }
    right = {
        name for name, changed in changes.items() if torch.equal(pixel_ranks(changed), pixel_ranks(maps))
    }
    slips = {
        "clamping makes all pixels above one half equal, and the order of equal pixels is random": (
            right | {"clamp at one half"}
        ),
        "the sign reverses the order: the least salient pixels come first": right | {"minus"},
        "smoothing mixes neighbours, and isolated bright pixels move back in the order": right | {"smooth"},
        "adding one preserves the order, although it changes the share inside": right - {"plus one"},
        "the root is an increasing function, as the square is": right - {"root"},
        "the square is an increasing function of maps that are not negative": right - {"square"},
    }
    return Answers(right, slips)


@exercise("insertion_deletion.4")
def referee() -> Answers:
    """What a review of a ranking by one deletion area on one photograph must say."""
    right = {"a", "c", "e"}
    slips = {
        "b: a finer step changes an area by less than these gaps": right | {"b"},
        "d: both tests use the order alone, so sharpening changes no curve": right | {"d"},
        "a: one photograph has no interval, so the claim has no support beyond it": right - {"a"},
        "c: the same photograph with another fill has another order": right - {"c"},
        "e: scattered pixels disturb edges everywhere, so a small area need not show salience": right - {"e"},
    }
    return Answers(right, slips)
