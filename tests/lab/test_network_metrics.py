"""Metrics that run the network again: known values, the formulas written out again, and refusals."""

import numpy as np
import pytest
import torch
from scipy.stats import hmean, pearsonr

from gmcam.lab.network_metrics import (
    adcc,
    coherency,
    complexity,
    infidelity,
    max_sensitivity,
    sparseness,
    squares,
)

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.rand(3, 12, 10, generator=GENERATOR)
INPUTS = torch.randn(3, 3, 12, 10, generator=GENERATOR)


def gini(values):
    """By its definition: the mean absolute difference over twice the mean."""
    return np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())


def test_sparseness_is_the_gini_index_of_the_values():
    expected = [gini(each.flatten().double().numpy()) for each in MAPS]
    assert sparseness(MAPS).tolist() == pytest.approx(expected, rel=1e-5)
    one = torch.zeros(1, 4, 5)
    assert sparseness(one).isnan().all() and sparseness(one + 1).item() == 0
    one[0, 2, 2] = 3
    assert sparseness(one).item() == pytest.approx(1 - 1 / 20)


def test_coherency_is_the_correlation_moved_to_zero_and_one():
    again = torch.rand(MAPS.shape, generator=GENERATOR)
    r = [pearsonr(a.flatten(), b.flatten()).statistic for a, b in zip(MAPS, again, strict=True)]
    assert coherency(MAPS, again).tolist() == pytest.approx([(each + 1) / 2 for each in r], abs=1e-6)
    assert coherency(MAPS, 3 * MAPS).tolist() == pytest.approx([1, 1, 1])
    assert coherency(MAPS, torch.ones_like(MAPS)).isnan().all()


def test_adcc_is_the_harmonic_mean_of_its_parts():
    drops, coherent, share = torch.rand(3, 5, generator=GENERATOR).double()
    parts = torch.stack([1 - drops, coherent, 1 - share]).numpy()
    assert adcc(drops, coherent, share).tolist() == pytest.approx(list(hmean(parts)))
    one, zero = torch.ones(1), torch.zeros(1)
    assert adcc(one, one, zero).item() == adcc(zero, zero, zero).item() == adcc(zero, one, one).item() == 0
    assert adcc(zero, one, zero).item() == 1 and adcc(zero, one * torch.nan, zero).isnan()
    assert complexity(MAPS).tolist() == pytest.approx([each.mean().item() for each in MAPS])


def test_infidelity_is_zero_for_the_map_of_a_linear_score_and_one_for_an_empty_map():
    ones = torch.ones(1, 3, 12, 10)

    def score(images):
        return (images.mean(1) * MAPS[0]).sum((1, 2))

    fit = {"side": 4, "count": 20}
    assert infidelity(score, ones, MAPS[:1], **fit).item() == pytest.approx(0, abs=1e-5)
    assert infidelity(score, ones, 7 * MAPS[:1], **fit).item() == pytest.approx(0, abs=1e-5)
    assert infidelity(score, ones, 0 * MAPS[:1], **fit).item() == pytest.approx(1)
    assert 0.01 < infidelity(score, ones, MAPS[1:2], **fit).item() < 1


def test_infidelity_is_what_least_squares_leaves():
    weights = torch.randn(3, 12, 10, generator=GENERATOR)

    def score(images):
        return (images * weights).sum((1, 2, 3)).tanh()

    measured = infidelity(score, INPUTS[:1], MAPS[:1], side=5, count=25, seed=4)
    inside = squares(25, (12, 10), 5, torch.Generator().manual_seed(4))
    falls = score(INPUTS[:1]) - score(INPUTS[:1] * (1 - inside[:, None]))
    sums = (inside * MAPS[0]).sum((1, 2))
    left = falls - sums * (falls @ sums) / (sums @ sums)
    assert measured.item() == pytest.approx((left @ left / (falls @ falls)).item(), rel=1e-4)


def test_squares_lie_inside_and_have_their_size():
    masks = squares(50, (12, 10), 4, torch.Generator().manual_seed(0))
    assert masks.shape == (50, 12, 10) and masks.sum((1, 2)).tolist() == [16] * 50
    assert squares(2000, (12, 10), 4, torch.Generator()).amax(0).all()


def test_max_sensitivity_is_the_largest_relative_change():
    seen = []

    def maps_of(images):
        seen.append(images)
        return images.mean(1).abs()

    measured = max_sensitivity(maps_of, INPUTS, radius=0.2, count=4)
    plain, noisy = seen
    assert (noisy - plain.repeat_interleave(4, 0)).abs().max() <= 0.2
    before = plain.mean(1).abs()
    change = (noisy.mean(1).abs() - before.repeat_interleave(4, 0)).flatten(1).norm(dim=1).view(3, 4)
    assert measured.tolist() == pytest.approx(
        (change / before.flatten(1).norm(dim=1)[:, None]).amax(1).tolist()
    )
    assert max_sensitivity(lambda images: torch.ones(len(images), 12, 10), INPUTS).tolist() == [0, 0, 0]
    assert max_sensitivity(lambda images: torch.zeros(len(images), 12, 10), INPUTS).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: complexity(MAPS[0]), r"expected maps \(N, H, W\), got \(12, 10\)"),
        (lambda: coherency(MAPS, MAPS[:1]), "expected two sets of maps of one shape"),
        (lambda: adcc(torch.ones(2), torch.ones(3), torch.ones(3)), "expected three tensors"),
        (
            lambda: infidelity(lambda x: x.sum((1, 2, 3)), INPUTS, MAPS[:2]),
            r"expected inputs \(N, 3, H, W\) and maps",
        ),
        (
            lambda: infidelity(lambda x: x.sum((1, 2, 3)), INPUTS, MAPS, side=11),
            "expected a side of 1 to 10 pixels, got 11",
        ),
        (lambda: max_sensitivity(lambda x: x[:, 0], INPUTS, radius=-1), "expected a radius of 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
