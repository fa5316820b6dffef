"""A network rewritten step by step gives the same output, and the original does not notice."""

import operator
from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import gmcam
from gmcam.methods.canonical import ACTIVATIONS, Mean, Sum, canonical


def build(name):
    torch.manual_seed(0)
    if name in gmcam.lab.EMBEDDED:
        return gmcam.load(name).module
    quickly = {"init_weights": False} if name == "vgg16" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **quickly).eval()


# Rectifiers and additions, counted by hand: resnet50 has 16 blocks of 3 and the stem, densenet121 has 58
# layers of 2, 3 transitions, the stem and the end, squeezenet has 8 fires of 3 and two convolutions.
COUNTS = {
    "resnet50": (49, 16),
    "mobilenet_v2": (35, 10),
    "densenet121": (121, 0),
    "squeezenet1_0": (26, 0),
    "vgg16": (15, 0),
    "collage-resnet": (9, 4),
    "collage-vgg": (7, 0),
}


def outline(module):
    """Which module is where, what it holds, and whether it works in place."""
    return {
        path: (id(part), list(vars(part)), getattr(part, "inplace", None))
        for path, part in module.named_modules()
    }


@pytest.mark.parametrize("name", COUNTS)
def test_same_output_from_steps_that_each_run_once(name):
    module = build(name)
    inputs = torch.randn(2, 3, *(128, 128) if name in gmcam.lab.EMBEDDED else (64, 64))
    before = outline(module)
    traced = canonical(module)
    runs = {}
    for key, part in traced.named_modules():
        if isinstance(part, (*ACTIVATIONS, Sum)):
            runs[key] = 0
            part.register_forward_hook(lambda *_, key=key: runs.update({key: runs[key] + 1}))
            assert not getattr(part, "inplace", False)
    with torch.no_grad():
        expected = module(inputs.clone())
        assert set(runs.values()) == {0}  # the original does not run the new steps
        assert torch.equal(traced(inputs.clone()), expected)
    assert set(runs.values()) == {1}
    sums = sum(isinstance(part, Sum) for part in traced.modules())
    assert (len(runs) - sums, sums) == COUNTS[name]
    functions = {node.target for node in traced.graph.nodes if node.op == "call_function"}
    assert not functions & {F.relu, torch.relu, torch.add, operator.add, operator.iadd, F.adaptive_avg_pool2d}
    assert outline(module) == before


def identities(tensors):
    return {id(tensor) for tensor in tensors}


def test_weights_and_statistics_are_shared_and_nothing_of_the_original_changes(snapshot):
    module = build("collage-resnet").train()
    module.stage1.requires_grad_(False)
    module.stage2.eval()
    before = snapshot(module)
    traced = canonical(module)
    assert identities(traced.parameters()) == identities(module.parameters())
    assert identities(traced.buffers()) == identities(module.buffers())
    traced.eval()(torch.rand(1, 3, 128, 128))
    module.train()
    module.stage2.eval()
    assert snapshot(module) == before


class Steps(nn.Module):
    """A convolution, what ``between`` makes of its map and of what a second one makes of that, a mean."""

    def __init__(self, between):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.between = between
        self.double().eval()

    def forward(self, x):
        x = self.conv1(x)
        return self.between(self, x, self.conv2(x)).sum((2, 3))


def plus_in_place(_, x, y):
    x += y
    return x


def in_place(change):
    """``change`` works on its input, whose other reader, afterwards, sees the change."""

    def between(net, x, y):
        change(x, y)
        return x * y

    return between


def read_again_after_the_rectifier(net, x, y):
    return net.in_place(x) * y + x  # x is rectified by now


def read_again_after_the_sum(_, x, y):
    z = x
    x += y
    return x * z


