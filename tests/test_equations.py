"""Equations 1 and 3–6 against arithmetic by hand, and what they imply for any maps."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gmcam import equations

# Two channels of 3 × 3. The gradients sum to 9 and −18, so λ = (1, −2).
M = torch.tensor(
    [[[[1, 2, 0], [0, 1, 3], [2, 0, 1]], [[0, 1, 1], [2, 0, 1], [1, 1, 0]]]],
    dtype=torch.float64,
)
C = torch.tensor(
    [[[[1, 2, -1], [3, 1, 0], [2, -1, 2]], [[-2, -1, 0], [-3, -2, -1], [-4, -1, -4]]]],
    dtype=torch.float64,
)
EXPECTED = {
    "aggregated_map": [[1, 3, 1], [2, 1, 4], [3, 1, 1]],  # M_1 + M_2
    "class_map": [[1, 0, -2], [-4, 1, 1], [0, -2, 1]],  # M_1 − 2 M_2
    "grad_cam": [[1, 0, 0], [0, 1, 1], [0, 0, 1]],  # its positive part
    "hires_cam": [[1, 3, 0], [-6, 1, -1], [0, -1, 2]],  # C_1 M_1 + C_2 M_2, cell by cell
    "guidance_map": [[1, 3, 0], [0, 1, 0], [0, 0, 2]],  # its positive part
    "gmcam": [[1, 0, 0], [0, 1, 0], [0, 0, 2]],  # guidance map times Grad-CAM
}
OF_PAIRS = ["grad_cam", "hires_cam", "guidance_map", "gmcam"]


def compute(name, maps, gradients):
    function = getattr(equations, name)
    if name == "aggregated_map":
        return function(maps)
    if name == "class_map":
        return function(maps, equations.channel_weights(gradients))
    return function(maps, gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EXPECTED)
def test_value_by_hand(name, dtype):
    value = compute(name, M.to(dtype), C.to(dtype))
    assert value.dtype == dtype
    assert value.tolist() == [EXPECTED[name]]


def test_channel_weights_by_hand():
    assert equations.channel_weights(C).tolist() == [[1, -2]]
    assert equations.channel_weights(C[:, :, :1, :2]).tolist() == [[1.5, -1.5]]


@pytest.mark.parametrize("name", EXPECTED)
def test_images_of_a_batch_do_not_mix(name):
    maps, gradients = torch.cat([M, M + 1, M]), torch.cat([C, C, C.flip(1)])
    together = compute(name, maps, gradients)
    one_by_one = [compute(name, maps[n : n + 1], gradients[n : n + 1])[0] for n in range(3)]
    assert together.tolist() == torch.stack(one_by_one).tolist()


def test_class_map_takes_one_row_for_all_images_or_one_each():
    maps = torch.cat([M, M])
    row = torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert equations.class_map(maps, row).tolist() == [EXPECTED["class_map"]] * 2
    rows = torch.stack([row, torch.ones(2)])
    assert equations.class_map(maps, rows).tolist() == [EXPECTED["class_map"], EXPECTED["aggregated_map"]]


@pytest.mark.parametrize("name", EXPECTED)
def test_no_image_gives_no_map(name):
    assert compute(name, M[:0], C[:0]).shape == (0, 3, 3)


@pytest.mark.parametrize("name", EXPECTED)
def test_differentiable(name):
    generator = torch.Generator().manual_seed(0)
    maps, gradients = torch.randn(2, 2, 3, 2, 3, generator=generator, dtype=torch.float64)
    inputs = (maps.requires_grad_(), gradients.requires_grad_(name != "aggregated_map"))
    assert torch.autograd.gradcheck(lambda m, c: compute(name, m, c), inputs)


@pytest.mark.parametrize(
    "shape", [(3, 3), (1, 1, 1, 2, 3, 3), (1, 0, 3, 3), (1, 2, 0, 3), (1, 2, 3, 0)], ids=str
)
@pytest.mark.parametrize("name", ["channel_weights", "aggregated_map", "class_map", *OF_PAIRS])
def test_wrong_shape_is_refused_by_name(name, shape):
    arguments = [torch.zeros(shape)] * (1 if name in ("channel_weights", "aggregated_map") else 2)
    argument = "C" if name == "channel_weights" else "M"
    with pytest.raises(ValueError, match=f"^{argument} has shape {re.escape(str(shape))}; "):
        getattr(equations, name)(*arguments)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_maps_and_gradients_of_different_shapes_are_refused(name):
    with pytest.raises(ValueError) as error:
        getattr(equations, name)(M, C[:, :1])  # broadcasting would take them without a word
    assert str(error.value) == (
        "M has shape (1, 2, 3, 3) and C has shape (1, 1, 3, 3); "
        "feature maps and gradient maps have the same shape"
    )


@pytest.mark.parametrize("weights", [torch.ones(3), torch.ones(2, 2), torch.ones(1, 2, 1, 1), torch.ones(())])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError) as error:
        equations.class_map(M, weights)
    assert str(error.value) == (
        f"weights of shape {tuple(weights.shape)} do not fit M of shape (1, 2, 3, 3): "
        "one weight per channel is (1, 2) or (2,)"
    )


@st.composite
def maps_and_gradients(draw):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)))
    numbers = arrays.arrays("float64", shape, elements=st.floats(-100, 100, width=32))
    return torch.from_numpy(draw(numbers)), torch.from_numpy(draw(numbers))


def rounding(*factors):
    """What rounding may do to a sum over channels of these products, at 1e-12 of its terms' size."""
    product = torch.ones(())
    for factor in factors:
        product = product * factor.abs()
    return 1e-12 * product.sum(1) + 1e-290


