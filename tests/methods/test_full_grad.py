"""FullGrad: its terms add up to the logit, and the map is the authors' formula, written out plainly."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gmcam
from gmcam import METHODS
from gmcam.capture import INPUT, capture
from gmcam.methods.full_grad import full_gradient


def terms_and_scores(network, inputs, targets):
    layers = METHODS["full_grad"].keeps(network.module)
    captured = capture(network.module, inputs, targets, layers, any_shape=True)
    return full_gradient(network, captured), captured.scores


def with_random_statistics(module):
    """Batch norms as training leaves them: a bias of their own, far from zero."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.5)
    return module.double().eval()


def test_a_second_head_adds_nothing(gap_network, images):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = gap_network, nn.Linear(3, 2).double()

        def forward(self, x):
            return self.main(x), self.side(x.mean((2, 3)))

    expected = gmcam.explain(gap_network, images, 0, method="full_grad").raw
    assert torch.equal(gmcam.explain(TwoHeads(), images, 0, method="full_grad").raw, expected)


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "mobilenet_v2", *gmcam.lab.EMBEDDED])
def test_terms_add_up_to_the_logit(name):
    if name in gmcam.lab.EMBEDDED:
        network = gmcam.load(name)
        network.module.double()
        inputs = torch.cat([network.prepare(gmcam.lab.scene("cat", "cup", seed=s).image) for s in (3, 4)])
    else:
        network = gmcam.Network(with_random_statistics(torchvision.models.get_model(name, weights=None)))
        inputs = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    terms, scores = terms_and_scores(network, inputs, [1, 2])
    total = sum(term.flatten(1).sum(1) for term in terms.values())
    input_alone = terms[INPUT].flatten(1).sum(1)
    assert ((total - scores) / scores).abs().max() < 1e-6
    assert ((input_alone - scores) / scores).abs().min() > 1e-2  # the biases are needed


# The authors' formula, plainly.


@pytest.fixture
def network():
    """(N, 3, 8, 8) → 3 logits, with every kind of layer that has a bias; maps of 4 × 4 and 2 × 2."""
    torch.manual_seed(2)
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 4, 3, stride=2, padding=1),
        bn=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        conv2=nn.Conv2d(4, 2, 3),
        flatten=nn.Flatten(),
        fc=nn.Linear(8, 3),
    )
    return with_random_statistics(nn.Sequential(layers))


def plain_terms(network, image, target):
    """Bias times gradient of each layer that gives maps, (K, h, w) arrays; the input's term first."""
    conv1, bn, conv2, fc = network.conv1, network.bn, network.conv2, network.fc
    x = image[None].clone().requires_grad_()
    after_conv1 = F.conv2d(x, conv1.weight, conv1.bias, stride=2, padding=1)
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    after_bn = after_conv1 * scale[:, None, None] + shift[:, None, None]
    after_conv2 = F.conv2d(after_bn.clamp(min=0), conv2.weight, conv2.bias)
    logit = (fc.weight @ after_conv2.flatten() + fc.bias)[target]
    gradients = torch.autograd.grad(logit, (x, after_conv1, after_bn, after_conv2))
    factors = (x, *(bias[None, :, None, None] for bias in (conv1.bias, shift, conv2.bias)))
    return [(b * g)[0].detach().numpy() for b, g in zip(factors, gradients, strict=True)]


def enlarged(plane, height, width):
    """Bilinear, corners on corners: first along the rows, then along the columns."""
    rows, columns = (np.linspace(0, n - 1, to) for n, to in zip(plane.shape, (height, width), strict=True))
    wide = np.stack([np.interp(columns, np.arange(plane.shape[1]), row) for row in plane])
    return np.stack([np.interp(rows, np.arange(plane.shape[0]), column) for column in wide.T], axis=1)


def psi(term):
    size = np.abs(term)
    scaled = (size - size.min()) / (size.max() - size.min())
    return sum(enlarged(channel, 8, 8) for channel in scaled)


