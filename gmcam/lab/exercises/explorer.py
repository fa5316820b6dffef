"""Answers to *The explorer*."""

from gmcam import compare, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.lab.frozen import METHODS_SHOWN


@exercise("explorer.1", tolerance=0)
def pixels_of_a_cell() -> Answers:
    """A cell is a sixteenth of the image in each direction."""
    width, height = cat_and_cup().image.size
    across, down = width // 16, height // 16
    slips = {
        "this counts pixels of the network's input, which is half as wide and half as high": 8 * 8,
        "this is one side; multiply height and width": across,
        "this is one side of a cell, in pixels of the network's input": 128 // 16,
    }
    return Answers(across * down, slips)


@exercise("explorer.2", tolerance=0)
def strongest_cell() -> Answers:
    """Row and column of the raw map's maximum."""

    def peak(label: str) -> list[int]:
        raw = explain(network(), cat_and_cup().image, label).raw[0]
        return list(divmod(int(raw.argmax()), raw.shape[1]))

    row, column = peak("cup")
    slips = {
        "row and column are swapped": [column, row],
        "this is the cat's map; use the cup's": peak("cat"),
        "count from zero": [row + 1, column + 1],
        "this indexes the flattened map; divmod by its width gives row and column": 16 * row + column,
    }
    return Answers([row, column], slips)


@exercise("explorer.3")
def same_as_grad_cam() -> Answers:
    """Before global average pooling the gradient is flat, so averaging it loses nothing."""
    names = list(METHODS_SHOWN)
    first, *others = compare(network("collage-resnet"), cat_and_cup().image, "cat", methods=names)
    same = {other.method for other in others if (other.maps - first.maps).abs().max() < 1e-3}
    slips = {
        "GMCAM is Grad-CAM's square there: the maximum is the same, the map is not": same | {"gmcam"},
        "HiResCAM is missing: its raw map has negative cells, but it is rectified before it is drawn": (
            same - {"hires_cam"}
        ),
        "this holds on collage-vgg, which flattens the map": set(),
    }
    return Answers(same, slips)


@exercise("explorer.4", tolerance=0)
def passes() -> Answers:
    """One pass per class, for the four classes of the frozen explorer."""
    classes, layers, methods = 4, 4, len(METHODS_SHOWN)
    slips = {
        "all methods at a layer share the same feature maps and gradient maps": (classes * layers * methods),
        "one backward pass reaches all layers": classes * layers,
        "each class has a different gradient and needs its own pass": 1,
    }
    return Answers(classes, slips)
