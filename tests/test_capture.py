"""Each guarantee of ``capture``: right gradients, one pass, nothing left behind, clear refusals."""

import copy
import re
from collections import OrderedDict, defaultdict, namedtuple
from itertools import product

import numpy as np
import pytest
import torch
from modules import Apply
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from gmcam.capture import (
    INPUT,
    all_finite,
    capture,
    captures,
    find_layer,
    forward,
    joined,
    left_as_found,
    rerun,
    trace,
)

Pair = namedtuple("Pair", ["maps", "note"])


class Gate(nn.Module):
    """A convolution whose input is needed again behind it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return (self.conv(x) * x).mean((2, 3))


class TwoHeads(nn.Module):
    """Logits, and what a second head says of the same picture."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.side = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(3, 2)

    def forward(self, x):
        beside = self.side(x.mean((2, 3)))
        return self.head(self.conv(x).relu().mean((2, 3))), beside


class Branches(nn.Module):
    """Two convolutions of the same input, neither before the other, and one after both."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)
        self.join = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        joined = self.join(torch.cat([self.left(x).relu(), self.right(x).sigmoid()], 1))
        return joined.square().mean((2, 3))


def network(*, last=None, **middle):
    """``conv`` (4 channels), the given modules, ``out`` (a convolution), mean over space: 4 logits."""
    torch.manual_seed(0)
    parts = OrderedDict(conv=nn.Conv2d(3, 4, 3), **middle, out=nn.Conv2d(4, 4, 3, padding=1))
    parts["tanh"] = nn.Tanh()  # so that gradients differ from cell to cell
    parts["mean"] = Apply(last or (lambda x: x.mean((2, 3))))
    return nn.Sequential(parts).double().eval()


def autograd(module, inputs, layer, score=lambda logits: logits[:, 0]):
    """The same by plain autograd: the layer's output, and the gradient of the scores with respect to it."""
    outputs = []
    handle = module.get_submodule(layer).register_forward_hook(lambda m, a, out: outputs.append(out))
    scores = score(module(inputs.detach().requires_grad_()))
    handle.remove()
    return outputs[0].detach(), torch.autograd.grad(scores.sum(), outputs[0])[0]


def assert_equals_autograd(result, module, inputs, layer, **score):
    maps, gradients = autograd(module, inputs, layer, **score)
    assert gradients.abs().max() > 0
    assert torch.equal(result.maps[layer], maps)
    assert torch.allclose(
        result.gradients[layer], gradients, rtol=1e-9, atol=1e-13 * gradients.abs().max().item()
    )


@pytest.mark.parametrize("layer", ["conv", "relu", "pool"])
@pytest.mark.parametrize("name", ["gap_network", "flat_network"])
def test_maps_and_gradients_are_those_of_plain_autograd(request, pictures, name, layer):
    module = request.getfixturevalue(name)
    result = capture(module, pictures, 0, [layer])
    assert_equals_autograd(result, module, pictures, layer)
    assert torch.equal(result.logits, module(pictures))
    assert torch.equal(result.scores, module(pictures)[:, 0])
    assert result.target.tolist() == [0, 0, 0]
    kept = (result.logits, result.scores, result.maps[layer], result.gradients[layer])
    assert not any(tensor.requires_grad for tensor in kept)


def test_several_layers_cost_one_forward_pass_and_equal_one_at_a_time(flat_network, pictures):
    layers = ["pool", "conv", "relu"]  # also when they are not named in the order they run
    calls = []
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    together = capture(flat_network, pictures, None, layers)
    assert len(calls) == 1
    for layer in layers:
        alone = capture(flat_network, pictures, None, [layer])
        assert torch.equal(together.maps[layer], alone.maps[layer])
        assert torch.equal(together.gradients[layer], alone.gradients[layer])


@pytest.mark.parametrize("layers", [["left"], ["right"], ["left", "right"], ["join", "right", "left"]])
def test_parallel_branches(pictures, layers):
    module = Branches().double()
    result = capture(module, pictures, 0, layers)
    for layer in layers:
        assert_equals_autograd(result, module, pictures, layer)


def test_a_block_and_the_last_module_in_it_have_the_same_gradient(pictures):
    module = network(block=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)))
    result = capture(module, pictures, 0, ["block", "block.1", "block.0"])
    assert torch.equal(result.gradients["block"], result.gradients["block.1"])
    assert_equals_autograd(result, module, pictures, "block.1")


def test_a_batch_equals_its_pictures_one_by_one(flat_network, pictures):
    together = capture(flat_network, pictures, [2, 0, 1], ["relu"])
    for n, target in enumerate([2, 0, 1]):
        alone = capture(flat_network, pictures[n : n + 1], target, ["relu"])
        assert torch.allclose(together.maps["relu"][n], alone.maps["relu"][0])
        assert torch.allclose(together.gradients["relu"][n], alone.gradients["relu"][0])


@pytest.mark.parametrize("targets", [[0, 1, 2], [2], [1, 1, 0, 2, 1]])
def test_many_classes_of_one_picture_equal_one_at_a_time(flat_network, pictures, targets):
    calls = []
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    result = capture(flat_network, pictures[:1], targets, ["relu", "pool"])
    assert len(calls) == 1
    assert result.target.tolist() == targets
    for t, target in enumerate(targets):
        alone = capture(flat_network, pictures[:1], target, ["relu", "pool"])
        assert result.scores[t] == alone.scores[0]
        for layer in ("relu", "pool"):
            assert torch.equal(result.maps[layer][t], alone.maps[layer][0])
            assert torch.allclose(result.gradients[layer][t], alone.gradients[layer][0], rtol=1e-12)


# Nothing is left behind.


def occupied(module):
    """Every state that must survive: mixed flags, gradients there already, hooks of the user's own."""
    module.conv.weight.requires_grad_(False)
    module.train().relu.eval()
    module.conv.bias.grad = torch.full_like(module.conv.bias, 7)
    module.relu.register_forward_hook(lambda *_: None)
    module.conv.register_forward_pre_hook(lambda *_: None)
    module.fc.register_full_backward_hook(lambda *_: None)
    return module


def stop_with(error):
    def stop(*_):
        raise error

    return stop


def test_nothing_is_left_behind_after_success(gap_network, pictures, snapshot):
    before = snapshot(occupied(gap_network))
    capture(gap_network, pictures, None, ["conv", "relu"])
    capture(gap_network, pictures[:1], [0, 1, 2], ["relu"])
    assert snapshot(gap_network) == before


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("part", ["conv", "relu", "fc"])
def test_nothing_is_left_behind_when_the_network_fails(gap_network, pictures, snapshot, part, error):
    occupied(gap_network).get_submodule(part).register_forward_hook(stop_with(error))
    before = snapshot(gap_network)
    with pytest.raises(type(error)):
        capture(gap_network, pictures, 0, ["conv", "relu"])
    assert snapshot(gap_network) == before