def test_full_grad_is_the_sum_written_out(network, images):
    raw = gmcam.explain(network, images, [2, 0, 1], method="full_grad").raw
    for ours, image, target in zip(raw, images, [2, 0, 1], strict=True):
        expected = sum(psi(term) for term in plain_terms(network, image, target))
        assert np.allclose(ours, expected, rtol=1e-9)


def test_smooth_full_grad_is_the_loop_written_out(network, images):
    images = images * torch.tensor([1, 10, 0.1])[:, None, None, None]  # noise follows each one's range
    options = {"samples": 4, "noise": 0.3, "seed": 7}
    raw = gmcam.explain(network, images, [2, 0, 1], method="smooth_full_grad", **options).raw
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(7)).double()
    for ours, image, target in zip(raw, images, [2, 0, 1], strict=True):
        deviation = 0.3 * (image.max() - image.min())
        copies = [plain_terms(network, image + deviation * sample, target) for sample in noise]
        inputs, *others = ([copy[i] for copy in copies] for i in range(4))
        summed = [term.sum(0, keepdims=True) for term in inputs]
        expected = sum(psi(np.mean(signed, axis=0)) for signed in (summed, *others))
        assert np.allclose(ours, expected, rtol=1e-9)


def test_one_copy_without_noise_is_full_grad_but_for_the_order_of_sum_and_absolute_value(network, images):
    plain = gmcam.explain(network, images[:1], 1, method="full_grad").raw[0]
    smooth = gmcam.explain(network, images[:1], 1, method="smooth_full_grad", samples=1, noise=0.0).raw[0]
    term = plain_terms(network, images[0], 1)[0]
    difference = psi(term.sum(0, keepdims=True)) - psi(term)
    assert np.abs(difference).max() > 0.1
    assert np.allclose(smooth - plain, difference, atol=1e-12)


def test_the_bias_of_a_batch_norm_is_what_it_adds_to_nothing():
    """Mean 3, variance 4, γ = 2, β = 1: (0 − 3)/2 · 2 + 1 = −2; without γ and β, −3/2."""
    inputs = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    for affine, bias in ((True, -2.0), (False, -1.5)):
        norm = nn.BatchNorm2d(1, eps=0, affine=affine)
        norm.running_mean.fill_(3)
        norm.running_var.fill_(4)
        if affine:
            nn.init.constant_(norm.weight, 2)
            nn.init.constant_(norm.bias, 1)
        module = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1, bias=False))
        nn.init.constant_(module[3].weight, 8)
        terms, _ = terms_and_scores(gmcam.Network(module.double().eval()), inputs, 0)
        # Each of the four cells has gradient 8/4 = 2.
        assert terms["0"].tolist() == [[[[2 * bias] * 2] * 2]]


class Backwards(nn.Module):
    """Registers its layers in another order than they run; all have four channels."""

    def __init__(self, names):
        super().__init__()
        layers = {"first": nn.Conv2d(3, 4, 3), "second": nn.Conv2d(4, 4, 3), "norm": nn.BatchNorm2d(4)}
        for name in names:
            self.add_module(name, layers[name])
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.norm(self.second(self.first(x).relu())).relu().mean((2, 3)))


def test_modules_meet_their_own_gradients_whatever_the_order_of_registration(images):
    forth, back = Backwards(["first", "second", "norm"]), Backwards(["norm", "second", "first"])
    back.load_state_dict(with_random_statistics(forth).state_dict())
    maps = [
        gmcam.explain(m.double(), images, 1, method=name).raw
        for m in (forth, back)
        for name in ("full_grad", "smooth_full_grad")
    ]
    assert torch.allclose(maps[0], maps[2], rtol=1e-9)
    assert torch.allclose(maps[1], maps[3], rtol=1e-9)


