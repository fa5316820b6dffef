"""Shares and hits by hand on mosaics of a few cells."""

from itertools import permutations

import numpy as np
import pytest
import torch

import gmcam
from gmcam import Preprocessing
from gmcam.datasets import Record, Truth
from gmcam.evaluate import bootstrap_means, bootstrap_weights
from gmcam.lab import grid_pointing, mosaic, photo, play

WHOLE = Preprocessing(resize=16, crop=16, squash=True)


def mosaic_of(n, labels="abcd"):
    return mosaic([np.zeros((4, 4, 3), np.uint8)] * n, labels[:n], size=32)


def test_by_hand_on_two_cells():
    # The cells are rows 4 to 11, columns 0 to 7 and 8 to 15.
    map_ = torch.zeros(16, 16)
    map_[4, 0], map_[5, 3], map_[11, 15] = 1, 2, 1
    map_[4, 7], map_[0, 0] = -5, 9  # negative; outside all cells
    share, points = grid_pointing(torch.stack([map_, map_]), mosaic_of(2), WHOLE)
    assert share.tolist() == [0.75, 0.25]
    assert points.tolist() == [1, 0]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_uniform_map_scores_chance(n):
    share, _ = grid_pointing(torch.ones(n, 16, 16), mosaic_of(n), WHOLE)
    assert share.tolist() == pytest.approx([1 / n] * n)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_shares_of_one_map_add_up_to_one(n):
    share, points = grid_pointing(torch.rand(1, 16, 16).repeat(n, 1, 1), mosaic_of(n), WHOLE)
    assert share.sum().item() == pytest.approx(1)
    assert points.sum().item() == 1


def test_an_empty_map_scores_nothing():
    share, points = grid_pointing(torch.zeros(2, 16, 16), mosaic_of(2), WHOLE)
    assert share.tolist() == points.tolist() == [0, 0]


def test_a_class_in_two_cells_has_both():
    map_ = torch.zeros(16, 16)
    map_[0, 0], map_[15, 15], map_[15, 0] = 3, 4, 1
    record = mosaic_of(4, "abca")  # a upper left and lower right, b upper right, c lower left
    share, points = grid_pointing(map_.repeat(3, 1, 1), record, WHOLE)
    assert share.tolist() == [7 / 8, 0, 1 / 8]
    assert points.tolist() == [1, 0, 0]


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match=r"expected maps \(2, 16, 16\), got \(1, 16, 16\)"):
        grid_pointing(torch.zeros(1, 16, 16), mosaic_of(2), WHOLE)


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 16, 15\)"):
        grid_pointing(torch.zeros(2, 16, 15), mosaic_of(2), WHOLE)


def test_a_record_without_cells_is_refused():
    record = mosaic_of(2)
    with pytest.raises(ValueError, match="expected a mask and a box for cat"):
        grid_pointing(torch.zeros(1, 16, 16), Record("x", record.image, (Truth("cat"),)), WHOLE)


@pytest.fixture(scope="module")
def game():
    """Three photographs in pairs, in both orders, on a network of eight classes."""
    photos = {"cat": photo("chelsea"), "cup": photo("coffee"), "rocket": photo("rocket")}
    pairs = [mosaic([photos[a], photos[b]], [a, b], size=64, fill=True) for a, b in permutations(photos, 2)]
    network = gmcam.load("collage-resnet")
    return network, pairs, play(network, pairs, ["grad_cam", "centred_blob"])


def test_a_game_has_a_row_for_each_mosaic_target_and_method(game):
    network, pairs, rows = game
    assert len(rows) == 6 * 2 * 2
    row = rows.query("method == 'grad_cam'").iloc[1]
    assert (row["members"], row["label"], row["cell"]) == (("cat", "cup"), "cup", 1)
    maps = gmcam.explain(network, pairs[0].image, ["cat", "cup"], method="grad_cam").maps
    share, points = grid_pointing(maps, pairs[0], network.preprocess)
    assert (row["inside"], row["pointing"]) == (share[1].item(), points[1].item())
    chances = network.probabilities(pairs[0].image)[0]
    cup = chances[network.class_index("cup")]
    assert row["recognised"] == (cup >= 0.2 or (chances > cup).sum() < 5)


def test_a_map_that_ignores_the_class_scores_chance_in_every_replicate(game):
    rows = game[2].query("method == 'centred_blob'")
    weights = bootstrap_weights(clusters=list(rows["members"]), replicates=50)
    means = bootstrap_means(weights, rows[["inside", "pointing"]].to_numpy(float))
    assert means[~np.isnan(means)] == pytest.approx(0.5, abs=1e-6)
