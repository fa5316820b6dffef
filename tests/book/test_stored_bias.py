"""What *Find the planted bias* and its verdict say of their stored tables, and a row of each, again."""

from pathlib import Path

import pandas as pd
import pytest

import gmcam
from gmcam.lab import planted
from gmcam.lab.exercises.planted_bias import suspects
from gmcam.lab.planted_tables import Album
from gmcam.lab.planted_verdict import Verdict

BOOK = Path(__file__).parents[2] / "book"
ALBUM, VERDICT = Album(BOOK), Verdict(BOOK)


def stored(part):
    return pd.read_parquet(BOOK / f"planted_bias_{part}.parquet")


def test_accuracy_does_not_accuse_the_network_with_the_shortcut():
    assert ALBUM.accuracy("B") == max(ALBUM.accuracy(letter) for letter in "ABC") == 1


def test_the_measures_accuse_different_pairs():
    assert ALBUM.first("grad_cam", "share")[0] == "B's flower"
    assert ALBUM.first("grad_cam", "ratio")[0] == "B's person"
    assert (
        ALBUM.right_readers("grad_cam", "ratio", 8)
        < 0.05
        < 0.95
        < ALBUM.right_readers("feature_sum", "ratio", 1)
    )
    for measure in ("ratio", "avoidance"):
        few, many = (ALBUM.right_readers("grad_cam", measure, looks) for looks in (1, 8))
        assert many < few


def test_an_innocent_pair_has_a_larger_ratio():
    planted_pair, innocent = ALBUM.acquitted()
    assert innocent["ratio"]["*Grad-CAM"] > planted_pair["ratio"]["*Grad-CAM"][2]


def test_the_shortcut_is_proven_in_both_directions_and_in_b_alone():
    own, others = VERDICT.own(), VERDICT.flower()
    assert own["B"]["*flower"][1] > 0.5 and others["B"]["*mean, over classes"][1] > 0
    for letter in "AC":
        assert abs(own[letter]["*flower"][0]) < 0.2 and abs(others[letter]["*mean, over classes"][0]) < 0.05
    first = VERDICT.search().iloc[0]
    assert (first["network"], first["label"], first["background"]) == ("B", "flower", "grass")


def test_the_control_is_not_repaired():
    rows = VERDICT.accuracies()
    before, control, repaired, honest = (panel["flower, other seen"] for panel in rows.values())
    assert control[2] < repaired[1] and repaired[0] > 3 * max(before[0], control[0]) and honest[0] > 80


def test_accuracy_hides_the_strength_of_a_shortcut_and_maps_trade_places():
    like, off, *_ = (list(panel.values()) for panel in VERDICT.graded().values())
    assert max(row[0] for row in like) - min(row[0] for row in like) < 5
    assert [row[0] for row in off] == sorted((row[0] for row in off), reverse=True) and off[-1][0] == 0
    numbers = VERDICT.numbers()
    assert numbers["finds_Grad_CAM"] == numbers["trainings"] == "9" and numbers["finds_Feature_sum"] == "0"


def test_a_row_of_the_album_is_measured_again():
    table = stored("album").query("network == 'B' and label == 'flower' and method == 'grad_cam'")
    (row,) = planted.map_rows(suspects()["B"], planted.album(1)[2:3], ["grad_cam"])
    again = table[table["seed"] == row["seed"]].iloc[0]
    for column in ("outside", "area", "probability"):
        assert row[column] == pytest.approx(again[column], abs=1e-3)


def test_a_row_of_the_effects_is_measured_again():
    moved = gmcam.lab.scene("cat", seed=3, size=128).on("grass")
    (row,) = planted.probability_rows(suspects()["B"], [moved])
    table = stored("effects").query(
        "network == 'B' and label == 'cat' and seed == 3 and background == 'grass'"
    )
    assert row["p_flower"] == pytest.approx(table["p_flower"].iloc[0], abs=1e-3)


@pytest.mark.slow
def test_a_repaired_network_is_trained_again():
    network = planted.repaired(suspects()["B"], "unbiased", 0)
    flowers = [gmcam.lab.scene("flower", seed=i, size=128).on("brick") for i in range(8)]
    table = stored("effects").query("network == 'unbiased 0' and label == 'flower' and background == 'brick'")
    p = [row["p"] for row in planted.probability_rows(network, flowers)]
    assert sum(p) / 8 == pytest.approx(table["p"].mean(), abs=0.1)  # other machines round otherwise


@pytest.mark.slow
def test_a_small_network_is_trained_again():
    rows = pd.DataFrame(planted.graded_rows(planted.graded("100 %", 0)))
    table = stored("graded").query("level == '100 %' and network == 0")
    means = [each[each["grass"]]["p_flower"].mean() for each in (rows, table)]
    assert means[0] == pytest.approx(means[1], abs=0.1)
