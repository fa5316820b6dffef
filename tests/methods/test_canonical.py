"""A network rewritten step by step gives the same output, and the original does not notice."""

import operator

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
    made = canonical(module)
    runs = {}
    for key, part in made.named_modules():
        if isinstance(part, (*ACTIVATIONS, Sum)):
            runs[key] = 0
            part.register_forward_hook(lambda *_, key=key: runs.update({key: runs[key] + 1}))
            assert not getattr(part, "inplace", False)
    with torch.no_grad():
        expected = module(inputs.clone())
        assert set(runs.values()) == {0}  # the original does not run the new steps
        assert torch.equal(made(inputs.clone()), expected)
    assert set(runs.values()) == {1}
    sums = sum(isinstance(part, Sum) for part in made.modules())
    assert (len(runs) - sums, sums) == COUNTS[name]
    functions = {node.target for node in made.graph.nodes if node.op == "call_function"}
    assert not functions & {F.relu, torch.relu, torch.add, operator.add, operator.iadd, F.adaptive_avg_pool2d}
    assert outline(module) == before


def identities(tensors):
    return {id(tensor) for tensor in tensors}


def test_weights_and_statistics_are_shared_and_nothing_of_the_original_changes(snapshot):
    module = build("collage-resnet").train()
    module.stage1.requires_grad_(False)
    module.stage2.eval()
    before = snapshot(module)
    made = canonical(module)
    assert identities(made.parameters()) == identities(module.parameters())
    assert identities(made.buffers()) == identities(module.buffers())
    made.eval()(torch.rand(1, 3, 128, 128))
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
def test_functions_become_modules_and_the_output_stays(pictures, written):
    between, kind = WRITTEN[written]
    module = Steps(between)
    made = canonical(module)
    with torch.no_grad():
        assert torch.allclose(made(pictures.clone()), module(pictures.clone()), rtol=1e-12)
    if kind is not None:
        assert kind in {type(part) for part in made.modules()}
        assert not hasattr(module, next(name for name, part in made.named_children() if type(part) is kind))


def test_a_step_that_tracing_loses_is_noticed(pictures):
    module = Steps(read_again_after_the_sum)
    with pytest.raises(ValueError, match="Steps cannot be rewritten step by step"):
        canonical(module, like=pictures)


@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.3, inplace=True), nn.ELU(2.0, inplace=True), nn.GELU("tanh"), nn.ReLU6(inplace=True)],
)
def test_an_activation_keeps_its_settings(pictures, activation):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), activation).double().eval()
    made = canonical(module)
    own = [part for part in made.modules() if type(part) is type(activation)]
    assert len(own) == 2
    assert activation not in own
    assert own[0] is not own[1]
    with torch.no_grad():
        assert torch.equal(made(pictures * 9), module(pictures * 9))


def test_hooks_on_activations_are_not_shared_in_either_direction(gap_network, pictures):
    runs = []
    gap_network.relu.register_forward_hook(lambda *_: runs.append("original"))
    gap_network.relu.register_forward_pre_hook(lambda *_: runs.append("original"))
    made = canonical(gap_network)
    own = next(part for part in made.modules() if isinstance(part, nn.ReLU))
    made(pictures)
    assert runs == []
    own.register_forward_hook(lambda *_: runs.append("rewritten"))
    gap_network(pictures)
    assert runs == ["original", "original"]


def test_a_rectifier_called_relu_is_not_taken_for_one_in_place(pictures):
    module = Steps(lambda net, x, y: net.relu_(x) - x)
    module.relu_ = nn.ReLU()
    with torch.no_grad():
        assert torch.equal(canonical(module)(pictures), module(pictures))


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


def test_a_module_that_runs_twice_becomes_two_with_the_same_weights(pictures, snapshot):
    module = Again()
    before, paths = snapshot(module), outline(module)
    made = canonical(module)
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d):
        own = [part for part in made.modules() if type(part) is kind]
        assert len(own) == 2
        assert own[0] is not own[1]
    assert identities(made.parameters()) == identities(module.parameters())
    assert identities(made.buffers()) == identities(module.buffers())
    with torch.no_grad():
        assert torch.equal(made(pictures), module(pictures))
        own[0].register_forward_hook(lambda *_: pytest.fail("the original runs a new step"))
        module(pictures)
    assert (snapshot(module), outline(module)) == (before, paths)


@pytest.mark.parametrize("leaf", ["layer4", "layer4.1", "layer3.0.conv2", "relu"])
def test_a_leaf_is_kept_whole_under_its_own_path(leaf):
    module = build("resnet18")
    made = canonical(module, leaf=leaf)
    assert made.get_submodule(leaf) is module.get_submodule(leaf)
    assert [node.target for node in made.graph.nodes if node.op == "call_module"].count(leaf) == 1
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(inputs), module(inputs))


def test_a_network_that_looks_at_values_is_refused_in_one_sentence(pictures):
    module = Steps(lambda _, x, y: x if x.sum() > 0 else y)
    with pytest.raises(
        ValueError, match=r"^Steps cannot be rewritten step by step \(.*control flow\); name a"
    ):
        canonical(module)
