"""Smoothing against scipy, the scales by hand, up-sampling against half-pixel arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from gmcam.postprocess import NORMALISATIONS, min_max, postprocess, smooth, upsample


def random_maps(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# scipy cuts at int(4σ + 0.5) cells, so σ with 4σ half-way between integers (0.625) may differ by one.
@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 5, 12), (2, 1, 4), (1, 1, 1)])
@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5, 0.8, 1, 1.3, 2, 7])
def test_smooth_is_scipys_gaussian_filter(sigma, shape):
    maps = random_maps(*shape)
    for smoothed, original in zip(smooth(maps, sigma), maps, strict=True):
        reference = ndimage.gaussian_filter(original.numpy(), sigma, mode="nearest", truncate=4)
        np.testing.assert_allclose(smoothed.numpy(), reference, atol=1e-12)


def test_smooth_by_default_has_sigma_half_a_cell():
    maps = random_maps(2, 5, 5)
    assert torch.equal(smooth(maps), smooth(maps, 0.5))


def test_smooth_spreads_a_single_peak_without_losing_any_of_it():
    maps = torch.zeros(1, 15, 15)
    maps[0, 7, 7] = 3
    smoothed = smooth(maps, 1.5)
    assert smoothed.sum().item() == pytest.approx(3, rel=1e-6)
    assert smoothed.argmax() == maps.argmax()
    assert smoothed.max() < 0.3


def test_smooth_can_be_differentiated_after_it_ran_in_inference_mode():
    with torch.inference_mode():
        smooth(torch.ones(1, 3, 3, dtype=torch.float64), sigma=0.61)
    maps = torch.ones(1, 3, 3, dtype=torch.float64, requires_grad=True)
    smooth(maps, sigma=0.61).sum().backward()
    assert torch.allclose(maps.grad.sum(), torch.tensor(9.0, dtype=torch.float64))


def test_smooth_with_sigma_zero_changes_nothing():
    maps = random_maps(2, 4, 5)
    assert torch.equal(smooth(maps, 0), maps)


@pytest.mark.parametrize("sigma", [1e-3, 1e-60])
def test_smooth_with_a_tiny_sigma_changes_nothing(sigma):
    maps = random_maps(2, 4, 5).float()
    assert torch.equal(smooth(maps, sigma), maps)


@pytest.mark.parametrize("sigma", [-0.1, float("inf"), float("nan"), 1e9, None, "1"])
def test_smooth_refuses_a_sigma_that_is_no_width(sigma):
    with pytest.raises(ValueError, match=f"from 0 to 100 cells, got {sigma!r}"):
        smooth(random_maps(1, 3, 3), sigma)


def test_min_max_by_hand():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[-8.0, 0.0], [-4.0, -2.0]]])
    normalised, empty = min_max(maps)
    assert normalised.tolist() == [[[0, 0.25], [0.5, 1]], [[0, 1], [0.5, 0.75]]]
    assert empty.tolist() == [False, False]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -1e30, 1e-40, 3e38])
def test_a_flat_map_becomes_zeros_and_is_called_empty(value):
    normalised, empty = min_max(torch.full((1, 3, 4), value))
    assert normalised.tolist() == torch.zeros(1, 3, 4).tolist()
    assert empty.tolist() == [True]


def test_a_flat_map_does_not_touch_its_neighbours():
    maps = torch.stack([torch.ones(2, 2), torch.tensor([[0.0, 1.0], [2.0, 4.0]]), torch.zeros(2, 2)])
    normalised, empty = min_max(maps)
    assert empty.tolist() == [True, False, True]
    assert normalised.tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_a_map_that_varies_is_not_empty_whatever_its_size(scale):
    normalised, empty = min_max(torch.tensor([[[0.0, 1.0], [0.5, 0.25]]]) * scale)
    assert empty.tolist() == [False]
    assert normalised.flatten().tolist() == pytest.approx([0, 1, 0.5, 0.25])


def test_rounding_is_not_a_pattern():
    flat = torch.full((1, 2, 2), 0.1)
    flat[0, 0, 0] = torch.nextafter(flat[0, 0, 0], torch.tensor(1.0))
    normalised, empty = min_max(flat)
    assert empty.tolist() == [True]
    assert normalised.abs().max() == 0


def test_up_to_eight_rounding_steps_are_flat_and_nine_are_not():
    step = torch.finfo(torch.float32).eps
    _, empty = min_max(torch.tensor([[[1, 1 + 8 * step]], [[1, 1 + 9 * step]]]))
    assert empty.tolist() == [True, False]


@pytest.mark.parametrize("normalise", ["rectified", "minmax"])
@given(
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0.01, 4),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_flat_map_stays_empty_through_smoothing(normalise, value, height, width, sigma, dtype):
    raw = torch.full((1, height, width), value, dtype=dtype)
    maps, empty = postprocess(raw, (7, 5), sigma, normalise)
    assert empty.tolist() == [True]
    assert maps.tolist() == torch.zeros(1, 7, 5).tolist()


def half_pixel_bilinear(cells, size):
    """Output pixel i interpolates at cell (i + ½) · h / H − ½, clipped to the border."""
    weights = []
    for wide, narrow in zip(size, cells.shape, strict=True):
        position = ((np.arange(wide) + 0.5) * narrow / wide - 0.5).clip(0, narrow - 1)
        weights.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(narrow))))
    return weights[0] @ cells @ weights[1].T


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (7, 9), (4, 4), (5, 31), (2, 3), (1, 1)])
def test_upsample_is_half_pixel_bilinear(size):
    maps = random_maps(2, 4, 4)
    for image, cells in zip(upsample(maps, size), maps, strict=True):
        np.testing.assert_allclose(image.numpy(), half_pixel_bilinear(cells.numpy(), size), atol=1e-12)


def test_upsample_keeps_cell_centres_where_they_are():
    maps = random_maps(1, 4, 3)
    assert torch.allclose(upsample(maps, (20, 15))[:, 2::5, 2::5], maps)  # 5 pixels a cell, middle at 2


def test_upsample_keeps_the_peak_at_its_cell():
    maps = torch.zeros(1, 3, 3)
    maps[0, 1, 2] = 1
    row, column = divmod(upsample(maps, (30, 30)).argmax().item(), 30)
    assert (row // 10, column // 10) == (1, 2)


def test_a_single_cell_fills_the_image():
    assert upsample(torch.full((1, 1, 1), 0.5), (2, 3)).tolist() == [[[0.5] * 3] * 2]


every_scale = pytest.mark.parametrize("normalise", NORMALISATIONS)


@every_scale
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_postprocess_gives_float32_from_zero_to_one(dtype, normalise):
    maps, empty = postprocess(random_maps(4, 6, 5).to(dtype) * 1000, (33, 20), normalise=normalise)
    assert maps.shape == (4, 33, 20)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert not empty.any()


@pytest.mark.parametrize(
    ("normalise", "start"), [("rectified", lambda raw: raw.relu()), ("minmax", lambda raw: raw)]
)
def test_postprocess_is_the_steps_in_order(normalise, start):
    raw = random_maps(2, 5, 5)
    normalised, _ = min_max(smooth(start(raw), 1.0))
    maps, _ = postprocess(raw, (10, 10), 1.0, normalise)
    assert torch.allclose(maps.double(), upsample(normalised, (10, 10)), atol=1e-6)
    assert maps.amax((1, 2)).min() > 0.9  # normalised before up-sampling, so the range is nearly full


@every_scale
def test_postprocess_never_exceeds_one(normalise):
    plateau = torch.ones(1, 7, 7)
    plateau[0, 0, 0] = 0
    for side in range(1, 40):  # at some of them an interpolation does, by rounding
        assert postprocess(plateau, (side, side), 0, normalise)[0].max() <= 1


@every_scale
@pytest.mark.parametrize("values", [[0, math.nan], [0, math.inf], [-math.inf, 0]], ids=["NaN", "∞", "−∞"])
def test_values_that_are_not_finite_are_refused(values, normalise):
    with pytest.raises(ValueError, match="expected finite saliency maps"):
        postprocess(torch.tensor([[values]]), (2, 2), 0, normalise)


def test_a_range_that_is_not_finite_is_refused_where_it_is_needed():
    raw = torch.tensor([[[-3e38, 3e38]]])
    with pytest.raises(ValueError, match=r"values that overflow"):
        postprocess(raw, (1, 2), 0, "minmax")
    for normalise in ("rectified", "max", "batch"):
        assert postprocess(raw, (1, 2), 0, normalise)[0].tolist() == [[[0, 1]]]


@every_scale
def test_postprocess_of_no_maps_is_no_maps(normalise):
    maps, empty = postprocess(torch.zeros(0, 4, 4), (8, 8), normalise=normalise)
    assert (maps.shape, empty.shape) == ((0, 8, 8), (0,))


# Two signed maps: evidence for, against and none.
SIGNED = torch.tensor([[[-4.0, 0.0, 2.0, 1.0]], [[8.0, -1.0, 0.0, 2.0]]])
BY_HAND = {
    "rectified": [[[0, 0, 1, 0.5]], [[1, 0, 0, 0.25]]],  # each rectified map starts at zero
    "max": [[[0, 0, 1, 0.5]], [[1, 0, 0, 0.25]]],
    "batch": [[[0, 0, 0.25, 0.125]], [[1, 0, 0, 0.25]]],  # all divided by 8
    "minmax": [[[0, 4 / 6, 1, 5 / 6]], [[1, 0, 1 / 9, 3 / 9]]],
}
POSITIVE = torch.tensor([[[1.0, 2.0, 3.0, 5.0]], [[10.0, 10.0, 10.0, 10.0]]])
POSITIVE_BY_HAND = {
    "rectified": ([[[0, 0.25, 0.5, 1]], [[0, 0, 0, 0]]], [False, True]),
    "max": ([[[0.2, 0.4, 0.6, 1]], [[1, 1, 1, 1]]], [False, False]),
    "batch": ([[[0.1, 0.2, 0.3, 0.5]], [[1, 1, 1, 1]]], [False, False]),
    "minmax": ([[[0, 0.25, 0.5, 1]], [[0, 0, 0, 0]]], [False, True]),
}


@every_scale
def test_signed_maps_by_hand(normalise):
    maps, empty = postprocess(SIGNED, (1, 4), 0, normalise)
    assert maps.flatten().tolist() == pytest.approx(torch.tensor(BY_HAND[normalise]).flatten().tolist())
    assert empty.tolist() == [False, False]


@every_scale
def test_positive_maps_by_hand(normalise):
    expected, flat = POSITIVE_BY_HAND[normalise]
    maps, empty = postprocess(POSITIVE, (1, 4), 0, normalise)
    assert maps.flatten().tolist() == pytest.approx(torch.tensor(expected).flatten().tolist())
    assert empty.tolist() == flat


@pytest.mark.parametrize("normalise", ["rectified", "max", "batch"])
def test_no_evidence_and_evidence_against_are_zero(normalise):
    raw = random_maps(3, 6, 6)
    raw[:, 0] = 0
    maps, _ = postprocess(raw, (6, 6), 0, normalise)
    assert (maps == 0).equal(raw <= 0)


def test_under_min_max_no_evidence_is_bright():
    maps, _ = postprocess(SIGNED, (1, 4), 0, "minmax")
    assert maps[0, 0, 1] == pytest.approx(2 / 3)


def test_maps_are_rectified_before_they_are_smoothed():
    raw = torch.full((1, 5, 5), -100.0)
    raw[0, 2, 2] = 1
    alone = raw.relu()
    for normalise in ("rectified", "max", "batch"):
        maps, empty = postprocess(raw, (5, 5), 0.5, normalise)
        assert not empty.any()
        assert torch.allclose(maps, smooth(alone) / smooth(alone).max(), atol=1e-6)


EMPTY = {  # whether zeros, evidence against alone and a flat positive map are empty
    "rectified": [True, True, True],
    "max": [True, True, False],
    "batch": [True, True, False],
    "minmax": [True, False, True],
}


@every_scale
def test_empty_maps(normalise):
    raw = torch.stack([torch.zeros(2, 2), torch.tensor([[-1.0, -2.0], [-3.0, -5.0]]), torch.ones(2, 2)])
    maps, empty = postprocess(raw, (3, 3), 0, normalise)
    assert empty.tolist() == EMPTY[normalise]
    assert not maps[empty].any()
    assert maps[~empty].amax((1, 2)).tolist() == [1] * int((~empty).sum())


@pytest.mark.parametrize("normalise", ["max", "batch"])
def test_the_strength_of_maps_relative_to_each_other(normalise):
    raw = random_maps(3, 4, 4).abs() * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1)
    maps, _ = postprocess(raw, (4, 4), 0, normalise)
    ratio = maps.amax((1, 2)) / maps.max()
    expected = torch.ones(3) if normalise == "max" else raw.amax((1, 2)) / raw.max()
    assert torch.allclose(ratio.double(), expected.double(), rtol=1e-6)
    scaled, _ = postprocess(raw * 1000, (4, 4), 0, normalise)
    assert torch.allclose(scaled, maps, rtol=1e-6)


@pytest.mark.parametrize("normalise", ["sum", "", None, "MAX", 1, True], ids=repr)
def test_an_unknown_scale_is_refused(normalise):
    with pytest.raises(ValueError, match="rectified, max, batch, minmax, got"):
        postprocess(SIGNED, (1, 4), 0, normalise)


def test_maps_without_cells_are_empty():
    maps, empty = postprocess(torch.zeros(2, 0, 4), (3, 5))
    assert maps.tolist() == torch.zeros(2, 3, 5).tolist()
    assert (empty.tolist(), empty.dtype) == ([True, True], torch.bool)
    assert min_max(torch.zeros(2, 0, 4, device="meta"))[1].device.type == "meta"


@pytest.mark.parametrize("step", [smooth, min_max, lambda maps: upsample(maps, (4, 4))])
@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 3, 3)], ids=str)
def test_other_shapes_are_refused(step, shape):
    with pytest.raises(ValueError, match=r"expected saliency maps \(N, h, w\), got"):
        step(torch.zeros(shape))
