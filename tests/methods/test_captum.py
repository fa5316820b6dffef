"""Each adapter is Captum itself, summed over channels with its sign; what its docstrings say is measured."""

import copy
import sys
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
from gmcam.methods.captum import with_rules

# Captum announces its hooks.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in ("Setting", "Input Tensor")]

NAMES = [name for name in METHODS if name.startswith("captum.")]
LAYERED = {"captum.layer_grad_cam", "captum.layer_gradient_x_activation", "captum.guided_grad_cam"}


def raw(network, inputs, targets, name, **options):
    if name in LAYERED:
        options = {"layer": "pool", **options}  # smaller than the image, so that enlarging matters
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
def test_an_adapter_is_captum_summed_over_channels(flat_network, images, name):
    direct = DIRECT[name](flat_network).attribute(images, target=[2, 0, 1]).detach().sum(1)
    assert direct.amax() > 0
    assert (direct < 0).any() == METHODS[f"captum.{name}"].signed == (name != "saliency")
    ours = raw(flat_network, images, [2, 0, 1], f"captum.{name}")
    assert torch.allclose(ours, direct, rtol=1e-9)


def test_occlusion_is_captums_for_one_colour(flat_network, images):
    squares = {"sliding_window_shapes": (3, 2, 2), "strides": (3, 1, 1)}
    direct = attr.Occlusion(flat_network).attribute(images, target=[2, 0, 1], **squares)
    assert (direct < 0).any()
    assert torch.equal(direct[:, 0], direct[:, 2])
    ours = raw(flat_network, images, [2, 0, 1], "captum.occlusion", share=4)
    assert torch.allclose(ours, direct[:, 0], rtol=1e-6)


def test_an_adapter_has_the_options_of_its_table(flat_network, images):
    options = {name.removeprefix("captum."): METHODS[name].options for name in NAMES}
    assert options.pop("integrated_gradients") == {"steps": 50, "chunk_size": 8}
    assert options.pop("occlusion") == {"share": 7, "chunk_size": 16}
    assert set(options) == set(DIRECT) - {"integrated_gradients"}
    assert not any(options.values())
    for option in ("steps", "chunk_size"):
        with pytest.raises(ValueError, match=f"for {option}, got 0"):
            raw(flat_network, images, 0, "captum.integrated_gradients", **{option: 0})