REQUESTS = [(stop_with(KeyError("no")), "relu", KeyError), (9, "relu", ValueError), (0, "fc", ValueError)]


@pytest.mark.parametrize(("target", "layer", "error"), REQUESTS)
def test_nothing_is_left_behind_when_the_request_fails(gap_network, pictures, snapshot, target, layer, error):
    before = snapshot(occupied(gap_network))
    with pytest.raises(error):
        capture(gap_network, pictures, target, ["conv", layer])
    assert snapshot(gap_network) == before


def test_the_input_is_left_alone(gap_network, pictures):
    inputs = pictures.clone().requires_grad_()
    capture(gap_network, inputs, 0, ["conv"])
    assert (inputs.grad, inputs.requires_grad) == (None, True)
    assert torch.equal(inputs, pictures)


def test_runs_in_evaluation_mode(pictures, snapshot):
    module = network(norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), drop2=nn.Dropout2d(0.5)).train()
    before, random_state = snapshot(module), torch.get_rng_state()
    result = capture(module, pictures, 0, ["norm"])
    assert snapshot(module) == before  # running statistics among it
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(result.logits, module.eval()(pictures))


def test_hooks_of_the_user_fire_once_and_stay(gap_network, pictures):
    fired, kept = [], []
    gap_network.conv.register_forward_hook(lambda m, inputs, out: kept.append(out))
    gap_network.relu.register_forward_hook(lambda *_: fired.append("forward"))
    gap_network.relu.register_forward_pre_hook(lambda *_: fired.append("before"))
    gap_network.relu.register_full_backward_hook(lambda *_: fired.append("backward"))
    capture(gap_network, pictures, 0, ["conv"])
    assert fired == ["before", "forward", "backward"]
    assert not kept[0].requires_grad  # what they saw is not drawn into our graph
    gap_network(pictures)
    assert fired[3:] == ["before", "forward"]


def test_a_hook_of_the_user_may_change_the_map(gap_network, pictures):
    gap_network.relu.register_forward_hook(lambda m, a, out: out * 2)
    result = capture(gap_network, pictures, 0, ["relu"])
    assert torch.equal(result.maps["relu"], 2 * gap_network.conv(pictures).relu())
    assert torch.equal(result.logits, gap_network(pictures))


# No graph before the layer.


def test_the_graph_begins_with_the_map_of_the_earliest_layer(pictures):
    module = network(relu=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3), relu2=nn.ReLU())
    seen = {}
    for name, part in module.named_children():
        part.register_forward_pre_hook(lambda m, inputs, name=name: seen.update({name: inputs[0].grad_fn}))
    capture(module, pictures.requires_grad_(), 0, ["relu2", "relu"])
    assert (seen["conv"], seen["relu"]) == (None, None)
    ((start, _),) = seen["conv2"].next_functions
    assert start.variable.is_leaf


def test_parameters_ask_for_no_gradient_while_the_network_runs(gap_network, pictures):
    asking = []
    gap_network.fc.register_forward_pre_hook(
        lambda *_: asking.extend(parameter.requires_grad for parameter in gap_network.parameters())
    )
    capture(gap_network, pictures, 0, ["conv"])
    assert asking == [False] * 4


def test_only_what_follows_the_layer_is_saved_for_the_backward_pass(pictures):
    module = network(relu=nn.ReLU(), conv2=nn.Conv2d(4, 4, 3), relu2=nn.ReLU())
    saved = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.add(tuple(t.shape)) or t, lambda t: t):
        capture(module, pictures, 0, ["conv2"])
    assert not saved & {(3, 3, 8, 8), (4, 3, 3, 3), (3, 4, 6, 6)}  # input, weights, maps before conv2
    assert (3, 4, 4, 4) in saved  # maps behind it


# Networks and callers of all kinds.

IN_PLACE = {
    "rectifier": (nn.ReLU(inplace=True), nn.ReLU()),
    "product": (Apply(lambda x: x.mul_(3)), Apply(lambda x: x * 3)),
}


@pytest.mark.parametrize("layers", [["conv"], ["relu"], ["conv", "relu"]], ids="+".join)
@pytest.mark.parametrize("kind", IN_PLACE)
def test_in_place_modules_make_no_difference(pictures, kind, layers):
    def build(after, inplace):
        rectified = {"relu": nn.ReLU(inplace)} if "relu" in layers else {}
        return network(**rectified, after=after)

    in_place, ordinary = IN_PLACE[kind]
    result = capture(build(in_place, inplace=True), pictures, 0, layers)
    for layer in layers:
        assert_equals_autograd(result, build(ordinary, inplace=False), pictures, layer)


def test_an_in_place_layer_whose_input_is_used_again(pictures):
    module = network(block=nn.Module())
    module.block.relu, module.block.mix = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1).double()
    # By the time of the sum, x is rectified: it is the layer's output too.
    module.block.forward = lambda x: module.block.mix(module.block.relu(x)) + x
    result = capture(module, pictures, 0, ["block.relu"])
    assert_equals_autograd(result, module, pictures, "block.relu")


class Skip(nn.Module):
    """A block whose skip is a module that hands on the very tensor that it is given."""

    def __init__(self, first):
        super().__init__()
        self.first, self.conv, self.skip = first, nn.Conv2d(4, 4, 1).double(), nn.Identity()

    def forward(self, x):
        if self.first:
            skipped = self.skip(x)
            return self.conv(x) + skipped
        return self.conv(x) + self.skip(x)


