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
    """Areas under (0, ⅘, ⅘, ⅘, ⅘), by all five points and by every second one."""
    fine = np.array([0, 0.8, 0.8, 0.8, 0.8])
    both = (fine, fine[::2])

    def area(weigh_ends: tuple[float, float]) -> list[float]:
        found = []
        for points in both:
            weights = np.ones(len(points))
            weights[0], weights[-1] = weigh_ends
            found.append(float(weights @ points) / (len(points) - 1))
        return found

    right = area((0.5, 0.5))
    return Answers(
        right,
        {
            "each step was given its left end; the trapezoid takes the mean of both ends": area((1, 0)),
            "each step was given its right end; the trapezoid takes the mean of both ends": area((0, 1)),
            "that is the mean of the points; the first and the last count half": [
                float(points.mean()) for points in both
            ],
            "a step is ¼ of the pixels wide, or ½; the width of all of them is 1": [
                torch.trapezoid(torch.from_numpy(points)).item() for points in both
            ],
            "the coarse curve cuts a corner: its points are 0, ⅘ and ⅘, half of the pixels apart": [
                right[0],
                right[0],
            ],
        },
    )


@cache
def _map_of_the_cat() -> Tensor:
    return explain(network(), cat_and_cup().image, "cat", method="gmcam").maps


def _areas(maps: Tensor) -> tuple[float, float]:
    """Insertion and deletion, 512 pixels a step."""
    inputs = network().prepare(cat_and_cup().image)
    found = curves(network(), inputs, ["cat"], maps, pixels=512, chunk_size=8)
    return found.insertion_area.item(), found.deletion_area.item()


@exercise("insertion_deletion.2", tolerance=0.01)
def insertion_on_grey() -> Answers:
    """Deletion with the least salient pixels first, read from right to left."""
    (on_blur, into_grey), (into_blur, on_grey) = _areas(_map_of_the_cat()), _areas(-_map_of_the_cat())
    return Answers(
        on_grey,
        {
            "that is insertion on the blurred copy": on_blur,
            "that is deletion, the most salient first": into_grey,
            "that is deletion into the blurred copy, read from right to left": into_blur,
            "reading a curve from right to left leaves its area as it is": 1 - on_grey,
        },
    )


@exercise("insertion_deletion.3")
def nothing_ranked() -> Answers:
    """Equal pixels go row by row."""
    ranks = pixel_ranks(torch.zeros(1, 4, 4))[0].flatten()
    assert torch.equal(ranks, torch.arange(16))
    return Answers(
        "from the top",
        {
            "an order that nobody chose is not a random one: ties are broken row by row": "at random",
            "every pixel is taken at some step, and so the curves have their areas": "not at all",
            "ties go row by row, so the middle has its turn after half of the picture": "from the middle",
        },
    )


@exercise("insertion_deletion.4")
def order_alone() -> Answers:
    """The changes that keep the order of the pixels, tried on a map of 64 values."""
    maps = torch.randperm(64, generator=torch.Generator().manual_seed(0)).reshape(1, 8, 8).double() / 64
    changes = {
        "square": maps**2,
        "root": maps**0.5,
        "plus one": maps + 1,
        "clamp at one half": maps.clamp(max=0.5),
        "minus": -maps,
        "smooth": torch.nn.functional.avg_pool2d(maps, 3, 1, 1),
    }
    kept = {name for name, changed in changes.items() if torch.equal(pixel_ranks(changed), pixel_ranks(maps))}
    return Answers(
        kept,
        {
            "clamping makes all that is brighter than one half equal, and ties go row by row": (
                kept | {"clamp at one half"}
            ),
            "the sign turns the order round: the least salient pixels come first": kept | {"minus"},
            "smoothing mixes neighbours, and a bright pixel alone falls behind": kept | {"smooth"},
            "adding one leaves the order as it is, though the share inside changes": kept - {"plus one"},
            "the root is a rising function too, as the square is": kept - {"root"},
            "the square is a rising function where maps are not negative": kept - {"square"},
        },
    )


@exercise("insertion_deletion.5")
def by_construction() -> Answers:
    """Occlusion measures what deletion measures, one square at a time."""
    return Answers(
        "same question",
        {
            "its squares make its maps coarser than a pixel, not finer": "finer maps",
            "it uses no gradient at all, only the scores of covered pictures": "better gradients",
            "it knows no mask; it covers every place alike": "knows the mask",
        },
    )
