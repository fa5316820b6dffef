"""The stored answers are those that the stored measurements give."""

from pathlib import Path

import numpy as np
import pytest

from gmcam.lab.debug_tables import Steps
from gmcam.lab.debugging import estimate, gap
from gmcam.lab.exercises.monday_morning import APART, CAREFUL, MIRRORED, PRICE

STEPS = Steps(Path(__file__).parents[3] / "book")


def test_mirrored_pagodas():
    first, after = (STEPS.rows("edits", name)["right"] for name in ("unchanged", "mirrored"))
    changes = 100 * (after.astype(float) - first)
    found = changes[first].mean(), changes[~first].mean(), changes.mean()
    assert pytest.approx(found, abs=0.01) == MIRRORED


def test_prices_of_both_repairs_with_and_without_pairs():
    photos = 100 * STEPS.photos
    for name, stored in (("careless", PRICE), ("careful", CAREFUL)):
        assert estimate(photos[name] - photos["before"])[:3] == pytest.approx(stored, abs=0.01)
    flags = np.repeat([True, False], len(photos))
    apart = gap(np.concatenate([photos["careless"], photos["before"]]), flags)
    assert apart[1:3] == pytest.approx(APART, abs=0.01) and apart[1] < 0 < apart[2]
