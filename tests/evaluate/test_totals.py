import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmcam.evaluate import Totals
from gmcam.evaluate.totals import interval


def filled(names, values, replicates=50):
    totals = Totals.empty(values.shape[1], replicates)
    totals.update(names, values)
    return totals


def test_means_leave_out_what_is_not_defined():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    means = filled(["a", "b"], values).means()[0]
    assert means[:2].tolist() == [2, 5]
    assert np.isnan(means[2])


def test_a_replicate_counts_each_picture_as_often_as_its_name_says():
    totals = filled(["a", "b", "a"], np.array([[1.0], [10.0], [100.0]]))
    alone = {name: filled([name], np.array([[1.0]])).counts[:, 0] for name in "ab"}
    assert alone["a"][0] == 1 and set(alone["a"].tolist()) > {0, 1, 2}  # Poisson of mean 1
    assert totals.sums[:, 0].tolist() == (101 * alone["a"] + 10 * alone["b"]).tolist()


@given(st.permutations(range(6)), st.integers(0, 6))
def test_order_and_partition_change_nothing(order, cut):
    names = [f"picture {i}" for i in range(6)]
    values = np.arange(12.0).reshape(6, 2) ** 2
    whole = filled(names, values, 20)
    parts = [filled([names[i] for i in part], values[list(part)], 20) for part in (order[:cut], order[cut:])]
    parts[0].merge(parts[1])
    assert np.array_equal(parts[0].sums, whole.sums) and np.array_equal(parts[0].counts, whole.counts)


def test_the_interval_is_that_of_a_mean():
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (400, 1))
    means = filled([str(i) for i in range(400)], values, 2000).means()
    low, high = interval(means)
    error = values.std(ddof=1) / np.sqrt(400)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_an_interval_of_a_handful_of_pictures_is_unknown():
    ends = [
        interval(filled([str(i) for i in range(n)], np.arange(n)[:, None].astype(float), 1000).means())
        for n in (1, 8)
    ]
    assert np.isnan(ends[0]).all()
    assert ends[1][0] < 3.5 < ends[1][1]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"values \(2, 3\) do not fit 1 pictures and 3 metrics"):
        Totals.empty(3).update(["a"], np.zeros((2, 3)))
