"""Check an answer against the right one, and against the wrong ones that known slips lead to.

An exercise is a function that computes its ``Answers``. ``check`` compares a reader's answer with them, and
names the slip behind a wrong one.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """The answers to one exercise.

    ``right``: a number, an array, a word, a set of words, or a function, which is judged by its result on
    the arguments ``tried_on``. ``wrong``: a sentence that names a slip → the answer this slip leads to.
    """

    right: Any
    wrong: Mapping[str, Any]
    tried_on: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Exercise:
    """An exercise: its name, the function that computes its answers, and its tolerance.

    ``tolerance``: the accepted deviation of a number, as a share of the largest right value.
    """

    name: str
    answers: Callable[[], Answers] = field(repr=False)
    tolerance: float


@dataclass(frozen=True, repr=False)
class Verdict:
    """The result of ``check``: true if the answer is right, with the words shown to the reader."""

    right: bool
    words: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.words


_REGISTERED: dict[str, Exercise] = {}
_OTHERS = ("checking", "common")  # the files that belong to no chapter


def exercise(name: str, tolerance: float = 0.02) -> Callable[[Callable[[], Answers]], Callable[[], Answers]]:
    """Register a function that computes the answers to ``name``, a chapter's file and a number.

    Raises ``ValueError`` for a name that is taken.
    """

    def register(answers: Callable[[], Answers]) -> Callable[[], Answers]:
        if name in _REGISTERED:
            raise ValueError(f"expected a new exercise, got {name!r}: it is registered already")
        _REGISTERED[name] = Exercise(name, cache(answers), tolerance)
        return answers

    return register


def check(name: str, answer: Any) -> Verdict:
    """Check an answer, and name the slip behind a wrong one.

    ``name``: the chapter's file and the exercise's number, ``"grad_cam.2"``. ``answer``: what the exercise
    asks for, or three dots for no answer yet. Numbers must be within the exercise's tolerance and have the
    right shape; words may be in upper or lower case. Raises ``ValueError`` for an unknown name.

    >>> from gmcam.lab.exercises import check
    >>> check("grad_cam.1", ...)
    No answer yet: replace the three dots with your answer.
    """
    chapter = name.partition(".")[0]
    if chapter in _chapters():
        importlib.import_module(f"gmcam.lab.exercises.{chapter}")
    if name not in _REGISTERED:
        names = [key for key in _REGISTERED if key.partition(".")[0] == chapter] or _chapters()
        raise ValueError(f"expected an exercise among {', '.join(names)}, got {name!r}")
    if isinstance(answer, EllipsisType):
        return Verdict(False, "No answer yet: replace the three dots with your answer.")
    answers, tolerance = _REGISTERED[name].answers(), _REGISTERED[name].tolerance
    right, wrong = answers.right, list(answers.wrong.values())
    if callable(right):
        if not callable(answer):
            return Verdict(False, f"Expected a function, got {_kind(answer)}.")
        # Each function gets copies, because other exercises are computed from the same tensors.
        try:
            answer = answer(*copy.deepcopy(answers.tried_on))
        except Exception as error:  # the reader's function may raise anything
            return Verdict(False, f"Your function raised {type(error).__name__}: {error}")
        right, *wrong = (function(*copy.deepcopy(answers.tried_on)) for function in (right, *wrong))
    try:
        given = _read(answer, right, wrong)
    except ValueError as mismatch:
        return Verdict(False, str(mismatch))
    if _same(given, right, tolerance):
        return Verdict(True, "Right.")
    for slip, value in zip(answers.wrong, wrong, strict=True):
        if _same(given, value, tolerance):
            return Verdict(False, f"Not right: {slip}.")
    return Verdict(False, f"Not right: {_hint(given, right, tolerance)}.")


def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the book by its name."""
    for chapter in _chapters():
        importlib.import_module(f"gmcam.lab.exercises.{chapter}")
    return dict(_REGISTERED)


def _chapters() -> list[str]:
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [file.name for file in files if file.name not in _OTHERS]


def _read(answer: Any, right: Any, wrong: list[Any]) -> Any:
    """The answer in the form of ``right``. Raises ``ValueError`` with a sentence for the reader."""
    if isinstance(right, str):
        options = sorted({right, *wrong})
        if not isinstance(answer, str) or answer.strip().lower() not in options:
            raise ValueError(f"Expected one of {', '.join(map(repr, options))}, got {answer!r}.")
        return answer.strip().lower()
    if isinstance(right, set | frozenset):
        if not isinstance(answer, Iterable) or isinstance(answer, str):
            raise ValueError(f"Expected a set of words, got {_kind(answer)}.")
        words = (word.item() if isinstance(word, Tensor) and word.numel() == 1 else word for word in answer)
        return {str(word).strip().lower() for word in words}
    try:
        given = _numbers(answer)
    except (TypeError, ValueError):
        raise ValueError(f"Expected {_kind(_numbers(right))}, got {_kind(answer)}.") from None
    if not np.isfinite(given).all():
        raise ValueError("Expected finite values, got NaN or infinity.")
    return given


def _same(given: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, str | set | frozenset):
        return bool(given == expected)
    numbers = _numbers(expected)
    return given.shape == numbers.shape and not _off(given, numbers, tolerance).any()


def _off(given: np.ndarray, numbers: np.ndarray, tolerance: float) -> np.ndarray:
    """Where two arrays differ, with some room for float32 even where the answer must be exact."""
    off: np.ndarray = np.abs(given - numbers) > max(tolerance, 1e-6) * np.abs(numbers).max(initial=0)
    return off


def _hint(given: Any, right: Any, tolerance: float) -> str:
    """What is wrong with an answer that no known slip explains, without revealing the right one."""
    if isinstance(right, set | frozenset):
        return f"{len(right - given)} missing, {len(given - right)} too many"
    numbers = _numbers(right)
    if given.shape != numbers.shape:
        return f"expected {_kind(numbers)}, got {_kind(given)}"
    if numbers.ndim == 0 and _same(given / 100, right, tolerance):
        return "this is a percentage; give a share, where 1 means all"
    if _same(-given, right, tolerance):
        return "the sign is reversed"
    if numbers.ndim:
        return f"wrong in {_off(given, numbers, tolerance).sum()} of {given.size} values"
    return f"the number is too {'large' if given > numbers else 'small'}"


def _numbers(value: Any) -> np.ndarray:
    """A number, an array, a tensor or a list of numbers, in float64."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, str) or value is None:
        raise TypeError("no number")
    return np.asarray(value, dtype=np.float64)


def _kind(value: Any) -> str:
    """The type of a value, in words for the reader."""
    try:
        shape = _numbers(value).shape
    except (TypeError, ValueError):
        return repr(value) if isinstance(value, str) else f"a value of type {type(value).__name__}"
    return f"an array of shape {shape}" if shape else "a number"
