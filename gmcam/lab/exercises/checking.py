"""How an answer is judged: against the right one, and against those that a known slip leads to.

An exercise is a function that computes its ``Answers``. ``check`` compares a reader's answer with
them and says what it found, so that a slip is called by its name.
"""

from __future__ import annotations

import copy
import importlib
import math
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

    ``right``: a number or an array; a word; a set of words; or a function, which is then judged by
    what it makes of ``tried_on``. ``wrong``: the answer that each known slip leads to, by the sentence
    that names the slip.
    """

    right: Any
    wrong: Mapping[str, Any]
    tried_on: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Exercise:
    """An exercise: ``answers`` computes what is right and what is known to be wrong.

    ``tolerance``: how far a number may lie from the right one, as a share of the largest right value.
    """

    name: str
    answers: Callable[[], Answers] = field(repr=False)
    tolerance: float


@dataclass(frozen=True, repr=False)
class Verdict:
    """What ``check`` says of an answer: true where it is right."""

    right: bool
    words: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.words


_REGISTERED: dict[str, Exercise] = {}
_OTHERS = ("checking", "common")  # files beside the chapters'


def exercise(name: str, tolerance: float = 0.02) -> Callable[[Callable[[], Answers]], Callable[[], Answers]]:
    """Register a function that computes the answers to ``name``, a chapter's file and a number.

    Raises ``ValueError`` for a name that is taken.
    """

    def register(answers: Callable[[], Answers]) -> Callable[[], Answers]:
        if name in _REGISTERED:
            raise ValueError(f"an exercise called {name!r} is registered already")
        _REGISTERED[name] = Exercise(name, cache(answers), tolerance)
        return answers

    return register


def check(name: str, answer: Any) -> Verdict:
    """Is ``answer`` right for the exercise ``name``, and if not, which slip leads to it?

    ``name``: the chapter's file and the exercise's number, ``"grad_cam.2"``. ``answer``: what the
    exercise asks for; three dots stand for none yet. Numbers are right within the exercise's tolerance,
    and need the right shape; words are read without regard to case. Raises ``ValueError`` for a name
    that no exercise has.

    >>> from gmcam.lab.exercises import check
    >>> check("grad_cam.1", ...)
    No answer yet: put yours in place of the three dots.
    """
    chapter = name.partition(".")[0]
    if chapter in _chapters():
        importlib.import_module(f"gmcam.lab.exercises.{chapter}")
    if name not in _REGISTERED:
        known = [one for one in _REGISTERED if one.partition(".")[0] == chapter] or _chapters()
        raise ValueError(f"no exercise is called {name!r}; there are {', '.join(known)}")
    if isinstance(answer, EllipsisType):
        return Verdict(False, "No answer yet: put yours in place of the three dots.")
    found = _REGISTERED[name]
    answers = found.answers()
    if callable(answers.right):
        if not callable(answer):
            return Verdict(False, f"The answer is a function; this is {_kind(answer)}.")
        # Each gets copies: the answers of other exercises are computed from the same tensors.
        try:
            answer = answer(*copy.deepcopy(answers.tried_on))
        except Exception as error:  # it is the reader's function, so whatever it raises is their news
            return Verdict(False, f"Your function raised {type(error).__name__}: {error}")
        functions = (answers.right, *answers.wrong.values())
        right, *wrong = (one(*copy.deepcopy(answers.tried_on)) for one in functions)
    else:
        right, wrong = answers.right, list(answers.wrong.values())
    try:
        given = _read(answer, right, wrong)
    except ValueError as misfit:
        return Verdict(False, str(misfit))
    if _same(given, right, found.tolerance):
        return Verdict(True, "Right.")
    for slip, value in zip(answers.wrong, wrong, strict=True):
        if _same(given, value, found.tolerance):
            return Verdict(False, f"Not right: {slip}.")
    return Verdict(False, _hint(given, right, found.tolerance))


def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the book by its name."""
    for chapter in _chapters():
        importlib.import_module(f"gmcam.lab.exercises.{chapter}")
    return dict(_REGISTERED)


def _chapters() -> list[str]:
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [file.name for file in files if file.name not in _OTHERS]


def _read(answer: Any, right: Any, wrong: list[Any]) -> Any:
    """The answer in the form that ``right`` has. Raises ``ValueError`` with a sentence for the reader."""
    if isinstance(right, str):
        options = sorted({right, *wrong})
        if not isinstance(answer, str) or answer.strip().lower() not in options:
            raise ValueError(f"The answer is one of {', '.join(map(repr, options))}; this is {answer!r}.")
        return answer.strip().lower()
    if isinstance(right, set | frozenset):
        if not isinstance(answer, Iterable) or isinstance(answer, str):
            raise ValueError(f"The answer is a set of words; this is {_kind(answer)}.")
        words = (word.item() if isinstance(word, Tensor) and word.numel() == 1 else word for word in answer)
        return {str(word).strip().lower() for word in words}
    try:
        given = _numbers(answer)
    except (TypeError, ValueError):
        raise ValueError(f"The answer is {_kind(_numbers(right))}; this is {_kind(answer)}.") from None
    if not np.isfinite(given).all():
        raise ValueError("The answer has values that are not finite.")
    return given


def _same(given: Any, other: Any, tolerance: float) -> bool:
    if isinstance(other, str | set | frozenset):
        return bool(given == other)
    numbers = _numbers(other)
    if given.shape != numbers.shape:
        return False
    # A little room for float32 even where the answer is to be exact.
    return bool(
        np.abs(given - numbers).max(initial=0) <= max(tolerance, 1e-6) * np.abs(numbers).max(initial=0)
    )


def _hint(given: Any, right: Any, tolerance: float) -> str:
    """What is wrong with an answer that no known slip leads to, without giving the right one away."""
    if isinstance(right, set | frozenset):
        missing, extra = len(right - given), len(given - right)
        return f"Not right: {missing} missing, {extra} too many."
    numbers = _numbers(right)
    if given.shape != numbers.shape:
        return f"Not right: the answer is {_kind(numbers)}; this is {_kind(given)}."
    if numbers.ndim == 0 and _same(given / 100, right, tolerance):
        return "Not right: this is a percentage; give the share, 1 for all."
    if _same(-given, right, tolerance):
        return "Not right: the sign is the wrong way round."
    if numbers.ndim and (off := np.abs(given - numbers) > max(tolerance, 1e-6) * np.abs(numbers).max()).any():
        return f"Not right: {off.sum()} of {off.size} values are off."
    return "Not right. The number is too " + ("large." if given > numbers else "small.")


def _numbers(value: Any) -> np.ndarray:
    """A number, an array, a tensor or a list of numbers, in float64."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, str) or value is None:
        raise TypeError("no number")
    return np.asarray(value, dtype=np.float64)


def _kind(value: Any) -> str:
    """What a value is, in a reader's words."""
    try:
        shape = _numbers(value).shape
    except (TypeError, ValueError):
        return repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
    if math.prod(shape) == 1 and not shape:
        return "a number"
    return f"an array of shape {tuple(shape)}"