@pytest.mark.parametrize("layers", [["block.skip"], ["conv", "block.skip"], [INPUT, "block.skip"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_layer_that_hands_on_its_input_has_its_own_gradient_alone(pictures, first, layers):
    """Not that of the convolution which takes the same tensor, whichever runs first."""
    module = network(block=Skip(first))
    result = capture(module, pictures, 0, layers)
    block = torch.zeros_like(result.maps["block.skip"], requires_grad=True)
    with torch.no_grad():
        x = module.block.conv(result.maps["block.skip"]) + result.maps["block.skip"]
    module.out(x + block).tanh().mean((2, 3))[:, 0].sum().backward()
    assert torch.allclose(result.gradients["block.skip"], block.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("first", [True, False])
def test_rerun_at_a_layer_that_hands_on_its_input_changes_it_alone(pictures, first, count):
    module = network(block=Skip(first))
    x = capture(module, pictures[:1], 0, ["block.skip"]).maps["block.skip"]
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    expected = module.out(module.block.conv(x) + maps).tanh().mean((2, 3))
    assert torch.allclose(rerun(module, pictures[:1], "block.skip", maps), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_caller_and_frozen_networks(flat_network, pictures, caller, trainable):
    maps, gradients = autograd(flat_network, pictures, "relu")
    flat_network.requires_grad_(trainable)
    with caller():
        inputs = pictures * 1  # made here: an inference tensor under inference_mode
        result = capture(flat_network, inputs, 0, ["relu"])
        all_classes = capture(flat_network, inputs[:1], [0, 1], ["relu"])
    assert torch.equal(result.maps["relu"], maps)
    assert torch.allclose(result.gradients["relu"], gradients, rtol=1e-12)
    assert torch.allclose(all_classes.gradients["relu"][0], gradients[0], rtol=1e-12)


def test_an_inference_tensor_may_be_needed_again_behind_the_layer(pictures):
    module = Gate().double()
    with torch.inference_mode():
        result = capture(module, pictures * 1, 0, ["conv"])
    assert_equals_autograd(result, module, pictures, "conv")


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
def test_a_layer_and_a_network_may_give_a_structure(pictures, kind):
    pack, unpack = STRUCTURES[kind]
    module = network(packed=Apply(pack), unpack=Apply(unpack), last=lambda x: pack(x.mean((2, 3))))
    types = []
    module.unpack.register_forward_pre_hook(lambda m, inputs: types.append(type(inputs[0])))
    result, expected = capture(module, pictures, 1, ["packed"]), capture(network(), pictures, 1, ["conv"])
    assert types == [type(pack(pictures))]  # the network goes on with the same structure
    assert torch.equal(result.logits, expected.logits)
    assert torch.equal(result.gradients["packed"], expected.gradients["conv"])


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "window": lambda x: torch.cat([x, x], 3)[..., :8],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_the_input_makes_no_difference(flat_network, pictures, layout):
    expected = capture(flat_network, pictures, 0, ["relu"])
    result = capture(flat_network, LAYOUTS[layout](pictures), 0, ["relu"])
    assert torch.allclose(result.maps["relu"], expected.maps["relu"])
    assert torch.allclose(result.gradients["relu"], expected.gradients["relu"])


@pytest.mark.parametrize(("count", "targets"), [(3, [0, 1, 2]), (1, [0, 1, 2])])
def test_bfloat16_gives_bfloat16_near_the_exact_gradients(flat_network, pictures, count, targets):
    exact = capture(flat_network, pictures[:count], targets, ["relu"]).gradients["relu"]
    inputs = pictures[:count].bfloat16()
    rough = capture(flat_network.bfloat16(), inputs, targets, ["relu"]).gradients["relu"]
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.parametrize("targets", [None, 1, [], lambda logits: logits[:, 0]], ids=repr)
def test_no_picture_gives_no_map(gap_network, pictures, targets):
    result = capture(gap_network, pictures[:0], targets, ["relu"])
    assert result.gradients["relu"].shape == result.maps["relu"].shape == (0, 4, 8, 8)


COMPILED = {
    "wrapped": (lambda module: torch.compile(module, backend="eager"), "_orig_mod."),
    "wrapped, any name": (lambda module: torch.compile(module, backend="eager"), ""),
    "in place": (lambda module: module.compile(backend="eager") or module, ""),
    "inside": (lambda module: nn.Sequential(torch.compile(module, backend="eager")), "0._orig_mod."),
    "inside, any name": (lambda module: nn.Sequential(torch.compile(module, backend="eager")), "0."),
}


def compiled(kind, module, pictures):
    """A frozen network whose program was made, and has run, before any hook came, and its names' prefix."""
    make, prefix = COMPILED[kind]
    made = make(copy.deepcopy(module).requires_grad_(False))
    with torch.no_grad():
        made(pictures)
    return made, prefix


@pytest.mark.parametrize("kind", COMPILED)
def test_a_compiled_network_runs_as_it_was_written(gap_network, pictures, kind, snapshot):
    module, prefix = compiled(kind, gap_network, pictures)
    before, programs = snapshot(module), [vars(part).copy() for part in module.modules()]
    result = capture(module, pictures, 0, [prefix + "relu"])
    expected = capture(gap_network, pictures, 0, ["relu"])
    assert torch.equal(result.maps[prefix + "relu"], expected.maps["relu"])
    assert torch.equal(result.gradients[prefix + "relu"], expected.gradients["relu"])
    maps = torch.rand(5, 4, 8, 8, dtype=torch.float64)
    again = rerun(module, pictures[:1], prefix + "relu", maps)
    assert torch.equal(again, rerun(gap_network, pictures[:1], "relu", maps))
    visits, _ = trace(module, pictures)
    assert {"conv", "relu", "fc"} <= {visit.name.rpartition(".")[2] for visit in visits}
    assert snapshot(module) == before
    assert [vars(part) for part in module.modules()] == programs


def test_a_network_that_fails_stays_compiled(gap_network, pictures):
    for kind in ("wrapped", "in place"):
        module, prefix = compiled(kind, gap_network, pictures)
        programs = [vars(part).copy() for part in module.modules()]
        with pytest.raises(RuntimeError):
            capture(module, pictures[:, :2], 0, [prefix + "relu"])
        assert [vars(part) for part in module.modules()] == programs


# Targets.

TARGETS = [
    (2, [2, 2, 2]),
    (np.int64(2), [2, 2, 2]),
    (torch.tensor(1), [1, 1, 1]),
    ([2, 0, 1], [2, 0, 1]),
    ((0, 0, 1), [0, 0, 1]),
    (np.array([2, 1, 0]), [2, 1, 0]),
    (torch.tensor([1, 2, 2]), [1, 2, 2]),
    (torch.tensor([2, 1, 0], dtype=torch.int16), [2, 1, 0]),
    (torch.tensor([0, 1, 2], dtype=torch.uint8), [0, 1, 2]),  # not to be taken for a mask
]


@pytest.mark.parametrize(("targets", "indices"), TARGETS)
def test_targets_are_one_index_for_all_or_one_each(flat_network, pictures, targets, indices):
    def score(logits):
        return logits[torch.arange(3), indices]

    result = capture(flat_network, pictures, targets, ["relu"])
    assert result.target.tolist() == indices
    assert torch.equal(result.scores, score(flat_network(pictures)))
    assert_equals_autograd(result, flat_network, pictures, "relu", score=score)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_classes_of_one_picture_may_be_any_integers(flat_network, pictures, dtype):
    result = capture(flat_network, pictures[:1], torch.tensor([0, 1, 2], dtype=dtype), ["relu"])
    assert result.scores.tolist() == flat_network(pictures[:1])[0].tolist()


def test_no_target_means_each_pictures_top_class(flat_network, pictures):
    top = flat_network(pictures).max(1)
    result = capture(flat_network, pictures, None, ["relu"])
    assert torch.equal(result.target, top.indices)
    assert torch.equal(result.scores, top.values)


def test_a_function_may_be_the_target(flat_network, pictures):
    def margin(logits):
        return logits[:, 0] - logits[:, 1:].logsumexp(1)

    result = capture(flat_network, pictures, margin, ["relu"])
    assert result.target is margin
    assert_equals_autograd(result, flat_network, pictures, "relu", score=margin)


OUTPUTS = {
    "one map per class": (lambda x: x, lambda y: y[:, 2].mean((1, 2))),
    "one row, no batch": (lambda x: x.mean((0, 2, 3)), lambda y: y[2:3]),
    "one number": (lambda x: x[0, 2].mean(), lambda y: y[None]),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_function_explains_outputs_that_are_not_one_row_per_picture(pictures, kind):
    last, target = OUTPUTS[kind]
    result = capture(network(last=last), pictures[:1], target, ["conv"])
    expected = capture(network(), pictures[:1], 2, ["conv"])
    assert torch.allclose(result.gradients["conv"], expected.gradients["conv"])


UNFIT_TARGETS = [
    (3, "class 3 is out of range: the classes are 0 to 2"),
    ([0, -1, 2], "class -1 is out of range"),
    ([0, 1], "2 targets do not fit 3 pictures"),
    ([], "the list of targets is empty"),
    (1.0, "targets are class indices, one per picture, not 1.0"),
    ([True, False, True], "targets are class indices"),
    ([[0, 1, 2]], "targets are class indices"),
    ([[0], [1, 2]], "targets are class indices"),
    ([None, 1, 2], "targets are class indices"),
    ("cat", "targets are class indices, one per picture, not 'cat'"),
    (lambda y: y, "the target function gave (3, 3); it gives one scalar per picture, (3,)"),
    (lambda y: y.sum(), "the target function gave ()"),
    (lambda y: 1.0, "the target function gave float"),
    (lambda y: y[:, 0] * float("nan"), "scores for the targets are not finite"),
    (lambda y: y[:, 0] / 0, "scores for the targets are not finite"),
    (lambda y: y[:, 0].detach(), "layer 'relu' does not influence the score"),
]


@pytest.mark.parametrize(("targets", "message"), UNFIT_TARGETS)
def test_targets_that_do_not_fit_are_refused(gap_network, pictures, targets, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        capture(gap_network, pictures, targets, ["relu"])


# Layers and outputs that do not fit.

MISFITS = {
    "none": (network(), [], "at least one layer"),
    "unknown": (network(), ["covn"], "no layer is called 'covn'; the nearest names are conv"),
    "root": (network(), [""], "no layer is called ''"),
    "twice": (network(again=nn.Sequential(*[nn.ReLU()] * 2)), ["again.0"], "'again.0' runs more than once"),
    "unreached": (network(aside=nn.ReLU()), ["aside.spare"], "'aside.spare' is not reached"),
    "no influence": (
        network(cut=Apply(torch.Tensor.detach)),
        ["conv"],
        "'conv' does not influence the score",
    ),
    "second without influence": (network(cut=Apply(torch.Tensor.detach)), ["out", "conv"], "'conv' does not"),
    "rows": (network(), ["mean"], "'mean' gives output of shape (3, 4), without height and width"),
    "no tensor": (network(last=lambda x: "no"), ["mean"], "'mean' gives output of shape None"),
    "nothing out": (network(last=lambda x: None), ["conv"], "output holds no tensor; it is a NoneType"),
    "dense": (network(last=lambda x: x), ["conv"], "output has shape (3, 4, 6, 6), not (N, classes)"),
    "more maps than pictures": (
        network(crops=Apply(lambda x: torch.cat([x, x])), back=Apply(lambda x: x[:3] + x[3:])),
        ["crops"],
        "'crops' gives output of shape (6, 4, 6, 6)",
    ),
    "more rows than pictures": (
        network(last=lambda x: x.mean((2, 3)).repeat(2, 1)),
        ["conv"],
        "shape (6, 4)",
    ),
    "infinite slope": (network(relu=nn.ReLU(), root=Apply(torch.sqrt)), ["relu"], "not finite"),
    "infinite maps": (
        network(infinite=Apply(lambda x: x / 0), bounded=nn.Tanh()),
        ["infinite"],
        "the maps at layer 'infinite' are not finite",
    ),
}
MISFITS["unreached"][0].aside.spare = nn.ReLU()


@pytest.mark.parametrize("case", MISFITS)
def test_layers_and_networks_that_do_not_fit_are_refused(pictures, case):
    module, layers, message = MISFITS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        capture(module, pictures, 0, layers)


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("part", ["the whole", "one part"])
@pytest.mark.parametrize("run", [lambda *args: capture(*args, 0, ["conv"]), trace], ids=["capture", "trace"])
def test_a_network_made_in_inference_mode_is_refused(pictures, caller, part, run, snapshot):
    module = network().train()
    with torch.inference_mode():  # no gradient can ever pass through tensors made here
        if part == "the whole":
            module = network().train()
        else:
            module.out = nn.Conv2d(4, 4, 3, padding=1).double()
    before = snapshot(module)
    with caller(), pytest.raises(ValueError, match="the network was made in inference mode, where no grad"):
        run(module, pictures)
    assert snapshot(module) == before


def test_a_network_made_in_inference_mode_still_runs_forward(pictures, snapshot):
    with torch.inference_mode():
        module = network().train()
    before = snapshot(module)
    with torch.inference_mode(), left_as_found(module):
        assert forward(module, pictures).shape == (3, 4)
    assert snapshot(module) == before


# Without gradients, at the input, of any shape.


def test_without_gradients_the_network_only_runs_forward(flat_network, pictures):
    expected = capture(flat_network, pictures, [2, 0, 1], ["conv", "relu"])
    seen, saved = [], []
    flat_network.fc1.register_forward_pre_hook(
        lambda m, inputs: seen.append(
            (torch.is_grad_enabled(), inputs[0].requires_grad, m.weight.requires_grad)
        )
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        result = capture(
            flat_network, pictures.requires_grad_(), [2, 0, 1], ["conv", "relu", INPUT], gradients=False
        )
    assert (seen, saved) == ([(False, False, False)], [])
    assert result.gradients == {}
    assert torch.equal(result.maps["relu"], expected.maps["relu"])
    assert torch.equal(result.maps["conv"], expected.maps["conv"])
    assert torch.equal(result.scores, expected.scores)
    kept = (result.logits, result.scores, *result.maps.values())
    assert not any(tensor.requires_grad for tensor in kept)


def test_without_gradients_a_layer_needs_no_influence(pictures):
    module = network(cut=Apply(torch.Tensor.detach))
    assert capture(module, pictures, 0, ["conv"], gradients=False).maps["conv"].shape == (3, 4, 6, 6)


@pytest.mark.parametrize("layers", [[INPUT], [INPUT, "relu"], ["fc1", INPUT, "conv"]], ids="+".join)
def test_the_input_is_a_layer_too(flat_network, pictures, layers):
    result = capture(flat_network, pictures, [2, 0, 1], layers, any_shape=True)
    leaf = pictures.clone().requires_grad_()
    score = flat_network(leaf)[[0, 1, 2], [2, 0, 1]].sum()
    (expected,) = torch.autograd.grad(score, leaf)
    assert torch.equal(result.maps[INPUT], pictures)
    assert torch.allclose(result.gradients[INPUT], expected, rtol=1e-9)
    for layer in set(layers) - {INPUT}:
        alone = capture(flat_network, pictures, [2, 0, 1], [layer], any_shape=True)
        assert torch.equal(result.maps[layer], alone.maps[layer])
        assert torch.allclose(result.gradients[layer], alone.gradients[layer], rtol=1e-9)


@pytest.mark.parametrize("kind", IN_PLACE)
def test_the_gradient_at_the_input_before_a_layer_in_place(pictures, kind):
    in_place, ordinary = IN_PLACE[kind]
    inputs = pictures.clone()
    result = capture(nn.Sequential(in_place, network()), inputs, 0, [INPUT])
    leaf = pictures.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network()(ordinary(leaf))[:, 0].sum(), leaf)
    assert torch.equal(inputs, pictures)
    assert torch.equal(result.maps[INPUT], pictures)
    assert torch.allclose(result.gradients[INPUT], expected, rtol=1e-9)


def hooked(maps):
    if maps.requires_grad:
        maps.register_hook(lambda gradient: 2 * gradient)
    return maps.mean((2, 3))


AVERAGED = {  # what becomes of the maps, and whether their average is all
    "pooling": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten()), True),
    "mean": (Apply(lambda maps: maps.mean((-1, -2), keepdim=True).squeeze()[None]), True),
    "average used twice": (Apply(lambda maps: maps.mean((2, 3)).sin() * maps.mean((2, 3)).cos()), False),
    "one average, two paths": (nn.Sequential(Apply(lambda x: x.mean((2, 3))), Apply(lambda x: x * x)), True),
    "rectifier": (nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()), False),
    "changed in place": (Apply(lambda maps: maps.mul_(3).mean((2, 3))), False),
    "partly changed": (Apply(lambda maps: (maps[:, :, 0].mul_(3), maps.mean((2, 3)))[1]), False),
    "shortcut": (Apply(lambda maps: maps.mean((2, 3)) + maps[:, :, 0, 1]), False),
    "rows": (Apply(lambda maps: maps.mean(2)[:, :, 1]), False),
    "all channels": (Apply(lambda maps: maps.mean((1, 2))[:, :4]), False),
    "coarse": (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)), False),
    "hook": (Apply(hooked), False),
}


@pytest.mark.parametrize("tail, averaged", AVERAGED.values(), ids=AVERAGED)
@pytest.mark.parametrize(
    "head", [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))]
)
def test_behind_an_average_all_cells_share_a_gradient_which_is_that_of_each_class(tail, averaged, head):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), tail, head).double()
    picture = torch.rand(1, 3, 7, 8, dtype=torch.float64)
    result = capture(module, picture, [2, 0, 2, 1], ["0"])
    assert (result.gradients["0"].stride()[2:] == (0, 0)) == averaged
    for found, target in zip(result.gradients["0"], [2, 0, 2, 1], strict=True):
        expected = capture(module, picture, target, ["0"]).gradients["0"][0]
        assert expected.abs().max() > 0
        assert torch.allclose(found, expected, rtol=1e-12)


