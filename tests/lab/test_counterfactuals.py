"""Stored effects: means and correlations with their intervals, and every number that the chapter names."""

import re
from itertools import permutations
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from gmcam.lab import CLASSES
from gmcam.lab.counterfactuals import (
    BIASED,
    FILLS,
    LITE,
    MAPS,
    OTHERS,
    RESNET,
    SUMS,
    VGG,
    Study,
    dot,
    with_interval,
)

BOOK = Path(__file__).parents[2] / "book"
STORED = Study(BOOK)


def cases(value, seeds=2):
    """A row for each ordered pair of classes, seed and target; ``value`` takes the target and a number."""
    names = ["first", "second", "seed", "target", "object"]
    rows = [
        (a, b, s, t, o)
        for a, b in permutations(CLASSES, 2)
        for s in range(seeds)
        for t in (a, b)
        for o in (a, b)
    ]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(x=[value(target, number) for number, target in enumerate(table["target"])])


def test_a_dot_is_the_mean_with_the_means_of_the_targets():
    value, low, high, targets = dot(cases(lambda target, _: CLASSES.index(target)), "x")
    assert value == pytest.approx(3.5) and low < 3.5 < high
    assert sorted(targets) == pytest.approx(list(range(8)))


def test_objects_that_differ_widen_the_interval_over_objects_and_not_that_over_scenes():
    rows = cases(lambda target, _: float(target == "person"), seeds=6)
    over_objects, over_scenes = dot(rows, "x"), dot(rows, "x", scenes=True)
    assert over_objects[0] == over_scenes[0] == pytest.approx(1 / 8)
    assert over_objects[2] - over_objects[1] > 2 * (over_scenes[2] - over_scenes[1])


def test_two_columns_give_pearsons_r_for_all_rows_and_for_each_target():
    rows = cases(lambda target, number: np.sin(number) + (target == "cat"))
    rows["y"] = rows["x"] ** 2 + np.cos(np.arange(len(rows)))
    value, low, high, targets = dot(rows, "x", "y")
    assert value == pytest.approx(np.corrcoef(rows["x"], rows["y"])[0, 1]) and low < value < high
    expected = [np.corrcoef(part["x"], part["y"])[0, 1] for _, part in rows.groupby("target", sort=False)]
    assert targets == pytest.approx(expected)


def test_a_ratio_is_that_of_two_means():
    rows = cases(lambda _, number: 1.0 + number % 3).assign(y=4.0)
    value, low, high, targets = dot(rows, "x", "y", ratio=True)
    assert value == pytest.approx(rows["x"].mean() / 4) and low < value < high
    assert targets == pytest.approx([part["x"].mean() / 4 for _, part in rows.groupby("target", sort=False)])


def test_grass_is_compared_with_the_mean_of_the_other_backgrounds(tmp_path):
    rows = [
        {"network": network, "label": label, "seed": seed, "background": background}
        | {"logit": seed + 3 * (background == "grass"), "background_32": 5 - (background == "grass")}
        for network in (BIASED, VGG)
        for label in ("flower", "cat", "person")
        for seed in range(6)
        for background in ("grass", "brick", "sky")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "interventions_bias.parquet")
    panels = Study(tmp_path).planted()
    assert list(panels) == ["flower", "cat", "person"]
    for panel in panels.values():
        assert [row[:3] for row in panel.values()] == [(3, 3, 3), (-1, -1, -1)] * 2
        assert list(panel) == ["biased: effect", "biased: ledger", "honest: effect", "honest: ledger"]


def test_known_cases_have_a_probability_of_a_fifth():
    known, every = STORED.known(VGG, "16x16", "grad_cam"), STORED.cases("maps", True, network=VGG)
    chances = STORED.rows("chances", network=VGG)
    assert len(chances) == 336 and len(known) == (chances["probability"] >= 0.2).sum() > 100
    assert set(known["map"]) == {"grad_cam"} and set(known.columns) > set(every.columns)


def test_a_number_is_written_with_true_minus_signs():
    assert with_interval((-0.054, -0.2, 0.051, [])) == "−0.05 [−0.20, 0.05]"


def test_cases_are_those_of_the_scenes_own_classes(tmp_path):
    rows = cases(lambda *_: 0).assign(network=VGG)
    rows = pd.concat([rows, rows.assign(target="absent"), rows.assign(network=RESNET)])
    rows.to_parquet(tmp_path / "interventions_effects.parquet")
    own, other = (Study(tmp_path).cases("effects", whose, network=VGG) for whose in (True, False))
    assert len(own) == len(other) == 56 * 2 * 2
    assert (own["target"] == own["object"]).all() and (other["target"] != other["object"]).all()
    assert "absent" not in set(other["target"])


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"interventions_maps\.parquet"):
        Study(tmp_path).rows("maps")


@pytest.mark.parametrize("network", [VGG, RESNET, LITE])
def test_the_stored_tables_have_every_row_of_the_figures(network):
    layer = "14x14" if network == LITE else "16x16"
    panels = {
        tuple(MAPS.values()): STORED.maps(network, layer),
        tuple(FILLS.values()): STORED.fills(network, True),
        tuple(OTHERS.values()): STORED.others(network, "7x7" if network == LITE else "16x16"),
    }
    if network != LITE:
        panels[tuple(SUMS.values())] = STORED.sums(network, False)
    for names, rows in panels.items():
        assert tuple(rows) == names
        for value, low, high, targets in rows.values():
            assert low <= value <= high and len(targets) == (2 if network == LITE else 8)


def test_every_number_that_the_chapter_names_is_there():
    cells = nbformat.read(BOOK / "without_the_cup.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    numbers, live = STORED.numbers(), set(re.findall(r'^glue\("(\w+)"', code, re.MULTILINE))
    begun = tuple(re.findall(r'^ *glue\(f"(\w+)\{', code, re.MULTILINE))  # names that end with a variable
    named = {name for name in re.findall(r"\{glue:text\}`(\w+)`", text) if not name.startswith(begun)}
    assert named <= set(numbers) | live
    assert not any("nan" in number for number in numbers.values())
