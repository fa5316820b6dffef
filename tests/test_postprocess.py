"""Smoothing against scipy, normalisation by hand, up-sampling against half-pixel arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from gmcam.postprocess import normalise, postprocess, smooth, upsample


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
    with pytest.raises(ValueError, match=f"positive number of cells, not {sigma!r}; at most 100"):
        smooth(random_maps(1, 3, 3), sigma)


def test_normalise_by_hand():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[-8.0, 0.0], [-4.0, -2.0]]])
    normalised, empty = normalise(maps)
    assert normalised.tolist() == [[[0, 0.25], [0.5, 1]], [[0, 1], [0.5, 0.75]]]
    assert empty.tolist() == [False, False]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -1e30, 1e-40, 3e38])
def test_a_flat_map_becomes_zeros_and_is_called_empty(value):
    normalised, empty = normalise(torch.full((1, 3, 4), value))
    assert normalised.tolist() == torch.zeros(1, 3, 4).tolist()
    assert empty.tolist() == [True]


def test_a_flat_map_does_not_touch_its_neighbours():
    maps = torch.stack([torch.ones(2, 2), torch.tensor([[0.0, 1.0], [2.0, 4.0]]), torch.zeros(2, 2)])
    normalised, empty = normalise(maps)
    assert empty.tolist() == [True, False, True]
    assert normalised.tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_a_map_that_varies_is_not_empty_whatever_its_size(scale):
    normalised, empty = normalise(torch.tensor([[[0.0, 1.0], [0.5, 0.25]]]) * scale)
    assert empty.tolist() == [False]
    assert normalised.flatten().tolist() == pytest.approx([0, 1, 0.5, 0.25])


def test_rounding_is_no_pattern():
    flat = torch.full((1, 2, 2), 0.1)
    flat[0, 0, 0] = torch.nextafter(flat[0, 0, 0], torch.tensor(1.0))
    normalised, empty = normalise(flat)
    assert empty.tolist() == [True]
    assert normalised.abs().max() == 0


def test_up_to_eight_rounding_steps_are_flat_and_nine_are_not():
    step = torch.finfo(torch.float32).eps
    _, empty = normalise(torch.tensor([[[1, 1 + 8 * step]], [[1, 1 + 9 * step]]]))
    assert empty.tolist() == [True, False]


@given(
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0.01, 4),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_flat_map_stays_empty_through_smoothing(value, height, width, sigma, dtype):
    maps, empty = postprocess(torch.full((1, height, width), value, dtype=dtype), (7, 5), sigma)
    assert empty.tolist() == [True]
    assert maps.tolist() == torch.zeros(1, 7, 5).tolist()


def half_pixel_bilinear(cells, size):
    """Output pixel i looks at (i + ½) · h / H − ½ among the cells, held inside the border."""
    weights = []
    for wide, narrow in zip(size, cells.shape, strict=True):
        position = ((np.arange(wide) + 0.5) * narrow / wide - 0.5).clip(0, narrow - 1)
        weights.append(np.maximum(0, 1 - np.abs(position[:, None] - np.arange(narrow))))
    return weights[0] @ cells @ weights[1].T


@pytest.mark.parametrize("size", [(8, 8), (16, 12), (7, 9), (4, 4), (5, 31), (2, 3), (1, 1)])
def test_upsample_is_half_pixel_bilinear(size):
    maps = random_maps(2, 4, 4)
    for picture, cells in zip(upsample(maps, size), maps, strict=True):
        np.testing.assert_allclose(picture.numpy(), half_pixel_bilinear(cells.numpy(), size), atol=1e-12)


def test_upsample_keeps_cell_centres_where_they_are():
    maps = random_maps(1, 4, 3)
    assert torch.allclose(upsample(maps, (20, 15))[:, 2::5, 2::5], maps)  # 5 pixels a cell, middle at 2


def test_upsample_keeps_the_peak_at_its_cell():
    maps = torch.zeros(1, 3, 3)
    maps[0, 1, 2] = 1
    row, column = divmod(upsample(maps, (30, 30)).argmax().item(), 30)
    assert (row // 10, column // 10) == (1, 2)


def test_a_single_cell_fills_the_picture():
    assert upsample(torch.full((1, 1, 1), 0.5), (2, 3)).tolist() == [[[0.5] * 3] * 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_postprocess_gives_float32_from_zero_to_one(dtype):
    maps, empty = postprocess(random_maps(4, 6, 5).to(dtype) * 1000, (33, 20))
    assert maps.shape == (4, 33, 20)
    assert maps.dtype == torch.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert not empty.any()


def test_postprocess_is_the_three_steps_in_order():
    raw = random_maps(2, 5, 5)
    normalised, _ = normalise(smooth(raw, 1.0))
    maps, _ = postprocess(raw, (10, 10), sigma=1.0)
    assert torch.allclose(maps.double(), upsample(normalised, (10, 10)), atol=1e-6)
    assert maps.amax((1, 2)).min() > 0.9  # normalised before up-sampling, so the range is nearly full


def test_postprocess_never_exceeds_one():
    plateau = torch.ones(1, 7, 7)
    plateau[0, 0, 0] = 0
    for side in range(1, 40):  # at some of them an interpolation does, by rounding
        assert postprocess(plateau, (side, side), sigma=0)[0].max() <= 1


@pytest.mark.parametrize(
    "values", [[0, math.nan], [0, math.inf], [-math.inf, 0], [-3e38, 3e38]], ids=["NaN", "∞", "−∞", "range"]
)
def test_values_and_ranges_that_are_not_finite_are_refused(values):
    with pytest.raises(ValueError, match="or hold NaN"):
        postprocess(torch.tensor([[values]]), (2, 2), sigma=0)


def test_postprocess_of_no_maps_is_no_maps():
    maps, empty = postprocess(torch.zeros(0, 4, 4), (8, 8))
    assert (maps.shape, empty.shape) == ((0, 8, 8), (0,))


def test_maps_without_cells_are_empty():
    maps, empty = postprocess(torch.zeros(2, 0, 4), (3, 5))
    assert maps.tolist() == torch.zeros(2, 3, 5).tolist()
    assert (empty.tolist(), empty.dtype) == ([True, True], torch.bool)
    assert normalise(torch.zeros(2, 0, 4, device="meta"))[1].device.type == "meta"


@pytest.mark.parametrize("step", [smooth, normalise, lambda maps: upsample(maps, (4, 4))])
@pytest.mark.parametrize("shape", [(3, 3), (1, 1, 3, 3)], ids=str)
def test_other_shapes_are_refused(step, shape):
    with pytest.raises(ValueError, match=r"shape \(N, h, w\), not"):
        step(torch.zeros(shape))
