"""``rerun``: the network's output when a layer's maps are replaced, which Ablation-CAM is built on."""

import pytest
import torch
from modules import IN_PLACE, Skip, View, network, stop_with
from torch import nn

from gmcam.capture import capture
from gmcam.methods.perturbing import rerun


def join(combine):
    """``conv``, a block with ``combine(body(x), x)`` of its input x, ``out``, mean."""
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
def test_rerun_is_the_network_with_the_maps_of_a_layer_replaced(images, kind, count):
    module, combine = join(JOINS[kind]), JOINS[kind]
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    before = maps.clone()
    x = module.conv(images[:1]).expand(count, -1, -1, -1)
    expected = module.out(combine(maps, x)).tanh().mean((2, 3))
    output = rerun(module, images[:1], "block.body", maps)
    assert output.shape == (count, 4)
    assert torch.allclose(output, expected, rtol=1e-12, atol=1e-14)
    assert not output.requires_grad
    assert torch.equal(maps, before)


@pytest.mark.parametrize(
    ("kind", "before"), [("residual", [1]), ("plain", [1]), ("concatenation", [1, 5]), ("viewed", [1, 5])]
)
def test_modules_before_the_layer_run_once_where_the_network_allows_it(images, kind, before):
    module, sizes = join(JOINS[kind]), []
    module.conv.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    rerun(module, images[:1], "block.body", torch.randn(5, 4, 6, 6, dtype=torch.float64))
    assert sizes == before


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("keyword", [False, True], ids=["position", "keyword"])
def test_rerun_at_an_in_place_layer_whose_input_is_used_again(images, count, keyword):
    module = network(block=nn.Module())
    relu, mix = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1).double()
    module.block.relu, module.block.mix = relu, mix
    module.block.forward = lambda x: mix(relu(input=x) if keyword else relu(x)) + x
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    expected = module.out(mix(maps) + maps).tanh().mean((2, 3))
    assert torch.allclose(rerun(module, images[:1], "block.relu", maps), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("first", [True, False])
def test_rerun_at_a_layer_that_returns_its_input_replaces_only_its_output(images, first, count):
    module = network(block=Skip(first))
    x = capture(module, images[:1], 0, "block.skip").maps["block.skip"]
    maps = torch.randn(count, 4, 6, 6, dtype=torch.float64)
    expected = module.out(module.block.conv(x) + maps).tanh().mean((2, 3))
    assert torch.allclose(rerun(module, images[:1], "block.skip", maps), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", IN_PLACE)
def test_rerun_before_a_layer_in_place_leaves_the_maps_alone(images, kind):
    in_place, ordinary = IN_PLACE[kind]
    maps = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    before, inputs = maps.clone(), images[:1].clone()
    expected = rerun(network(after=ordinary), inputs, "conv", maps)
    assert torch.equal(rerun(network(after=in_place), inputs, "conv", maps), expected)
    assert torch.equal(maps, before)
    assert torch.equal(inputs, images[:1])


def test_rerun_on_a_network_that_views_its_maps(images):
    module, maps = View(inplace=True), torch.randn(5, 4, 8, 8)
    output = rerun(module, images[:1].float(), "conv", maps)
    assert torch.allclose(output, module.fc(maps.relu().flatten(1)), atol=1e-5)


@pytest.mark.parametrize("fails", [None, RuntimeError("no"), KeyError("no"), KeyboardInterrupt()], ids=repr)
def test_rerun_leaves_nothing_behind(gap_network, images, snapshot, fails):
    gap_network.conv.weight.requires_grad_(False)
    gap_network.train().relu.eval()
    gap_network.relu.register_forward_hook(lambda *_: None)
    if fails is not None:
        gap_network.fc.register_forward_hook(stop_with(fails))
    before, inputs = snapshot(gap_network), images[:1].clone()
    maps = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    if fails is None:
        rerun(gap_network, inputs, "relu", maps)
    else:
        with pytest.raises(type(fails)) as caught:
            rerun(gap_network, inputs, "relu", maps)
        assert caught.value is fails
    assert snapshot(gap_network) == before
    assert torch.equal(inputs, images[:1])
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
