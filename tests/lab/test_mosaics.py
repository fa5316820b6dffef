import numpy as np
import pytest
from PIL import Image

from gmcam.datasets import Record
from gmcam.lab import GREY, mosaic

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "white": (255, 255, 255)}


def made_of(*labels, size=48):
    pictures = [Image.new("RGB", (30, 20), COLOURS[label]) for label in labels]
    return mosaic(pictures, labels, size=size)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_each_picture_fills_its_cell_and_nothing_else(count, columns):
    labels = list(COLOURS)[:count]
    record = made_of(*labels)
    pixels = np.asarray(record.image)
    assert isinstance(record, Record) and pixels.shape == (48, 48, 3)
    assert [truth.label for truth in record.truths] == labels
    for truth in record.truths:
        assert truth.mask.sum() == (48 // columns) ** 2
        assert (pixels[truth.mask] == COLOURS[truth.label]).all()
        assert not (pixels[~truth.mask] == COLOURS[truth.label]).all(1).any()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_cells_and_void_share_the_picture_out(count):
    record = made_of(*list(COLOURS)[:count])
    void = np.zeros((48, 48), bool) if record.void is None else record.void
    covered = sum(truth.mask.astype(int) for truth in record.truths) + void
    assert (covered == 1).all()
    assert (np.asarray(record.image)[void] == GREY).all()
    assert (record.void is None) == (count in (1, 4))


def test_a_box_is_its_mask():
    for truth in made_of("red", "green", "blue").truths:
        left, upper, right, lower = truth.boxes[0].astype(int)
        box = np.zeros((48, 48), bool)
        box[upper:lower, left:right] = True
        assert (box == truth.mask).all()


def test_two_pictures_stand_in_the_middle_side_by_side():
    first, second = made_of("red", "green").truths
    assert first.boxes.tolist() == [[0, 12, 24, 36]]
    assert second.boxes.tolist() == [[24, 12, 48, 36]]


def test_a_label_given_twice_has_both_cells():
    (truth,) = made_of("red", "red").truths
    assert len(truth.boxes) == 2 and truth.mask.sum() == 2 * 24**2


def test_the_middle_of_a_picture_is_taken_undistorted():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = COLOURS["red"]
    assert (np.asarray(mosaic([wide], ["red"], size=10).image) == COLOURS["red"]).all()


def test_a_size_that_the_grid_does_not_divide_leaves_a_border():
    record = made_of("red", "green", "blue", "white", size=9)
    assert all(truth.mask.sum() == 16 for truth in record.truths)
    assert record.void.sum() == 81 - 64


@pytest.mark.parametrize(
    ("pictures", "labels", "size", "message"),
    [
        ([], [], 48, "one label for each of its pictures, not 0 for 0"),
        ([np.zeros((4, 4))], ["a", "b"], 48, "not 2 for 1"),
        ([np.zeros((4, 4))] * 2, ["a", "b"], 1, "2 cells a row do not fit into 1 pixels"),
        (["no such file"], ["a"], 48, "there is no file"),
    ],
)
def test_what_does_not_fit_is_refused(pictures, labels, size, message):
    with pytest.raises(ValueError, match=message):
        mosaic(pictures, labels, size=size)
