"""Signals, volumes, frames and any number of channels: every one-pass method against autograd."""

import numpy as np
import pytest
import torch
from torch import nn

import gmcam

ONE_PASS = ["grad_cam", "hires_cam", "guidance_map", "gmcam", "grad_cam_pp", "x_grad_cam", "layer_cam"]
AVERAGING = {"integrated_grad_cam": {"steps": 3}, "cameras": {"sizes": 2}}
CONVOLUTION = {1: nn.Conv1d, 3: nn.Conv3d}
POOL = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}
SIDES = {1: (40,), 3: (6, 8, 10)}


def module(dimensions, channels=2):
    torch.manual_seed(dimensions)
    conv = CONVOLUTION[dimensions](channels, 5, 3, stride=2, padding=1)
    return nn.Sequential(conv, nn.ReLU(), POOL[dimensions](1), nn.Flatten(), nn.Linear(5, 3)).eval()


def inputs(dimensions, count=2, channels=2):
    generator = torch.Generator().manual_seed(dimensions)
    return torch.rand(count, channels, *SIDES[dimensions], generator=generator)


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("method", [*ONE_PASS, "eigen_cam", "cam", *AVERAGING])
def test_maps_have_the_inputs_dimensions(dimensions, method):
    net, x = module(dimensions), inputs(dimensions)
    result = gmcam.explain(net, x, [1, 2], method=method, layer="1", **AVERAGING.get(method, {}))
    raw = SIDES[dimensions] if method == "cameras" else tuple(side // 2 for side in SIDES[dimensions])
    assert result.raw.shape == (2, *raw)
    assert result.cells == raw
    assert result.maps.shape == (2, *SIDES[dimensions])
    for i in range(2):
        alone = gmcam.explain(
            net, x[i : i + 1], [1, 2][i], method=method, layer="1", **AVERAGING.get(method, {})
        )
        assert torch.allclose(result.raw[i], alone.raw[0], atol=1e-5)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_formulas_hold_in_every_dimension(dimensions):
    """Each written out on maps that are flattened to (N, K, cells)."""
    net, x = module(dimensions), inputs(dimensions)
    M = net[:2](x).detach().requires_grad_()
    net[2:](M)[:, 1].sum().backward()
    m, c = M.detach().flatten(2), M.grad.flatten(2)
    weighted = (c.mean(2, keepdim=True) * m).sum(1).relu()
    guidance = (c * m).sum(1).relu()
    alpha = c**2 / (2 * c**2 + c**3 * m.sum(2, keepdim=True))
    alpha = torch.where(c > 0, alpha, 0)
    alpha = alpha / alpha.sum(2, keepdim=True).clamp(min=1e-30)
    expected = {
        "grad_cam": weighted,
        "guidance_map": guidance,
        "gmcam": guidance * weighted,
        "layer_cam": (c.relu() * m).sum(1).relu(),
        "grad_cam_pp": ((alpha * c.relu()).sum(2, keepdim=True) * m).sum(1).relu(),
        "x_grad_cam": ((c * m).sum(2, keepdim=True) / m.sum(2, keepdim=True).clamp(min=1e-30) * m)
        .sum(1)
        .relu(),
    }
    for result in gmcam.compare(net, x, 1, methods=list(expected), layer="1"):
        assert torch.allclose(result.raw.flatten(1), expected[result.method], atol=1e-6), result.method


def test_a_volumes_map_is_smoothed_and_enlarged_along_all_three_axes():
    raw = torch.zeros(1, 3, 3, 3)
    raw[0, 1, 1, 1] = 1
    smoothed = gmcam.postprocess.smooth(raw)[0]
    line = gmcam.postprocess.smooth(torch.tensor([[0.0, 1.0, 0.0]]))[0]
    assert torch.allclose(smoothed, line[:, None, None] * line[:, None] * line, atol=1e-6)
    maps, empty = gmcam.postprocess.postprocess(raw, (6, 6, 6))
    assert (maps.shape, empty.tolist()) == ((1, 6, 6, 6), [False])


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize(
    "method", ["score_cam", "ablation_cam", "full_grad", "smooth_full_grad", "captum.saliency"]
)
def test_methods_of_images_say_so(dimensions, method):
    with pytest.raises(ValueError, match=rf"expected images \(N, C, H, W\) for {method}"):
        gmcam.explain(module(dimensions), inputs(dimensions), 0, method=method)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_default_layer_of_signals_and_volumes(dimensions):
    result = gmcam.explain(module(dimensions), inputs(dimensions), 0)
    assert result.layer == "1"


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(channels):
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert gmcam.explain(net, torch.rand(1, channels, 9, 9), 0).maps.shape == (1, 9, 9)


class Video(nn.Module):
    """Frames (N, T, C, H, W) through a CNN, then an LSTM."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cnn = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.rnn, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, clip):
        n, t = clip.shape[:2]
        features = self.cnn(clip.flatten(0, 1)).mean((2, 3)).view(n, t, -1)
        return self.fc(self.rnn(features)[0][:, -1])


def test_a_map_for_every_frame():
    net, clip = Video().eval(), torch.rand(2, 5, 3, 16, 16)
    network = gmcam.Network(net, input_shape=(5, 3, 16, 16), reshape=gmcam.reshape.frames(5))
    result = gmcam.explain(network, clip, 2, layer="cnn", method="hires_cam")
    assert (result.raw.shape, result.maps.shape) == ((2, 5, 7, 7), (2, 5, 16, 16))
    maps = net.cnn(clip.flatten(0, 1)).detach().requires_grad_()
    net.fc(net.rnn(maps.mean((2, 3)).view(2, 5, -1))[0][:, -1])[:, 2].sum().backward()
    assert torch.allclose(result.raw, (maps * maps.grad).sum(1).view(2, 5, 7, 7), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_end_to_end(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    x = torch.rand(1, 3, 16, 16)
    exact = gmcam.compare(net, x, 1, methods=ONE_PASS, layer="1")
    rough = gmcam.compare(net.to(dtype), x, 1, methods=ONE_PASS, layer="1")
    for a, b in zip(exact, rough, strict=True):
        assert b.maps.dtype == b.raw.dtype == torch.float32
        assert (a.maps - b.maps).abs().max() < 0.06


def test_a_bfloat16_map_with_a_small_spread_is_not_empty():
    torch.manual_seed(0)
    flat = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    flat[0].weight.data.mul_(0.1)
    x = torch.rand(2, 3, 16, 16)
    flat[4].weight.data.abs_()
    for method in ("hires_cam", "grad_cam", "eigen_cam"):
        exact = gmcam.explain(flat.float(), x, 0, method=method, layer="1")
        rough = gmcam.explain(flat.to(torch.bfloat16), x, 0, method=method, layer="1")
        assert rough.empty.tolist() == exact.empty.tolist() == [False, False]
        flat.float()


def test_a_signal_is_drawn_above_the_curves_of_its_maps():
    net, x = module(1), inputs(1, count=1)
    result = gmcam.explain(net, x, [0, 2], layer="1")
    figure = gmcam.show(x, result)
    signal, *curves = figure.axes
    assert len(signal.lines) == 2
    assert signal.lines[0].get_ydata().tolist() == x[0, 0].tolist()
    assert [ax.get_title(loc="left").split(", ")[1] for ax in curves] == ["class 0", "class 2"]
    heights = curves[0].collections[0].get_paths()[0].vertices[:, 1]
    raw = result.raw[0].relu()
    expected = torch.cat([torch.zeros(1), raw / raw.max()]).unique()  # the curve's ground, and each cell
    assert np.unique(heights) == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("frames", [False, True])
def test_slices_of_a_volume_and_frames_are_drawn_in_a_row_each(frames):
    if frames:
        options = {"input_shape": (5, 3, 16, 16), "reshape": gmcam.reshape.frames(5)}
        x, network, layer = torch.rand(1, 5, 3, 16, 16), gmcam.Network(Video().eval(), **options), "cnn"
    else:
        x, network, layer = inputs(3, count=1), module(3), "1"
    result = gmcam.explain(network, x, [0, 1], layer=layer)
    titles = [ax.get_title() for ax in gmcam.show(x, result).axes if ax.images]
    count = 5 if frames else 6
    assert titles[:count] == [f"{'frame' if frames else 'slice'} {i}" for i in range(count)]
    assert len(titles) == 3 * count
