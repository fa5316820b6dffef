"""Answers to *ResNet50 and VGG16*; none of them needs weights that were trained on ImageNet."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab import grid_pointing, mosaic, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.lab.networks import INPUT_SIZE, PREPROCESSING
from gmcam.metrics import share_inside
from gmcam.postprocess import postprocess, upsample

SIZE = (INPUT_SIZE, INPUT_SIZE)


def _signed_maps() -> tuple[Tensor, Tensor]:
    """Three signed maps (3, 12, 12), and cells that leave a quarter of the picture to nobody."""
    maps = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells = torch.zeros(3, 12, 12, dtype=torch.bool)
    cells[0, :6, :6] = cells[1, :6, 6:] = cells[2, 6:, :6] = True
    return maps + cells, cells


def _game(maps: Tensor, cells: Tensor) -> Tensor:
    return share_inside(maps.clamp(min=0) * cells.any(0), cells)


@exercise("imagenet_networks.1", tolerance=1e-4)
def the_game() -> Answers:
    """The share of a map's positive values in its cell, among all cells."""
    return Answers(
        _game,
        {
            "negative values cancel positive ones here; rectify first": lambda maps, cells: share_inside(
                maps * cells.any(0), cells
            ),
            "negative values speak against the class; they count as none, not by their size": (
                lambda maps, cells: _game(maps.abs(), cells)
            ),
            "what lies outside all cells counts for nobody, so it stays out of the denominator": (
                lambda maps, cells: share_inside(maps.clamp(min=0), cells)
            ),
            "the values count, not the number of pixels above zero": lambda maps, cells: _game(
                (maps > 0).double(), cells
            ),
            "each map is judged by its own target's cell, and so has a denominator of its own": (
                lambda maps, cells: (
                    (maps.clamp(min=0) * cells).sum((1, 2)) / (maps.clamp(min=0) * cells).sum()
                )
            ),
            "that is the pointing game: whether the brightest point lies in the cell": (
                lambda maps, cells: (
                    cells.flatten(1)
                    .gather(1, (maps * cells.any(0)).flatten(1).argmax(1, keepdim=True))
                    .double()[:, 0]
                )
            ),
        },
        tried_on=_signed_maps(),
    )


@exercise("imagenet_networks.2", tolerance=0.002)
def perfect_map() -> Answers:
    """Up-sampling carries a little of a perfect map over the two seams."""
    raw = torch.zeros(1, 14, 14)
    raw[:, :7, :7] = 1

    def score(found: Tensor) -> Tensor:
        return found[:, :112, :112].sum() / found.sum()

    smoothed, _ = postprocess(raw, (224, 224))
    half = raw.amax(1, keepdim=True).expand(-1, 14, -1)
    return Answers(
        score(upsample(raw, (224, 224))),
        {
            "the raw map is perfect; up-sampled, it falls off between two cells and crosses the seam": 1.0,
            "that is the map after smoothing; leave it out with sigma=0": score(smoothed),
            "a mosaic of four has two seams; you counted one": upsample(half, (224, 224))[..., :112].sum()
            / upsample(half, (224, 224)).sum(),
            "a quarter is chance, which a uniform map reaches": 0.25,
            "that is the share that is lost": 1 - score(upsample(raw, (224, 224))),
        },
    )


@exercise("imagenet_networks.3")
def copies() -> Answers:
    """A standard error goes with one over the root of the number of independent values."""
    return Answers(
        8**0.5,
        {
            "that is the ratio of the variances; a width goes with the root": 8.0,
            "copies of a photo's score are no new photos, but resampling rows takes them for some": 1.0,
            "upside down: divide the right width by theirs": 8**-0.5,
            "forty values against one; the right interval rests on five": 40**0.5,
            "five values against one; theirs rests on forty": 5**0.5,
        },
    )


@exercise("imagenet_networks.4", tolerance=0.005)
def squared() -> Answers:
    """Where the gradient is flat GMCAM is Grad-CAM squared, so its score is the square's."""
    record = mosaic([scene("cat", seed=1).image, scene("cup", seed=2).image], ["cat", "cup"], size=256)
    raw = explain(network("collage-resnet"), record.image, "cat", method="grad_cam").raw

    def share(maps: Tensor) -> Tensor:
        return grid_pointing(maps.repeat(2, 1, 1), record, PREPROCESSING)[0]

    def score(raw: Tensor) -> Tensor:
        return share(postprocess(raw, SIZE, sigma=0)[0])

    return Answers(
        score(raw**2)[0],
        {
            "that is Grad-CAM's own score; on this network GMCAM is its square": score(raw)[0],
            "that is the share in the cup's cell": score(raw**2)[1],
            "the score was squared; square the map, cell by cell, and then take the share": score(raw)[0]
            ** 2,
            "the up-sampled map was squared; Equation 6 acts before the up-sampling": share(
                upsample(raw, SIZE) ** 2
            )[0],
        },
    )


@exercise("imagenet_networks.5")
def one_change() -> Answers:
    """Only explaining both at like layers takes the layer out of the comparison."""
    return Answers(
        "same resolution",
        {
            "more photos make the difference more certain, not its cause": "more photos",
            "another method would be asked at the same two layers, which still differ": "another method",
            "smoothing blurs each map in its own cells; the layers still differ": "smoother maps",
        },
    )
