"""Agreement of maps, entropy, and the convergence of relevance, on networks small enough to know."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from scipy.stats import spearmanr
from torch import nn

from gmcam import Network, explain
from gmcam.lab import randomisation
from gmcam.lab.randomisation import METHODS, agreement, convergence, entropy, kept, measured, rank
from gmcam.lab.scenes import CLASSES, dual_class_scenes
from gmcam.preprocessing import Preprocessing

BOOK = Path(__file__).parents[2] / "book"


def small(channels=6):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Conv2d(4, channels, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels * 16, len(CLASSES)),
    )  # fmt: skip
    return Network(module.eval(), name="tiny", classes=CLASSES, input_shape=(3, 48, 48))


def test_rank_is_spearmans_and_undefined_for_a_flat_map():
    first, second = np.random.default_rng(0).integers(0, 5, (2, 9, 9)).astype(float)  # with ties
    assert rank(first, second) == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert np.isnan(rank(first, np.ones((9, 9))))


def test_entropy_is_that_of_the_histogram():
    values = np.random.default_rng(0).normal(size=(20, 20))
    counts = np.histogram(values, 100)[0]
    assert entropy(values) == pytest.approx(scipy_entropy(counts))
    assert entropy(np.zeros((4, 4))) == 0
    assert entropy(np.arange(100.0)) == pytest.approx(np.log(100))


def test_signs_matter_to_one_number_and_not_to_the_other():
    network, images = small(), torch.randn(2, 3, 48, 48)
    maps = explain(network, images, [0, 1], method="captum.input_x_gradient")
    with_itself = agreement((maps, 0), (maps, 0))
    assert [with_itself[key] for key in ("rank", "signed", "absolute")] == pytest.approx([1, 1, 1])
    mirrored = explain(network, images, [0, 1], method="captum.input_x_gradient")
    mirrored.raw.neg_()
    row = agreement((maps, 0), (mirrored, 0))
    assert row["signed"] == pytest.approx(-1) and row["absolute"] == pytest.approx(1)
    assert row["entropy"] == entropy(maps.raw[0].double().numpy())


def test_a_row_of_dots_weighs_scenes_once_and_leaves_empty_maps_out():
    rows = pd.DataFrame({
        "scene": [0, 0, 1, 1, 2, 2], "seed": [0, 1] * 3, "rank": [0.1, 0.3, np.nan, 0.6, np.nan, np.nan],
        "label": list("aabbcc"), "other": list("bbccaa"),
    })  # fmt: skip
    value, _, _, seeds = kept(rows)
    assert value == pytest.approx((0.2 + 0.6) / 2)
    assert seeds == pytest.approx([0.1, 0.45])
    empty = kept(rows[rows["scene"] == 2])
    assert np.isnan(empty[0]) and empty[3] == []


def test_relevance_that_starts_at_one_logit_is_recovered_from_the_contrasts():
    """The oracle propagates by hand: the z+ rule of a linear layer on positive activations."""
    torch.manual_seed(1)
    features, linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(4 * 36, 5)
    module = nn.Sequential(features, nn.Flatten(), linear).eval()
    network = Network(module, classes=list("abcde"), input_shape=(3, 8, 8))
    inputs = torch.randn(1, 3, 8, 8)
    found = {row["kind"]: row["cosine"] for row in convergence(network, inputs, ["0"])}
    parts = linear.weight.detach().clamp(min=0) * features(inputs).flatten(1).detach()
    shares = nn.functional.normalize(parts / parts.sum(1, keepdim=True), dim=1).double()
    cosines = (shares @ shares.T)[~torch.eye(5, dtype=torch.bool)]
    assert found["z+"] == pytest.approx(cosines.mean().item(), abs=1e-3)
    assert found["contrast"] < found["z+"]


def test_measured_has_a_floor_and_each_stage_and_edges_never_change(monkeypatch):
    monkeypatch.setattr(randomisation, "COPIES", 1)
    monkeypatch.setattr(randomisation, "METHODS", ("grad_cam", randomisation.SLOW, "edges"))
    monkeypatch.setattr(randomisation, "SMOOTHED", ("grad_cam",))
    network = small()
    network.preprocess = Preprocessing(resize=48, crop=48)
    table = pd.DataFrame(measured(network, dual_class_scenes(2, size=48), [0, 1]))
    assert list(dict.fromkeys(table["layer"])) == ["", "6", "2", "0"]
    edges = table[(table["method"] == "edges") & (table["layer"] != "")]
    assert edges["rank"].to_numpy() == pytest.approx(np.ones(len(edges)))
    slow = table[table["method"] == randomisation.SLOW]
    assert set(slow["layer"]) == {"", "0"}
    assert set(table[table["smooth"].notna()]["method"]) == {"grad_cam"}


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected an existing folder, got .*missing"):
        randomisation.store(tmp_path / "missing")


def test_the_stored_maps_have_every_method_seed_and_stage():
    table = pd.read_parquet(BOOK / "random_weights.parquet")
    for _, rows in table.groupby("network", observed=True):
        assert set(rows["method"]) == set(METHODS)
        seeds = rows[rows["seed"] >= 0].groupby(["seed", "layer", "method"], observed=True).size()
        assert set(seeds) == {8}
    edges = table[(table["method"] == "edges") & (table["seed"] >= 0)]["rank"]
    assert edges.min() == pytest.approx(1)
    assert (BOOK / "random_weights.parquet").stat().st_size < 200_000


def test_the_stored_cosines_are_cosines():
    cosines = pd.read_csv(BOOK / "relevance_convergence.csv")
    assert cosines["cosine"].abs().max() <= 1
    assert set(cosines["kind"]) == {"z+", "contrast", "product"}
