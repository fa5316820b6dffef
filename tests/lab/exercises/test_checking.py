"""How an answer is checked, on exercises that the tests define."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from gmcam.lab.exercises import Answers, check, exercise


@pytest.fixture
def judge(monkeypatch):
    """Check an answer against ``Answers`` that the test gives."""
    monkeypatch.setattr("gmcam.lab.exercises.checking._REGISTERED", registry := {})

    def check_against(answer, right, wrong=None, tolerance=0.02, tried_on=()):
        registry.clear()
        exercise("test.1", tolerance)(lambda: Answers(right, wrong or {}, tried_on))
        return check("test.1", answer)

    return check_against


@pytest.mark.parametrize("answer", [0.5, np.float32(0.505), torch.tensor(0.495), 1 / 2])
def test_numbers_within_tolerance(judge, answer):
    assert judge(answer, 0.5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "No answer yet"),
        (50, "percentage"),
        (-0.5, "sign"),
        (0.6, "too large"),
        (0.4, "too small"),
        (float("nan"), "Expected finite values"),
        ("half", "Expected a number, got 'half'."),
        ([0.5, 0.5], "expected a number, got an array of shape (2,)"),
        (None, "got a value of type NoneType"),
        (0.25, "Not right: you halved twice."),
    ],
)
def test_the_verdict_on_a_wrong_number_says_why(judge, answer, words):
    verdict = judge(answer, 0.5, {"you halved twice": 0.25})
    assert not verdict and words in repr(verdict)


def test_arrays_need_the_shape_and_every_value(judge):
    right = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert judge([[1, 2], [3, 4]], right)
    assert judge(right.numpy(), right, tolerance=0)
    assert "shape (4,)" in judge(right.flatten(), right).words
    assert "wrong in 1 of 4 values" in judge([[1, 2], [3, 5]], right).words
    assert "columns" in judge(right.T, right, {"rows and columns are exchanged": right.T}).words


def test_words_are_read_without_regard_to_case(judge):
    assert judge(" Neither ", "neither", {"the inner one matters": "inner"})
    assert "the inner one matters" in judge("inner", "neither", {"the inner one matters": "inner"}).words
    assert "Expected one of 'inner', 'neither', got 'both'" in judge("both", "neither", {"": "inner"}).words
    assert "Expected one of 'neither', got 1" in judge(1, "neither").words


def test_sets_of_words(judge):
    assert judge(["Cat", "cup"], {"cat", "cup"})
    assert "1 missing, 1 too many" in judge({"cat", "coin"}, {"cat", "cup"}).words
    assert judge(torch.tensor([7, 2]), {"7", "2"}) and judge(set(torch.tensor([7, 2])), {"2", "7"})
    assert "Expected a set of words" in judge("cat", {"cat"}).words
    assert "Expected a set of words" in judge(3, {"cat"}).words


def test_functions_are_judged_by_their_results(judge):
    inputs = (torch.arange(4.0),)
    wrong = {"you summed": torch.sum}
    assert judge(lambda x: x.sum() / 4, torch.mean, wrong, tried_on=inputs)
    assert "you summed" in judge(lambda x: x.sum(), torch.mean, wrong, tried_on=inputs).words
    assert "ZeroDivisionError" in judge(lambda x: 1 / 0, torch.mean, wrong, tried_on=inputs).words
    assert "Expected a function, got a number" in judge(1.5, torch.mean, wrong, tried_on=inputs).words


def test_a_function_may_change_its_arguments(judge):
    def mean(x):
        x -= x.mean()
        return x.abs().mean()

    inputs = (torch.arange(4.0),)
    assert judge(
        mean,
        lambda x: (x - x.mean()).abs().mean(),
        {"you summed": lambda x: x.mul_(2).sum()},
        tried_on=inputs,
    )
    assert inputs[0].tolist() == [0, 1, 2, 3]


def test_zero_tolerance_leaves_room_for_rounding_alone(judge):
    assert judge(7, 7, tolerance=0)
    assert judge(7 * (1 + 1e-7), 7, tolerance=0)
    assert not judge(7.001, 7, tolerance=0)


@pytest.mark.parametrize("name", ["grad_cam.99", "grad_cam"])
def test_the_error_for_an_unknown_exercise_lists_those_of_the_chapter(name):
    with pytest.raises(
        ValueError, match=f"expected an exercise among grad_cam.1, grad_cam.2.*, got '{name}'"
    ):
        check(name, 1)


@pytest.mark.parametrize("name", ["gradcam.1", "", "checking.1"])
def test_the_error_for_an_unknown_chapter_lists_the_chapters(name):
    with pytest.raises(
        ValueError, match="expected an exercise among bias_verdict, break_it, bug_or_theorem, "
    ):
        check(name, 1)


def test_a_name_is_taken_once():
    check("grad_cam.1", ...)
    with pytest.raises(ValueError, match="registered already"):
        exercise("grad_cam.1")(lambda: Answers(1, {}))


def test_a_chapter_is_imported_when_it_is_checked():
    code = """
import sys
from gmcam.lab.exercises import check
assert not check("grad_cam.1", ...)
print([m for m in sys.modules if m.startswith("gmcam.lab.exercises.")])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gmcam.lab.exercises.grad_cam" in output and "gmcam.lab.exercises.cam" not in output
