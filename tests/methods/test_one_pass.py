"""Methods of one pass: against arithmetic written out, authors' formulas in numpy, and pytorch-grad-cam."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAMPlusPlus, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import gmcam
from gmcam import METHODS, Query
from gmcam.capture import capture


def raw(name, M, C=None):
    """One image's raw map from its feature maps and gradient maps alone, K lists of rows each."""
    M = torch.tensor(M, dtype=torch.float64)[None]
    C = torch.zeros_like(M) if C is None else torch.tensor(C, dtype=torch.float64)[None]
    score, target = torch.zeros(1), torch.tensor([0])
    captured = gmcam.Capture(score[None], score, target, {"maps": M}, {"maps": C})
    network = gmcam.Network(nn.Identity())
    query = Query(network, torch.zeros(1, 3, 2, 2), target=0, layer="maps", captured=captured)
    return METHODS[name].compute(query)[0]


def assert_is(saliency, *rows):
    assert torch.allclose(saliency, torch.tensor(rows, dtype=torch.float64), rtol=1e-12, atol=1e-15)


@pytest.fixture(params=["conv", "relu"])
def layer(request):
    return request.param


@pytest.fixture
def pair(flat_network, images, layer):
    """Feature maps and gradient maps that differ from cell to cell; numpy."""
    captured = capture(flat_network, images, [2, 0, 1], [layer])
    assert captured.gradients[layer].std((2, 3)).min() > 0
    return captured.maps[layer].numpy(), captured.gradients[layer].numpy(), captured.scores.numpy()


def ours(flat_network, images, layer, name):
    return gmcam.explain(flat_network, images, [2, 0, 1], method=name, layer=layer).raw


def library(oracle, flat_network, images, layer):
    """What pytorch-grad-cam computes before it rectifies, scales and resizes; and its weights."""
    part = flat_network.get_submodule(layer)
    scores = [ClassifierOutputTarget(target) for target in (2, 0, 1)]
    with oracle(flat_network, [part]) as cam:
        cam(images, scores)
        recorded = cam.activations_and_grads
        maps, gradients = recorded.activations[0].numpy(), recorded.gradients[0].numpy()
        return torch.from_numpy(cam.get_cam_image(images, part, scores, maps, gradients, False))


# Grad-CAM++


def test_grad_cam_pp_by_hand():
    # Channel 0: ΣM = 2, α = 1/(2 + 2C) = 1/4 and 1/6 where C > 0, scaled 3/5 and 2/5: w = 3/5·1 + 2/5·2.
    # Channel 1: one positive cell, so α = 1 there and w = 1/2. Channel 2: none, w = 0.
    M = [[[1, 0], [1, 0]], [[0, 3], [0, 1]], [[9, 9], [9, 9]]]
    C = [[[1, 2], [-1, 0]], [[-1, 0.5], [0, -2]], [[-1, -1], [-2, 0]]]
    assert_is(raw("grad_cam_pp", M, C), [1.4, 1.5], [1.4, 0.5])


def test_grad_cam_pp_counts_a_denominator_of_zero_as_one():
    # ΣM = −2, 2C² + C³ ΣM = 0, −8, 1/4: α = 1, −1/2, 1, scaled 2/3, −1/3, 2/3: w = 2/3 − 2/3 + 1/3.
    assert_is(raw("grad_cam_pp", [[[-1, -2], [1, 0]]], [[[1, 2], [0.5, 0]]]), [0, 0], [1 / 3, 0])


def test_grad_cam_pp_is_not_drowned_by_small_gradients():
    # ΣM = 0, so α = 1/2 twice, scaled to 1/2 each: w = 1.5e-4; with 1e-6 in the denominator, 1.8e-4.
    saliency = raw("grad_cam_pp", [[[1, -1], [2, -2]]], [[[1e-4, 2e-4], [0, 0]]])
    assert_is(saliency * 1e4, [1.5, 0], [3, 0])


def test_grad_cam_pp_is_zero_where_no_gradient_is_positive():
    assert_is(raw("grad_cam_pp", [[[1, 2], [3, 4]]], [[[-1, 0], [0, -2]]]), [0, 0], [0, 0])


def test_grad_cam_pp_agrees_with_the_authors_formula(flat_network, images, layer, pair):
    expected = []
    for A, g, Y in zip(*pair, strict=True):
        first, second, third = np.exp(Y) * g, np.exp(Y) * g**2, np.exp(Y) * g**3
        denominator = 2 * second + third * A.sum((1, 2))[:, None, None]
        alphas = second / np.where(denominator != 0, denominator, 1)
        weights = np.maximum(first, 0)
        total = np.where(weights, alphas, 0).sum((1, 2))
        alphas /= np.where(total != 0, total, 1)[:, None, None]
        deep = (weights * alphas).sum((1, 2))
        expected.append(np.maximum((deep[:, None, None] * A).sum(0), 0) / np.exp(Y))
    saliency = ours(flat_network, images, layer, "grad_cam_pp")
    assert saliency.amax((1, 2)).min() > 0
    assert np.allclose(saliency, expected, rtol=1e-9, atol=1e-12)


