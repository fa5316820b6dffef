"""Each guarantee of ``capture``: right gradients, one pass, nothing left behind, clear refusals."""

import re
import warnings
from collections import OrderedDict, defaultdict, namedtuple
from itertools import product

import numpy as np
import pytest
import torch
from modules import (
    IN_PLACE,
    Apply,
    Skip,
    View,
    assert_classes_equal_autograd,
    assert_equals_autograd,
    network,
    plain_autograd,
    stop_with,
)
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gmcam._hooks import forward
from gmcam.capture import INPUT, Recording, all_finite, capture

Pair = namedtuple("Pair", ["maps", "note"])


class Gate(nn.Module):
    """A convolution whose input is needed again after it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return (self.conv(x) * x).mean((2, 3))


class TwoHeads(nn.Module):
    """Logits, and the output of a second head for the same image."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.side = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(3, 2)

    def forward(self, x):
        side = self.side(x.mean((2, 3)))
        return self.head(self.conv(x).relu().mean((2, 3))), side


class Branches(nn.Module):
    """Two convolutions of the same input, neither before the other, and one after both."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)
        self.join = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        joined = self.join(torch.cat([self.left(x).relu(), self.right(x).sigmoid()], 1))
        return joined.square().mean((2, 3))


@pytest.mark.parametrize("layer", ["conv", "relu", "pool"])
@pytest.mark.parametrize("name", ["gap_network", "flat_network"])
def test_maps_and_gradients_are_those_of_plain_autograd(request, images, name, layer):
    module = request.getfixturevalue(name)
    captured = capture(module, images, 0, layer)
    assert_equals_autograd(captured, module, images, layer)
    assert torch.equal(captured.logits, module(images))
    assert torch.equal(captured.scores, module(images)[:, 0])
    assert captured.target.tolist() == [0, 0, 0]
    tensors = (captured.logits, captured.scores, captured.maps[layer], captured.gradients[layer])
    assert not any(tensor.requires_grad for tensor in tensors)


def test_several_layers_cost_one_forward_pass_and_equal_one_at_a_time(flat_network, images):
    layers = ["pool", "conv", "relu"]  # not in the order they run
    calls = []
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    together = capture(flat_network, images, None, layers)
    assert len(calls) == 1
    assert list(together.maps) == list(together.gradients) == layers
    for layer in layers:
        alone = capture(flat_network, images, None, layer)
        assert torch.equal(together.maps[layer], alone.maps[layer])
        assert torch.equal(together.gradients[layer], alone.gradients[layer])


def test_a_layer_may_be_a_module(flat_network, images):
    expected = capture(flat_network, images, 0, ["relu", "conv"])
    captured = capture(flat_network, images, 0, layer=flat_network.relu)
    assert list(captured.maps) == list(captured.gradients) == ["relu"]
    assert torch.equal(captured.gradients["relu"], expected.gradients["relu"])
    captured = capture(flat_network, images, 0, layer=[flat_network.relu, "conv"])
    assert list(captured.maps) == ["relu", "conv"]
    assert torch.equal(captured.gradients["conv"], expected.gradients["conv"])


def test_a_sequential_layer_is_one_layer_not_a_sequence(images):
    module = network(block=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    assert list(capture(module, images, 0, module.block).maps) == ["block"]


@pytest.mark.parametrize("layers", [["left"], ["right"], ["left", "right"], ["join", "right", "left"]])
def test_parallel_branches(images, layers):
    module = Branches().double()
    captured = capture(module, images, 0, layers)
    for layer in layers:
        assert_equals_autograd(captured, module, images, layer)


def test_a_block_and_the_last_module_in_it_have_the_same_gradient(images):
    module = network(block=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)))
    captured = capture(module, images, 0, ["block", "block.1", "block.0"])
    assert torch.equal(captured.gradients["block"], captured.gradients["block.1"])
    assert_equals_autograd(captured, module, images, "block.1")


def test_two_paths_of_a_shared_module_are_the_same_layer(images):
    module = network(act=nn.Tanh())
    module.spare = nn.ModuleList([module.act])
    module.forward = lambda x: module.mean(module.out(module.act(module.conv(x))).tanh())
    captured = capture(module, images, 0, ["act", "spare.0"])
    assert torch.equal(captured.maps["act"], captured.maps["spare.0"])
    assert torch.equal(captured.gradients["act"], captured.gradients["spare.0"])
    assert_equals_autograd(captured, module, images, "act")


def test_a_batch_equals_its_images_one_by_one(flat_network, images):
    together = capture(flat_network, images, [2, 0, 1], "relu")
    for n, target in enumerate([2, 0, 1]):
        alone = capture(flat_network, images[n : n + 1], target, "relu")
        assert torch.allclose(together.maps["relu"][n], alone.maps["relu"][0])
        assert torch.allclose(together.gradients["relu"][n], alone.gradients["relu"][0])


@pytest.mark.parametrize("targets", [[0, 1, 2], [2], [1, 1, 0, 2, 1]])
def test_many_classes_of_one_image_equal_one_at_a_time(flat_network, images, targets):
    calls = []
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    captured = capture(flat_network, images[:1], targets, ["relu", "pool"])
    assert len(calls) == 1
    assert captured.target.tolist() == targets
    for t, target in enumerate(targets):
        alone = capture(flat_network, images[:1], target, ["relu", "pool"])
        assert captured.scores[t] == alone.scores[0]
        for layer in ("relu", "pool"):
            assert torch.equal(captured.maps[layer][t], alone.maps[layer][0])
            assert torch.allclose(captured.gradients[layer][t], alone.gradients[layer][0], rtol=1e-12)


def doubled_gradient(maps):
    if maps.requires_grad:
        maps.register_hook(lambda gradient: 2 * gradient)
    return maps.mean((2, 3))


TAILS = {  # from the layer's maps to rows
    "pooling": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten()),
    "mean": Apply(lambda maps: maps.mean((-1, -2), keepdim=True).squeeze()[None]),
    "average used twice": Apply(lambda maps: maps.mean((2, 3)).sin() * maps.mean((2, 3)).cos()),
    "rectifier": nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "changed in place": Apply(lambda maps: maps.mul_(3).mean((2, 3))),
    "partly changed": Apply(lambda maps: (maps[:, :, 0].mul_(3), maps.mean((2, 3)))[1]),
    "shortcut": Apply(lambda maps: maps.mean((2, 3)) + maps[:, :, 0, 1]),
    "hook on a tensor": Apply(doubled_gradient),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_classes_of_one_image_whatever_follows_the_layer(tail):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), tail, nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).double()
    image = torch.rand(1, 3, 7, 8, dtype=torch.float64)
    captured = capture(module, image, [2, 0, 2, 1], "0")
    for gradient, target in zip(captured.gradients["0"], [2, 0, 2, 1], strict=True):
        expected = capture(module, image, target, "0").gradients["0"][0]
        assert expected.abs().max() > 0
        assert torch.allclose(gradient, expected, rtol=1e-12)


def test_after_an_average_a_single_channel_has_its_gradient():
    torch.manual_seed(0)
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    module = nn.Sequential(nn.Conv2d(3, 1, 3), *tail).double()
    image = torch.rand(1, 3, 7, 8, dtype=torch.float64)
    gradients = capture(module, image, [2, 0], "0").gradients["0"]
    expected = torch.stack([module[3].weight[target, 0] / 30 for target in (2, 0)])  # 5 × 6 cells
    assert torch.allclose(gradients, expected.view(2, 1, 1, 1).expand(2, 1, 5, 6), rtol=1e-12)


def test_one_recording_serves_one_target_after_another(flat_network, images):
    calls, layers = [], ["conv", "relu"]
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    recording = Recording(flat_network, images[:1], layers)
    parts = [recording.capture(part, last=False) for part in ([2, 0], [1])]
    assert len(calls) == 1
    whole = capture(flat_network, images[:1], [2, 0, 1], layers)
    assert torch.equal(torch.cat([part.scores for part in parts]), whole.scores)
    for layer in layers:
        maps = torch.cat([part.maps[layer] for part in parts])
        gradients = torch.cat([part.gradients[layer] for part in parts])
        assert torch.equal(maps, whole.maps[layer])
        assert torch.allclose(gradients, whole.gradients[layer], rtol=1e-12)


def test_a_recording_outlasts_one_class_per_image(flat_network, images):
    recording = Recording(flat_network, images, "relu")
    for target in ([2, 0, 1], 0):
        gradients = recording.capture(target, last=False).gradients["relu"]
        assert torch.equal(gradients, capture(flat_network, images, target, "relu").gradients["relu"])


def test_captures_compare_by_identity(gap_network, images):
    first, second = (capture(gap_network, images, 0, "relu") for _ in range(2))
    assert first == first
    assert (first == second) is False
    assert len({first, second}) == 2


# Nothing is left behind.


def occupied(module):
    """Every state that must survive: mixed flags, gradients, hooks of the user."""
    module.conv.weight.requires_grad_(False)
    module.train().relu.eval()
    module.conv.bias.grad = torch.full_like(module.conv.bias, 7)
    module.relu.register_forward_hook(lambda *_: None)
    module.conv.register_forward_pre_hook(lambda *_: None)
    module.fc.register_full_backward_hook(lambda *_: None)
    return module


def test_nothing_is_left_behind_after_success(gap_network, images, snapshot):
    before = snapshot(occupied(gap_network))
    capture(gap_network, images, None, ["conv", "relu"])
    capture(gap_network, images[:1], [0, 1, 2], "relu")
    assert snapshot(gap_network) == before


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("part", ["conv", "relu", "fc"])
def test_nothing_is_left_behind_when_the_network_fails(gap_network, images, snapshot, part, error):
    occupied(gap_network).get_submodule(part).register_forward_hook(stop_with(error))
    before = snapshot(gap_network)
    with pytest.raises(type(error)):
        capture(gap_network, images, 0, ["conv", "relu"])
    assert snapshot(gap_network) == before


REQUESTS = [(stop_with(KeyError("no")), "relu", KeyError), (9, "relu", ValueError), (0, "fc", ValueError)]


@pytest.mark.parametrize(("target", "layer", "error"), REQUESTS)
def test_nothing_is_left_behind_when_the_request_fails(gap_network, images, snapshot, target, layer, error):
    before = snapshot(occupied(gap_network))
    with pytest.raises(error):
        capture(gap_network, images, target, ["conv", layer])
    assert snapshot(gap_network) == before


def test_the_input_is_left_alone(gap_network, images):
    inputs = images.clone().requires_grad_()
    capture(gap_network, inputs, 0, "conv")
    assert (inputs.grad, inputs.requires_grad) == (None, True)
    assert torch.equal(inputs, images)


def test_runs_in_evaluation_mode(images, snapshot):
    module = network(norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), drop2=nn.Dropout2d(0.5)).train()
    before, random_state = snapshot(module), torch.get_rng_state()
    captured = capture(module, images, 0, "norm")
    assert snapshot(module) == before  # running statistics among it
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(captured.logits, module.eval()(images))


def test_hooks_of_the_user_fire_once_and_stay(gap_network, images):
    fired = []
    gap_network.relu.register_forward_hook(lambda *_: fired.append("forward"))
    gap_network.relu.register_forward_pre_hook(lambda *_: fired.append("before"))
    gap_network.relu.register_full_backward_hook(lambda *_: fired.append("backward"))
    capture(gap_network, images, 0, "conv")
    assert fired == ["before", "forward", "backward"]
    gap_network(images)
    assert fired[3:] == ["before", "forward"]


def test_a_hook_of_the_user_may_change_the_map(gap_network, images):
    gap_network.relu.register_forward_hook(lambda m, a, out: out * 2)
    captured = capture(gap_network, images, 0, "relu")
    assert torch.equal(captured.maps["relu"], 2 * gap_network.conv(images).relu())
    assert_equals_autograd(captured, gap_network, images, "relu")
    assert torch.equal(captured.logits, gap_network(images))


# No graph before the layer.


def test_the_graph_begins_with_the_map_of_the_earliest_layer(images):
    nodes = []

    def look():
        return Apply(lambda x: (x, nodes.append(x.grad_fn))[0])

    between = {
        "look1": look(),
        "relu": nn.Tanh(),
        "look2": look(),
        "conv2": nn.Conv2d(4, 4, 3),
        "relu2": nn.ReLU(),
    }
    capture(network(**between), images.requires_grad_(), 0, ["relu2", "relu"])
    before, after = nodes
    assert before is None
    ((start, _),) = after.next_functions
    assert start.variable.is_leaf


def test_parameters_need_no_gradient_during_the_pass(gap_network, images):
    flags = []
    gap_network.fc.register_forward_pre_hook(
        lambda *_: flags.extend(parameter.requires_grad for parameter in gap_network.parameters())
    )
    capture(gap_network, images, 0, "conv")
    assert flags == [False] * 4


def test_only_what_follows_the_layer_is_saved_for_the_backward_pass(images):
    module = network(relu=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3), relu2=nn.ReLU())
    saved = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.add(tuple(t.shape)) or t, lambda t: t):
        capture(module, images, 0, "conv2")
    assert not saved & {(3, 3, 8, 8), (4, 3, 3, 3), (3, 4, 6, 6)}  # input, weights, maps before conv2
    assert (3, 4, 4, 4) in saved  # maps after it


# Modules in place.


@pytest.mark.parametrize("layers", [["conv"], ["relu"], ["conv", "relu"]], ids="+".join)
@pytest.mark.parametrize("kind", IN_PLACE)
def test_in_place_modules_make_no_difference(images, kind, layers):
    def build(after, inplace):
        rectified = {"relu": nn.ReLU(inplace)} if "relu" in layers else {}
        return network(**rectified, after=after)

    in_place, ordinary = IN_PLACE[kind]
    captured = capture(build(in_place, inplace=True), images, 0, layers)
    for layer in layers:
        assert_equals_autograd(captured, build(ordinary, inplace=False), images, layer)


class ReadAgain(nn.Module):
    """A rectifier in place; then its return value, its input or both are read."""

    def __init__(self, keyword, read):
        super().__init__()
        self.keyword, self.read = keyword, read
        self.relu, self.mix = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1).double()

    def forward(self, x):
        y = self.relu(input=x) if self.keyword else self.relu(x)
        return self.read(self.mix, x, y)


READ = {  # x is rectified, too
    "return value": lambda mix, x, y: mix(y),
    "input": lambda mix, x, y: mix(x),
    "both": lambda mix, x, y: mix(y) + x,
}


@pytest.mark.parametrize(
    "layers", [["block.relu"], ["conv", "block.relu"], ["block.relu", "out", INPUT]], ids="+".join
)
@pytest.mark.parametrize("keyword", [False, True], ids=["position", "keyword"])
@pytest.mark.parametrize("kind", READ)
def test_an_in_place_layer_whose_input_is_read_again(images, kind, keyword, layers):
    module = network(block=ReadAgain(keyword, READ[kind]))
    assert_equals_autograd(capture(module, images, 0, layers), module, images, "block.relu")
    classes = capture(module, images[:1], [3, 0, 1], layers)
    assert_classes_equal_autograd(classes, module, images[:1], "block.relu", [3, 0, 1])


@pytest.mark.parametrize("layers", [["block.skip"], ["conv", "block.skip"], [INPUT, "block.skip"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_layer_that_returns_its_input_has_only_the_gradient_through_its_output(images, first, layers):
    """Not that of the convolution with the same input, whichever runs first."""
    module = network(block=Skip(first))
    captured = capture(module, images, 0, layers)
    block = torch.zeros_like(captured.maps["block.skip"], requires_grad=True)
    with torch.no_grad():
        x = module.block.conv(captured.maps["block.skip"]) + captured.maps["block.skip"]
    module.out(x + block).tanh().mean((2, 3))[:, 0].sum().backward()
    assert torch.allclose(captured.gradients["block.skip"], block.grad, rtol=1e-12, atol=1e-14)


# Layers that return several tensors.

STRUCTURES = {
    "tuple": (lambda x: (x * 1, "note"), lambda out: out[0]),
    "tensor second": (lambda x: ("note", x * 1), lambda out: out[1]),
    "list": (lambda x: [x * 1, x.detach() * 2], lambda out: out[0]),
    "named tuple": (lambda x: Pair(x * 1, "note"), lambda out: out.maps),
    "dict": (lambda x: {"maps": x * 1, "note": 1}, lambda out: out["maps"]),
    "ordered dict": (lambda x: OrderedDict(note=None, maps=x * 1), lambda out: out["maps"]),
    "default dict": (lambda x: defaultdict(list, maps=x * 1), lambda out: out["maps"]),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_layer_and_a_network_may_return_a_structure(images, kind):
    pack, unpack = STRUCTURES[kind]
    module = network(packed=Apply(pack), unpack=Apply(unpack), last=lambda x: pack(x.mean((2, 3))))
    types = []
    module.unpack.register_forward_pre_hook(lambda m, inputs: types.append(type(inputs[0])))
    captured, expected = capture(module, images, 1, "packed"), capture(network(), images, 1, "conv")
    assert set(types) == {type(pack(images))}  # the network continues with the same structure
    assert torch.equal(captured.logits, expected.logits)
    assert torch.equal(captured.gradients["packed"], expected.gradients["conv"])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_rest_of_a_structure_stays_as_it_was(images, place):
    def pack(x):
        words = ["a", "b", "c"]
        words[place] = x * 1
        return words

    module = network(packed=Apply(pack), unpack=Apply(lambda parts: parts[place]))
    seen = []
    module.unpack.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    capture(module, images, 0, "packed")
    words = ["a", "b", "c"]
    assert len(seen[0]) == 3
    assert [part for part in seen[0] if isinstance(part, str)] == words[:place] + words[place + 1 :]


class Down(nn.Module):
    """A U-Net's block: the maps for the skip connection, and the maps for the next block."""

    def __init__(self, pack):
        super().__init__()
        self.conv, self.pack = nn.Conv2d(4, 4, 3, padding=1), pack

    def forward(self, x):
        return self.pack(self.conv(x).tanh())


