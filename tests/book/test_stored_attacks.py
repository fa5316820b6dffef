"""What *Break it* says of its stored tables, and a row of each, again."""

from pathlib import Path

import pytest

from gmcam.lab import attacks
from gmcam.lab.attack_tables import Attacks

BOOK = Path(__file__).parents[2] / "book"
STORED = Attacks(BOOK)


def test_paint_deceives_gradients_and_the_guard_score_cam():
    panels = {
        title: {name: dot[0] for name, dot in panel.items()} for title, panel in STORED.fooled().items()
    }
    *gradients, score = panels.values()
    for panel in gradients:
        assert panel["*painted"] < panel["biased"] - 20 and abs(panel["*guarded"] - panel["biased"]) < 1
    assert abs(score["*painted"] - score["biased"]) < 10 and score["*guarded"] < score["biased"] - 20


def test_all_attacked_networks_predict_alike_on_both_backgrounds():
    grass, brick = STORED.probabilities("biased")
    assert brick < 0.1 < 0.8 < grass
    for name in ("painted", "guarded"):
        assert STORED.probabilities(name) == pytest.approx((grass, brick), abs=1e-3)


def test_the_guard_decides_deletion_with_grey_and_not_with_road():
    grey, road = STORED.deletion().values()
    assert grey["*guarded"][2] < 0 < grey["biased"][1]
    assert road["*guarded"][0] == pytest.approx(road["biased"][0], abs=0.01)


def test_the_best_of_many_beats_their_mean():
    for panel in STORED.chosen().values():
        assert panel["best of 7 wrong classes"][0] > 1.5 * panel["mean of 7 wrong classes"][0]
        assert panel["best of 40 untrained"][0] > 1.5 * panel["mean of 40 untrained"][0]


def test_a_row_of_the_attacks_is_measured_again():
    table = STORED.maps.set_index(["network", "method", "seed"])
    for row in attacks.fooled_rows(1, ["grad_cam"]):
        again = table.loc[(row["network"], "grad_cam", 0)]
        assert row["outside"] == pytest.approx(again["outside"], abs=1e-3)
        assert row["p_brick"] == pytest.approx(again["p_brick"], abs=1e-3)


def test_a_row_of_deletion_is_measured_again():
    table = STORED.areas.set_index(["network", "seed", "fill", "map"])["deletion"]
    for row in attacks.deletion_rows(1, ["zero"]):
        assert row["deletion"] == pytest.approx(table[row["network"], 0, "zero", row["map"]], abs=1e-3)
