"""Answers to *The explorer*."""

from gmcam import compare, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.lab.frozen import METHODS_SHOWN


@exercise("explorer.1", tolerance=0)
def pixels_of_a_cell() -> Answers:
    """A cell is a sixteenth of each side of the picture."""
    width, height = cat_and_cup().image.size
    across, down = width // 16, height // 16
    return Answers(
        across * down,
        {
            "that is in pixels of the network's input, half as wide and half as high as the picture": 8 * 8,
            "that is one side; a cell has height and width": across,
            "that is one side of a cell, in pixels of the network's input": 128 // 16,
        },
    )


@exercise("explorer.2", tolerance=0)
def strongest_cell() -> Answers:
    """Row and column of the raw map's maximum."""

    def place(label: str) -> list[int]:
        raw = explain(network(), cat_and_cup().image, label).raw[0]
        return list(divmod(int(raw.argmax()), raw.shape[1]))

    row, column = place("cup")
    return Answers(
        [row, column],
        {
            "row and column are exchanged": [column, row],
            "that is the cat's": place("cat"),
            "that counts from one": [row + 1, column + 1],
            "that is one index into the flattened map; divmod by its width gives row and column": 16 * row
            + column,
        },
    )


@exercise("explorer.3")
def same_as_grad_cam() -> Answers:
    """After global average pooling the gradient is flat, and methods that average it lose nothing."""
    names = list(METHODS_SHOWN)
    first, *others = compare(network("collage-resnet"), cat_and_cup().image, "cat", methods=names)
    same = {other.method for other in others if (other.maps - first.maps).abs().max() < 1e-3}
    return Answers(
        same,
        {
            "GMCAM is Grad-CAM's square there: the maximum is the same, the map is not": same | {"gmcam"},
            "HiResCAM is not rectified, so what speaks against the cat lifts its zero": same | {"hires_cam"},
            "that is how it is on collage-vgg, where the map is flattened": set(),
        },
    )


@exercise("explorer.4", tolerance=0)
def passes() -> Answers:
    """One pass per class: the four of the frozen explorer."""
    classes, layers, methods = 4, 4, len(METHODS_SHOWN)
    return Answers(
        classes,
        {
            "every method of a layer works on the same feature maps and gradient maps": classes
            * layers
            * methods,
            "one backward pass reaches all layers on its way": classes * layers,
            "another class has another gradient, so it needs a pass of its own": 1,
        },
    )