class UNet(nn.Module):
    """Reads all tensors that ``down`` returns; 4 logits."""

    def __init__(self, pack, read):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.down, self.read = nn.Conv2d(3, 4, 3, padding=1), Down(pack), read
        self.deep, self.out = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        parts = [F.interpolate(part, (4, 4)) for part in self.read(self.down(self.first(x).relu()))]
        maps = torch.cat([sum(parts), self.deep(parts[-1]).sin()], 1)
        return self.out(maps).tanh().mean((2, 3))


Down2 = namedtuple("Down2", ["skip", "pooled"])
RELATED = {  # what the block makes of its maps, and how the network reads it
    "tuple": (lambda s: (s, F.max_pool2d(s, 2)), tuple),
    "list": (lambda s: [s, F.max_pool2d(s, 2)], list),
    "dict": (lambda s: {"skip": s, "pooled": F.avg_pool2d(s, 2)}, lambda out: [out["skip"], out["pooled"]]),
    "named tuple": (lambda s: Down2(s, F.max_pool2d(s, 2)), lambda out: [out.skip, out.pooled]),
    "nested": (lambda s: (s, (s.exp(), F.max_pool2d(s, 2))), lambda out: [out[0], *out[1]]),
    "nested dict": (lambda s: {"a": s, "more": [s.sin(), None]}, lambda out: [out["a"], out["more"][0]]),
    "pooled first": (lambda s: (F.avg_pool2d(s, 2), s), tuple),
    "unrelated": (lambda s: (s.sin(), s.cos()), tuple),
    "twice the same": (lambda s: (s, s), tuple),
    "a view": (lambda s: (s, s[:, :, ::2, 1:]), tuple),
    "in place after": (lambda s: (s, s.detach(), (s * 1).mul_(2)), tuple),
}
NEIGHBOURS = [
    ["down"],
    ["first", "down"],
    ["down", "deep"],
    ["out", "down", "first"],
    [INPUT, "down"],
    ["down.conv", "down"],
]