def test_behind_an_average_a_single_channel_has_its_gradient():
    torch.manual_seed(0)
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    module = nn.Sequential(nn.Conv2d(3, 1, 3), *tail).double()
    picture = torch.rand(1, 3, 7, 8, dtype=torch.float64)
    found = capture(module, picture, [2, 0], ["0"]).gradients["0"]
    expected = torch.stack([module[3].weight[target, 0] / 30 for target in (2, 0)])  # 5 × 6 cells
    assert torch.allclose(found, expected.view(2, 1, 1, 1).expand(2, 1, 5, 6), rtol=1e-12)


def test_the_gradients_at_the_input_for_several_classes_of_one_picture(flat_network, pictures):
    result = capture(flat_network, pictures[:1], [2, 0, 2], [INPUT])
    jacobian = torch.autograd.functional.jacobian(flat_network, pictures[:1])[0, :, 0]
    assert result.maps[INPUT].shape == (3, 3, 8, 8)
    assert torch.allclose(result.gradients[INPUT], jacobian[[2, 0, 2]], rtol=1e-9)


def test_a_layer_of_any_shape(flat_network, pictures):
    result = capture(flat_network, pictures, [2, 0, 1], ["fc1", "relu1", "fc2"], any_shape=True)
    hidden = flat_network[:5](pictures)
    assert torch.equal(result.maps["fc1"], hidden)
    # The last layer's gradient is one at the class; before it, the row of its weights, where rectified on.
    assert torch.equal(result.gradients["fc2"], torch.eye(3, dtype=torch.float64)[[2, 0, 1]])
    assert torch.equal(result.gradients["relu1"], flat_network.fc2.weight[[2, 0, 1]])
    assert torch.equal(result.gradients["fc1"], flat_network.fc2.weight[[2, 0, 1]] * (hidden > 0))
    classes = capture(flat_network, pictures[:1], [1, 0, 2], ["relu1"], any_shape=True)
    assert torch.equal(classes.gradients["relu1"], flat_network.fc2.weight[[1, 0, 2]])


