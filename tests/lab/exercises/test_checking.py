"""How an answer is judged, on exercises made for the test."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from gmcam.lab.exercises import Answers, check, exercise


@pytest.fixture
def ask(monkeypatch):
    """Judge an answer against ``Answers`` of the test's own."""
    monkeypatch.setattr("gmcam.lab.exercises.checking._REGISTERED", registry := {})

    def judge(answer, right, wrong=None, tolerance=0.02, tried_on=()):
        registry.clear()
        exercise("test.1", tolerance)(lambda: Answers(right, wrong or {}, tried_on))
        return check("test.1", answer)

    return judge


@pytest.mark.parametrize("answer", [0.5, np.float32(0.505), torch.tensor(0.495), 1 / 2])
def test_numbers_within_tolerance(ask, answer):
    assert ask(answer, 0.5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "No answer yet"),
        (50, "percentage"),
        (-0.5, "sign"),
        (0.6, "too large"),
        (0.4, "too small"),
        (float("nan"), "not finite"),
        ("half", "The answer is a number; this is 'half'"),
        ([0.5, 0.5], "the answer is a number; this is an array of shape (2,)"),
        (None, "this is of type NoneType"),
        (0.25, "Not right: you halved twice."),
    ],
)
def test_a_wrong_number_is_told_why(ask, answer, words):
    verdict = ask(answer, 0.5, {"you halved twice": 0.25})
    assert not verdict and words in repr(verdict)


def test_arrays_need_the_shape_and_every_value(ask):
    right = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert ask([[1, 2], [3, 4]], right)
    assert ask(right.numpy(), right, tolerance=0)
    assert "shape (4,)" in ask(right.flatten(), right).words
    assert "1 of 4 values are off" in ask([[1, 2], [3, 5]], right).words
    assert "columns" in ask(right.T, right, {"rows and columns are exchanged": right.T}).words


def test_words_are_read_without_regard_to_case(ask):
    assert ask(" Neither ", "neither", {"the inner one matters": "inner"})
    assert "the inner one matters" in ask("inner", "neither", {"the inner one matters": "inner"}).words
    assert "one of 'inner', 'neither'" in ask("both", "neither", {"": "inner"}).words
    assert "one of 'neither'" in ask(1, "neither").words


def test_sets_of_words(ask):
    assert ask(["Cat", "cup"], {"cat", "cup"})
    assert "1 missing, 1 too many" in ask({"cat", "coin"}, {"cat", "cup"}).words
    assert ask(torch.tensor([7, 2]), {"7", "2"}) and ask(set(torch.tensor([7, 2])), {"2", "7"})
    assert "a set of words" in ask("cat", {"cat"}).words
    assert "a set of words" in ask(3, {"cat"}).words


def test_functions_are_judged_by_what_they_make(ask):
    inputs = (torch.arange(4.0),)
    wrong = {"you summed": torch.sum}
    assert ask(lambda x: x.sum() / 4, torch.mean, wrong, tried_on=inputs)
    assert "you summed" in ask(lambda x: x.sum(), torch.mean, wrong, tried_on=inputs).words
    assert "ZeroDivisionError" in ask(lambda x: 1 / 0, torch.mean, wrong, tried_on=inputs).words
    assert "a function" in ask(1.5, torch.mean, wrong, tried_on=inputs).words


def test_a_function_that_changes_what_it_is_given_changes_it_for_itself(ask):
    def mean(x):
        x -= x.mean()
        return x.abs().mean()

    inputs = (torch.arange(4.0),)
    assert ask(
        mean,
        lambda x: (x - x.mean()).abs().mean(),
        {"you summed": lambda x: x.mul_(2).sum()},
        tried_on=inputs,
    )
    assert inputs[0].tolist() == [0, 1, 2, 3]


def test_zero_tolerance_leaves_room_for_rounding_alone(ask):
    assert ask(7, 7, tolerance=0)
    assert ask(7 * (1 + 1e-7), 7, tolerance=0)
    assert not ask(7.001, 7, tolerance=0)


@pytest.mark.parametrize("name", ["grad_cam.99", "grad_cam"])
def test_an_unknown_exercise_of_a_chapter_is_told_which_there_are(name):
    with pytest.raises(ValueError, match=f"no exercise is called '{name}'; there are grad_cam.1, grad_cam.2"):
        check(name, 1)


@pytest.mark.parametrize("name", ["gradcam.1", "", "checking.1"])
def test_an_unknown_chapter_is_told_which_there_are(name):
    with pytest.raises(ValueError, match="no exercise is called"):
        check(name, 1)


def test_a_name_is_taken_once():
    check("grad_cam.1", ...)
    with pytest.raises(ValueError, match="registered already"):
        exercise("grad_cam.1")(lambda: Answers(1, {}))


def test_a_chapter_is_imported_when_it_is_asked_for():
    code = """
import sys
from gmcam.lab.exercises import check
assert not check("grad_cam.1", ...)
print([m for m in sys.modules if m.startswith("gmcam.lab.exercises.")])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gmcam.lab.exercises.grad_cam" in found and "gmcam.lab.exercises.cam" not in found
