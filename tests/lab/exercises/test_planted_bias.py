import numpy as np
import pytest

from gmcam.lab import CLASSES, scene
from gmcam.lab.exercises.planted_bias import album, paint_background

SCENE = scene("cat", seed=1, size=64)
OBJECT, IMAGE = SCENE.masks[0], np.asarray(SCENE.image)


def test_an_album_contains_every_class_in_turn():
    scenes = album(2)
    assert [each.labels for each in scenes] == [(label,) for label in CLASSES for _ in range(2)]
    assert len({each.image.tobytes() for each in scenes}) == 16


@pytest.mark.parametrize("paint", ["flat", "grey", "shuffled"])
def test_the_background_is_painted_and_the_object_is_not(paint):
    painted = paint_background(SCENE, paint)
    assert (painted[OBJECT] == IMAGE[OBJECT]).all()
    background, original = painted[~OBJECT], IMAGE[~OBJECT]
    assert (background != original).any()
    if paint == "flat":
        assert (background == original.mean(0).round()).all()
    elif paint == "grey":
        assert (background == original.mean(1, keepdims=True).round()).all()
    else:
        assert sorted(background.tolist()) == sorted(original.tolist())


def test_another_paint_is_refused():
    with pytest.raises(ValueError, match="expected paint 'flat', 'grey' or 'shuffled', got 'blue'"):
        paint_background(SCENE, "blue")
