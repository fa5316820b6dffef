"""Weights, means and intervals against draws counted by hand, identities and the normal approximation."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmcam.evaluate import bootstrap_means, bootstrap_weights, draws, holm, interval

SHA = {name: hashlib.sha256(name.encode()).digest() for name in "ab"}


def means_of(images, values, replicates=2000, clusters=None):
    return bootstrap_means(bootstrap_weights(images, clusters, replicates), values)


def test_means_leave_out_what_is_not_defined():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    means = means_of(["a", "b"], values, 50)
    assert means.shape == (51, 3)
    assert means[0, :2].tolist() == [2, 5]
    assert np.isnan(means[:, 2]).all()


def test_a_replicate_counts_each_image_as_often_as_its_name_draws():
    counts = {}
    for name in "ab":  # an image of weight 0 leaves no mean of an image alone
        weights = np.random.default_rng(int.from_bytes(SHA[name][:8], "big")).poisson(1.0, 50)
        assert {0, 1, 2} < set(weights.tolist())
        counts[name] = np.concatenate([[1], weights])
    means = means_of(["a", "b", "a"], np.array([[1.0], [10.0], [100.0]]), 50)[:, 0]
    total = 2 * counts["a"] + counts["b"]
    expected = (101 * counts["a"] + 10 * counts["b"]) / np.where(total, total, np.nan)
    assert means == pytest.approx(expected, nan_ok=True)


@given(st.permutations(range(6)))
def test_the_order_of_rows_changes_nothing(order):
    names, clusters = [f"image {i}" for i in range(6)], ["ab", "bc", "a", "ca", "d", "cd"]
    values = np.arange(12.0).reshape(6, 2) ** 2
    expected = means_of(names, values, 20, clusters)
    shuffled = [names[i] for i in order], values[list(order)], 20, [clusters[i] for i in order]
    assert np.allclose(means_of(*shuffled), expected, equal_nan=True, rtol=1e-12)


def test_many_rows_are_weighted_in_parts():
    names = [str(i % 40) for i in range(2500)]
    values = np.random.default_rng(0).normal(size=(2500, 1))
    weights = bootstrap_weights(names, None, 30)
    assert bootstrap_means(weights, values) == pytest.approx(weights @ values / weights.sum(1, keepdims=True))


def test_clusters_are_drawn_as_often_as_there_are_clusters():
    drawn = draws(["b", "a", "c", "a"], 500)
    assert list(drawn) == ["a", "b", "c"]
    counts = np.stack(list(drawn.values()))
    assert counts[:, 0].tolist() == [1, 1, 1]
    assert set(counts[:, 1:].sum(0)) == {3} and set(counts.flat) == {0, 1, 2, 3}


def test_a_scene_weighs_the_product_of_its_members():
    drawn, images = draws("abc", 100), ["one", "two", "three"]
    clusters = [("a", "b"), ("c",), ("b", "b")]  # a label that occurs twice is one cluster
    crossed = bootstrap_weights(None, clusters, 100)
    expected = np.stack([drawn["a"] * drawn["b"], drawn["c"], drawn["b"]], 1)
    assert np.array_equal(crossed, expected)
    both = bootstrap_weights(images, clusters, 100)
    assert np.array_equal(both, expected * bootstrap_weights(images, None, 100))


def test_a_map_that_ignores_the_class_scores_chance_in_every_replicate():
    members = [(a, b) for a in "abcdef" for b in "abcdef" if a < b]
    share = np.random.default_rng(0).random(len(members))
    values = np.concatenate([share, 1 - share])[:, None]
    means = bootstrap_means(bootstrap_weights(None, members * 2, 300), values)
    assert means == pytest.approx(0.5, abs=1e-12)


def test_the_interval_is_that_of_a_mean():
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (400, 1))
    low, high = interval(means_of([str(i) for i in range(400)], values))
    error = values.std(ddof=1) / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_the_interval_over_clusters_is_that_of_the_mean_of_clusters():
    """Forty classes of 25 images that all but agree: the thousand images tell no more than forty would."""
    generator = np.random.default_rng(0)
    of_class = generator.normal(3.0, 2.0, 40)
    values = (of_class[:, None] + generator.normal(0, 0.1, (40, 25))).reshape(-1, 1)
    names, clusters = [str(i) for i in range(1000)], [(str(i // 25),) for i in range(1000)]
    low, high = interval(means_of(names, values, clusters=clusters))
    error = of_class.std(ddof=1) / np.sqrt(40)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * error, rel=0.15)
    alone = interval(means_of(names, values))
    assert alone[1][0] - alone[0][0] < 0.3 * (high[0] - low[0])


@pytest.mark.filterwarnings("error")
def test_an_interval_of_a_handful_of_images_is_unknown():
    ends = [
        interval(means_of([str(i) for i in range(n)], np.arange(n)[:, None].astype(float))) for n in (1, 8)
    ]
    assert np.isnan(ends[0]).all()
    assert ends[1][0] < 3.5 < ends[1][1]
    assert np.isnan(interval(np.full((5, 2), np.nan))).all()


def test_holm_by_hand():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    assert holm(p) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


def test_holm_keeps_false_marks_in_one_of_twenty_tables():
    p = np.random.default_rng(0).random((2000, 30))  # thirty true null hypotheses
    assert (p < 0.05).any(1).mean() > 0.7
    assert np.mean([(holm(row) < 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.02)