@pytest.mark.parametrize("change", [lambda x: x.flatten(), lambda x: x.sum()], ids=["flat", "one number"])
def test_a_layer_of_any_shape_still_gives_one_part_per_picture(pictures, change):
    module = network(last=lambda x: (x.mean((2, 3)), change(x)))
    module.add_module("part", Apply(lambda pair: pair[1]))
    with pytest.raises(ValueError, match="'part' gives output of shape"):
        capture(module, pictures, lambda y: y, ["part"], any_shape=True)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(
    "layers", [["conv"], ["relu"], ["out", "conv"], [INPUT, "relu", "out"]], ids="+".join
)
def test_maps_and_gradients_are_contiguous(pictures, layers, gradients):
    module = network(relu=nn.ReLU(inplace=True)).float()  # channels come last inside
    result = capture(module, pictures.float(), 0, layers, gradients=gradients)
    assert [t.is_contiguous() for t in result.maps.values()] == [True] * len(layers)
    assert all(t.is_contiguous() for t in result.gradients.values())


@pytest.mark.parametrize("targets", [[2, 0, 1], torch.tensor([2, 0, 1]), torch.tensor(1), None], ids=repr)
def test_targets_may_be_made_in_inference_mode(flat_network, pictures, targets):
    expected = capture(flat_network, pictures, targets, ["relu"])
    with torch.inference_mode():
        made_here = targets.clone() if isinstance(targets, torch.Tensor) else targets
        result = capture(flat_network, pictures, made_here, ["relu"])
    assert torch.equal(result.gradients["relu"], expected.gradients["relu"])


