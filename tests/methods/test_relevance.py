"""Relevance-CAM: relevance is conserved on its way to the layer, and the maps are near the authors'."""

import copy
from collections import OrderedDict

import pytest
import torch
import torchvision
from modules import Apply
from torch import nn
from torch.nn import functional as F
from torchvision.models.squeezenet import Fire

import gmcam
from gmcam.capture import capture
from gmcam.lab.networks import ResidualBlock
from gmcam.methods.relevance import propagate as relevance_of


def propagate(module, layer, inputs, target):
    """The relevance at a layer, of one target per image."""
    captured = capture(module, inputs, target, layer, gradients=False)
    return relevance_of(gmcam.Query(gmcam.Network(module), inputs, target, layer, captured))


def test_two_cells_by_hand():
    """Two channels on two cells through a 1 × 1 convolution, a rectifier, their mean and a linear layer.

    Channel a is (1, 3), channel b (2, −1). The convolution's positive parts: of 2a − b + 1, at the first
    cell 2·1 + 1 = 3 (b speaks against), at the second 2·3 + 1·1 + 1 = 8. Of a + b − 4, 3 and 3 (a negative
    bias does not count). It gives (1, 8) and, rectified, (0, 0), with means 4.5 and 0.
    Class 0 takes 2 of the first mean, class 1 takes 1 of it and 5 of the other, which is 0. So all that
    starts, 1 − 1/2 = 1/2, goes to the first mean, and in proportion 1 : 8 to its cells: 1/18 and 8/18.
    Of that the first cell's a gets 2/3 (the rest is the bias's), the second's a 6/8 and b 1/8.
    """
    layers = OrderedDict(
        maps=nn.Identity(),
        conv=nn.Conv2d(2, 2, 1),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(2, 2),
    )
    module = nn.Sequential(layers).double().requires_grad_(False)
    module.conv.weight.copy_(torch.tensor([[2.0, -1.0], [1.0, 1.0]])[:, :, None, None])
    module.conv.bias.copy_(torch.tensor([1.0, -4.0]))
    module.fc.weight.copy_(torch.tensor([[2.0, 0.0], [1.0, 5.0]]))
    module.fc.bias.copy_(torch.tensor([7.0, -9.0]))
    maps = torch.tensor([[[[1.0, 3.0]], [[2.0, -1.0]]]], dtype=torch.float64)
    relevance = propagate(module, "maps", maps, torch.tensor([0]))
    by_hand = torch.tensor([[[[2 / 3 * 1 / 18, 6 / 8 * 8 / 18]], [[0, 1 / 8 * 8 / 18]]]]).double()
    assert torch.allclose(relevance, by_hand, atol=1e-6)
    a, b = (1 / 27 + 1 / 3) / 2, (0 + 1 / 18) / 2
    raw = gmcam.explain(module, maps, 0, method="relevance_cam", layer="maps").raw
    assert torch.allclose(raw, torch.tensor([[[a * 1 + b * 2, a * 3 - b * 1]]]).double(), atol=1e-6)


# Conservation: without biases, what starts at the logits arrives at the layer. That is 1 − (N − 1)/N = 1/N.


class Tiny(nn.Module):
    """Convolution, batch norm, one in-place rectifier for all, and two branches that ``meet``."""

    def __init__(self, meet, after=None):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.meet, self.after = meet, after or nn.ReLU()
        channels = meet(*torch.zeros(2, 1, 4, 1, 1)).shape[1]
        self.block = nn.Sequential(nn.Conv2d(channels, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
        self.fc = nn.Linear(5, 4)
        self.double().eval()

    def forward(self, x):
        x = self.pool(self.relu(self.norm(self.conv1(x))))
        x = self.relu(self.meet(self.relu(self.conv2(x)), x))
        return self.fc(F.adaptive_avg_pool2d(self.after(self.block(x)), 1).flatten(1))


def add(x, y):
    return x + y


def concatenate(x, y):
    return torch.cat([x, y], 1)


TINY = {"residual": add, "concatenating": concatenate, "plain": lambda x, y: x}
FULL = {"resnet18": ["layer4", "layer4.0", "layer2"], "densenet121": ["features.denseblock3"]}
FULL |= {"mobilenet_v2": ["features.18"]}  # earlier, a channel that speaks against all has no positive part


def without_biases(module):
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)  # a batch norm passes relevance on whole, whatever it adds
        elif getattr(part, "bias", None) is not None:
            nn.init.zeros_(part.bias)
    return module.double().eval()


def assert_conserved(module, layer, inputs):
    classes = module(inputs).shape[1]
    relevance = propagate(module, layer, inputs, torch.tensor([1, 0, 2][: len(inputs)]))
    assert torch.allclose(relevance.sum((1, 2, 3)), torch.tensor(1 / classes).double(), rtol=1e-3)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("layer", ["conv1", "pool", "block", "block.0"])
def test_relevance_is_conserved_in_tiny_networks(images, kind, layer):
    assert_conserved(without_biases(Tiny(TINY[kind])), layer, images)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("kind", TINY)
def test_relevance_is_conserved_for_images_of_any_scale(images, kind, scale):
    module = without_biases(Tiny(TINY[kind]))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # what else is as large as the image
            nn.init.zeros_(part.running_mean)
            nn.init.zeros_(part.bias)
    assert_conserved(module, "pool", scale * images)


def test_a_step_that_gives_zeros_alone_passes_nothing_on(gap_network, images):
    with torch.no_grad():
        gap_network.conv.weight.zero_()
        gap_network.conv.bias.fill_(-1)
    assert (propagate(gap_network, "conv", images, torch.tensor([0, 1, 2])) == 0).all()


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name in FULL for layer in FULL[name]])
def test_relevance_is_conserved_in_large_networks(name, layer):
    module = without_biases(torchvision.models.get_model(name, weights=None, num_classes=10))
    assert_conserved(module, layer, torch.randn(2, 3, 64, 64, dtype=torch.float64))


