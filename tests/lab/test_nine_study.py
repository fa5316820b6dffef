"""What the chapter *Nine methods side by side* says of its stored scenes, and one scene, again."""

from pathlib import Path

import pandas as pd
import pytest

import gmcam
from gmcam.lab.nine_study import (
    CHEAP,
    ROWS,
    SEEDS,
    TEN,
    measured,
    numbers,
    pair_differences,
    ten_maps,
    titles,
    two_shares,
)

BOOK = Path(__file__).parents[2] / "book"
RECORDS = pd.read_csv(BOOK / "nine_scenes.csv", dtype={"image": str})
FOUND, TEXTS = numbers(RECORDS)
MEANS = FOUND.pivot(index="method", columns="metric", values="value")


@pytest.fixture(scope="module")
def network():
    return gmcam.load("efficientnet-lite0")


def test_the_stored_scenes_have_every_row():
    assert sorted(RECORDS["image"].unique(), key=int) == [str(seed) for seed in SEEDS]
    assert list(dict.fromkeys(FOUND["method"])) == list(ROWS)
    assert titles()["gmcam_14"].split() == ["GMCAM,", "14", "×", "14"] and "full_grad" not in titles()


def test_variants_of_grad_cam_are_among_the_rivals_at_the_earlier_layer_alone():
    for name in ("grad_cam", "grad_cam_pp", "x_grad_cam"):
        assert MEANS.loc[f"{name}_14", "pointing"] <= MEANS.loc["edges", "pointing"]
        assert MEANS.loc[f"{name}_14", "inside"] < MEANS.loc["feature_sum_14", "inside"]
    blind = MEANS.loc[["area", "centred_blob", "edges", "feature_sum_7", "random_network_14"]]
    for name in CHEAP:
        assert (MEANS.loc[f"{name}_7", ["inside", "pointing"]] > blind[["inside", "pointing"]].max()).all()


def test_guidance_alone_hits_as_often_as_gmcam():
    assert TEXTS["pointing_guidance_map_14"] == TEXTS["pointing_gmcam_14"]
    assert TEXTS["gain_inside_grad_cam_7"].startswith("+8 [")
    assert (TEXTS["scenes"], TEXTS["left_out"], TEXTS["moved"]) == ("13", "77", "1")


def test_a_stored_scene_is_measured_again(network):
    again = measured(network, SEEDS[:1])
    stored = RECORDS[RECORDS["image"] == str(SEEDS[0])].reset_index(drop=True)
    assert list(again["method"]) == list(stored["method"])
    for metric in ("inside", "trace", "pointing"):
        assert again[metric].to_numpy() == pytest.approx(stored[metric].to_numpy(), abs=1e-3)


def test_pairs_are_equal_at_the_last_map_alone(network):
    names = ["grad_cam", "x_grad_cam", "guidance_map", "grad_cam_pp", "layer_cam", "gmcam"]
    photo = gmcam.lab.photo("chelsea")
    last, earlier = (
        pair_differences(gmcam.compare(network, photo, "tabby", methods=names, layer=layer))
        for layer in ("7x7", "14x14")
    )
    assert max(last.values()) < 1e-5 and min(earlier.values()) > 0.5


@pytest.mark.slow
def test_two_of_ten_methods_fail_the_scene(network):
    scene = gmcam.lab.scene("cat", "cup", seed=98, size=384)
    ten = ten_maps(network, scene.image, ["Egyptian cat", "espresso"])
    assert tuple(ten) == TEN and all(len(cells) == len(maps) == 2 for maps, cells in ten.values())
    shares = {name: two_shares(network, scene, maps) for name, (maps, _) in ten.items()}
    assert [n for n, (own, other) in shares.items() if (own <= other).any()] == ["grad_cam", "grad_cam_pp"]
