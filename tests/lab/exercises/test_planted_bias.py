import pytest

from gmcam.lab.exercises import check
from gmcam.lab.exercises.planted_bias import suspects


def test_the_suspects_are_named_by_letters():
    assert {letter: network.name for letter, network in suspects().items()} == {"A": "A", "B": "B", "C": "C"}


@pytest.mark.parametrize(("exercise", "answer"), [("planted_bias.3", "abc"), ("planted_bias.4", "ace")])
def test_the_points_of_a_proof_and_of_a_report(exercise, answer):
    assert check(exercise, set(answer)) and not check(exercise, set(answer) | {"d"})