@pytest.mark.parametrize("layers", NEIGHBOURS, ids="+".join)
@pytest.mark.parametrize("kind", RELATED)
def test_influence_through_every_tensor_that_a_layer_returns_counts(images, kind, layers):
    module = UNet(*RELATED[kind]).double()
    captured = capture(module, images, [2, 0, 1], layers)

    def score(logits):
        return logits[[0, 1, 2], [2, 0, 1]]

    for layer in set(layers) - {INPUT}:
        assert_equals_autograd(captured, module, images, layer, score=score)
    assert torch.equal(captured.logits, module(images))
    classes = capture(module, images[:1], [3, 0, 1], layers)
    for layer in set(layers) - {INPUT}:
        assert_classes_equal_autograd(classes, module, images[:1], layer, [3, 0, 1])


class Recurrent(nn.Module):
    """Rows of the image through an LSTM; reads its outputs, its last hidden state and its cell state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.head = nn.LSTM(24, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        output, (hidden, cell) = self.rows(x.transpose(1, 2).flatten(2))
        return self.head(output.sin().mean(1) + hidden[-1].exp() * cell[-1])


@pytest.mark.parametrize("layers", [["rows"], [INPUT, "rows"]], ids="+".join)
def test_an_lstm(images, layers):
    module = Recurrent().double()
    captured = capture(module, images, 0, layers, any_shape=True)
    maps, gradients = plain_autograd(module, images, "rows")
    assert torch.allclose(captured.maps["rows"], maps, rtol=1e-12)
    assert torch.allclose(captured.gradients["rows"], gradients, rtol=1e-9)
    classes = capture(module, images[:1], [2, 0], layers, any_shape=True)
    for gradient, target in zip(classes.gradients["rows"], [2, 0], strict=True):
        _, expected = plain_autograd(module, images[:1], "rows", lambda y, t=target: y[:, t])
        assert torch.allclose(gradient, expected[0], rtol=1e-9)


class Positions(nn.Module):
    """``block`` returns two related tensors, and receives a second argument besides the maps."""

    def __init__(self, argument):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.block, self.argument = nn.Conv2d(3, 4, 3, padding=1), Down(None), argument
        self.block.forward = lambda x, position: self.both(self.block.conv(x) * position)
        self.weight = nn.Parameter(torch.rand(4, 8, 8))
        self.register_buffer("table", torch.rand(1, 4, 8, 8))
        self.plain = torch.rand(1, 4, 8, 8).double()

    def both(self, maps):
        return maps.tanh(), maps.tanh().flip(2)

    def forward(self, x):
        first, second = self.block(self.conv(x), position=self.argument(self))
        return (first * second.exp()).mean((2, 3))


ARGUMENTS = {
    "a parameter": lambda module: module.weight,
    "a view of a parameter": lambda module: module.weight[None],
    "an expanded parameter": lambda module: module.weight.expand(3, 4, 8, 8),
    "a buffer": lambda module: module.table,
    "a view of a buffer": lambda module: module.table[0],
    "a plain tensor": lambda module: module.plain,
    "a view of a plain tensor": lambda module: module.plain[0],
}


@pytest.mark.parametrize("hook", [False, True], ids=["", "hook inside"])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_other_arguments_of_a_layer_with_several_tensors_are_left_alone(images, kind, hook, snapshot):
    module = Positions(ARGUMENTS[kind]).double()
    if hook:
        module.block.conv.register_forward_hook(lambda *_: None)
    maps, gradients = plain_autograd(module, images, "block")
    before = snapshot(module)
    for _ in range(2):
        captured = capture(module, images, 0, "block")
        assert torch.equal(captured.maps["block"], maps)
        assert torch.allclose(captured.gradients["block"], gradients, rtol=1e-9, atol=1e-14)
        tensors = [*module.parameters(), *module.buffers(), module.plain]
        assert [tensor.is_leaf for tensor in tensors] == [True] * len(tensors)
        assert not (module.plain.requires_grad or module.table.requires_grad)
        assert snapshot(module) == before


def test_a_tensor_that_the_graph_has_saved_may_enter_a_layer_with_several_tensors(images):
    module = Branches().double()
    module.right.forward = lambda x, conv=module.right.forward: (conv(x), conv(x).tanh())

    def run(x):
        gate = module.left(x[:, :, 1:-1, 1:-1] * 1) * 1
        gate = gate * x[:, :2, 2:-2, 2:-2]  # saves x
        first, second = module.right(x)
        joined = torch.cat([gate, (first * second)[:, :, 1:-1, 1:-1]], 1)
        return module.join(joined).square().mean((2, 3))

    module.forward = run
    for layers in (["left"], ["right"], ["left", "right"]):
        captured = capture(module, images, 0, layers)
        for layer in layers:
            assert_equals_autograd(captured, module, images, layer)


# Networks that read their features by forward hooks.

PLACES = ("body.stem", "body.block.conv", "body.block.act", "body.block", "body.last", "body")


class ReadsHooks(nn.Module):
    """Stores the outputs of modules in a dictionary by forward hooks, and reads them later, as DPT does."""

    def __init__(self, places):
        super().__init__()
        torch.manual_seed(0)
        block = nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 4, 3, padding=1), act=nn.Tanh()))
        parts = OrderedDict(stem=nn.Conv2d(3, 4, 3, padding=1), block=block, last=nn.Conv2d(4, 4, 1))
        self.body, self.out = nn.Sequential(parts), nn.Conv2d(4, 4, 3, padding=1)
        self.features = {}
        for place in places:
            self.get_submodule(place).register_forward_hook(
                lambda module, inputs, output, place=place: self.features.update({place: output})
            )

    def forward(self, x):
        maps = self.body(x).sin()
        for number, features in enumerate(self.features.values(), start=2):
            maps = maps + (number * features).cos()
        self.features.clear()
        return self.out(maps).tanh().mean((2, 3))


REQUESTED = [
    *([place] for place in PLACES),
    ["body.stem", "body.block"],
    ["body", "body.block"],
    ["body.block.act", "body.last", "body.block"],
    [INPUT, "body.block"],
]


@pytest.mark.parametrize("layers", REQUESTED, ids="+".join)
@pytest.mark.parametrize("places", [*([place] for place in PLACES), list(PLACES)], ids="+".join)
def test_features_that_the_networks_hooks_store_count(images, places, layers):
    module = ReadsHooks(places).double()
    captured = capture(module, images, 0, layers)
    classes = capture(module, images[:1], [3, 0], layers)
    for layer in set(layers) - {INPUT}:
        assert_equals_autograd(captured, module, images, layer)
        assert_classes_equal_autograd(classes, module, images[:1], layer, [3, 0])
    assert torch.equal(captured.logits, module(images))


class ReadsAnything(nn.Module):
    """``encoder`` ends in an in-place rectifier; ``store`` registers a hook that fills ``features``."""

    def __init__(self, store):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.out, self.features = nn.Conv2d(4, 4, 3, padding=1), []
        store(self)

    def forward(self, x):
        y = self.encoder(x)
        return self.out(y.sin() + self.features.pop().cos()).tanh().mean((2, 3))


STORES = {
    "hook in front of a module in place": lambda m: m.encoder[1].register_forward_pre_hook(
        lambda _, inputs: m.features.append(inputs[0])
    ),
    "hook on the module before it": lambda m: m.encoder[0].register_forward_hook(
        lambda _, inputs, output: m.features.append(output)
    ),
    "hook with keywords": lambda m: m.encoder[1].register_forward_hook(
        lambda _, inputs, keywords, output: m.features.append(output), with_kwargs=True
    ),
    "hook on the block": lambda m: m.encoder.register_forward_hook(
        lambda _, inputs, output: m.features.append(output)
    ),
}


@pytest.mark.parametrize("layers", [["encoder"], ["encoder.1"], ["encoder.1", "encoder"], [INPUT, "encoder"]])
@pytest.mark.parametrize("kind", STORES)
def test_features_stored_around_a_module_in_place(images, kind, layers):
    module = ReadsAnything(STORES[kind]).double()
    captured = capture(module, images, 0, layers)
    classes = capture(module, images[:1], [3, 0], layers)
    for layer in set(layers) - {INPUT}:
        assert_equals_autograd(captured, module, images, layer)
        assert_classes_equal_autograd(classes, module, images[:1], layer, [3, 0])


def test_a_layer_that_returns_several_tensors_beside_one_whose_output_a_hook_stores(images):
    """Neither is before the other, and whole numbers have no gradient that leads to both."""
    module, stored = Branches().double(), []
    module.left.forward = lambda x, conv=module.left.forward: (conv(x), conv(x).tanh())
    module.right.register_forward_hook(lambda _, inputs, output: stored.append(output))

    def run(x):
        first, second = module.left(x.double())
        joined = torch.cat([first * second, module.right(x.double()) * stored.pop()], 1)
        return module.join(joined).square().mean((2, 3))

    module.forward = run
    levels = (images * 4).to(torch.int8)
    captured = capture(module, levels, 0, ["left", "right"])
    for layer in ("left", "right"):
        assert_equals_autograd(captured, module, levels.double(), layer)


class Frozen(nn.Module):
    """An encoder under no_grad, whose features a hook stores; the rest reads them and its output."""

    def __init__(self, place):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 1))
        self.out, self.features = nn.Conv2d(4, 4, 3, padding=1), []
        self.get_submodule(place).register_forward_hook(lambda m, i, output: self.features.append(output))

    def forward(self, x):
        with torch.no_grad():
            y = self.encoder(x)
        return self.read(y, self.features.pop())

    def read(self, y, features):
        return self.out(y.sin() + features.cos()).tanh().mean((2, 3))


@pytest.mark.parametrize("place", ["encoder", "encoder.1", "encoder.2"])
@pytest.mark.parametrize("targets", [[2, 0, 1], [3]], ids=repr)
def test_stored_features_of_a_frozen_encoder_count(images, place, targets):
    module, images = Frozen(place).double(), images[: len(targets)]
    layer = "encoder" if place == "encoder.2" else place
    captured = capture(module, images, targets, layer)
    maps = captured.maps[layer].clone().requires_grad_()
    expected = (
        module.encoder[1](module.encoder[0](images)) if place == "encoder.1" else module.encoder(images)
    )
    assert torch.equal(maps, expected)
    # Under no_grad, the encoder's output is a constant for the features of a module inside.
    logits = module.read(module.encoder(images).detach() if place == "encoder.1" else maps, maps)
    logits[range(len(targets)), targets].sum().backward()
    assert torch.allclose(captured.gradients[layer], maps.grad, rtol=1e-9)


@pytest.mark.parametrize("hook", [False, True], ids=["several tensors", "hook"])
def test_an_input_of_whole_numbers_before_a_layer_that_returns_several_tensors(images, hook):
    pack, read = RELATED["tuple"]
    module = UNet(pack, read).double()
    if hook:
        module.down.conv.register_forward_hook(lambda *_: None)
    levels = (images * 40 + 128).to(torch.uint8)
    inner = module.forward
    module.forward = lambda x: inner(x.double() / 255)
    captured = capture(module, levels, 0, "down")
    module.forward = inner
    assert_equals_autograd(captured, module, levels.double() / 255, "down")


# Gradients switched on or off by the caller or inside the network.


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_caller_and_frozen_networks(flat_network, images, caller, trainable):
    maps, gradients = plain_autograd(flat_network, images, "relu")
    flat_network.requires_grad_(trainable)
    with caller():
        inputs = images * 1  # an inference tensor under inference_mode
        captured = capture(flat_network, inputs, 0, "relu")
        classes = capture(flat_network, inputs[:1], [0, 1], "relu")
    assert torch.equal(captured.maps["relu"], maps)
    assert torch.allclose(captured.gradients["relu"], gradients, rtol=1e-12)
    assert torch.allclose(classes.gradients["relu"][0], gradients[0], rtol=1e-12)


def test_an_inference_tensor_may_be_needed_again_after_the_layer(images):
    module = Gate().double()
    with torch.inference_mode():
        captured = capture(module, images * 1, 0, "conv")
    assert_equals_autograd(captured, module, images, "conv")


SWITCHES = {
    "set_grad_enabled(True)": lambda: torch.set_grad_enabled(True),
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "enable_grad": torch.enable_grad,
    "no_grad": torch.no_grad,
}


class Finetuned(nn.Module):
    """``body`` under a gradient mode of the network's choice, and a head."""

    def __init__(self, switch):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
        self.head, self.switch = nn.Linear(4, 3), switch

    def forward(self, x):
        with self.switch():
            maps = self.body(x)
        return self.head(maps.sin().mean((2, 3)))


