"""Answers to *Try your own photo*."""

from functools import cache

from torch import Tensor

from gmcam import Result, compare, explain
from gmcam.lab import Scene, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.lab.frozen import METHODS_SHOWN


@cache
def _scene() -> Scene:
    """The scene of the page's 96 maps."""
    return scene("cat", "cup", seed=15)


def _explained(label: str, method: str = "gmcam") -> Result:
    """The map of a class at the last layer of ``collage-vgg``."""
    return explain(network(), _scene().image, label, method=method)


@exercise("own_photo.1", tolerance=0)
def pixels_of_a_cell() -> Answers:
    """A cell is a sixteenth of the scene in each direction."""
    width, height = _scene().image.size
    across, down = width // 16, height // 16
    slips = {
        "this counts pixels of the network's input, which is half as wide and half as high": 8 * 8,
        "this is one side; multiply height and width": across,
        "this is one side of a cell, in pixels of the network's input": 128 // 16,
    }
    return Answers(across * down, slips)


@exercise("own_photo.2", tolerance=0)
def strongest_cell() -> Answers:
    """Row and column of the raw map's maximum."""

    def peak(label: str) -> list[int]:
        raw = _explained(label).raw[0]
        return list(divmod(int(raw.argmax()), raw.shape[1]))

    row, column = peak("cup")
    slips = {
        "row and column are swapped": [column, row],
        "this is the cat's map; use the cup's": peak("cat"),
        "count from zero": [row + 1, column + 1],
        "this indexes the flattened map; divmod by its width gives row and column": 16 * row + column,
    }
    return Answers([row, column], slips)


@exercise("own_photo.3")
def same_as_grad_cam() -> Answers:
    """Before global average pooling the gradient is flat, so averaging it loses nothing."""
    names = list(METHODS_SHOWN)
    first, *others = compare(network("collage-resnet"), _scene().image, "cat", methods=names)
    same = {other.method for other in others if (other.maps - first.maps).abs().max() < 1e-3}
    slips = {
        "GMCAM is Grad-CAM's square there: the maximum is the same, the map is not": same | {"gmcam"},
        "HiResCAM is missing: its raw map has negative cells, but it is rectified before it is drawn": (
            same - {"hires_cam"}
        ),
        "this holds on collage-vgg, which flattens the map": set(),
    }
    return Answers(same, slips)


@exercise("own_photo.4", tolerance=0)
def passes() -> Answers:
    """One pass per class, for the four classes of the 96 maps."""
    classes, layers, methods = 4, 4, len(METHODS_SHOWN)
    slips = {
        "all methods at a layer share the same feature maps and gradient maps": (classes * layers * methods),
        "one backward pass reaches all layers": classes * layers,
        "each class has a different gradient and needs its own pass": 1,
    }
    return Answers(classes, slips)


@exercise("own_photo.5")
def absent_flower() -> Answers:
    """The ratio of two raw maxima, which scaling to the full range hides."""
    cat, flower = (_explained(label, "guidance_map") for label in ("cat", "flower"))

    def ratio(of_cat: Tensor, of_flower: Tensor) -> float:
        return (of_cat / of_flower).item()

    slips = {
        "this is the flower's maximum divided by the cat's": ratio(flower.raw.max(), cat.raw.max()),
        "these are the drawn maps, each scaled to its own maximum; take the raw ones": 1.0,
        "this is the ratio of the sums; take the maxima": ratio(cat.raw.sum(), flower.raw.sum()),
        "this is the ratio of the logits, not of the maps": ratio(cat.score[0], flower.score[0]),
        "these are GMCAM's maxima; take the guidance map's": ratio(
            _explained("cat").raw.max(), _explained("flower").raw.max()
        ),
    }
    return Answers(ratio(cat.raw.max(), flower.raw.max()), slips)