# The forward pass.


class View(nn.Module):
    """It views its maps as flat vectors, which only maps with channels first allow."""

    def __init__(self, inplace):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace), nn.Linear(256, 3)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).view(len(x), -1))


def layouts_seen(module, inputs):
    seen = []
    module[0].register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    output = forward(module, inputs)
    last = [given.is_contiguous(memory_format=torch.channels_last) for given in seen]
    return output, last, [given.is_contiguous() for given in seen]


def test_float32_runs_with_channels_last(pictures):
    module = network().float()
    output, last, first = layouts_seen(module, pictures.float())
    assert (last, first) == ([True], [False])
    assert torch.allclose(output, module(pictures.float()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_types_run_as_they_are(pictures, dtype, layout):
    module, inputs = network().to(dtype), pictures.to(dtype)
    output, last, first = layouts_seen(module, LAYOUTS[layout](inputs))
    assert (last, first) == ([False], [True])
    assert torch.equal(output, module(LAYOUTS[layout](inputs).contiguous()))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_network_that_views_its_maps_runs_with_channels_first(pictures, inplace):
    module = View(inplace)
    assert torch.equal(forward(module, pictures.float()), module(pictures.float()))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layers", [["conv"], ["relu"], ["relu", "conv"], [INPUT, "relu"]], ids="+".join)
def test_a_layer_before_a_view(pictures, layers, inplace, gradients):
    module, plain = View(inplace), View(inplace=False)
    result = capture(module, pictures.float(), 1, layers, gradients=gradients)
    assert torch.allclose(result.logits, plain(pictures.float()), rtol=1e-4, atol=1e-5)
    leaf = pictures.float().requires_grad_()
    convolved = plain.conv(leaf)
    rectified = convolved.relu()
    maps = {INPUT: leaf, "conv": convolved, "relu": rectified}
    score = plain.fc(rectified.flatten(1))[:, 1].sum()
    for layer in layers:
        assert torch.allclose(result.maps[layer], maps[layer], atol=1e-5)
        if gradients:
            (expected,) = torch.autograd.grad(score, maps[layer], retain_graph=True)
            assert torch.allclose(result.gradients[layer], expected, atol=1e-5)


@pytest.mark.parametrize("text", ["no", "CUDA out of memory"])
def test_any_other_error_of_the_network_is_raised_as_it_is(pictures, text):
    error, calls = RuntimeError(text), []
    module = network(last=lambda x: calls.append(1) or stop_with(error)())
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(RuntimeError) as caught:
            forward(module.to(dtype), pictures.to(dtype))
        assert caught.value is error
    assert len(calls) == 2


@pytest.mark.parametrize(
    "run", [forward, lambda m, x: capture(m, x, 0, ["1.conv"])], ids=["forward", "capture"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_first_layer_in_place_never_changes_the_callers_tensor(pictures, dtype, layout, run):
    inputs = LAYOUTS[layout](pictures.to(dtype))
    before, strides = inputs.clone(), inputs.stride()
    run(nn.Sequential(nn.ReLU(inplace=True), network().to(dtype)), inputs)
    assert torch.equal(inputs, before)
    assert inputs.stride() == strides


# Running again with other maps.


def join(combine):
    """``conv``, a block that makes ``combine(body(x), x)`` of its input x, ``out``, mean."""
    block = nn.Module()
    block.body = nn.Conv2d(4, 4, 3, padding=1).double()
    block.forward = lambda x: combine(block.body(x), x)
    return network(block=block)


def checked(y, x):
    assert len(y) == len(x)
    return y + x


JOINS = {
    "plain": lambda y, x: y,
    "residual": lambda y, x: y + x,
    "residual in place": lambda y, x: x.mul(1).add_(y),
    "concatenation": lambda y, x: torch.cat([y, x], 1)[:, 2:6],
    "gate": lambda y, x: y * x.sigmoid(),
    "viewed": lambda y, x: (y.reshape(len(x), -1) + x.reshape(len(x), -1)).view(len(x), 4, *x.shape[2:]),
    "checked": checked,
}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("kind", JOINS)
def test_rerun_is_the_network_with_one_layers_maps_replaced(pictures, kind, count):
    module, combine = join(JOINS[kind]), JOINS[kind]
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    before = maps.clone()
    x = module.conv(pictures[:1]).expand(count, -1, -1, -1)
    expected = module.out(combine(maps, x)).tanh().mean((2, 3))
    output = rerun(module, pictures[:1], "block.body", maps)
    assert output.shape == (count, 4)
    assert torch.allclose(output, expected, rtol=1e-12, atol=1e-14)
    assert not output.requires_grad
    assert torch.equal(maps, before)


@pytest.mark.parametrize(
    ("kind", "before"), [("residual", [1]), ("plain", [1]), ("concatenation", [1, 5]), ("viewed", [1, 5])]
)
def test_what_lies_before_the_layer_runs_once_where_the_network_allows_it(pictures, kind, before):
    module, sizes = join(JOINS[kind]), []
    module.conv.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    rerun(module, pictures[:1], "block.body", torch.randn(5, 4, 6, 6, dtype=torch.float64))
    assert sizes == before


@pytest.mark.parametrize("count", [1, 5])
def test_rerun_at_an_in_place_layer_whose_input_is_used_again(pictures, count):
    module = network(block=nn.Module())
    module.block.relu, module.block.mix = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1).double()
    module.block.forward = lambda x: module.block.mix(module.block.relu(x)) + x
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    expected = module.out(module.block.mix(maps) + maps).tanh().mean((2, 3))
    assert torch.allclose(rerun(module, pictures[:1], "block.relu", maps), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", IN_PLACE)
def test_rerun_before_a_layer_in_place_leaves_the_maps_alone(pictures, kind):
    in_place, ordinary = IN_PLACE[kind]
    maps = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    before, inputs = maps.clone(), pictures[:1].clone()
    expected = rerun(network(after=ordinary), inputs, "conv", maps)
    assert torch.equal(rerun(network(after=in_place), inputs, "conv", maps), expected)
    assert torch.equal(maps, before)
    assert torch.equal(inputs, pictures[:1])


def test_rerun_on_a_network_that_views_its_maps(pictures):
    module, maps = View(inplace=True), torch.randn(5, 4, 8, 8)
    output = rerun(module, pictures[:1].float(), "conv", maps)
    assert torch.allclose(output, module.fc(maps.relu().flatten(1)), atol=1e-5)


@pytest.mark.parametrize("fails", [None, RuntimeError("no"), KeyError("no"), KeyboardInterrupt()], ids=repr)
def test_rerun_leaves_nothing_behind(gap_network, pictures, snapshot, fails):
    occupied(gap_network)
    if fails is not None:
        gap_network.fc.register_forward_hook(stop_with(fails))
    before, inputs = snapshot(gap_network), pictures[:1].clone()
    maps = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    if fails is None:
        rerun(gap_network, inputs, "relu", maps)
    else:
        with pytest.raises(type(fails)) as caught:
            rerun(gap_network, inputs, "relu", maps)
        assert caught.value is fails
    assert snapshot(gap_network) == before
    assert torch.equal(inputs, pictures[:1])
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# The smaller parts.


def test_find_layer_gives_the_module_at_a_dotted_path():
    module = network(block=nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()))
    assert find_layer(module, "block.1") is module.block[1]


def test_find_layer_knows_every_name_of_a_shared_module(gap_network):
    module = nn.ModuleDict({"body": gap_network, "features": gap_network.relu})
    assert find_layer(module, "body.relu") is gap_network.relu
    assert find_layer(module, "features") is gap_network.relu


def test_trace_tells_what_ran_in_order(pictures, snapshot):
    module = network(norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), pool=nn.MaxPool2d(2)).train()
    before = snapshot(module)
    visits, logits = trace(module, pictures)
    assert snapshot(module) == before
    assert [visit.name for visit in visits] == ["conv", "norm", "drop", "pool", "out", "tanh", "mean"]
    assert [visit.shape for visit in visits][2:4] == [(3, 4, 6, 6), (3, 4, 3, 3)]
    assert [visit.kind for visit in visits][2:4] == [nn.Dropout, nn.MaxPool2d]
    assert {visit.calls for visit in visits} == {1}
    assert torch.equal(logits, module.eval()(pictures))
    assert not logits.requires_grad


def test_trace_counts_calls_and_passes_over_what_is_no_tensor(pictures):
    relu = nn.ReLU()
    module = network(relu=relu, text=Apply(lambda x: str(len(x))), again=nn.Sequential(relu))
    module.again.register_forward_pre_hook(lambda *_: pictures)
    module.out = Apply(lambda x: (x, "note"))
    module.tanh = Apply(lambda pair: pair[0])
    visits, _ = trace(module, pictures)
    assert [visit.name for visit in visits] == ["conv", "relu", "again", "out", "tanh", "mean"]
    assert [visit.calls for visit in visits] == [1, 2, 1, 1, 1, 1]


def test_trace_leaves_no_hook_when_the_network_fails(gap_network, snapshot):
    before = snapshot(gap_network)
    with pytest.raises(RuntimeError):
        trace(gap_network, torch.zeros(1, 5, 8, 8, dtype=torch.float64))
    assert snapshot(gap_network) == before


def test_left_as_found_freezes_inside_and_restores_outside(gap_network, snapshot):
    before = snapshot(occupied(gap_network))
    with pytest.raises(KeyboardInterrupt), left_as_found(gap_network):
        assert not any(part.training for part in gap_network.modules())
        assert not any(parameter.requires_grad for parameter in gap_network.parameters())
        raise KeyboardInterrupt
    assert snapshot(gap_network) == before


def test_parts_of_the_targets_share_a_forward_pass_and_add_up_to_the_whole(flat_network, pictures):
    calls, targets, layers = [], [2, 0, 1], ["conv", "relu"]
    flat_network.register_forward_hook(lambda *_: calls.append(1))
    options = {"gradients": True, "any_shape": False, "skip_idle": False}
    parts = list(captures(flat_network, pictures[:1], targets, layers, chunk_size=2, **options))
    assert (len(parts), len(calls)) == (2, 1)
    whole = capture(flat_network, pictures[:1], targets, layers)
    for part, rows in zip(parts, [slice(0, 2), slice(2, 3)], strict=True):
        assert part.target.tolist() == targets[rows]
        assert torch.equal(part.scores, whole.scores[rows])
        for layer in layers:
            assert torch.equal(part.maps[layer], whole.maps[layer][rows])
            assert torch.allclose(part.gradients[layer], whole.gradients[layer][rows], rtol=1e-12)
    together = joined(parts)
    assert together.target.tolist() == targets
    assert torch.equal(together.logits, whole.logits)
    assert torch.equal(together.scores, whole.scores)
    for layer in layers:
        assert torch.equal(together.maps[layer], whole.maps[layer])
        assert torch.allclose(together.gradients[layer], whole.gradients[layer], rtol=1e-12)


def test_a_layer_that_does_not_run_may_be_left_out(pictures):
    module, layers, _ = MISFITS["unreached"]
    result = capture(module, pictures, 0, [*layers, "conv"], skip_idle=True)
    assert list(result.maps) == list(result.gradients) == ["conv"]


def test_a_layer_without_influence_may_be_left_out(pictures):
    module = TwoHeads().double()
    result = capture(module, pictures, 0, ["conv", "side"], any_shape=True, skip_idle=True)
    assert list(result.gradients) == ["conv"]
    assert_equals_autograd(result, module, pictures, "conv", score=lambda logits: logits[0][:, 0])
    classes = capture(module, pictures[:1], [0, 3], ["conv", "side"], any_shape=True, skip_idle=True)
    assert list(classes.gradients) == ["conv"]
    for layers, targets in product((["conv", "side"], ["side"]), (0, [0, 3])):
        with pytest.raises(ValueError, match="layer 'side' does not influence the score"):
            capture(module, pictures[:1], targets, layers, any_shape=True)


@pytest.mark.parametrize("whole", [True, False])
def test_what_torch_jit_has_made_is_refused(pictures, whole):
    made = torch.jit.trace(nn.Conv2d(3, 4, 3).double(), pictures)
    words = "torch.jit's programs pass over hooks: give the module that this one was made from"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        capture(made if whole else nn.Sequential(made), pictures, 0, ["" if whole else "0"])


def test_a_layer_of_any_shape_may_give_one_number_per_picture(pictures):
    module = network(last=lambda x: x.mean((1, 2, 3)))
    module.add_module("pair", Apply(lambda x: torch.stack([x, -x], 1)))
    result = capture(module, pictures, 1, ["mean"], any_shape=True)
    assert result.gradients["mean"].tolist() == [-1, -1, -1]


def test_a_single_feature_map_stays_a_channel(pictures):
    module = network(
        one=Apply(lambda x: x.sum(1, keepdim=True)), all=Apply(lambda x: x.expand(-1, 4, -1, -1))
    )
    assert capture(module, pictures, 0, ["one"]).gradients["one"].shape == (3, 1, 6, 6)
    assert capture(module, pictures[:1], [0, 1], ["one"]).gradients["one"].shape == (2, 1, 6, 6)


def test_a_layer_behind_a_view(pictures):
    module = View(inplace=False)
    result = capture(module, pictures.float(), 1, ["fc"], any_shape=True)
    assert torch.equal(result.gradients["fc"], torch.eye(3)[[1, 1, 1]])


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("part", [nn.GELU, lambda: nn.BatchNorm2d(4), nn.Dropout], ids=str)
@pytest.mark.parametrize("targets", [0, [0, 3]])
def test_a_network_that_runs_parts_again_in_the_backward_pass(pictures, caller, part, targets, snapshot):
    """Gradient checkpointing saves memory so. The second time, too, it is in evaluation mode."""
    module = network(twice=nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), part())).double()
    inputs = pictures if targets == 0 else pictures[:1]
    block = module.twice.forward
    expected = capture(module, inputs, targets, ["conv"]).gradients["conv"]
    module.train().twice.forward = lambda x: checkpoint(block, x, use_reentrant=False)
    before = snapshot(module)
    with caller():
        found = capture(module, inputs, targets, ["conv"]).gradients["conv"]
    assert torch.equal(found, expected)
    assert snapshot(module) == before


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_rest_of_a_structure_stays_as_it_was(pictures, place):
    def pack(x):
        words = ["a", "b", "c"]
        words[place] = x * 1
        return words

    module = network(packed=Apply(pack), unpack=Apply(lambda parts: parts[place]))
    seen = []
    module.unpack.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    capture(module, pictures, 0, ["packed"])
    words = ["a", "b", "c"]
    assert len(seen[0]) == 3
    assert [one for one in seen[0] if isinstance(one, str)] == words[:place] + words[place + 1 :]


