import pytest

from gmcam.lab.exercises import check


@pytest.mark.parametrize(("exercise", "answer"), [("break_it.3", "de"), ("break_it.5", "abd")])
def test_the_checks_that_an_attack_leaves(exercise, answer):
    assert check(exercise, set(answer)) and not check(exercise, set(answer) | {"c"})