WRITTEN = {
    "F.relu": (lambda _, x, y: F.relu(x), nn.ReLU),
    "F.relu in place": (lambda _, x, y: F.relu(x, inplace=True), nn.ReLU),
    "F.relu by keyword": (lambda _, x, y: F.relu(input=x), nn.ReLU),
    "torch.relu": (lambda _, x, y: torch.relu(x), nn.ReLU),
    ".relu": (lambda _, x, y: x.relu(), nn.ReLU),
    ".relu_": (in_place(lambda x, y: x.relu_()), nn.ReLU),
    "torch.relu_": (in_place(lambda x, y: torch.relu_(x)), nn.ReLU),
    "F.relu in place, read again": (in_place(lambda x, y: F.relu(x, True)), nn.ReLU),
    ".add_": (in_place(lambda x, y: x.add_(y)), Sum),
    "F.leaky_relu": (lambda _, x, y: F.leaky_relu(x, 0.3, inplace=True), nn.LeakyReLU),
    "F.elu": (lambda _, x, y: F.elu(x, alpha=2.0), nn.ELU),
    "F.selu": (lambda _, x, y: F.selu(x), nn.SELU),
    "F.gelu": (lambda _, x, y: F.gelu(x, approximate="tanh"), nn.GELU),
    "F.silu": (lambda _, x, y: F.silu(x), nn.SiLU),
    "F.hardswish": (lambda _, x, y: F.hardswish(x), nn.Hardswish),
    "F.max_pool2d": (lambda _, x, y: F.max_pool2d(x, 3, 2, ceil_mode=True), nn.MaxPool2d),
    "F.avg_pool2d": (lambda _, x, y: F.avg_pool2d(x, 3, padding=1), nn.AvgPool2d),
    ".mean": (lambda _, x, y: x.mean((2, 3), True), Mean),
    ".mean by keyword": (lambda _, x, y: x.mean(dim=-1, keepdim=True), Mean),
    "torch.mean": (lambda _, x, y: torch.mean(x, (2, 3), keepdim=True), Mean),
    "F.relu6": (lambda _, x, y: F.relu6(x), nn.ReLU6),
    "x + y": (lambda _, x, y: x + y, Sum),
    "x += y": (plus_in_place, Sum),
    "torch.add": (lambda _, x, y: torch.add(x, y), Sum),
    ".add": (lambda _, x, y: x.add(y), Sum),
    "broadcast": (lambda _, x, y: x + y[:, :1, :1], Sum),
    "one rectifier for two steps": (lambda net, x, y: net.relu(x) * net.relu(y), nn.ReLU),
    "F.adaptive_avg_pool2d": (lambda _, x, y: F.adaptive_avg_pool2d(x, 2), nn.AdaptiveAvgPool2d),
    "its size by keyword": (
        lambda _, x, y: F.adaptive_avg_pool2d(x, output_size=(1, 2)),
        nn.AdaptiveAvgPool2d,
    ),
    # Easily overlooked.
    "a pooling's size from another map": (lambda _, x, y: F.adaptive_avg_pool2d(x, y.shape[-1]), None),
    "x + 1": (lambda _, x, y: x + 1, None),
    "1 + x": (lambda _, x, y: 1 + x, None),
    "add with a factor": (lambda _, x, y: torch.add(x, y, alpha=2), None),
    "add by keyword": (lambda _, x, y: torch.add(x, other=y), None),
    "read again after an in-place rectifier": (read_again_after_the_rectifier, None),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_functions_become_modules_and_the_output_stays(images, written):
    between, kind = WRITTEN[written]
    module = Steps(between)
    traced = canonical(module)
    with torch.no_grad():
        assert torch.allclose(traced(images.clone()), module(images.clone()), rtol=1e-12)
    if kind is not None:
        assert kind in {type(part) for part in traced.modules()}
        assert not hasattr(module, next(name for name, part in traced.named_children() if type(part) is kind))


def test_a_step_that_tracing_loses_is_noticed(images):
    module = Steps(read_again_after_the_sum)
    with pytest.raises(ValueError, match=r"torch.fx can trace, got Steps \(the outputs differ\)"):
        canonical(module, example=images)


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.3, inplace=True), nn.ELU(2.0, inplace=True), nn.GELU("tanh"), nn.ReLU6(inplace=True)],
)
def test_an_activation_keeps_its_settings(images, activation):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), activation).double().eval()
    traced = canonical(module)
    first, second = (part for part in traced.modules() if type(part) is type(activation))
    assert activation not in (first, second)
    assert first is not second
    with torch.no_grad():
        assert torch.equal(traced(images * 9), module(images * 9))


def test_hooks_on_activations_are_not_shared_in_either_direction(gap_network, images):
    runs = []
    gap_network.relu.register_forward_hook(lambda *_: runs.append("original"))
    gap_network.relu.register_forward_pre_hook(lambda *_: runs.append("original"))
    traced = canonical(gap_network)
    copied = next(part for part in traced.modules() if isinstance(part, nn.ReLU))
    traced(images)
    assert runs == []
    copied.register_forward_hook(lambda *_: runs.append("rewritten"))
    gap_network(images)
    assert runs == ["original", "original"]


def test_a_rectifier_called_relu_is_not_taken_for_one_in_place(images):
    module = Steps(lambda net, x, y: net.relu_(x) - x)
    module.relu_ = nn.ReLU()
    with torch.no_grad():
        assert torch.equal(canonical(module)(images), module(images))


class Again(nn.Module):
    """One convolution, one batch norm and one pooling, each run twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.MaxPool2d(2)
        self.double().eval()

    def forward(self, x):
        for _ in range(2):
            x = self.pool(self.norm(self.conv(x)))
        return x.flatten(1)


def test_a_module_that_runs_twice_becomes_two_with_the_same_weights(images, snapshot):
    module = Again()
    before, paths = snapshot(module), outline(module)
    traced = canonical(module)
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d):
        first, second = (part for part in traced.modules() if type(part) is kind)
        assert first is not second
    assert identities(traced.parameters()) == identities(module.parameters())
    assert identities(traced.buffers()) == identities(module.buffers())
    with torch.no_grad():
        assert torch.equal(traced(images), module(images))
        first.register_forward_hook(lambda *_: pytest.fail("the original runs a new step"))
        module(images)
    assert (snapshot(module), outline(module)) == (before, paths)


def test_new_steps_replace_no_module_of_the_network(images):
    class Stepwise(nn.Sequential):
        def forward(self, x):
            return super().forward(x).relu()

    module = Stepwise(OrderedDict({f"step{n}": nn.Conv2d(3, 3, 3, padding=1) for n in range(6)})).double()
    with torch.no_grad():
        assert torch.equal(canonical(module)(images), module(images))


@pytest.mark.parametrize("leaf", ["layer4", "layer4.1", "layer3.0.conv2", "relu"])
def test_a_leaf_is_kept_whole_under_its_own_path(leaf):
    module = build("resnet18")
    traced = canonical(module, leaf=leaf)
    assert traced.get_submodule(leaf) is module.get_submodule(leaf)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"].count(leaf) == 1
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(traced(inputs), module(inputs))


def test_a_network_that_looks_at_values_is_refused_in_one_sentence(images):
    module = Steps(lambda _, x, y: x if x.sum() > 0 else y)
    with pytest.raises(ValueError, match=r"torch.fx can trace, got Steps \(.*control flow\): use a method"):
        canonical(module)