def weights_as_maps(gradients):
    return gradients.abs().mean((2, 3), keepdim=True)


@given(maps_and_gradients())
def test_gmcam_is_the_sum_of_guided_maps_as_the_article_writes_it(pair):
    maps, gradients = pair
    guidance = equations.guidance_map(maps, gradients).unsqueeze(1)
    weights = gradients.mean((2, 3), keepdim=True)
    written = (weights * (guidance * maps)).sum(1).relu()
    difference = (equations.gmcam(maps, gradients) - written).abs()
    assert (difference <= rounding(weights_as_maps(gradients), maps, guidance)).all()


@given(maps_and_gradients())
def test_guidance_map_is_rectified_hires_cam(pair):
    guidance = equations.guidance_map(*pair)
    assert torch.equal(guidance, equations.hires_cam(*pair).clamp(min=0))


@given(maps_and_gradients())
def test_with_constant_gradients_guidance_is_grad_cam_and_gmcam_its_square(pair):
    maps, gradients = pair
    constant = gradients[:, :, :1, :1].expand_as(gradients)
    grad_cam = equations.grad_cam(maps, constant)
    bound = rounding(constant, maps)
    assert ((equations.guidance_map(maps, constant) - grad_cam).abs() <= bound).all()
    square_bound = rounding(constant, maps) * (constant * maps).abs().sum(1) * 4 + 1e-290
    assert ((equations.gmcam(maps, constant) - grad_cam**2).abs() <= square_bound).all()


@given(maps_and_gradients())
def test_on_a_single_cell_all_weightings_agree(pair):
    maps, gradients = pair[0][:, :, :1, :1], pair[1][:, :, :1, :1]
    guide, base = equations.guidance_map(maps, gradients), equations.grad_cam(maps, gradients)
    size = (gradients * maps).abs().sum(1)  # the two sum in another order
    assert ((guide - base).abs() <= 1e-14 * size).all()


@given(maps_and_gradients(), st.sampled_from([0.25, 2.0, 1024.0]))
def test_gmcam_is_quadratic_in_maps_and_in_gradients(pair, factor):
    maps, gradients = pair
    value = equations.gmcam(maps, gradients)
    assert torch.allclose(equations.gmcam(factor * maps, gradients), factor**2 * value, rtol=1e-12)
    assert torch.allclose(equations.gmcam(maps, factor * gradients), factor**2 * value, rtol=1e-12)
