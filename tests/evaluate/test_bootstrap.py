"""Means and intervals against weights counted by hand, any order of rows, and the normal approximation."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmcam.evaluate import bootstrap_means, interval

SHA = {name: hashlib.sha256(name.encode()).digest() for name in "ab"}


def test_means_leave_out_what_is_not_defined():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    means = bootstrap_means(["a", "b"], values, 50)
    assert means.shape == (51, 3)
    assert means[0, :2].tolist() == [2, 5]
    assert np.isnan(means[:, 2]).all()


def test_a_replicate_counts_each_image_as_often_as_its_name_draws():
    counts = {}
    for name in "ab":  # an image of weight 0 leaves no mean of an image alone
        weights = np.random.default_rng(int.from_bytes(SHA[name][:8], "big")).poisson(1.0, 50)
        assert {0, 1, 2} < set(weights.tolist())
        counts[name] = np.concatenate([[1], weights])
    means = bootstrap_means(["a", "b", "a"], np.array([[1.0], [10.0], [100.0]]), 50)[:, 0]
    total = 2 * counts["a"] + counts["b"]
    expected = (101 * counts["a"] + 10 * counts["b"]) / np.where(total, total, np.nan)
    assert means == pytest.approx(expected, nan_ok=True)


@given(st.permutations(range(6)))
def test_the_order_of_rows_changes_nothing(order):
    names = [f"image {i}" for i in range(6)]
    values = np.arange(12.0).reshape(6, 2) ** 2
    expected = bootstrap_means(names, values, 20)
    assert np.array_equal(
        bootstrap_means([names[i] for i in order], values[list(order)], 20), expected, equal_nan=True
    )


def test_many_rows_are_weighted_in_parts():
    names = [str(i % 40) for i in range(2500)]
    values = np.random.default_rng(0).normal(size=(2500, 1))
    sums = np.zeros((40, 1))
    np.add.at(sums, [int(name) for name in names], values)
    sizes = np.bincount([int(name) for name in names])[:, None]
    by_image = bootstrap_means([str(i) for i in range(40)], sums, 30) / bootstrap_means(
        [str(i) for i in range(40)], sizes.astype(float), 30
    )
    assert bootstrap_means(names, values, 30) == pytest.approx(by_image)


def test_the_interval_is_that_of_a_mean():
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (400, 1))
    low, high = interval(bootstrap_means([str(i) for i in range(400)], values, 2000))
    error = values.std(ddof=1) / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.filterwarnings("error")
def test_an_interval_of_a_handful_of_images_is_unknown():
    ends = [
        interval(bootstrap_means([str(i) for i in range(n)], np.arange(n)[:, None].astype(float)))
        for n in (1, 8)
    ]
    assert np.isnan(ends[0]).all()
    assert ends[1][0] < 3.5 < ends[1][1]
    assert np.isnan(interval(np.full((5, 2), np.nan))).all()