def test_grad_cam_pp_agrees_with_pytorch_grad_cam_up_to_its_epsilon_and_the_scaling(
    flat_network, images, layer
):
    with torch.no_grad():
        flat_network.fc2.weight.mul_(1000)  # its epsilon, 1e-6, is small beside such gradients squared
    captured = capture(flat_network, images, [2, 0, 1], [layer])
    M, C = captured.maps[layer].numpy(), captured.gradients[layer].numpy()
    theirs = GradCAMPlusPlus(flat_network, []).get_cam_weights(None, None, None, M, C)
    scale = np.where(C > 0, 1 / (2 + C * M.sum((2, 3), keepdims=True)), 0).sum((2, 3))
    expected = np.maximum(((theirs / scale)[:, :, None, None] * M).sum(1), 0)
    assert np.allclose(ours(flat_network, images, layer, "grad_cam_pp"), expected, rtol=1e-5)


# XGrad-CAM


def test_x_grad_cam_by_hand():
    # w = (1·1 + 2·1 + 3·2) / 4 = 9/4 and (−1 − 3) / 2 = −2.
    M, C = [[[1, 1], [2, 0]], [[0, 1], [0, 1]]], [[[1, 2], [3, 5]], [[7, -1], [7, -3]]]
    assert_is(raw("x_grad_cam", M, C), [2.25, 0.25], [4.5, 0])


@pytest.mark.parametrize(
    "void",
    [[[0, 0], [0, 0]], [[1, -1], [3, -3]], [[0.1, 0.2], [-0.3, 0]]],
    ids=["zeros", "cancels", "cancels but for rounding"],
)
def test_x_grad_cam_leaves_out_a_channel_whose_sum_is_zero(void):
    M, C = [[[1, 0], [1, 2]], void], [[[4, 9], [4, 4]], [[5, -6], [7, 8]]]
    assert_is(raw("x_grad_cam", M, C), [4, 0], [4, 8])


def test_x_grad_cam_keeps_a_channel_whose_sum_is_small():
    # ΣCM = ΣM = 2⁻²⁰, so w = 1.
    assert_is(raw("x_grad_cam", [[[1, -1], [2**-20, 0]]], [[[1, 1], [1, 3]]]), [1, 0], [2**-20, 0])


def test_x_grad_cam_agrees_with_pytorch_grad_cam(flat_network, images):
    expected = library(XGradCAM, flat_network, images, "relu").relu()
    assert expected.amax((1, 2)).min() > 0
    assert torch.allclose(ours(flat_network, images, "relu", "x_grad_cam"), expected, rtol=1e-6)


# LayerCAM


def test_layer_cam_by_hand():
    M, C = [[[1, 2], [3, 1]], [[1, -9], [1, 5]]], [[[2, 1], [-1, 0]], [[1, 1], [4, -2]]]
    assert_is(raw("layer_cam", M, C), [3, 0], [4, 0])


def test_layer_cam_agrees_with_pytorch_grad_cam(flat_network, images, layer):
    expected = library(LayerCAM, flat_network, images, layer).relu()
    assert torch.allclose(ours(flat_network, images, layer, "layer_cam"), expected, rtol=1e-10)


def test_layer_cam_after_a_rectifier_is_the_rectified_product(flat_network, images):
    captured = capture(flat_network, images, [2, 0, 1], ["relu"])
    expected = (captured.maps["relu"] * captured.gradients["relu"]).relu().sum(1)
    assert torch.allclose(ours(flat_network, images, "relu", "layer_cam"), expected, rtol=1e-12)


# Eigen-CAM


def test_eigen_cam_by_hand():
    # Both channels are multiples of u = (1 2; 0 2): v = (3, 4)/5 and Σ v_k M_k = (9 + 16)/5 · u.
    assert_is(raw("eigen_cam", [[[3, 6], [0, 6]], [[4, 8], [0, 8]]]), [5, 10], [0, 10])


def test_eigen_cam_does_not_centre_the_maps():
    # MᵀM = diag(9, 1), so v = (1, 0); the centred maps are not orthogonal to each other.
    M = [[[3, 0], [0, 0]], [[0, 1], [0, 0]]]
    assert_is(raw("eigen_cam", M), [3, 0], [0, 0])
    assert_is(raw("eigen_cam", (-np.array(M)).tolist()), [-3, 0], [0, 0])


def test_eigen_cam_is_the_first_singular_vector_with_the_sign_of_the_mean_map(flat_network, images, layer):
    saliency = gmcam.explain(flat_network, images, method="eigen_cam", layer=layer).raw.numpy()
    for ours, maps in zip(saliency, capture(flat_network, images, 0, [layer]).maps[layer], strict=True):
        left, values, _ = np.linalg.svd(maps.flatten(1).numpy().T)
        first = (left[:, 0] * values[0]).reshape(8, 8)
        assert np.allclose(ours, first, rtol=1e-9) or np.allclose(ours, -first, rtol=1e-9)
        assert np.corrcoef(ours.flat, maps.mean(0).flatten())[0, 1] > 0


def test_eigen_cam_correlates_with_the_mean_map_even_where_it_is_negative():
    # v is close to (1, 0), and that channel falls where the mean rises.
    M = np.array([[[3, 3], [3, 2]], [[0, 0], [0, 2]]])
    saliency = raw("eigen_cam", M.tolist())
    assert (saliency < 0).all()
    assert np.corrcoef(saliency.flatten(), M.mean(0).flatten())[0, 1] > 0


def test_eigen_cam_is_the_same_for_every_class(flat_network, images):
    saliency = gmcam.explain(flat_network, images[:1], [0, 1, 2], method="eigen_cam", layer="relu").raw
    assert torch.equal(saliency[0], saliency[1])
    assert torch.equal(saliency[0], saliency[2])