def test_in_squeezenet_relevance_starts_at_the_logits_that_are_not_zero():
    module = without_biases(torchvision.models.squeezenet1_0(num_classes=10))
    inputs = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    start = torch.full((2, 10), -0.1, dtype=torch.float64).index_fill(1, torch.tensor(1), 1)
    arrives = (start * (module(inputs) != 0)).sum(1)
    for layer in ("features.12", "features.4"):
        relevance = propagate(module, layer, inputs, torch.tensor([1, 1]))
        assert torch.allclose(relevance.sum((1, 2, 3)), arrives, rtol=1e-3)


# The rules, one layer after the other. The authors' convolution adds its bias to the positive and to the
# negative inputs' share, ours the positive part of its bias once.


def authors(bias):
    return bias, bias


def ours(bias):
    return None if bias is None else bias.clamp(min=0), None


def ratio(numerator, denominator):
    return torch.where(denominator == 0, 0, numerator / denominator)


def back(part, x, R, biases):
    """Relevance at the input ``x`` of a part from the relevance ``R`` at its output."""
    if isinstance(part, nn.Sequential):
        inputs = [x]
        for step in part:
            inputs.append(step(inputs[-1]))
        for step, given in zip(reversed(part), reversed(inputs[:-1]), strict=True):
            R = back(step, given, R, biases)
        return R
    if isinstance(part, ResidualBlock):
        inner = nn.Sequential(part.conv1, part.bn1, part.relu1, part.conv2, part.bn2)
        y, shortcut = inner(x), part.shortcut(x)
        share = ratio(R, y + shortcut)
        return back(inner, x, y * share, biases) + back(part.shortcut, x, shortcut * share, biases)
    if isinstance(part, Fire):
        squeeze = nn.Sequential(part.squeeze, nn.ReLU())
        narrow = squeeze(x)
        single, wide = R.split((part.expand1x1.out_channels, part.expand3x3.out_channels), 1)
        R = back(part.expand1x1, narrow, single, biases) + back(part.expand3x3, narrow, wide, biases)
        return back(squeeze, x, R, biases)
    if isinstance(part, nn.Conv2d | nn.Linear):
        signs = [(x.clamp(min=0), part.weight.clamp(min=0)), (x.clamp(max=0), part.weight.clamp(max=0))]
        if isinstance(part, nn.Linear):
            share = ratio(R, sum(x @ w.T for x, w in signs))
            return sum(x * (share @ w) for x, w in signs)
        where = {"stride": part.stride, "padding": part.padding}
        both = zip(signs, biases(part.bias), strict=True)
        share = ratio(R, sum(F.conv2d(x, w, b, **where) for (x, w), b in both))
        return sum(x * nn.grad.conv2d_input(x.shape, w, share, **where) for x, w in signs)
    if isinstance(part, nn.MaxPool2d):
        k, step = part.kernel_size, part.stride
        _, winner = F.max_pool2d(x, k, step, ceil_mode=part.ceil_mode, return_indices=True)
        return torch.zeros_like(x).flatten(2).scatter_add(2, winner.flatten(2), R.flatten(2)).view_as(x)
    if isinstance(part, nn.AdaptiveAvgPool2d):
        if part(x).shape == x.shape:
            return R
        return x * ratio(R, x.sum((2, 3), keepdim=True))
    return R.view_as(x)  # batch norm, rectifier, dropout, flattening


