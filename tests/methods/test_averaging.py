"""CAMERAS and Integrated Grad-CAM: against arithmetic written out and against plain loops."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gmcam


@pytest.fixture
def deep():
    """Maps at ``1``, on which the gradient differs from cell to cell, whatever the image's size."""
    features = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    head = (nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    return nn.Sequential(*features, *head).double().eval()


def at(module, inputs, target):
    """Maps and gradient maps of one image behind the first two layers, by autograd alone."""
    maps = module[:2](inputs).detach().requires_grad_()
    module[2:](maps)[0, target].backward()
    return maps.detach(), maps.grad


class Scorer(nn.Module):
    """Maps from a 1 × 1 convolution of weights ``weights``, then a score made from them."""

    def __init__(self, weights, score):
        super().__init__()
        self.maps = nn.Conv2d(1, len(weights), 1, bias=False)
        self.maps.weight.data = torch.tensor(weights).view(-1, 1, 1, 1)
        self.score = score
        self.double()

    def forward(self, x):
        return self.score(self.maps(x)).unsqueeze(1)


class Watched(nn.Module):
    """A network that remembers the shapes of what it was shown."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return self.network(x)


# CAMERAS


def loop_of_cameras(module, image, target, sizes):
    maps, gradients = [], []
    for size in sizes:
        enlarged = F.interpolate(image, (size, size), mode="bicubic", align_corners=False)
        for stack, values in zip((maps, gradients), at(module, enlarged, target), strict=True):
            stack.append(F.interpolate(values, (8, 8), mode="bilinear", align_corners=False))
    return (torch.stack(maps).mean(0) * torch.stack(gradients).mean(0)).sum(1).relu()[0]


def test_cameras_by_hand():
    # The image is 3 everywhere: M = 3, 6 at 2 × 2, 3 × 3 and 4 × 4 cells. Y = 5 mean M₀ − mean M₁, so
    # C = 5/4, 5/9, 5/16 and −1/4, −1/9, −1/16. The mean of 1/4, 1/9, 1/16 is 61/432.
    module = Scorer([1.0, 2.0], lambda maps: 5 * maps[:, 0].mean((1, 2)) - maps[:, 1].mean((1, 2)))
    image = torch.full((1, 1, 2, 2), 3.0, dtype=torch.float64)
    raw = gmcam.explain(module, image, 0, method="cameras", layer="maps", sizes=3).raw
    assert torch.allclose(raw, torch.full_like(raw, (5 * 3 - 6) * 61 / 432), rtol=1e-12)


def test_cameras_averages_over_eight_sizes(deep, images):
    raw = gmcam.explain(deep, images, [2, 0, 1], method="cameras", layer="1").raw
    assert raw.amax((1, 2)).min() > 0
    for n, target in enumerate([2, 0, 1]):
        expected = loop_of_cameras(deep, images[n : n + 1], target, [8, 12, 15, 19, 22, 26, 29, 33])
        assert torch.allclose(raw[n], expected, rtol=1e-9, atol=1e-12)


def test_cameras_enlarges_224_pixels_in_steps_of_100_and_other_sides_alike():
    layers = (nn.Conv2d(3, 2, 1, stride=56), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    module = Watched(nn.Sequential(*layers))
    gmcam.explain(module, torch.randn(1, 3, 112, 224), 0, method="cameras", layer="network.0")
    widths = [224, 324, 424, 524, 624, 724, 824, 924]
    assert module.seen[-8:] == [(1, 3, width // 2, width) for width in widths]


class Swayed(nn.Module):
    """Sure of class 0, but of class 2 where a image of positive mean is large; the same gradients."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        swayed = (x.mean((1, 2, 3)) > 0) & (x.shape[-1] > 12)
        return self.network(x) + 100 * F.one_hot(2 * swayed, 3)


def test_cameras_skips_sizes_of_another_top_class_only_where_no_target_is_given(deep, images):
    images = torch.stack([images[0] + 1, images[1] - 1])
    few, every = (
        torch.stack([loop_of_cameras(deep, image[None], 0, sizes) for image in images])
        for sizes in ([8, 12], [8, 12, 15, 19])
    )
    assert (few - every).abs().amax((1, 2)).min() > 0.01 * every.max()

    def cameras(inputs, target):
        options = {"method": "cameras", "layer": "network.1", "sizes": 4}
        return gmcam.explain(Swayed(deep), inputs, target, **options).raw

    assert torch.allclose(cameras(images, None), torch.stack([few[0], every[1]]), rtol=1e-9, atol=1e-12)
    assert torch.allclose(cameras(images[:1], None), few[:1], rtol=1e-9, atol=1e-12)
    for target in (0, [0, 0], lambda logits: logits[:, 0]):
        assert torch.allclose(cameras(images, target), every, rtol=1e-9, atol=1e-12)


def test_cameras_says_so_where_the_network_takes_one_size(flat_network, images):
    message = "larger images, got Sequential, which fails at 12 x 12 .*use a method of one input size"
    with pytest.raises(ValueError, match=message):
        gmcam.explain(flat_network, images, 0, method="cameras")


def test_cameras_of_one_size_takes_any_network(flat_network, images):
    result = gmcam.explain(flat_network, images, 0, method="cameras", layer="relu", sizes=1)
    guidance = gmcam.explain(flat_network, images, 0, method="guidance_map", layer="relu")
    assert torch.allclose(result.raw, guidance.raw, rtol=1e-9)


def test_a_map_without_a_positive_value_is_empty(gap_network, images):
    with torch.no_grad():
        gap_network.fc.weight.copy_(-gap_network.fc.weight.abs())
    result = gmcam.explain(gap_network, images, 0, method="cameras", layer="relu")
    assert result.empty.all()
    assert result.raw.tolist() == result.maps.tolist() == torch.zeros(3, 8, 8).tolist()


# Integrated Grad-CAM


def test_integrated_grad_cam_by_hand():
    # Y = mean M² − 3 mean M on 2 × 2 cells: λ = (2s·mean x − 3)/4 = (6s − 3)/4 at s x. At s = 0, 1/4, 1/2,
    # 3/4 that is −3/4, −3/8, 0, 3/8; rectified, only the last counts: 3/8 · 3/4 x = 9/32 x.
    module = Scorer([1.0], lambda maps: (maps**2 - 3 * maps).mean((1, 2, 3)))
    image = torch.tensor([[[[1, 2], [3, 6]]]], dtype=torch.float64)
    raw = gmcam.explain(module, image, 0, method="integrated_grad_cam", layer="maps", steps=4).raw
    assert torch.allclose(raw, image[0] * 9 / 32, rtol=1e-12)


@pytest.mark.parametrize("steps", [2, 8, 50])
def test_integrated_grad_cam_sums_the_left_points_from_zero(deep, images, steps):
    options = {} if steps == 50 else {"steps": steps}
    raw = gmcam.explain(deep, images, [2, 0, 1], method="integrated_grad_cam", layer="1", **options).raw
    for n, target in enumerate([2, 0, 1]):
        expected = torch.zeros(8, 8, dtype=torch.float64)
        for step in range(steps):
            maps, gradients = at(deep, images[n : n + 1] * step / steps, target)
            expected += (gradients.mean((2, 3), keepdim=True) * maps).sum(1).relu()[0]
        assert expected.max() > 0
        assert torch.allclose(raw[n], expected, rtol=1e-9, atol=1e-11)


# Both


@pytest.mark.parametrize("name", ["cameras", "integrated_grad_cam"])
@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
def test_the_size_of_a_chunk_changes_nothing(deep, images, name, chunk_size):
    options = {"method": name, "layer": "1"}
    for inputs, target in ((images, [2, 0, 1]), (images[:1], [0, 1, 2, 1])):
        expected = gmcam.explain(deep, inputs, target, **options).raw
        raw = gmcam.explain(deep, inputs, target, chunk_size=chunk_size, **options).raw
        assert torch.allclose(raw, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["cameras", "integrated_grad_cam"])
def test_a_function_of_the_logits_takes_a_classs_place(deep, images, name):
    named = gmcam.explain(deep, images, 1, method=name, layer="1").raw
    function = gmcam.explain(deep, images, lambda logits: logits[:, 1], method=name, layer="1").raw
    assert named.max() > 0
    assert torch.allclose(function, named, rtol=1e-10)


def test_integrated_grad_cam_shows_no_more_than_a_chunk_at_a_time(deep, images):
    module = Watched(deep)
    options = {"method": "integrated_grad_cam", "layer": "network.1", "steps": 7, "chunk_size": 4}
    gmcam.explain(module, images[:1], [0, 1], **options)
    counts = [shape[0] for shape in module.seen]
    assert max(counts) == 4
    assert sum(counts[-4:]) == 2 * 7
