"""Modules that several test files build networks from, and the reference value by plain autograd."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn


class Apply(nn.Module):
    """Any function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class View(nn.Module):
    """Views its maps as flat vectors, which fails for maps with channels last."""

    def __init__(self, inplace):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace), nn.Linear(256, 3)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).view(len(x), -1))


class Skip(nn.Module):
    """A block whose shortcut is a module that returns its input itself; ``first``: it runs first."""

    def __init__(self, first):
        super().__init__()
        self.first, self.conv, self.skip = first, nn.Conv2d(4, 4, 1).double(), nn.Identity()

    def forward(self, x):
        if self.first:
            skipped = self.skip(x)
            return self.conv(x) + skipped
        return self.conv(x) + self.skip(x)


IN_PLACE = {  # each with its equivalent that is not in place
    "rectifier": (nn.ReLU(inplace=True), nn.ReLU()),
    "product": (Apply(lambda x: x.mul_(3)), Apply(lambda x: x * 3)),
}


def network(*, last=None, **middle):
    """``conv`` (4 channels), the given modules, ``out`` (a convolution), mean over space: 4 logits."""
    torch.manual_seed(0)
    parts = OrderedDict(conv=nn.Conv2d(3, 4, 3), **middle, out=nn.Conv2d(4, 4, 3, padding=1))
    parts["tanh"] = nn.Tanh()  # so that gradients differ from cell to cell
    parts["mean"] = Apply(last or (lambda x: x.mean((2, 3))))
    return nn.Sequential(parts).double().eval()


def stop_with(error):
    """A hook that raises ``error``."""

    def stop(*_):
        raise error

    return stop


def plain_autograd(module, inputs, layer, score=lambda logits: logits[:, 0]):
    """The first tensor in the layer's output, and the gradient of the sum of scores with respect to it."""
    outputs = []
    handle = module.get_submodule(layer).register_forward_hook(lambda m, a, output: outputs.append(output))
    output = module(inputs.detach().requires_grad_())
    handle.remove()
    maps = outputs[0]
    if isinstance(maps, Mapping):
        maps = next(iter(maps.values()))
    elif isinstance(maps, tuple | list):
        maps = maps[0]
    return maps.detach(), torch.autograd.grad(score(output).sum(), maps)[0]


def assert_equals_autograd(captured, module, inputs, layer, **score):
    maps, gradients = plain_autograd(module, inputs, layer, **score)
    largest = gradients.abs().max().item()
    assert largest > 0
    assert torch.equal(captured.maps[layer], maps)
    assert torch.allclose(captured.gradients[layer], gradients, rtol=1e-9, atol=1e-13 * largest)


def assert_classes_equal_autograd(captured, module, image, layer, classes):
    """As ``assert_equals_autograd``, for several classes of a single image."""
    assert captured.target.tolist() == classes
    assert len(captured.maps[layer]) == len(captured.gradients[layer]) == len(classes)
    for row, target in enumerate(classes):
        maps, gradients = plain_autograd(module, image, layer, lambda logits, t=target: logits[:, t])
        largest = gradients.abs().max().item()
        assert torch.equal(captured.maps[layer][row], maps[0])
        assert torch.allclose(captured.gradients[layer][row], gradients[0], rtol=1e-9, atol=1e-13 * largest)
