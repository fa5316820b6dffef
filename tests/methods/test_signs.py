"""Signed methods keep their sign in ``raw``; their maps draw zero evidence at zero."""

import pytest
import torch

import gmcam
from gmcam import METHODS
from gmcam.metrics import salient_area

SIGNED = {
    *("cam", "hires_cam", "eigen_cam", "relevance_cam"),
    *("captum.layer_grad_cam", "captum.layer_gradient_x_activation", "captum.input_x_gradient"),
    *("captum.integrated_gradients", "captum.guided_backprop", "captum.guided_grad_cam"),
    *("captum.occlusion", "captum.deep_lift"),
}


@pytest.fixture(scope="module")
def vgg():
    return gmcam.load("collage-vgg")


@pytest.fixture(scope="module")
def image():
    return gmcam.lab.scene("cat", "cup", seed=3).image


def test_which_methods_are_signed():
    assert {name for name in METHODS if METHODS[name].signed} == SIGNED


@pytest.mark.parametrize("name", METHODS)
def test_only_a_signed_method_has_negative_raw_values(flat_network, gap_network, images, name):
    """Positive for one class or image, negative for another: Eigen-CAM's sign follows the mean map."""
    module = gap_network if name in ("cam", "cameras") else flat_network
    if name == "eigen_cam":
        with torch.no_grad():
            module.conv.bias.sub_(3)  # negative mean maps
    options = {"layer": "conv"} if METHODS[name].keeps is None and name != "cam" else {}
    raw = torch.cat(
        [gmcam.explain(module, images, target, method=name, **options).raw for target in range(3)]
    )
    assert (raw < 0).any() == METHODS[name].signed


@pytest.mark.parametrize("name", sorted(SIGNED - {"cam"}))
def test_maps_are_those_of_the_rectified_raw_map(vgg, image, name):
    options = {"captum.integrated_gradients": {"steps": 4}, "captum.occlusion": {"share": 3}}.get(name, {})
    result = gmcam.explain(vgg, image, "cat", method=name, sigma=0, **options)
    expected, empty = gmcam.postprocess.postprocess(result.raw.relu(), result.maps.shape[1:], sigma=0)
    assert torch.equal(result.maps, expected)
    assert not empty.any()


def test_hires_cam_draws_the_guidance_map(vgg, image):
    signed, rectified = (
        gmcam.explain(vgg, image, "cat", method=name, sigma=0) for name in ("hires_cam", "guidance_map")
    )
    assert torch.equal(signed.maps, rectified.maps)
    assert signed.raw.min() < -0.1 * signed.raw.max()
    assert torch.equal(signed.raw.relu(), rectified.raw)


@pytest.mark.parametrize(("normalise", "zero", "share"), [("rectified", 0, 0.02), ("minmax", 0.72, 0.99)])
def test_where_zero_evidence_is_drawn_and_what_is_salient_for_it(vgg, image, normalise, zero, share):
    result = gmcam.explain(vgg, image, "cat", method="hires_cam", sigma=0, normalise=normalise)
    low, high = result.raw.min().item(), result.raw.max().item()
    drawn = 0 if normalise == "rectified" else -low / (high - low)
    assert drawn == pytest.approx(zero, abs=0.005)
    assert salient_area(result.maps).float().mean().item() == pytest.approx(share, abs=0.01)
    # The same, seen in the map: cells near zero are drawn there.
    cells = gmcam.postprocess.min_max(result.raw.relu() if normalise == "rectified" else result.raw)[0]
    assert cells[result.raw.abs() < 0.01 * high].mean().item() == pytest.approx(zero, abs=0.02)
