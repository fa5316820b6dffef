"""Every exercise of the book: its check takes the right answer and names each known slip."""

import numpy as np
import pytest
import torch

from gmcam.lab.exercises import all_exercises, check

EXERCISES = all_exercises()
SLIPS = [(name, slip) for name, exercise in EXERCISES.items() for slip in exercise.answers().wrong]


def test_the_book_has_fifty_exercises():
    assert len(EXERCISES) >= 50


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answer_is_right(name):
    right = EXERCISES[name].answers().right
    assert check(name, right)
    if callable(right) or isinstance(right, str | set | frozenset):
        return
    # Within half the tolerance on either side, whatever the container.
    value = np.asarray(right.tolist() if isinstance(right, torch.Tensor) else right, dtype=float)
    room = EXERCISES[name].tolerance / 2 * np.abs(value).max()
    assert check(name, value + room) and check(name, torch.tensor(value - room))


@pytest.mark.parametrize(("name", "slip"), SLIPS)
def test_known_slip_is_called_by_its_name(name, slip):
    verdict = check(name, EXERCISES[name].answers().wrong[slip])
    assert not verdict
    assert slip in verdict.words


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_knows_a_slip_and_no_answer_is_none(name):
    assert EXERCISES[name].answers().wrong
    assert not check(name, ...)
    assert not check(name, None)
    assert not check(name, object())
