"""Answers to *Insertion and deletion*."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.metrics import curves, pixel_ranks


@exercise("insertion_deletion.1", tolerance=0.01)
def trapezoids() -> Answers:
    """Areas under (0, ⅘, ⅘, ⅘, ⅘), with all five points and with every second one."""
    fine = np.array([0, 0.8, 0.8, 0.8, 0.8])
    both = (fine, fine[::2])

    def areas(first: float, last: float) -> list[float]:
        return [float(first * y[0] + y[1:-1].sum() + last * y[-1]) / (len(y) - 1) for y in both]

    right = areas(0.5, 0.5)
    slips = {
        "this uses each step's left end; the trapezoid takes the mean of both ends": areas(1, 0),
        "this uses each step's right end; the trapezoid takes the mean of both ends": areas(0, 1),
        "the first and the last point count half": [float(points.mean()) for points in both],
        "the width of a step is ¼ or ½, because all pixels together are 1": [
            torch.trapezoid(torch.from_numpy(points)).item() for points in both
        ],
        "the coarse curve differs: its points are 0, ⅘ and ⅘, half of the pixels apart": [right[0]] * 2,
    }
    return Answers(right, slips)


@cache
def _map_of_the_cat() -> Tensor:
    return explain(network(), cat_and_cup().image, "cat", method="gmcam").maps


def _areas(maps: Tensor) -> tuple[float, float]:
    """Insertion and deletion, 512 pixels a step."""
    inputs = network().prepare(cat_and_cup().image)
    result = curves(network(), inputs, ["cat"], maps, pixels=512, chunk_size=8)
    return result.insertion_area.item(), result.deletion_area.item()


@exercise("insertion_deletion.2", tolerance=0.01)
def insertion_on_grey() -> Answers:
    """Deletion with the least salient pixels first, read from right to left."""
    (on_blur, into_grey), (into_blur, on_grey) = _areas(_map_of_the_cat()), _areas(-_map_of_the_cat())
    slips = {
        "this is insertion on the blurred copy": on_blur,
        "this is deletion with the most salient pixels first": into_grey,
        "this is deletion into the blurred copy, read from right to left": into_blur,
        "reading a curve from right to left does not change its area": 1 - on_grey,
    }
    return Answers(on_grey, slips)


@exercise("insertion_deletion.3")
def nothing_ranked() -> Answers:
    """The order of equal pixels: a random one."""
    ranks = pixel_ranks(torch.zeros(1, 4, 4))[0].flatten()
    assert not torch.equal(ranks, torch.arange(16))
    slips = {
        "ties are broken at random, so that the image's layout does not matter": "from the top",
        "every pixel is ranked, also in an empty map, and so its curves have areas": "not at all",
        "a random order prefers no position, so the centre does not come first": "from the middle",
    }
    return Answers("at random", slips)


@exercise("insertion_deletion.4")
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


@exercise("insertion_deletion.5")
def by_construction() -> Answers:
    """Occlusion measures what deletion measures, one square at a time."""
    slips = {
        "its squares make its maps coarser than a pixel, not finer": "finer maps",
        "it uses no gradient, only the scores of occluded images": "better gradients",
        "it does not use the mask; it covers every position alike": "knows the mask",
    }
    return Answers("same question", slips)
