import numpy as np
import pytest

from gmcam.lab import CLASSES, scene
from gmcam.lab.exercises.planted_bias import album, paint_ground

ONE = scene("cat", seed=1, size=64)
THING, PICTURE = ONE.masks[0], np.asarray(ONE.image)


def test_an_album_holds_every_class_in_turn():
    scenes = album(2)
    assert [one.labels for one in scenes] == [(label,) for label in CLASSES for _ in range(2)]
    assert len({one.image.tobytes() for one in scenes}) == 16


@pytest.mark.parametrize("paint", ["flat", "grey", "shuffled"])
def test_the_object_stays_and_the_ground_is_painted(paint):
    painted = paint_ground(ONE, paint)
    assert (painted[THING] == PICTURE[THING]).all()
    ground, original = painted[~THING], PICTURE[~THING]
    assert (ground != original).any()
    if paint == "flat":
        assert (ground == original.mean(0).round()).all()
    elif paint == "grey":
        assert (ground == original.mean(1, keepdims=True).round()).all()
    else:
        assert sorted(ground.tolist()) == sorted(original.tolist())


def test_another_paint_is_refused():
    with pytest.raises(ValueError, match="flat, grey or shuffled, not 'blue'"):
        paint_ground(ONE, "blue")
