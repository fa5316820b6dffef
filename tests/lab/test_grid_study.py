"""What the chapter *On ImageNet* says of its stored game, and a mosaic of the game, again."""

from itertools import islice
from pathlib import Path

import pytest

import gmcam
from gmcam.evaluate import bootstrap_means, bootstrap_weights, interval
from gmcam.lab import grid_study, play
from gmcam.lab.exercises import all_exercises
from gmcam.lab.grid_study import LAYERS, PLAYERS, SCORES, GridStudy, book_mosaics, bring, texts

BOOK = Path(__file__).parents[2] / "book"
STUDY = GridStudy(BOOK)
BLIND = ("centred_blob", "edges", "area", "feature_sum")


@pytest.mark.parametrize("cells", [2, 4])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_map_that_ignores_the_class_scores_chance_in_every_replicate(cells, layer):
    game = STUDY.game("sample", cells, layer)
    for name in BLIND:
        for score in SCORES:
            assert STUDY.score(game, name, score)[:3] == pytest.approx((1 / cells,) * 3, abs=1e-5)


def test_guidance_wins_at_the_earlier_layer_and_the_multiplication_does_not_help_pointing():
    game = STUDY.game("sample", 2, "14x14")
    assert STUDY.score(game, "guidance_map", "pointing")[1] > 0.8
    assert STUDY.score(game, "grad_cam", "pointing")[1] < 0.5  # not told apart from chance
    _, low, high, _ = STUDY.score(game, "gmcam", "pointing", "guidance_map")
    assert low < 0 < high
    assert STUDY.score(game, "gmcam", "inside", "guidance_map")[1] > 0  # in the share it does


def test_at_the_last_map_gmcam_is_grad_cam_squared():
    game = STUDY.game("sample", 2, "7x7")
    for one, other in (("gmcam", "grad_cam_squared"), ("guidance_map", "grad_cam")):
        for score in SCORES:
            left, right = (STUDY.score(game, name, score) for name in (one, other))
            assert left[:3] == pytest.approx(right[:3], abs=1e-4)


def test_the_books_photographs_agree_and_four_are_never_recognised():
    assert STUDY.counts(STUDY.game("book", 2, "14x14")) == (7, 42, 17)
    assert STUDY.counts(STUDY.game("sample", 4, "14x14")) == (60, 60, 0)
    panel = STUDY.panel(STUDY.game("book", 2, "14x14"), "pointing")
    assert list(panel) == [f"{'*' * (n == 'gmcam')}{gmcam.METHODS[n].title}" for n in PLAYERS]
    assert len(panel["Guidance map"][3]) == 7
    assert STUDY.panel(STUDY.game("sample", 2, "7x7"), "inside")["Grad-CAM"][3] == ()


def test_only_recognised_mosaics_are_kept_whole():
    kept = STUDY.game("sample", 2, "14x14", recognised=True)
    assert kept["recognised"].all() and STUDY.counts(kept)[1:] == (56, 56)


def test_a_game_that_is_not_stored_is_refused():
    with pytest.raises(ValueError, match="expected a stored game, got 'sample', 3"):
        STUDY.game("sample", 3, "7x7")


def test_numbers_of_the_text_have_intervals():
    numbers = texts(STUDY)
    assert numbers["pointing_guidance_map_14"] == "93 % [86, 98]"
    assert numbers["gain_pointing_guidance_map"] == "−3 [−10, +3]"
    assert (numbers["photos"], numbers["four_whole"]) == ("60", "0")


def test_answers_of_exercises_are_those_of_the_stored_game():
    rows = STUDY.game("sample", 2, "7x7").query("method in @BLIND")
    parts = rows[rows["cell"] == 0], rows[rows["recognised"]]
    best = [part.groupby("method")["pointing"].mean().max() for part in parts]
    assert all_exercises()["imagenet_networks.2"].answers().right == pytest.approx(best, abs=1e-3)
    game = STUDY.game("sample", 2, "14x14")
    _, low, high, _ = STUDY.score(game, "gmcam", "inside", "grad_cam")
    wide = game.pivot(index=["members", "label"], columns="method", values="inside")
    gaps = (wide["gmcam"] - wide["grad_cam"]).to_numpy(float)
    ends = interval(bootstrap_means(bootstrap_weights(range(len(gaps))), gaps[:, None]))
    factor = (high - low) / (ends[1] - ends[0])[0]
    assert all_exercises()["imagenet_networks.3"].answers().right == pytest.approx(factor, abs=0.03)


@pytest.fixture(scope="module")
def network():
    return gmcam.load("efficientnet-lite0")


def test_a_stored_mosaic_is_played_again(network):
    record = next(book_mosaics(network, 2))
    found = play(network, [record], ["guidance_map", "grad_cam"], "14x14")
    stored = STUDY.game("book", 2, "14x14").set_index(["members", "label", "method"])
    for row in found.itertuples():
        again = stored.loc[(row.members, row.label, row.method)]
        assert (row.inside, row.pointing) == pytest.approx((again["inside"], again["pointing"]), abs=1e-3)


def test_differences_have_a_sign_and_zero_has_none():
    assert [grid_study.signed(points) for points in (6.6, -0.4, 0.4)] == ["+7", "0", "0"]
    assert grid_study.signed(-3) == "\N{MINUS SIGN}3"


def test_a_network_without_weights_is_named_and_not_downloaded():
    if grid_study.weights_on_disk("vgg16"):
        pytest.skip("the weights are on this machine")
    assert bring("vgg16").data == "The weights of `vgg16` are not on this machine."


def test_a_network_with_weights_plays(network, monkeypatch):
    few = list(islice(book_mosaics(network, 2), 1))
    monkeypatch.setattr(grid_study, "weights_on_disk", lambda name: ["IMAGENET1K_V1"])
    asked = []
    monkeypatch.setattr(grid_study, "load", lambda *args: asked.append(args) or network)
    monkeypatch.setattr(grid_study, "book_mosaics", lambda *_: few)
    assert bring("resnet50").axes[0].get_title(loc="left") == "resnet50, share\nIMAGENET1K_V1"
    assert asked == [("resnet50", "IMAGENET1K_V1")]  # the set on disk, which is not the default