def steps_after(module, layer):
    parts = list(module.children())
    if layer.startswith("features"):
        after = int(layer.split(".")[1]) + 1 if "." in layer else len(module.features)
        return nn.Sequential(*module.features[after:], *module.classifier, nn.Flatten())
    names = [name for name, _ in module.named_children()]
    return nn.Sequential(*parts[names.index(layer) + 1 : -1], nn.Flatten(), parts[-1])


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        *(("collage-resnet", layer) for layer in ("stage4", "stage2")),
        *(("collage-vgg", layer) for layer in ("stage4", "stage3")),
        *(("squeezenet1_0", layer) for layer in ("features", "features.5")),
    ],
)
@torch.no_grad()
def test_relevance_is_the_rules_written_out_and_maps_are_near_the_authors(request, name, layer):
    network = request.getfixturevalue("squeezenet") if name == "squeezenet1_0" else gmcam.load(name)
    images = gmcam.lab.photo("chelsea"), gmcam.lab.scene("cat", "cup").image
    inputs = torch.cat([network.prepare(image) for image in images]).double()
    module = copy.deepcopy(network.module).double()
    result = gmcam.explain(module, inputs, method="relevance_cam", layer=layer)
    maps = capture(module, inputs, 0, [layer], gradients=False).maps[layer]
    after = steps_after(module, layer)
    start = torch.full_like(after(maps), -1 / (8 if layer.startswith("stage") else 1000))
    start[[0, 1], result.target] = 1
    expected = back(after, maps, start, biases=ours)
    relevance = propagate(module, layer, inputs, result.target)
    assert (relevance - expected).abs().max() < 1e-3 * expected.abs().max()
    weights = back(after, maps, start, biases=authors).mean((2, 3), keepdim=True)
    for mine, theirs in zip(result.raw, (weights * maps).sum(1), strict=True):
        assert correlation(mine, theirs) >= 0.99


# How it leaves a network, and which it refuses.


@pytest.mark.parametrize("layer", ["conv1", "block", "after"])
def test_nothing_is_left_behind_and_the_mode_does_not_matter(images, snapshot, layer):
    module = Tiny(add, after=nn.Dropout(0.5))
    expected = gmcam.explain(module, images, 1, method="relevance_cam", layer=layer).raw
    module.train()
    module.conv2.requires_grad_(False)
    module.norm.eval()

    def all_of_it():
        return (
            snapshot(module),
            [list(vars(part)) for part in module.modules()],
            torch.get_rng_state().tolist(),
        )

    before = all_of_it()
    raw = gmcam.explain(module, images, 1, method="relevance_cam", layer=layer).raw
    assert all_of_it() == before
    assert torch.equal(raw, expected)


