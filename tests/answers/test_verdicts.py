"""The JavaScript that checks answers in the pages, against ``check``, under Node's test runner."""

from pathlib import Path

import answers
import numpy as np
import pytest
from javascript import check_types, run

from gmcam.lab.exercises import all_exercises, check

HERE = Path(__file__).parent
EXERCISES = all_exercises()


def spellings(value):
    """An answer as several readers would type it."""
    if isinstance(value, str):
        return [value, f'"{value}"', f" {value.upper()} "]
    if isinstance(value, set):
        words = sorted(value)
        return [str(value) if value else "{}", ", ".join(words) or "set()", str(words)]
    if not isinstance(value, list):
        return [repr(value), f" {value!r}".replace("-", "−"), repr(value).replace(".", ",")]
    if not isinstance(value[0], list):
        numbers = list(map(repr, value))
        bare = [", ".join(numbers), " ".join(numbers), "; ".join(numbers).replace(".", ",")]
        return [str(value), *(bare if len(value) > 1 else [])]
    rows = ["; ".join(map(repr, row)).replace(".", ",") for row in value]
    return [str(value), "\n".join(row.replace(",", ".") for row in rows), "\n".join(rows).replace(";", "")]


def alike(answer, right):
    """Whether two answers are of one kind and shape."""
    if isinstance(answer, str | set):
        return True
    try:
        return np.shape(answer) == np.shape(right)
    except ValueError:  # lists of different lengths
        return False


def near_misses(right):
    """Answers that are nearly right, for which a slip or a hint is named."""
    if isinstance(right, str):
        return []
    if isinstance(right, set):
        return [right | {"zebra"}, {"zebra", *sorted(right)[1:]}, {"zebra"}]
    values = np.asarray(right)
    room = np.abs(values).max()
    first = np.zeros(values.shape)
    first.flat[0] = room
    offsets = [0.3 * first, -0.5 * first, 0.001 * first, 0.0001 * room]
    scaled = [values + offset for offset in offsets] + [-values, 100 * values, 1.5 * values]
    other_shapes = [[0.5], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0.123, [[1.0, 2.0], [3.0, 4.0]]]
    return [*(each.tolist() for each in scaled), *other_shapes, [[1.0], [1.0, 2.0]]]


def unreadable(right):
    return "zebra it's" if isinstance(right, str) else "{zebra, [cat"


def restored(described):
    """An answer from the data of a page."""
    kind = described["kind"]
    return lambda value: set(value) if kind == "set" else value


def of_exercise(name, described):
    to_answer = restored(described)
    right = to_answer(described["right"])
    given = [right, *(to_answer(value) for _, value in described["wrong"]), *near_misses(right)]
    # Python's brackets alone say which shape is meant, if it is not the right one.
    cases = [
        (text, check(name, answer))
        for answer in given
        for text in (spellings(answer) if alike(answer, right) else [str(answer)])
    ]
    cases += [(text, check(name, text)) for text in (unreadable(right), "{ja, \\ nein")]
    if described["kind"] == "numbers":
        cases += [("nan", check(name, np.nan)), ("half", check(name, "half"))]
    return {
        "name": name,
        "exercise": described,
        "unreadable": unreadable(right),
        "cases": [{"text": text, "words": verdict.words, "right": verdict.right} for text, verdict in cases],
    }


@pytest.mark.slow
def test_every_verdict_in_a_page_is_that_of_check(tmp_path):
    described = {name: answers.data(exercise) for name, exercise in EXERCISES.items()}
    exercises = [of_exercise(name, each) for name, each in described.items() if each]
    kinds = {each["exercise"]["kind"] for each in exercises}
    assert kinds == {"word", "set", "numbers"} and len(exercises) > 70
    run(HERE / "verdict.test.js", tmp_path, exercises=exercises, dots=check("cam.1", ...).words)


@pytest.mark.parametrize("module", ["reading", "progress"])
def test_module(module, tmp_path):
    run(HERE / f"{module}.test.js", tmp_path)


def test_types_are_sound():
    check_types(HERE)
