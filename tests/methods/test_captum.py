"""Each adapter is Captum itself, summed over channels and rectified; what its docstrings say is measured."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision
from captum import attr
from torch import nn
from torch.nn import functional as F

import gmcam
from gmcam import METHODS
from gmcam.methods.captum import ruled

# Captum announces its hooks.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in ("Setting", "Input Tensor")]

NAMES = [name for name in METHODS if name.startswith("captum.")]
LAYERED = {"captum.layer_grad_cam", "captum.layer_gradient_x_activation", "captum.guided_grad_cam"}


def raw(network, inputs, targets, name, **options):
    if name in LAYERED:
        options = {"layer": "pool", **options}  # smaller than the picture, so that enlarging matters
    return gmcam.explain(network, inputs, targets, method=name, **options).raw


DIRECT = {
    "layer_grad_cam": lambda net: attr.LayerGradCam(net, net.pool),
    "layer_gradient_x_activation": lambda net: attr.LayerGradientXActivation(net, net.pool),
    "saliency": attr.Saliency,
    "input_x_gradient": attr.InputXGradient,
    "integrated_gradients": attr.IntegratedGradients,
    "guided_backprop": attr.GuidedBackprop,
    "guided_grad_cam": lambda net: attr.GuidedGradCam(net, net.pool),
    "deep_lift": attr.DeepLift,
}


@pytest.mark.parametrize("name", DIRECT)
def test_an_adapter_is_captum_summed_over_channels_and_rectified(flat_network, pictures, name):
    direct = DIRECT[name](flat_network).attribute(pictures, target=[2, 0, 1]).detach().sum(1)
    if name != "saliency":  # an absolute value already
        assert (direct < 0).any() or name == "guided_grad_cam"
    ours = raw(flat_network, pictures, [2, 0, 1], f"captum.{name}")
    assert ours.abs().max() > 0
    assert torch.allclose(ours, direct.relu(), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_captums_announcements_are_kept_back_and_no_filter_is_left(flat_network, pictures, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        raw(flat_network, pictures.requires_grad_(), 1, name)
        assert warnings.filters == filters


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_reads_a_logit_is_that_class(flat_network, pictures, name):
    by_function = raw(flat_network, pictures, lambda logits: logits[:, 1], name)
    assert torch.allclose(by_function, raw(flat_network, pictures, 1, name), rtol=1e-9)


@pytest.mark.parametrize("layer", ["conv", "relu", "pool"])
@pytest.mark.parametrize("targets", [[2, 0, 1], lambda y: y[:, 0] - 2 * y[:, 1]], ids=["classes", "function"])
def test_layer_methods_are_grad_cam_and_the_guidance_map(flat_network, pictures, layer, targets):
    flat_network.relu.inplace = True
    for captum, ours in (("layer_grad_cam", "grad_cam"), ("layer_gradient_x_activation", "guidance_map")):
        theirs = raw(flat_network, pictures, targets, f"captum.{captum}", layer=layer)
        assert torch.allclose(theirs, raw(flat_network, pictures, targets, ours, layer=layer), rtol=1e-9)


def test_integrated_gradients_are_the_sum_written_out_whatever_the_chunks(flat_network, pictures):
    points, weights = np.polynomial.legendre.leggauss(7)  # on −1 … 1
    x = pictures[0]
    total = torch.zeros_like(x)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        scaled = (point * x).requires_grad_()
        total += weight * torch.autograd.grad(flat_network(scaled[None])[0, 2], scaled)[0]
    for chunk_size in (1, 3, 7, 100):
        options = {"steps": 7, "chunk_size": chunk_size}
        ours = raw(flat_network, pictures, [2, 0, 1], "captum.integrated_gradients", **options)
        assert torch.allclose(ours[0], (x * total).sum(0).relu(), rtol=1e-9)


def test_occlusion_is_the_loop_written_out_whatever_the_chunks(gap_network):
    picture = torch.randn(3, 9, 11, dtype=torch.float64)  # squares of 4 × 5 every 2 × 2, the last cut off
    with torch.no_grad():
        whole = gap_network(picture[None])[0, 1]
        total, covered = torch.zeros(9, 11, dtype=torch.float64), torch.zeros(9, 11)
        for top in (0, 2, 4, 6):
            for left in (0, 2, 4, 6):
                square = slice(top, top + 4), slice(left, left + 5)
                without = picture.clone()
                without[:, *square] = 0
                total[square] += whole - gap_network(without[None])[0, 1]
                covered[square] += 1
    expected = (total / covered).relu()
    assert 0 < (expected == 0).sum() < 99
    for chunk_size in (1, 3, 100):
        options = {"share": 2, "chunk_size": chunk_size}
        ours = raw(gap_network, picture, 1, "captum.occlusion", **options)[0]
        assert torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-7)  # Captum's mean is float32


# The same on a network whose steps share a rectifier, where Captum by itself goes wrong.


class Shared(nn.Module):
    """Two convolutions and an addition around one in-place rectifier, and what is ``between``."""

    def __init__(self, between=None, rectifier=None):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.rectifier, self.between = rectifier or nn.ReLU(inplace=True), between or (lambda x: x)
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x):
        x = self.between(self.rectifier(self.conv1(x)))
        x = self.pool(self.between(self.rectifier(x + self.conv2(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Guided(torch.autograd.Function):
    """A rectifier, with a ceiling or none, that lets a positive gradient pass where it is open itself."""

    @staticmethod
    def forward(context, x, ceiling=float("inf")):
        context.open = (x > 0) & (x < ceiling)
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(context, gradient):
        return gradient.relu() * context.open, None


def test_guided_backprop_rectifies_at_every_step_of_a_shared_rectifier(pictures):
    module = Shared()
    x = pictures.clone().requires_grad_()
    first = Guided.apply(module.conv1(x))
    last = Guided.apply(first + module.conv2(first))
    score = module.fc(last.mean((2, 3)))[:, 1].sum()
    expected = torch.autograd.grad(score, x)[0].sum(1).relu()
    assert torch.allclose(raw(module, pictures, 1, "captum.guided_backprop"), expected, rtol=1e-9)


# ReLU6, for which Captum has no rule.


def test_guided_backprop_and_deep_lift_through_relu6_by_hand():
    """Cells of −3, 2 and 9 give 0, 2 and 6; class 0 adds them up, class 1 takes them away.

    From zero to the picture the outputs gain 0, 2 and 6: that is what DeepLIFT credits the cells with.
    The gradient passes at 2 alone, and for class 1 it is negative there.
    """
    module = nn.Sequential(nn.ReLU6(), nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[1.0] * 3, [-1.0] * 3]))
    x = torch.tensor([[[[-3.0, 2, 9]]]]).double()
    maps = {
        name: gmcam.explain(module, x, [0, 1], method=f"captum.{name}").raw[:, 0].tolist()
        for name in ("guided_backprop", "deep_lift")
    }
    assert maps["guided_backprop"] == [[0, 1, 0], [0, 0, 0]]
    assert maps["deep_lift"] == [pytest.approx([0, 2, 6]), [0, 0, 0]]


class GuidedReLU6(nn.Module):
    def forward(self, x):
        return Guided.apply(x, 6.0)


def test_guided_backprop_on_mobilenet_v2():
    module = torchvision.models.mobilenet_v2(weights=None, num_classes=10).double().eval()
    inputs = 30 * torch.randn(1, 3, 64, 64, dtype=torch.float64)  # far enough for the ceilings
    guided, reached = copy.deepcopy(module), []
    for path, part in module.named_modules():
        if isinstance(part, nn.ReLU6):
            guided.set_submodule(path, GuidedReLU6())
            part.register_forward_hook(lambda part, _, output: reached.append((output == 6).any()))
    x = inputs.clone().requires_grad_()
    expected = torch.autograd.grad(guided(x)[0, 1], x)[0].sum(1).relu()
    assert expected.max() > 0
    assert torch.allclose(raw(module, inputs, 1, "captum.guided_backprop"), expected, rtol=1e-6)
    assert any(reached)


RULES = (nn.ReLU, nn.LeakyReLU, nn.ELU)


def assert_complete(module, inputs):
    """DeepLIFT explains the whole difference from black, and the adapter shows its positive part."""
    with torch.no_grad():
        difference = (module(inputs.clone()) - module(torch.zeros_like(inputs)))[:, 1]
    signed = (
        attr.DeepLift(ruled(module, inputs[:1], attr.DeepLift, RULES)).attribute(inputs, target=1).detach()
    )
    assert torch.allclose(signed.sum((1, 2, 3)), difference, rtol=1e-6)
    assert torch.allclose(raw(module, inputs, 1, "captum.deep_lift"), signed.sum(1).relu(), rtol=1e-9)


@pytest.mark.parametrize("rectifier", [None, nn.LeakyReLU(0.2), nn.ELU(), nn.ReLU6()], ids=str)
def test_deep_lift_is_complete_with_a_shared_rectifier(pictures, rectifier):
    assert_complete(Shared(rectifier=rectifier), 30 * pictures)  # far enough for ReLU6 to saturate


class Apart(Shared):
    """The same network as Captum wants it: a module for each rectifier and each max pooling."""

    def __init__(self, shared):
        super().__init__()
        self.load_state_dict(shared.state_dict())
        self.rectifiers = nn.ModuleList(nn.ReLU() for _ in range(2))
        self.poolings = nn.ModuleList(nn.MaxPool2d(2) for _ in range(2))

    def forward(self, x):
        x = self.poolings[0](self.rectifiers[0](self.conv1(x)))
        x = self.pool(self.poolings[1](self.rectifiers[1](x + self.conv2(x))))
        return self.fc(x.flatten(1))


POOLED = {"one module": nn.MaxPool2d(2), "a function": lambda x: F.max_pool2d(x, 2)}


@pytest.mark.parametrize("written", POOLED)
def test_deep_lift_with_max_pooling_by_one_module_or_a_function_is_captums_with_two(pictures, written):
    module = Shared(POOLED[written])
    signed = attr.DeepLift(Apart(module)).attribute(pictures, target=[2, 0, 1]).detach()
    ours = raw(module, pictures, [2, 0, 1], "captum.deep_lift")
    assert torch.allclose(ours, signed.sum(1).relu(), rtol=1e-9)


WITHOUT_RULE = {
    "guided_backprop": (nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.SELU()),
    "deep_lift": (nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.SELU()),
}
WITHOUT_RULE["guided_grad_cam"] = WITHOUT_RULE["guided_backprop"]


@pytest.mark.parametrize(
    ("name", "part"), [(n, part) for n in WITHOUT_RULE for part in WITHOUT_RULE[n]], ids=str
)
def test_an_activation_without_a_rule_is_refused_in_one_sentence(gap_network, pictures, name, part):
    gap_network.relu = part
    with pytest.raises(ValueError, match=f"has no rule for {type(part).__name__}: use captum.integrated"):
        raw(gap_network, pictures, 1, f"captum.{name}")


def test_deep_lift_is_complete_on_resnet50(pictures):
    module = torchvision.models.resnet50(weights=None, num_classes=10).double().eval()
    inputs = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="module is being used more than once"):
        attr.DeepLift(module).attribute(inputs, target=1)
    assert_complete(module, inputs)


# What is left behind, and what the maps say.


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_even_by_a_target_that_fails(pictures, snapshot, name, trainable):
    module = Shared(nn.Dropout(0.5)).requires_grad_(trainable).train()

    def everything():
        attributes = [list(vars(part)) for part in module.modules()]
        return (
            snapshot(module),
            attributes,
            torch.get_rng_state().tolist(),
            pictures.grad,
            pictures.requires_grad,
        )

    before = everything()
    raw(module, pictures, [0, 1, 2], name)
    assert everything() == before
    calls = []

    def fails(logits):
        calls.append(logits)
        if len(calls) > 1:  # the first call is ours
            raise ZeroDivisionError
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError):
        raw(module, pictures, fails, name)
    assert everything() == before


def cosine(first, second):
    return torch.cosine_similarity(first.flatten(), second.flatten(), 0).item()


@pytest.mark.parametrize("name", gmcam.lab.EMBEDDED)
def test_guided_backprop_hardly_tells_classes_apart_where_grad_cam_does(name):
    network, scene = gmcam.load(name), gmcam.lab.scene("cat", "cup", seed=3).image
    alike = {
        method: cosine(*gmcam.explain(network, scene, ["cat", "cup"], method=method).maps)
        for method in ("captum.guided_backprop", "grad_cam")
    }
    assert alike["captum.guided_backprop"] > 0.7
    assert alike["grad_cam"] < 0.3