def test_finite_is_what_holds_neither_nan_nor_infinity():
    assert all_finite(torch.tensor([1.0, -2.0]))
    assert all_finite(torch.tensor([3e38, 3e38]))  # their sum overflows
    assert all_finite(torch.empty(0))
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite(torch.tensor([1.0, value]))
        assert not all_finite(torch.ones(2, 3), torch.tensor([3e38, 3e38]), torch.tensor([value]))
    assert all_finite(torch.ones(2, 3), torch.tensor([3e38, 3e38]), torch.tensor([6e4, 6e4]).half())


def test_a_layer_that_does_not_exist_is_answered_with_the_nearest_names():
    module = nn.Sequential(OrderedDict((f"layer{i}", nn.ReLU()) for i in range(7)))
    with pytest.raises(ValueError, match=r"^no layer is called 'layer'; the nearest names are ") as error:
        find_layer(module, "layer")
    assert len(str(error.value).split(" are ")[1].split(", ")) == 5
    with pytest.raises(ValueError, match=r"are layer0, layer1, layer2, layer3, layer4$"):
        find_layer(module, "x")  # near to none
    module = nn.Sequential(OrderedDict(conv=nn.ReLU(), relu=nn.ReLU()))
    with pytest.raises(ValueError, match=r"are relu$"):
        find_layer(module, "rope")  # half of its letters


