import numpy as np
import pytest

from gmcam.lab import scene
from gmcam.lab.exercises import check
from gmcam.lab.exercises.bias_verdict import paint_background

SCENE = scene("cat", seed=1, size=64)
OBJECT, IMAGE = SCENE.masks[0], np.asarray(SCENE.image)


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


def test_a_network_that_looks_at_grass_alone_is_hardly_less_accurate():
    assert check("bias_verdict.4", [(6 + 2 * r) / 8 for r in (0.8, 0.95, 1)])