class ChannelsLast(nn.Module):
    """A linear layer on every cell, whose channels come last: (N, h, w, K), or (N, h·w, K) in ``rows``."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.conv, self.cells, self.fc = rows, nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.conv(x).relu().permute(0, 2, 3, 1)
        x = self.cells(x.flatten(1, 2) if self.rows else x).relu()
        return self.fc(x.mean(1) if self.rows else x.mean((1, 2)))


def pointwise(module):
    """The same as convolutions of 1 × 1."""
    cells = nn.Conv2d(4, 5, 1).double()
    cells.weight.data, cells.bias.data = module.cells.weight.data[..., None, None], module.cells.bias.data
    head = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), module.fc)
    return nn.Sequential(module.conv, nn.ReLU(), cells, *head)


@pytest.mark.parametrize("method", ["full_grad", "smooth_full_grad"])
def test_a_linear_layer_on_every_cell_is_a_convolution_of_one_cell(images, method):
    module = ChannelsLast(rows=False).double()
    options = {} if method == "full_grad" else {"samples": 3}
    ours, theirs = (
        gmcam.explain(each, images, [2, 0, 1], method=method, **options).raw
        for each in (module, pointwise(module))
    )
    assert torch.allclose(ours, theirs, rtol=1e-9)


def test_a_linear_layer_on_rows_has_its_share_of_the_score_and_no_map(images):
    module = ChannelsLast(rows=True).double()
    terms, scores = terms_and_scores(gmcam.Network(module), images, [2, 0, 1])
    assert torch.allclose(sum(term.flatten(1).sum(1) for term in terms.values()), scores, rtol=1e-9)
    assert terms["cells"].shape == (3, 5, 36)
    raw = gmcam.explain(module, images[:1], 2, method="full_grad").raw[0]
    expected = sum(psi(terms[name][0].numpy()) for name in (INPUT, "conv"))
    assert np.allclose(raw, expected, rtol=1e-9)


# What it refuses.

REFUSED = (
    "expected linear layers, rectifiers and pooling, and a logit as score, .* terms that miss the score by"
)


@pytest.mark.parametrize("method", ["full_grad", "smooth_full_grad"])
@pytest.mark.parametrize("part", [nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.GroupNorm(2, 4)])
def test_a_network_that_is_not_piecewise_linear_is_refused(gap_network, images, part, method):
    gap_network.relu = part.double()
    with pytest.raises(ValueError, match=REFUSED + ".* in Sequential"):
        gmcam.explain(gap_network, images, 1, method=method)


@pytest.mark.parametrize("method", ["full_grad", "smooth_full_grad"])
def test_a_target_function_is_taken_where_it_is_linear_in_the_logits(gap_network, images, method):
    ours = gmcam.explain(gap_network, images, lambda logits: 2 * logits[:, 1], method=method).raw
    assert torch.allclose(ours, gmcam.explain(gap_network, images, 1, method=method).raw, rtol=1e-9)
    for function in (lambda y: y.softmax(1)[:, 1], lambda y: y[:, 1] ** 2, lambda y: y[:, 1] + 1):
        with pytest.raises(ValueError, match=REFUSED):
            gmcam.explain(gap_network, images, function, method=method)


def test_batch_norms_without_statistics_are_refused(gap_network, images):
    gap_network.relu = nn.BatchNorm2d(4, track_running_stats=False).double()
    with pytest.raises(ValueError, match=REFUSED):
        gmcam.explain(gap_network, images, 1, method="full_grad")


# Noise.


def test_negative_noise_is_refused(network, images):
    with pytest.raises(ValueError, match=r"expected noise of at least 0, got -0\.1"):
        gmcam.explain(network, images, 0, method="smooth_full_grad", noise=-0.1)


def smooth(network, images, **options):
    return gmcam.explain(network, images, [2, 0, 1][: len(images)], method="smooth_full_grad", **options)


def test_the_seed_decides_the_noise_and_the_global_random_state_is_left_alone(network, images):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first, again = (smooth(network, images, seed=5).raw for _ in range(2))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(first, again)
    assert not torch.allclose(first, smooth(network, images, seed=6).raw, rtol=1e-3)
    torch.rand(1)
    assert torch.equal(first, smooth(network, images, seed=5).raw)


def test_batch_and_chunk_size_change_nothing(network, images):
    whole = smooth(network, images, chunk_size=100).raw
    for chunk_size in (1, 7, 25):
        assert torch.allclose(smooth(network, images, chunk_size=chunk_size).raw, whole, rtol=1e-9)
    alone = smooth(network, images[:1], chunk_size=3).raw
    assert torch.allclose(alone, whole[:1], rtol=1e-9)