def test_trace_refuses_a_network_without_a_tensor_in_its_output(pictures):
    with pytest.raises(ValueError, match=r"^the network's output holds no tensor; it is a str$"):
        trace(network(last=lambda x: "words"), pictures)


SENTENCES = {
    "no layer": (
        {"layers": []},
        "capture needs the name of at least one layer",
    ),
    "twice": (
        {"layers": ["again.0"]},
        "layer 'again.0' runs more than once in a forward pass, so it has no single map; "
        "name a module that runs once, such as the block around it",
    ),
    "not finite": (
        {"targets": lambda logits: logits[:, 0] / 0},
        "the network's scores for the targets are not finite",
    ),
    "no tensor": (
        {"module": network(last=lambda x: "words")},
        "the network's output holds no tensor; it is a str",
    ),
    "no targets": (
        {"targets": []},
        "the list of targets is empty; it names at least one class",
    ),
    "dense": (
        {"module": network(last=lambda x: x)},
        "the network's output has shape (3, 4, 6, 6), not (N, classes); "
        "give the target as a function from that output to one scalar per picture",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_errors_say_what_was_wrong_and_what_would_be_right(pictures, case):
    change, sentence = SENTENCES[case]
    module = network(again=nn.Sequential(*[nn.ReLU()] * 2))
    with pytest.raises(ValueError) as error:
        capture(**{"module": module, "inputs": pictures, "targets": 0, "layers": ["conv"]} | change)
    assert str(error.value) == sentence


def test_a_pass_is_recorded_as_a_graph_that_serves_any_picture(gap_network, pictures):
    def run(inputs):
        found = capture(gap_network, inputs, lambda logits: logits[:, 1] ** 2, ["relu"])
        return found.gradients["relu"]

    recorded = make_fx(run)(pictures[:1])
    assert torch.equal(recorded(pictures[1:2]), run(pictures[1:2]))
