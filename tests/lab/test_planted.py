"""Measurements of the planted bias on few scenes, and their statistics on tables with known answers."""

import numpy as np
import pandas as pd
import pytest
import torch

import gmcam
from gmcam.lab import CLASSES, planted
from gmcam.lab.planted_tables import Album, over, signed, suspicion
from gmcam.lab.train import BIASED_BACKGROUND, BIASED_CLASS

NETWORK = gmcam.load("collage-vgg-biased")


def test_an_album_contains_every_class_in_turn():
    scenes = planted.album(2)
    assert [each.labels for each in scenes] == [(label,) for label in CLASSES for _ in range(2)]
    assert len({each.image.tobytes() for each in scenes}) == 16
    assert all((each.background == BIASED_BACKGROUND) == (each.labels[0] == BIASED_CLASS) for each in scenes)


def test_measures_of_suspicion():
    share, area = np.array([0.75, 1.0]), np.array([0.75, 0.8])
    assert suspicion(share, area, "share").tolist() == [0.75, 1]
    assert suspicion(share, area, "ratio").tolist() == [1, 1.25]
    assert suspicion(share, area, "avoidance").tolist() == [0, 1]


def test_rows_of_maps_and_of_probabilities():
    scenes = [gmcam.lab.scene(BIASED_CLASS, seed=0, size=128, background=name) for name in ("grass", "brick")]
    maps = pd.DataFrame(planted.map_rows(NETWORK, scenes, ["grad_cam", "area"]))
    assert len(maps) == 4
    assert maps["outside"].between(0, 1).all() and maps["area"].between(0.5, 1).all()
    rows = list(planted.probability_rows(NETWORK, scenes))
    assert [row["background"] for row in rows] == ["grass", "brick"]
    assert rows[0]["p"] == rows[0]["p_flower"] > 0.9 > 0.1 > rows[1]["p"] and rows[0]["top"] == BIASED_CLASS


def test_everywhere_only_the_background_changes():
    scenes = planted.everywhere(1, ("grass", "moon"))
    assert [each.background for each in scenes[:2]] == ["grass", "moon"] and len(scenes) == 16
    assert (scenes[0].masks == scenes[1].masks).all()


@pytest.mark.parametrize("scenes", ["unbiased", "biased"])
def test_a_repair_trains_a_copy_and_repeats(scenes):
    before = {name: value.clone() for name, value in NETWORK.module.state_dict().items()}
    twice = [planted.repaired(NETWORK, scenes, seed=1, steps=2) for _ in range(2)]
    first, second = (network.module.state_dict() for network in twice)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.module.state_dict().items())
    assert twice[0].name == f"{scenes} 1"


def test_other_scenes_do_not_repair():
    with pytest.raises(ValueError, match="expected scenes 'unbiased' or 'biased', got 'grey'"):
        planted.repaired(NETWORK, "grey")


def test_pairs_differ_in_the_background_alone():
    for number, (elsewhere, grass) in enumerate(planted.small_pairs(8)):
        assert elsewhere.labels == grass.labels == (CLASSES[number],)
        assert elsewhere.background != grass.background == BIASED_BACKGROUND
        assert (elsewhere.masks == grass.masks).all()


@pytest.mark.parametrize(("level", "of_class", "of_background"), [("none", 1 / 6, 1 / 8), ("80 %", 0.8, 0.8)])
def test_the_strength_holds_in_both_directions(level, of_class, of_background):
    on = {label: planted.chance_of_grass(label, level) for label in CLASSES}
    assert on[BIASED_CLASS] == pytest.approx(of_class)
    assert on[BIASED_CLASS] / sum(on.values()) == pytest.approx(of_background)
    assert planted.chance_of_grass("cat", "100 %") == 0


def test_a_small_network_is_trained_and_measured():
    network = planted.graded("100 %", count=16, epochs=1, batch=8)
    rows = pd.DataFrame(planted.graded_rows(network, 8))
    assert len(rows) == 16 and rows["grass"].sum() == 8 and {"grad_cam", "feature_sum"} <= {*rows.columns}


def test_means_with_intervals():
    value, low, high, small = over([0.0, 1.0, 1.0, 2.0])
    assert value == 1 and low < 1 < high and small == [0, 1, 1, 2]
    labels = [label for label in CLASSES for _ in range(2)]
    value, low, high, small = over(np.repeat(np.arange(8.0), 2), labels)
    assert value == 3.5 and low < 2.5 and high > 4.5 and small == list(range(8))
    assert signed((-0.5, -1, 0.001, ())) == "−0.50 [−1.00, +0.00]"


def album_of(tmp_path, planted_share):
    """An album in which only B's flower has a share other than one half."""
    rows = [
        {"network": letter, "label": label, "seed": seed, "method": method, "area": 0.75, "top": seed > 0}
        | {"outside": planted_share if (letter, label) == ("B", BIASED_CLASS) else 0.5}
        for letter in "ABC"
        for label in sorted(CLASSES)  # another order than the chapter's
        for seed in range(4)
        for method in (*planted.METHODS, *planted.RIVALS)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "planted_bias_album.parquet")
    return Album(tmp_path)


def test_readers_find_a_pair_that_stands_out_and_else_guess(tmp_path):
    clear = album_of(tmp_path, 1.0)
    assert clear.accuracy("B") == 0.75 and clear.first("grad_cam", "share") == ("B's flower", "100 %")
    assert clear.first("gmcam", "ratio") == ("B's flower", "1.33")
    panels, honest = clear.acquitted()
    assert panels["avoidance"]["*Grad-CAM"][0] == 1 and honest["avoidance"]["*Grad-CAM"] == -1
    assert clear.numbers()["above_share"] == "0" and clear.numbers()["accuracy_least"] == "75 %"
    assert all(row[0] == 100 for panel in clear.readers().values() for row in panel.values())
    guessed = album_of(tmp_path, 0.5).right_readers("grad_cam", "share", 1)
    assert 0 < guessed < 0.1  # of 24 pairs