class Dropping(nn.Module):
    """Dropout as a function, which has to be told whether the network is being trained."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=self.training)


def test_dropout_as_a_function_is_idle_in_training_mode_too(images):
    module = Tiny(add, after=Dropping())
    expected = gmcam.explain(module, images, 1, method="relevance_cam", layer="block").raw
    raw = gmcam.explain(module.train(), images, 1, method="relevance_cam", layer="block").raw
    assert torch.equal(raw, expected)


class Spelt(nn.Module):
    """A network whose pooling, activation and way from maps to logits may be written in several ways."""

    def __init__(self, end, pool=None, act=None):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.pool, self.act, self.end = pool or nn.MaxPool2d(2), act or nn.LeakyReLU(0.1), end
        self.fc = nn.Linear(5, 4)
        self.double().eval()

    def forward(self, x):
        x = self.act(self.conv2(self.pool(self.act(self.conv1(x)))))
        return self.fc(self.end(x))


def pooled(x):
    return F.adaptive_avg_pool2d(x, 1)


SPELT = {
    "x.mean((2, 3))": {"end": lambda x: x.mean((2, 3))},
    "x.mean([-2, -1])": {"end": lambda x: x.mean([-2, -1])},
    "torch.mean": {"end": lambda x: torch.mean(x, dim=(2, 3))},
    "one mean after the other": {"end": lambda x: x.mean(3).mean(2)},
    "x.shape[0]": {"end": lambda x: pooled(x).view(x.shape[0], -1)},
    "x.size()[0]": {"end": lambda x: pooled(x).reshape(x.size()[0], -1)},
    "a product of sizes": {"end": lambda x: pooled(x).reshape(-1, x.shape[1] * 1)},
    "indices": {"end": lambda x: pooled(x)[:, :, 0, 0]},
    "squeeze": {"end": lambda x: pooled(x).squeeze(3).squeeze(2)},
    "F.avg_pool2d": {"end": lambda x: F.avg_pool2d(x, 4).flatten(1)},
    "F.avg_pool2d of the map's size": {"end": lambda x: F.avg_pool2d(x, 4, 4).permute(0, 2, 3, 1).flatten(1)},
    "F.max_pool2d": {"pool": lambda x: F.max_pool2d(x, 2)},
    "F.max_pool2d with a stride": {"pool": lambda x: F.max_pool2d(x, kernel_size=2, stride=2)},
    "F.leaky_relu": {"act": lambda x: F.leaky_relu(x, 0.1)},
}


@pytest.mark.parametrize("written", SPELT)
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_functions_are_served_like_the_modules_they_stand_for(images, written, layer):
    module = Spelt(**{"end": lambda x: pooled(x).flatten(1), **SPELT[written]})
    reference = Spelt(lambda x: pooled(x).flatten(1))
    reference.load_state_dict(module.state_dict())
    expected = propagate(reference, layer, images, torch.tensor([0, 1, 2]))
    relevance = propagate(module, layer, images, torch.tensor([0, 1, 2]))
    # Each step keeps its own denominator from zero, by a millionth: two means are not quite one.
    assert (relevance - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_convolution_that_runs_twice_is_served_like_two_of_the_same_weights(images):
    class Twice(Spelt):
        def __init__(self, second):
            super().__init__(lambda x: x.mean((2, 3)))
            self.same = nn.Conv2d(4, 4, 3, padding=1).double()
            self.second = second

        def forward(self, x):
            x = self.act(self.same(self.pool(self.act(self.conv1(x)))))
            x = (self.second or self.same)(x)
            return self.fc(self.end(self.act(self.conv2(x))))

    shared = Twice(None)
    apart = Twice(nn.Conv2d(4, 4, 3, padding=1).double())
    apart.load_state_dict({**shared.state_dict(), **apart.second.state_dict(prefix="second.")})
    apart.second.load_state_dict(shared.same.state_dict())
    expected, relevance = (
        propagate(module, "conv1", images, torch.tensor([0, 1, 2])) for module in (apart, shared)
    )
    assert expected.abs().max() > 0
    assert torch.allclose(relevance, expected, rtol=1e-9, atol=1e-15)


def test_the_length_of_a_batch_cannot_be_traced_and_the_error_says_so(images):
    module = Spelt(lambda x: pooled(x).view(len(x), -1))
    message = r"torch.fx can trace, got Spelt \('len' is not supported .*: use a method"
    with pytest.raises(ValueError, match=message):
        gmcam.explain(module, images, 1, method="relevance_cam", layer="conv1")


REFUSED = {
    "sigmoid": Apply(torch.sigmoid),
    "tanh": Apply(lambda x: x.tanh()),
    "mul": Apply(lambda x: x * 2),
    "LayerNorm": nn.LayerNorm([5, 4, 4]),
    "GroupNorm": nn.GroupNorm(1, 5),
    "Sigmoid": nn.Sigmoid(),
    "Upsample": nn.Upsample(scale_factor=2),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_step_without_a_rule_is_refused_after_the_layer_and_taken_before_it(images, snapshot, what):
    module = Tiny(add, after=REFUSED[what])
    before = snapshot(module)
    with pytest.raises(ValueError, match=f"a relevance rule after 'block', got {what}: "):
        gmcam.explain(module, images, 1, method="relevance_cam", layer="block")
    assert snapshot(module) == before
    assert not gmcam.explain(module, images, 1, method="relevance_cam", layer="after").empty.any()


def test_a_layer_inside_of_what_counts_as_one_step_is_refused(images):
    body = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    module = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double()
    with pytest.raises(ValueError, match=r"a step of the traced network, got '0\.module\.0'"):
        gmcam.explain(module, images, 1, method="relevance_cam", layer="0.module.0")


def test_a_network_that_looks_at_values_is_refused(images):
    module = Tiny(add, after=Apply(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(ValueError, match=r"torch.fx can trace, got Tiny \(.*control flow\): use a method"):
        gmcam.explain(module, images, 1, method="relevance_cam", layer="block")


def test_functions_are_no_targets(gap_network, images):
    with pytest.raises(ValueError, match="a class as target of relevance_cam, got a function"):
        gmcam.explain(gap_network, images, lambda logits: logits[:, 0], method="relevance_cam")


class Pair(Tiny):
    """Gives its map beside its logits."""

    def forward(self, x):
        logits = super().forward(x)
        return logits, x


def test_of_several_outputs_the_first_is_explained(images):
    single, pair = Tiny(add), Pair(add)
    pair.load_state_dict(single.state_dict())
    expected = gmcam.explain(single, images, 1, method="relevance_cam", layer="block").raw
    assert torch.equal(gmcam.explain(pair, images, 1, method="relevance_cam", layer="block").raw, expected)
