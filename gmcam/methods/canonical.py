"""A network rewritten so that every step of its forward pass is a module of its own.

Relevance propagation, guided backpropagation and DeepLIFT hang a rule on each step. They miss what is
written as a function (``x + y``, ``F.relu``), and go wrong where one module serves several steps (the
rectifier of torchvision's residual blocks). ``canonical`` traces the network with ``torch.fx`` and
gives every such step a module; weights are shared with the network it came from.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from gmcam.capture import forward, left_as_found, without_gradients

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish)


class Sum(nn.Module):
    """x + y as a module of one input, (…, 2): rules are made for one input."""

    def forward(self, terms: Tensor) -> Tensor:
        return terms.sum(-1)


class Mean(nn.Module):
    """``x.mean(…)`` with the arguments it was written with."""

    def __init__(self, *settings: Any, **named: Any) -> None:
        super().__init__()
        self.settings, self.named = settings, named

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(*self.settings, **self.named)


def stacked(x: Tensor, y: Tensor) -> Tensor:
    """What ``Sum`` adds, along a last axis of its own."""
    return torch.stack(torch.broadcast_tensors(x, y), -1)  # type: ignore[no-untyped-call]


# Each module is made with what the function takes after its input.
_MODULES: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), Sum),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    F.relu6: nn.ReLU6,
    F.leaky_relu: nn.LeakyReLU,
    F.elu: nn.ELU,
    F.selu: nn.SELU,
    F.gelu: nn.GELU,
    F.silu: nn.SiLU,
    F.hardswish: nn.Hardswish,
    **dict.fromkeys((torch.mean, "mean"), Mean),
    F.max_pool2d: nn.MaxPool2d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
_IN_PLACE = (operator.iadd, torch.relu_, "add_", "relu_")


class _Tracer(fx.Tracer):
    """Traces through containers, but not into ``leaf``."""

    def __init__(self, leaf: str) -> None:
        super().__init__()
        self.leaf = leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self.leaf or super().is_leaf_module(m, module_qualified_name)


def canonical(module: nn.Module, leaf: str = "", like: Tensor | None = None) -> fx.GraphModule:
    """The same function with a module for every addition, activation, mean and pooling, and one for each
    run of a module that runs several times.

    ``leaf``: dotted path of a module that is kept whole. ``like``: inputs on which both must give the
    same. Raises ``ValueError`` for a network that cannot be traced, because its forward pass depends
    on values in the picture, or that tracing changes, because it reads again what it wrote over.
    """
    try:
        with left_as_found(module):  # a dropout written as a function is traced as it is in evaluation
            graph = _Tracer(leaf).trace(module)
    except Exception as error:  # whatever the network's own code raises on a stand-in for a tensor
        raise ValueError(
            f"{type(module).__name__} cannot be rewritten step by step ({error}); "
            "name a method that takes the network as it is, such as grad_cam"
        ) from error
    # Sub-modules are shared; only the outermost holder is new, so new steps leave no trace in `module`.
    made = fx.GraphModule(module, graph)
    runs = Counter(node.target for node in made.graph.nodes if node.op == "call_module")
    for number, node in enumerate(list(made.graph.nodes)):
        step = _own_module(made, node, leaf, runs)
        if step is None:
            continue
        value = node.args[0] if node.args else node.kwargs["input"]
        written = node.op != "call_module" and node.target in _IN_PLACE
        if written or getattr(step, "inplace", False):  # who reads its input later reads what it left there
            value.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user > node)
            vars(step)["inplace"] = False
        name = f"step{number}"
        step.training = False  # of this module alone: what it may hold is shared
        made.add_module(name, step)
        with made.graph.inserting_before(node):
            if isinstance(step, Sum):
                value = made.graph.call_function(stacked, node.args[:2])
            node.replace_all_uses_with(made.graph.call_module(name, (value,)))
        made.graph.erase_node(node)
    made.delete_all_unused_submodules()
    made.recompile()
    if like is not None:
        with without_gradients(module):
            before, after = forward(module, like), forward(made, like)
        if not torch.allclose(before, after, rtol=1e-2 if like.dtype.itemsize < 4 else 1e-4, atol=1e-4):
            raise ValueError(
                f"{type(module).__name__} cannot be rewritten step by step (the outputs differ); "
                "name a method that takes the network as it is, such as grad_cam"
            )
    return made


def _own_module(made: fx.GraphModule, node: fx.Node, leaf: str, runs: Counter[Any]) -> nn.Module | None:
    """The module that a step is to be replaced with, None for one that stays."""
    if node.op == "call_module" and node.target != leaf:
        part = made.get_submodule(str(node.target))
        if isinstance(part, ACTIVATIONS) or runs[node.target] > 1:
            own = copy.copy(part)
            nn.Module.__init__(own)  # hooks of its own; what the module was made with stays
            for kind in ("_parameters", "_buffers", "_modules"):
                vars(own)[kind] = dict(vars(part)[kind])
            return own
    elif node.op in ("call_function", "call_method") and node.target in _MODULES:
        make = _MODULES[node.target]
        if make is Sum:
            # A constant added, or a factor before y, is no sum of two maps: it stays a function.
            both = not node.kwargs and all(isinstance(one, fx.Node) for one in node.args)
            return Sum() if both else None
        if len(node.all_input_nodes) == 1:  # nothing else is computed on the way, such as a pooling's size
            return make(*node.args[1:], **{key: one for key, one in node.kwargs.items() if key != "input"})
    return None
