import numpy as np
import pytest
from PIL import Image

from gmcam.datasets import Record
from gmcam.lab import GREY, mosaic

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "white": (255, 255, 255)}


def mosaic_of(*labels, size=48):
    images = [Image.new("RGB", (30, 20), COLOURS[label]) for label in labels]
    return mosaic(images, labels, size=size)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_each_image_fills_its_cell_and_nothing_else(count, columns):
    labels = list(COLOURS)[:count]
    record = mosaic_of(*labels)
    pixels = np.asarray(record.image)
    assert isinstance(record, Record) and pixels.shape == (48, 48, 3)
    assert [truth.label for truth in record.truths] == labels
    for truth in record.truths:
        assert truth.mask.sum() == (48 // columns) ** 2
        assert (pixels[truth.mask] == COLOURS[truth.label]).all()
        assert not (pixels[~truth.mask] == COLOURS[truth.label]).all(1).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_cells_and_void_partition_the_image(count):
    record = mosaic_of(*list(COLOURS)[:count])
    void = np.zeros((48, 48), bool) if record.void is None else record.void
    covered = sum(truth.mask.astype(int) for truth in record.truths) + void
    assert (covered == 1).all()
    assert (np.asarray(record.image)[void] == GREY).all()
    assert (record.void is None) == (count in (1, 4))


def test_a_box_is_its_mask():
    for truth in mosaic_of("red", "green", "blue").truths:
        left, upper, right, lower = truth.boxes[0].astype(int)
        box = np.zeros((48, 48), bool)
        box[upper:lower, left:right] = True
        assert (box == truth.mask).all()


def test_two_images_may_fill_a_half_each():
    images = [Image.new("RGB", (30, 20), COLOURS[label]) for label in ("red", "green")]
    record = mosaic(images, ["red", "green"], size=48, fill=True)
    assert [truth.boxes.tolist() for truth in record.truths] == [[[0, 0, 24, 48]], [[24, 0, 48, 48]]]
    pixels = np.asarray(record.image)
    assert (pixels[:, :24] == COLOURS["red"]).all() and (pixels[:, 24:] == COLOURS["green"]).all()
    assert record.void is None


def test_two_images_are_centred_side_by_side():
    first, second = mosaic_of("red", "green").truths
    assert first.boxes.tolist() == [[0, 12, 24, 36]]
    assert second.boxes.tolist() == [[24, 12, 48, 36]]


def test_a_repeated_label_has_both_cells():
    (truth,) = mosaic_of("red", "red").truths
    assert len(truth.boxes) == 2 and truth.mask.sum() == 2 * 24**2


def test_the_central_square_of_an_image_is_undistorted():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = COLOURS["red"]
    assert (np.asarray(mosaic([wide], ["red"], size=10).image) == COLOURS["red"]).all()


def test_a_size_that_the_grid_does_not_divide_leaves_a_border():
    record = mosaic_of("red", "green", "blue", "white", size=9)
    assert all(truth.mask.sum() == 16 for truth in record.truths)
    assert record.void.sum() == 81 - 64


@pytest.mark.parametrize(
    ("images", "labels", "size", "message"),
    [
        ([], [], 48, "expected one label per image, got 0 labels for 0 images"),
        ([np.zeros((4, 4))], ["a", "b"], 48, "got 2 labels for 1 images"),
        ([np.zeros((4, 4))] * 2, ["a", "b"], 1, "expected a size of at least 2 pixels for 2 images, got 1"),
        (["no such file"], ["a"], 48, "no such file"),
    ],
)
def test_unusable_arguments_are_refused(images, labels, size, message):
    with pytest.raises(ValueError, match=message):
        mosaic(images, labels, size=size)