@pytest.mark.parametrize("caller", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("kind", SWITCHES)
def test_a_layer_that_runs_under_the_networks_own_gradient_mode(images, kind, caller, snapshot):
    module = Finetuned(SWITCHES[kind]).double()
    expected = Finetuned(torch.enable_grad).double()
    before = snapshot(module)
    with caller():
        mode = torch.is_grad_enabled()
        captured = capture(module, images, 0, "body")
        classes = capture(module, images[:1], [2, 0], "body")
        assert torch.is_grad_enabled() == mode
    assert_equals_autograd(captured, expected, images, "body")
    assert_classes_equal_autograd(classes, expected, images[:1], "body", [2, 0])
    assert snapshot(module) == before


@pytest.mark.parametrize("kind", ["set_grad_enabled(True)", "enable_grad"])
def test_gradients_enabled_inside_the_network_change_nothing_after_an_early_layer(images, kind):
    module = Finetuned(SWITCHES[kind]).double()
    for layers in (["body.0"], ["body.1", "body"], [INPUT, "body.0"]):
        captured = capture(module, images, 0, layers)
        for layer in set(layers) - {INPUT}:
            assert_equals_autograd(captured, module, images, layer)
    assert capture(module, images, 0, "body.0", gradients=False).gradients == {}


class Set(nn.Module):
    """Sets the gradient mode for the rest of the pass."""

    def forward(self, x):
        torch.set_grad_enabled(True)
        return x


def test_a_network_that_never_restores_the_gradient_mode(images):
    module = network(switch=Set())
    with torch.no_grad():
        captured = capture(module, images, 0, "conv")
        assert not torch.is_grad_enabled()
    assert_equals_autograd(captured, module, images, "conv")


NO_GRADIENT = {
    "body under no_grad": (Finetuned(torch.no_grad), "body.0"),
    "detach": (network(cut=Apply(torch.Tensor.detach)), "conv"),
    "int8": (network(cut=Apply(lambda x: (x * 20).to(torch.int8).double() / 20)), "conv"),
    "argmax": (network(cut=Apply(lambda x: F.one_hot(x.argmax(1), 4).movedim(3, 1).double())), "conv"),
    "no_grad to the end": (network(last=torch.no_grad()(lambda x: x.mean((2, 3)))), "conv"),
}


@pytest.mark.parametrize("targets", [0, [1, 0]], ids=repr)
@pytest.mark.parametrize("kind", NO_GRADIENT)
def test_a_network_that_drops_gradients_after_the_layer_is_refused(images, kind, targets):
    module, layer = NO_GRADIENT[kind]
    module.double()
    with pytest.raises(ValueError, match=re.escape(f"'{layer}'")) as error:
        capture(module, images[:1], targets, layer)
    assert re.search(r"no gradient|drops gradients", str(error.value))
    assert "score_cam" in str(error.value) or "eigen_cam" in str(error.value)
    assert capture(module, images, 0, layer, gradients=False).maps[layer].ndim == 4


def test_a_layer_of_whole_numbers_has_no_gradient_and_is_refused(images):
    module = network(
        quantise=Apply(lambda x: (x * 20).to(torch.int8)), scale=Apply(lambda x: x.double() / 20)
    )
    assert capture(module, images, 0, "quantise", gradients=False).maps["quantise"].dtype == torch.int8
    with pytest.raises(ValueError, match="'quantise'"):
        capture(module, images, 0, "quantise")


# Several classes of one image where the backward pass cannot be batched.


class Scaled(torch.autograd.Function):
    """The gradient is divided by its norm where that is large: its path depends on values."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / gradient.norm() if gradient.norm() > 1e-3 else gradient


class Masked(torch.autograd.Function):
    """Guided backpropagation's rectifier, with an assignment to a mask."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        passed = torch.zeros(gradient.shape, dtype=gradient.dtype)
        mask = (gradient > 0) & (ctx.saved_tensors[0] > 0)
        passed[mask] = gradient[mask]
        return passed


class InNumPy(torch.autograd.Function):
    """Forward and backward outside torch."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(np.cos(ctx.saved_tensors[0].numpy()) * gradient.numpy())


class Swish(torch.autograd.Function):
    """One that can be batched."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradient * s * (1 + x * (1 - s))


CANNOT_BE_BATCHED = {"values": Scaled, "mask": Masked, "NumPy": InNumPy}


@pytest.fixture
def warned():
    """The warnings of a test, all of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("layers", [["conv"], ["conv", "step"], [INPUT, "conv"]], ids="+".join)
@pytest.mark.parametrize("kind", CANNOT_BE_BATCHED)
def test_classes_take_a_backward_pass_each_where_they_cannot_be_batched(images, kind, layers, warned):
    module = network(step=Apply(CANNOT_BE_BATCHED[kind].apply))
    captured = capture(module, images[:1], [2, 0, 1], layers)
    assert len(warned) == 1
    assert "cannot be batched" in str(warned[0].message)
    for layer in layers:
        for gradient, target in zip(captured.gradients[layer], [2, 0, 1], strict=True):
            expected = capture(module, images[:1], target, layers).gradients[layer][0]
            assert expected.abs().max() > 0
            assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-15)
    assert_classes_equal_autograd(captured, module, images[:1], "conv", [2, 0, 1])
    assert len(warned) == 1  # none for a single class


@pytest.mark.parametrize("kind", CANNOT_BE_BATCHED)
def test_one_warning_for_one_recording(images, kind, warned):
    module = network(step=Apply(CANNOT_BE_BATCHED[kind].apply))
    recording = Recording(module, images[:1], "conv")
    parts = [recording.capture(part, last=False) for part in ([2, 0], [1, 3], [3])]
    assert len(warned) == 1
    gradients = torch.cat([part.gradients["conv"] for part in parts])
    for gradient, target in zip(gradients, [2, 0, 1, 3, 3], strict=True):
        assert torch.allclose(gradient, capture(module, images[:1], target, "conv").gradients["conv"][0])


def test_a_function_that_can_be_batched_warns_of_nothing(images, warned):
    module = network(step=Apply(Swish.apply))
    captured = capture(module, images[:1], [2, 0, 1], "conv")
    assert_classes_equal_autograd(captured, module, images[:1], "conv", [2, 0, 1])
    assert not warned


def test_classes_of_a_layer_without_influence_where_they_cannot_be_batched(images, warned):
    module = TwoHeads().double()
    module.head.register_forward_pre_hook(lambda _, inputs: (Scaled.apply(inputs[0]),))
    captured = capture(module, images[:1], [0, 3], ["conv", "side"], any_shape=True, skip_idle=True)
    assert list(captured.gradients) == ["conv"]
    assert captured.gradients["conv"].shape == (2, 4, 6, 6)
    assert len(warned) == 1


@pytest.mark.filterwarnings("ignore:.*cannot be batched")
def test_an_error_of_the_networks_own_backward_is_raised_as_it_is(images, snapshot):
    error = KeyError("no")

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise error

    module = network(step=Apply(Fails.apply)).train()
    before = snapshot(module)
    for target in (0, [0, 1]):
        with pytest.raises(KeyError) as caught:
            capture(module, images[:1], target, "conv")
        assert caught.value is error
        assert snapshot(module) == before


def fails_at_first(error):
    """A module whose first backward pass raises ``error``."""
    errors = [error]

    def fail(_):
        if errors:
            raise errors.pop()

    return Apply(lambda x: (x.register_hook(fail), x)[1])


def test_an_error_without_a_message_is_named_in_the_warning(images, warned):
    module = network(step=fails_at_first(AssertionError()))
    captured = capture(module, images[:1], [2, 0], "conv")
    assert [str(each.message).partition("(")[2] for each in warned] == ["AssertionError)"]
    expected = capture(network(), images[:1], [2, 0], "conv")
    assert torch.allclose(captured.gradients["conv"], expected.gradients["conv"], rtol=1e-12)


def test_a_batched_backward_pass_that_runs_out_of_memory_is_not_run_again(images, warned):
    module = network(step=fails_at_first(torch.OutOfMemoryError("no")))
    with pytest.raises(torch.OutOfMemoryError, match="no"):
        capture(module, images[:1], [2, 0], "conv")
    assert not warned


# Networks that run parts again in the backward pass, and inputs of any layout and type.


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("part", [nn.GELU, lambda: nn.BatchNorm2d(4), nn.Dropout], ids=str)
@pytest.mark.parametrize("targets", [0, [0, 3]], ids=repr)
def test_gradient_checkpointing_runs_again_in_evaluation_mode(images, caller, part, targets, snapshot):
    module = network(twice=nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), part())).double()
    inputs = images if targets == 0 else images[:1]
    block = module.twice.forward
    expected = capture(module, inputs, targets, "conv").gradients["conv"]
    module.train().twice.forward = lambda x: checkpoint(block, x, use_reentrant=False)
    before = snapshot(module)
    with caller():
        gradients = capture(module, inputs, targets, "conv").gradients["conv"]
    assert torch.equal(gradients, expected)
    assert snapshot(module) == before


@pytest.mark.parametrize("layers", [["conv"], ["twice"], ["conv", "twice"], [INPUT, "twice.0"]], ids="+".join)
@pytest.mark.parametrize("targets", [[0, 3], [2]], ids=repr)
def test_gradient_checkpointing_of_a_layer_with_hooks(images, layers, targets, snapshot):
    module = network(twice=nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 1)))
    module.twice[0].register_forward_hook(lambda *_: None)
    module.twice[2].register_forward_pre_hook(lambda *_: None)
    expected = capture(module, images[:1], targets, [layer for layer in layers if layer != "twice.0"])
    block = module.twice.forward
    module.twice.forward = lambda x: checkpoint(block, x, use_reentrant=False)
    before = snapshot(module)
    captured = capture(module, images[:1], targets, list(expected.gradients))
    for layer in expected.gradients:
        assert torch.allclose(captured.gradients[layer], expected.gradients[layer], rtol=1e-12)
    assert snapshot(module) == before


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "window": lambda x: torch.cat([x, x], 3)[..., :8],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_the_input_makes_no_difference(flat_network, images, layout):
    expected = capture(flat_network, images, 0, "relu")
    captured = capture(flat_network, LAYOUTS[layout](images), 0, "relu")
    assert torch.allclose(captured.maps["relu"], expected.maps["relu"])
    assert torch.allclose(captured.gradients["relu"], expected.gradients["relu"])


@pytest.mark.parametrize(("count", "targets"), [(3, [0, 1, 2]), (1, [0, 1, 2])])
def test_bfloat16_gives_bfloat16_near_the_exact_gradients(flat_network, images, count, targets):
    exact = capture(flat_network, images[:count], targets, "relu").gradients["relu"]
    inputs = images[:count].bfloat16()
    rough = capture(flat_network.bfloat16(), inputs, targets, "relu").gradients["relu"]
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize("targets", [None, 1, [], lambda logits: logits[:, 0]], ids=repr)
def test_no_image_gives_no_map(gap_network, images, targets):
    captured = capture(gap_network, images[:0], targets, "relu")
    assert captured.gradients["relu"].shape == captured.maps["relu"].shape == (0, 4, 8, 8)


# Targets; test_outputs.py has the rest.

TARGETS = [
    (2, [2, 2, 2]),
    (torch.tensor(1), [1, 1, 1]),
    ([2, 0, 1], [2, 0, 1]),
    (torch.tensor([0, 1, 2], dtype=torch.uint8), [0, 1, 2]),  # not a mask
]


@pytest.mark.parametrize(("targets", "indices"), TARGETS)
def test_targets_are_one_index_for_all_or_one_each(flat_network, images, targets, indices):
    def score(logits):
        return logits[torch.arange(3), indices]

    captured = capture(flat_network, images, targets, "relu")
    assert captured.target.tolist() == indices
    assert torch.equal(captured.scores, score(flat_network(images)))
    assert_equals_autograd(captured, flat_network, images, "relu", score=score)


def test_no_target_means_each_images_top_class(flat_network, images):
    top = flat_network(images).max(1)
    captured = capture(flat_network, images, layer="relu")
    assert torch.equal(captured.target, top.indices)
    assert torch.equal(captured.scores, top.values)


def test_a_function_may_be_the_target(flat_network, images):
    def margin(logits):
        return logits[:, 0] - logits[:, 1:].logsumexp(1)

    captured = capture(flat_network, images, margin, "relu")
    assert captured.target is margin
    assert_equals_autograd(captured, flat_network, images, "relu", score=margin)


OUTPUTS = {
    "one map per class": (lambda x: x, lambda y: y[:, 2].mean((1, 2))),
    "one row, no batch": (lambda x: x.mean((0, 2, 3)), lambda y: y[2:3]),
    "one number": (lambda x: x[0, 2].mean(), lambda y: y[None]),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_function_explains_outputs_that_are_not_one_row_per_image(images, kind):
    last, target = OUTPUTS[kind]
    captured = capture(network(last=last), images[:1], target, "conv")
    expected = capture(network(), images[:1], 2, "conv")
    assert torch.allclose(captured.gradients["conv"], expected.gradients["conv"])


@pytest.mark.parametrize("targets", [[2, 0, 1], torch.tensor([2, 0, 1]), torch.tensor(1), None], ids=repr)
def test_targets_may_be_created_in_inference_mode(flat_network, images, targets):
    expected = capture(flat_network, images, targets, "relu")
    with torch.inference_mode():
        created_here = targets.clone() if isinstance(targets, torch.Tensor) else targets
        captured = capture(flat_network, images, created_here, "relu")
    assert torch.equal(captured.gradients["relu"], expected.gradients["relu"])


UNFIT_TARGETS = [
    (3, "a class from 0 to 2, got 3"),
    ([0, 1], "targets for 3 images, got 2"),
    (lambda y: y[:, 0] * float("nan"), "finite scores of the target"),
    (lambda y: y[:, 0] / 0, "finite scores of the target"),
    (lambda y: y[:, 0].detach(), "a gradient from the score to layer 'relu', got none"),
]


@pytest.mark.parametrize(("targets", "message"), UNFIT_TARGETS)
def test_targets_that_do_not_fit_are_refused(gap_network, images, targets, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        capture(gap_network, images, targets, "relu")


# Layers and outputs that do not fit.

MISFITS = {
    "none": (network(), [], "the name of a layer, got none"),
    "unknown": (network(), ["covn"], "got 'covn': the nearest are conv"),
    "root": (network(), [""], "got ''"),
    "another network's": (network(), [nn.ReLU()], "ReLU"),
    "a number": (network(), [5], "got 5"),
    "a number alone": (network(), 5, "got 5"),
    "nothing": (network(), None, "got None"),
    "twice": (
        network(again=nn.Sequential(*[nn.ReLU()] * 2)),
        ["again.0"],
        "'again.0', which runs more",
    ),
    "unreached": (network(aside=nn.ReLU()), ["aside.spare"], "'aside.spare', which is not reached"),
    "second without influence": (
        network(cut=Apply(torch.Tensor.detach)),
        ["out", "conv"],
        "to layer 'conv', got none",
    ),
    "rows": (network(), ["mean"], "at layer 'mean', got (3, 4)"),
    "no tensor": (network(last=lambda x: "no"), ["mean"], "at layer 'mean', got None"),
    "nothing out": (network(last=lambda x: None), ["conv"], "an output with a tensor in it, got a NoneType"),
    "dense": (network(last=lambda x: x), ["conv"], "an output of shape (N, classes), got (3, 4, 6, 6)"),
    "more maps than images": (
        network(crops=Apply(lambda x: torch.cat([x, x])), back=Apply(lambda x: x[:3] + x[3:])),
        ["crops"],
        "at layer 'crops', got (6, 4, 6, 6)",
    ),
    "more rows than images": (network(last=lambda x: x.mean((2, 3)).repeat(2, 1)), ["conv"], "(6, 4)"),
    "infinite slope": (
        network(relu=nn.ReLU(), root=Apply(torch.sqrt)),
        ["relu"],
        "finite gradients at layer 'relu'",
    ),
    "infinite maps": (
        network(infinite=Apply(lambda x: x / 0), bounded=nn.Tanh()),
        ["infinite"],
        "finite maps at layer 'infinite'",
    ),
}
MISFITS["unreached"][0].aside.spare = nn.ReLU()


@pytest.mark.parametrize("case", MISFITS)
def test_layers_and_networks_that_do_not_fit_are_refused(images, case):
    module, layers, message = MISFITS[case]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        capture(module, images, 0, layers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["rows", "unreached"])
def test_a_recording_refuses_what_capture_refuses(images, case):
    module, layers, message = MISFITS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        Recording(module, images, layers)


def test_a_layer_that_does_not_run_may_be_left_out(images):
    module, layers, _ = MISFITS["unreached"]
    captured = capture(module, images, 0, [*layers, "conv"], skip_idle=True)
    assert list(captured.maps) == list(captured.gradients) == ["conv"]


def test_a_layer_without_influence_may_be_left_out(images):
    module = TwoHeads().double()
    captured = capture(module, images, 0, ["conv", "side"], any_shape=True, skip_idle=True)
    assert list(captured.gradients) == ["conv"]
    assert_equals_autograd(captured, module, images, "conv", score=lambda logits: logits[0][:, 0])
    classes = capture(module, images[:1], [0, 3], ["conv", "side"], any_shape=True, skip_idle=True)
    assert list(classes.gradients) == ["conv"]
    for layers, targets in product((["conv", "side"], ["side"]), (0, [0, 3])):
        with pytest.raises(ValueError, match="to layer 'side', got none"):
            capture(module, images[:1], targets, layers, any_shape=True)


@pytest.mark.parametrize("whole", [True, False])
def test_modules_of_torch_jit_are_refused(images, whole):
    traced = torch.jit.trace(nn.Conv2d(3, 4, 3).double(), images)
    with pytest.raises(ValueError, match=r"torch\.jit, which ignores hooks"):
        capture(traced if whole else nn.Sequential(traced), images, 0, "" if whole else "0")


# Without gradients, at the input, of any shape.


def test_without_gradients_the_network_only_runs_forward(flat_network, images):
    expected = capture(flat_network, images, [2, 0, 1], ["conv", "relu"])
    seen, saved = [], []
    flat_network.fc1.register_forward_pre_hook(
        lambda m, inputs: seen.append(
            (torch.is_grad_enabled(), inputs[0].requires_grad, m.weight.requires_grad)
        )
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        captured = capture(
            flat_network, images.requires_grad_(), [2, 0, 1], ["conv", "relu", INPUT], gradients=False
        )
    assert (seen, saved) == ([(False, False, False)], [])
    assert captured.gradients == {}
    assert torch.equal(captured.maps["relu"], expected.maps["relu"])
    assert torch.equal(captured.maps["conv"], expected.maps["conv"])
    assert torch.equal(captured.scores, expected.scores)
    tensors = (captured.logits, captured.scores, *captured.maps.values())
    assert not any(tensor.requires_grad for tensor in tensors)


def test_without_gradients_a_layer_needs_no_influence(images):
    module = network(cut=Apply(torch.Tensor.detach))
    assert capture(module, images, 0, "conv", gradients=False).maps["conv"].shape == (3, 4, 6, 6)


@pytest.mark.parametrize("layers", [[INPUT], [INPUT, "relu"], ["fc1", INPUT, "conv"]], ids="+".join)
def test_the_input_is_a_layer_too(flat_network, images, layers):
    captured = capture(flat_network, images, [2, 0, 1], layers, any_shape=True)
    leaf = images.clone().requires_grad_()
    score = flat_network(leaf)[[0, 1, 2], [2, 0, 1]].sum()
    (expected,) = torch.autograd.grad(score, leaf)
    assert torch.equal(captured.maps[INPUT], images)
    assert torch.allclose(captured.gradients[INPUT], expected, rtol=1e-9)
    for layer in set(layers) - {INPUT}:
        alone = capture(flat_network, images, [2, 0, 1], layer, any_shape=True)
        assert torch.equal(captured.maps[layer], alone.maps[layer])
        assert torch.allclose(captured.gradients[layer], alone.gradients[layer], rtol=1e-9)


@pytest.mark.parametrize("kind", IN_PLACE)
def test_the_gradient_at_the_input_before_a_layer_in_place(images, kind):
    in_place, ordinary = IN_PLACE[kind]
    inputs = images.clone()
    captured = capture(nn.Sequential(in_place, network()), inputs, 0, INPUT)
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network()(ordinary(leaf))[:, 0].sum(), leaf)
    assert torch.equal(inputs, images)
    assert torch.equal(captured.maps[INPUT], images)
    assert torch.allclose(captured.gradients[INPUT], expected, rtol=1e-9)


def test_the_name_of_the_input_is_any_equal_string(flat_network, images):
    name = "".join(["<in", "put>"])
    captured = capture(flat_network, images, 0, [name, "relu"])
    assert list(captured.gradients) == [INPUT, "relu"]


def test_the_gradients_at_the_input_for_several_classes_of_one_image(flat_network, images):
    captured = capture(flat_network, images[:1], [2, 0, 2], INPUT)
    jacobian = torch.autograd.functional.jacobian(flat_network, images[:1])[0, :, 0]
    assert captured.maps[INPUT].shape == (3, 3, 8, 8)
    assert torch.allclose(captured.gradients[INPUT], jacobian[[2, 0, 2]], rtol=1e-9)


def test_a_layer_of_any_shape(flat_network, images):
    captured = capture(flat_network, images, [2, 0, 1], ["fc1", "relu1", "fc2"], any_shape=True)
    hidden = flat_network[:5](images)
    assert torch.equal(captured.maps["fc1"], hidden)
    # The last layer's gradient is one at the class; before it, the row of its weights, where rectified on.
    assert torch.equal(captured.gradients["fc2"], torch.eye(3, dtype=torch.float64)[[2, 0, 1]])
    assert torch.equal(captured.gradients["relu1"], flat_network.fc2.weight[[2, 0, 1]])
    assert torch.equal(captured.gradients["fc1"], flat_network.fc2.weight[[2, 0, 1]] * (hidden > 0))
    classes = capture(flat_network, images[:1], [1, 0, 2], "relu1", any_shape=True)
    assert torch.equal(classes.gradients["relu1"], flat_network.fc2.weight[[1, 0, 2]])


@pytest.mark.parametrize("change", [lambda x: x.flatten(), lambda x: x.sum()], ids=["flat", "one number"])
def test_a_layer_of_any_shape_still_has_one_part_per_image(images, change):
    module = network(last=lambda x: (x.mean((2, 3)), change(x)))
    module.add_module("part", Apply(lambda pair: pair[1]))
    with pytest.raises(ValueError, match="at layer 'part', got"):
        capture(module, images, lambda y: y, "part", any_shape=True)


def test_a_layer_of_any_shape_may_give_one_number_per_image(images):
    module = network(last=lambda x: x.mean((1, 2, 3)))
    module.add_module("pair", Apply(lambda x: torch.stack([x, -x], 1)))
    captured = capture(module, images, 1, "mean", any_shape=True)
    assert captured.gradients["mean"].tolist() == [-1, -1, -1]


def test_a_single_feature_map_stays_a_channel(images):
    module = network(
        single=Apply(lambda x: x.sum(1, keepdim=True)), all=Apply(lambda x: x.expand(-1, 4, -1, -1))
    )
    assert capture(module, images, 0, "single").gradients["single"].shape == (3, 1, 6, 6)
    assert capture(module, images[:1], [0, 1], "single").gradients["single"].shape == (2, 1, 6, 6)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(
    "layers", [["conv"], ["relu"], ["out", "conv"], [INPUT, "relu", "out"]], ids="+".join
)
def test_maps_and_gradients_are_contiguous(images, layers, gradients):
    module = network(relu=nn.ReLU(inplace=True)).float()  # channels come last inside
    captured = capture(module, images.float(), 0, layers, gradients=gradients)
    assert [t.is_contiguous() for t in captured.maps.values()] == [True] * len(layers)
    assert all(t.is_contiguous() for t in captured.gradients.values())


# The layout of the forward pass.


def layouts_seen(module, inputs):
    seen = []
    module[0].register_forward_pre_hook(lambda m, arguments: seen.append(arguments[0]))
    output = forward(module, inputs)
    last = [x.is_contiguous(memory_format=torch.channels_last) for x in seen]
    return output, last, [x.is_contiguous() for x in seen]


def test_float32_runs_with_channels_last(images):
    module = network().float()
    output, last, first = layouts_seen(module, images.float())
    assert (last, first) == ([True], [False])
    assert torch.allclose(output, module(images.float()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_types_run_as_they_are(images, dtype, layout):
    module, inputs = network().to(dtype), images.to(dtype)
    output, last, first = layouts_seen(module, LAYOUTS[layout](inputs))
    assert (last, first) == ([False], [True])
    assert torch.equal(output, module(LAYOUTS[layout](inputs).contiguous()))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_network_that_views_its_maps_runs_with_channels_first(images, inplace):
    module = View(inplace)
    assert torch.equal(forward(module, images.float()), module(images.float()))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layers", [["conv"], ["relu"], ["relu", "conv"], [INPUT, "relu"]], ids="+".join)
def test_a_layer_before_a_view(images, layers, inplace, gradients):
    module, plain = View(inplace), View(inplace=False)
    captured = capture(module, images.float(), 1, layers, gradients=gradients)
    assert torch.allclose(captured.logits, plain(images.float()), rtol=1e-4, atol=1e-5)
    leaf = images.float().requires_grad_()
    convolved = plain.conv(leaf)
    rectified = convolved.relu()
    maps = {INPUT: leaf, "conv": convolved, "relu": rectified}
    score = plain.fc(rectified.flatten(1))[:, 1].sum()
    for layer in layers:
        assert torch.allclose(captured.maps[layer], maps[layer], atol=1e-5)
        if gradients:
            (expected,) = torch.autograd.grad(score, maps[layer], retain_graph=True)
            assert torch.allclose(captured.gradients[layer], expected, atol=1e-5)


def test_a_layer_after_a_view(images):
    captured = capture(View(inplace=False), images.float(), 1, "fc", any_shape=True)
    assert torch.equal(captured.gradients["fc"], torch.eye(3)[[1, 1, 1]])


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), RuntimeError("CUDA out of memory"), KeyError("no")], ids=repr
)
def test_an_error_of_the_network_is_raised_as_it_is(images, error):
    module = network(last=stop_with(error))
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(type(error)) as caught:
            forward(module.to(dtype), images.to(dtype))
        assert caught.value is error


def test_a_pass_that_runs_out_of_memory_is_not_run_again_in_another_layout(images):
    layouts = []
    module = network(last=stop_with(RuntimeError("CUDA out of memory"))).float()
    module.register_forward_pre_hook(lambda _, inputs: layouts.append(inputs[0].is_contiguous()))
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(module, images.float())
    assert layouts == [False]  # channels last


@pytest.mark.parametrize(
    "run", [forward, lambda m, x: capture(m, x, 0, "1.conv")], ids=["forward", "capture"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_first_layer_in_place_never_changes_the_callers_tensor(images, dtype, layout, run):
    inputs = LAYOUTS[layout](images.to(dtype))
    before, strides = inputs.clone(), inputs.stride()
    run(nn.Sequential(nn.ReLU(inplace=True), network().to(dtype)), inputs)
    assert torch.equal(inputs, before)
    assert inputs.stride() == strides


# The smaller parts.


def test_finite_means_neither_nan_nor_infinity():
    assert all_finite(torch.tensor([1.0, -2.0]))
    assert all_finite(torch.tensor([3e38, 3e38]))  # their sum overflows
    assert all_finite(torch.empty(0))
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite(torch.tensor([1.0, value]))
        assert not all_finite(torch.ones(2, 3), torch.tensor([3e38, 3e38]), torch.tensor([value]))
    assert all_finite(torch.ones(2, 3), torch.tensor([3e38, 3e38]), torch.tensor([6e4, 6e4]).half())


def test_a_pass_can_be_traced_as_a_graph_for_any_image(gap_network, images):
    def run(inputs):
        captured = capture(gap_network, inputs, lambda logits: logits[:, 1] ** 2, "relu")
        return captured.gradients["relu"]

    graph = make_fx(run)(images[:1])
    assert torch.equal(graph(images[1:2]), run(images[1:2]))
