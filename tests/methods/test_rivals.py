"""Rivals: against arithmetic written out, and against the metrics that they are for."""

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import gmcam
from gmcam import metrics


def raw(module, images, method, target=0, **options):
    return gmcam.explain(module, images, target, method=method, **options).raw


def test_grad_cam_squared_is_grad_cam_times_itself(flat_network, images):
    squared = raw(flat_network, images, "grad_cam_squared", [2, 0, 1], layer="relu")
    assert torch.equal(squared, raw(flat_network, images, "grad_cam", [2, 0, 1], layer="relu") ** 2)


def test_after_average_pooling_grad_cam_squared_is_gmcam(gap_network, images):
    squared = raw(gap_network, images, "grad_cam_squared", 1)
    assert torch.allclose(squared, raw(gap_network, images, "gmcam", 1), rtol=1e-12)


def test_the_sum_of_feature_maps_does_not_depend_on_the_class(flat_network, images):
    with torch.no_grad():
        maps = flat_network.conv(images)  # of both signs
    for target in (0, 2):
        result = raw(flat_network, images, "feature_sum", target, layer="conv")
        assert torch.allclose(result, maps.sum(1).clamp(min=0), rtol=1e-12)


def test_a_random_network_has_other_weights_and_the_same_layer(gap_network, images):
    before = copy.deepcopy(gap_network.state_dict())
    twin = copy.deepcopy(gap_network).float()
    torch.manual_seed(3)
    for part in (twin.conv, twin.fc):  # in the order of the modules
        part.reset_parameters()
    twin = twin.double()
    expected = raw(twin, images, "guidance_map", [2, 0, 1])
    assert torch.equal(raw(gap_network, images, "random_network", [2, 0, 1], seed=3), expected)
    assert not torch.equal(raw(gap_network, images, "random_network", [2, 0, 1]), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in gap_network.state_dict().items())


def test_a_random_network_explains_the_class_of_the_trained_one(gap_network, images):
    top = gmcam.explain(gap_network, images, method="gmcam").target
    result = gmcam.explain(gap_network, images, method="random_network")
    assert torch.equal(result.target, top)
    assert torch.equal(result.raw, raw(gap_network, images, "random_network", top))


def test_the_blob_is_a_gaussian_in_the_centre(gap_network):
    blob = raw(gap_network, torch.rand(2, 3, 5, 9, dtype=torch.float64), "centred_blob")
    assert torch.equal(blob[0], blob[1])
    assert blob[0, 2, 4] == 1  # the centre
    assert blob[0, 2, 0].item() == pytest.approx(np.exp(-2))  # the end of a row: two σ
    assert blob[0, 0, 4].item() == pytest.approx(np.exp(-2))  # the end of a column, too
    assert blob[0, 0, 0].item() == pytest.approx(np.exp(-4))


def test_edges_are_scipys_central_differences(gap_network, images):
    expected = []
    for grey in images.float().mean(1).numpy():
        down, across = (ndimage.correlate1d(grey, [-0.5, 0, 0.5], axis) for axis in (0, 1))
        expected.append(np.hypot(down, across))
    inner = (slice(None), slice(1, -1), slice(1, -1))  # at the border the difference has one side
    assert np.allclose(raw(gap_network, images, "edges").numpy()[inner], np.stack(expected)[inner], atol=1e-6)


def test_random_pixels_measure_the_area(gap_network):
    inputs = torch.rand(400, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = gmcam.explain(gap_network, inputs, 0, method="area", sigma=0).maps
    masks = torch.zeros(8, 8, dtype=torch.bool)
    masks[2:5, 1:6] = True  # 15 of 64 pixels
    inside = metrics.share_inside(maps, masks.expand(400, -1, -1))
    box = torch.tensor([[1, 2, 6, 5]]).expand(400, -1)
    assert inside.mean().item() == pytest.approx(15 / 64, abs=0.01)
    assert metrics.points_inside(maps, box).mean().item() == pytest.approx(15 / 64, abs=0.06)


def test_random_pixels_depend_on_the_image_alone(gap_network, images):
    together = raw(gap_network, images, "area", [2, 0, 1])
    alone = torch.cat([raw(gap_network, image[None], "area", 1) for image in images])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("method", ["feature_sum", "centred_blob", "edges", "area"])
def test_rivals_that_ignore_the_class_need_none(method):
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())  # no logits
    layer = "0" if method == "feature_sum" else None
    assert gmcam.explain(module, torch.rand(1, 3, 8, 8), method=method, layer=layer).raw.shape == (1, 8, 8)
