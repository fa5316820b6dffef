"""Every exercise of the book: its check accepts the right answer and names each known slip."""

import numpy as np
import pytest
import torch

from gmcam.lab.exercises import all_exercises, check

EXERCISES = all_exercises()


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


@pytest.mark.parametrize("name", EXERCISES)
def test_every_known_slip_is_named(name):
    slips = EXERCISES[name].answers().wrong
    verdicts = {slip: check(name, answer) for slip, answer in slips.items()}
    assert slips and not any(verdicts.values())
    assert {slip: verdict.words for slip, verdict in verdicts.items()} == {
        slip: f"Not right: {slip}." for slip in slips
    }


@pytest.mark.parametrize("name", EXERCISES)
def test_what_is_no_answer_is_not_right(name):
    assert not check(name, ...)
    assert not check(name, None)
    assert not check(name, object())