@pytest.mark.parametrize("name", NAMES)
def test_captums_announcements_are_kept_back_and_no_filter_is_left(flat_network, images, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        raw(flat_network, images.requires_grad_(), 1, name)
        assert warnings.filters == filters


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_reads_a_logit_is_that_class(flat_network, images, name):
    by_function = raw(flat_network, images, lambda logits: logits[:, 1], name)
    assert torch.allclose(by_function, raw(flat_network, images, 1, name), rtol=1e-9)


@pytest.mark.parametrize("layer", ["conv", "relu", "pool"])
@pytest.mark.parametrize("targets", [[2, 0, 1], lambda y: y[:, 0] - 2 * y[:, 1]], ids=["classes", "function"])
def test_layer_methods_are_grad_cam_before_its_rectifier_and_hires_cam(flat_network, images, layer, targets):
    flat_network.relu.inplace = True
    theirs, ours = (
        {name: raw(flat_network, images, targets, name, layer=layer) for name in names}
        for names in (sorted(LAYERED), ("grad_cam", "hires_cam"))
    )
    assert torch.allclose(theirs["captum.layer_grad_cam"].relu(), ours["grad_cam"], rtol=1e-9)
    assert torch.allclose(theirs["captum.layer_gradient_x_activation"], ours["hires_cam"], rtol=1e-9)


def test_integrated_gradients_are_the_sum_written_out_whatever_the_chunks(flat_network, images):
    points, weights = np.polynomial.legendre.leggauss(7)  # on −1 … 1
    x = images[0]
    total = torch.zeros_like(x)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        scaled = (point * x).requires_grad_()
        total += weight * torch.autograd.grad(flat_network(scaled[None])[0, 2], scaled)[0]
    for chunk_size in (1, 3, 7, 100):
        options = {"steps": 7, "chunk_size": chunk_size}
        ours = raw(flat_network, images, [2, 0, 1], "captum.integrated_gradients", **options)
        assert torch.allclose(ours[0], (x * total).sum(0), rtol=1e-9)


def test_occlusion_is_the_loop_written_out_whatever_the_chunks(gap_network):
    image = torch.randn(3, 9, 11, dtype=torch.float64)  # squares of 4 × 5 every 2 × 2, the last cut off
    with torch.no_grad():
        whole = gap_network(image[None])[0, 1]
        total, covered = torch.zeros(9, 11, dtype=torch.float64), torch.zeros(9, 11)
        for top in (0, 2, 4, 6):
            for left in (0, 2, 4, 6):
                square = slice(top, top + 4), slice(left, left + 5)
                without = image.clone()
                without[:, *square] = 0
                total[square] += whole - gap_network(without[None])[0, 1]
                covered[square] += 1
    expected = total / covered
    assert 0 < (expected < 0).sum() < 99
    for chunk_size in (1, 3, 100):
        options = {"share": 2, "chunk_size": chunk_size}
        ours = raw(gap_network, image, 1, "captum.occlusion", **options)[0]
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


def test_guided_backprop_rectifies_at_every_step_of_a_shared_rectifier(images):
    module = Shared()
    x = images.clone().requires_grad_()
    first = Guided.apply(module.conv1(x))
    last = Guided.apply(first + module.conv2(first))
    score = module.fc(last.mean((2, 3)))[:, 1].sum()
    expected = torch.autograd.grad(score, x)[0].sum(1)
    assert torch.allclose(raw(module, images, 1, "captum.guided_backprop"), expected, rtol=1e-9)


# ReLU6, for which Captum has no rule.


def test_guided_backprop_and_deep_lift_through_relu6_by_hand():
    """Cells of −3, 2 and 9 give 0, 2 and 6; class 0 adds them up, class 1 takes them away.

    From zero to the image the outputs gain 0, 2 and 6: that is what DeepLIFT credits the cells with.
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
    assert maps["deep_lift"] == [pytest.approx([0, 2, 6]), pytest.approx([0, -2, -6])]


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
    expected = torch.autograd.grad(guided(x)[0, 1], x)[0].sum(1)
    assert expected.min() < 0 < expected.max()
    assert torch.allclose(raw(module, inputs, 1, "captum.guided_backprop"), expected, rtol=1e-6)
    assert any(reached)


RULES = (nn.ReLU, nn.LeakyReLU, nn.ELU)


def assert_complete(module, inputs):
    """DeepLIFT's attributions add up to the difference from black, and the adapter returns them."""
    with torch.no_grad():
        difference = (module(inputs.clone()) - module(torch.zeros_like(inputs)))[:, 1]
    rewritten = with_rules(module, inputs[:1], "DeepLift", RULES)
    signed = attr.DeepLift(rewritten).attribute(inputs, target=1).detach()
    assert torch.allclose(signed.sum((1, 2, 3)), difference, rtol=1e-6)
    assert torch.allclose(raw(module, inputs, 1, "captum.deep_lift"), signed.sum(1), rtol=1e-9)


@pytest.mark.parametrize("rectifier", [None, nn.LeakyReLU(0.2), nn.ELU(), nn.ReLU6()], ids=str)
def test_deep_lift_is_complete_with_a_shared_rectifier(images, rectifier):
    assert_complete(Shared(rectifier=rectifier), 30 * images)  # far enough for ReLU6 to saturate


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
def test_deep_lift_with_max_pooling_by_one_module_or_a_function_is_captums_with_two(images, written):
    module = Shared(POOLED[written])
    signed = attr.DeepLift(Apart(module)).attribute(images, target=[2, 0, 1]).detach()
    ours = raw(module, images, [2, 0, 1], "captum.deep_lift")
    assert torch.allclose(ours, signed.sum(1), rtol=1e-9)


WITHOUT_RULE = {
    "guided_backprop": (nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.SELU()),
    "deep_lift": (nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.SELU()),
}
WITHOUT_RULE["guided_grad_cam"] = WITHOUT_RULE["guided_backprop"]


@pytest.mark.parametrize(
    ("name", "part"), [(n, part) for n in WITHOUT_RULE for part in WITHOUT_RULE[n]], ids=str
)
def test_an_activation_without_a_rule_is_refused_in_one_sentence(gap_network, images, name, part):
    gap_network.relu = part
    with pytest.raises(ValueError, match=f"has a rule for, got {type(part).__name__}: use captum.integrated"):
        raw(gap_network, images, 1, f"captum.{name}")


def test_deep_lift_is_complete_on_resnet50(images):
    module = torchvision.models.resnet50(weights=None, num_classes=10).double().eval()
    inputs = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="module is being used more than once"):
        attr.DeepLift(module).attribute(inputs, target=1)
    assert_complete(module, inputs)


@pytest.mark.parametrize(("package", "name"), [("captum", "captum.saliency"), ("zennit", "relevance_cam")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    gap_network, images, monkeypatch, package, name
):
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"expected {package} to be installed.* 'gmcam\[captum\]'"):
        gmcam.explain(gap_network, images, 1, method=name)


# What is left behind, and what the maps say.


@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_even_by_a_target_that_fails(images, snapshot, name, trainable):
    module = Shared(nn.Dropout(0.5)).requires_grad_(trainable).train()

    def everything():
        attributes = [list(vars(part)) for part in module.modules()]
        return (
            snapshot(module),
            attributes,
            torch.get_rng_state().tolist(),
            images.grad,
            images.requires_grad,
        )

    before = everything()
    raw(module, images, [0, 1, 2], name)
    assert everything() == before
    calls = []

    def fails(logits):
        calls.append(logits)
        if len(calls) > 1:  # the first call is ours
            raise ZeroDivisionError
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError):
        raw(module, images, fails, name)
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
