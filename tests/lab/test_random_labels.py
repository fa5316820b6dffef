"""Small networks on true and on random labels: what is trained, what is compared, what is stored."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gmcam.lab import random_labels
from gmcam.lab.networks import FOLDER
from gmcam.lab.random_labels import IMAGES, SmallNet, small_network, targets, training_scenes
from gmcam.lab.randomisation import METHODS
from gmcam.lab.scenes import CLASSES

BOOK = Path(__file__).parents[2] / "book"


@pytest.fixture
def few(monkeypatch):
    """Sixteen training scenes, two seeds, one scene of each kind, and two methods."""
    scenes = training_scenes()[:16]
    monkeypatch.setattr(random_labels, "IMAGES", 16)
    monkeypatch.setattr(random_labels, "training_scenes", lambda: scenes)
    monkeypatch.setattr(random_labels, "compared_scenes", lambda: {"training": scenes[:2]})
    monkeypatch.setattr(random_labels, "METHODS", ("grad_cam", random_labels.SLOW))
    monkeypatch.setattr(random_labels, "scene", lambda *_, **__: scenes[0])


def test_random_labels_are_the_true_ones_in_another_order():
    true, random = targets("true", 0), targets("random", 0)
    assert true.tolist() == [i % 8 for i in range(IMAGES)]
    assert torch.bincount(random).tolist() == torch.bincount(true).tolist()
    assert (true == random).float().mean() < 0.25
    assert not torch.equal(random, targets("random", 1))
    assert [scene.labels[0] for scene in training_scenes()[:9]] == [*CLASSES, CLASSES[0]]


@pytest.mark.parametrize("ask", [lambda: targets("false", 0), lambda: small_network("false")])
def test_other_labels_are_refused(ask):
    with pytest.raises(ValueError, match="expected labels 'true' or 'random', got 'false'"):
        ask()


def test_true_and_random_labels_start_with_the_same_weights(few):
    starts, ends = [], []
    for labels in ("true", "random", "random"):
        start, end, card = random_labels.train(labels, seed=3, epochs=2)
        starts.append(start.state_dict())
        ends.append(end.state_dict())
        assert card["labels"] == labels and 0 <= card["fitted"] <= 16 and card["epochs"] <= 2
    for name, value in starts[0].items():
        assert torch.equal(value, starts[1][name])
        assert torch.equal(ends[1][name], ends[2][name])  # the same seed, the same network
        assert not torch.equal(ends[0][name], ends[1][name])


def test_training_ends_when_every_label_is_fitted(few):
    _, module, card = random_labels.train("random", seed=0)
    inputs = torch.stack(
        [random_labels.PREPROCESSING(each.image) for each in random_labels.training_scenes()]
    )
    assert card["fitted"] == 16 and card["epochs"] < random_labels.EPOCHS
    assert torch.equal(module(inputs).argmax(1), targets("random", 0))


def test_what_is_stored_compares_every_pair(few, tmp_path):
    random_labels.store(tmp_path, tmp_path, seeds=2)
    table = pd.read_parquet(tmp_path / "random_labels.parquet")
    kinds = {"random labels", "untrained", "another seed", "two random", "another image"}
    assert set(table["comparison"]) == kinds
    assert set(table.groupby(["comparison", "seed", "method"], observed=True).size()) == {2}
    assert pd.read_csv(tmp_path / "random_labels.csv")["labels"].tolist() == ["true", "random"] * 2
    card = json.loads((tmp_path / "small-random.json").read_text())
    assert (card["seed"], card["labels"], card["images"]) == (0, "random", 16)
    with pytest.raises(ValueError, match="expected an existing folder"):
        random_labels.store(tmp_path / "missing")


def test_the_stored_networks_fit_their_labels_and_only_one_is_right_about_new_images():
    inputs = torch.stack([random_labels.PREPROCESSING(each.image) for each in training_scenes()])
    for labels in ("true", "random"):
        network, card = small_network(labels), json.loads((FOLDER / f"small-{labels}.json").read_text())
        assert card["parameters"] == sum(p.numel() for p in SmallNet().parameters()) == 23_560
        assert card["bytes"] < 60_000
        fitted = (network.module(inputs).argmax(1) == targets(labels, 0)).float().mean()
        assert fitted > 0.99  # half precision may turn one
        assert (card["test_accuracy"] > 0.5) == (labels == "true")


def test_the_stored_comparisons_have_every_method_and_kind():
    table = pd.read_parquet(BOOK / "random_labels.parquet")
    assert set(table["method"]) == set(METHODS)
    assert set(table["images"]) == {"one object", "two objects"}
    cards = pd.read_csv(BOOK / "random_labels.csv")
    assert (cards["fitted"] == cards["images"]).all() and len(cards) == 2 * cards["seed"].nunique()
    edges = table[(table["method"] == "edges") & (table["comparison"] != "another image")]["rank"]
    assert np.allclose(edges, 1)
    assert (BOOK / "random_labels.parquet").stat().st_size < 300_000
