"""A network rewritten so that every step of its forward pass is a separate module.

Rules attached to modules skip functions (``F.relu``) and fail where a module runs twice, as in ResNets."""

import copy
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from gmcam._hooks import Extra, forward, left_as_found, without_gradients
from gmcam.outputs import logits_of

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Hardswish)
_FUNCTIONS = (F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.hardswish)
_FAULT = "expected a network that torch.fx can trace, got {} ({}): use a method without tracing (grad_cam)"


class Sum(nn.Module):
    """x + y as a module of one input, (…, 2), because rules are defined for one input."""

    def forward(self, terms: Tensor) -> Tensor:
        return terms.sum(-1)


class Mean(nn.Module):
    """``x.mean(…)`` with the same arguments."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__()
        self.arguments, self.keywords = arguments, keywords

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(*self.arguments, **self.keywords)


def stacked(x: Tensor, y: Tensor) -> Tensor:
    """The input of ``Sum``: both terms along a new last axis."""
    return torch.stack(torch.broadcast_tensors(x, y), -1)  # type: ignore[no-untyped-call]


# Each module is created with the function's arguments after its input.
_MODULES: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), Sum),
    **dict.fromkeys((torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.mean, "mean"), Mean),
    **dict(zip(_FUNCTIONS, ACTIVATIONS, strict=True)),
    **{F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d},
}
_IN_PLACE = (operator.iadd, torch.relu_, "add_", "relu_")


def canonical(
    module: nn.Module, leaf: str = "", example: Tensor | None = None, extra: Extra = ()
) -> fx.GraphModule:
    """``module`` with a separate module for every addition, activation, mean, pooling and repeated module.

    Weights are shared with ``module``, which does not change. ``leaf``: dotted path of a module that stays
    whole. ``example``, ``extra``: inputs on which both must agree. Raises ``ValueError`` where ``torch.fx``
    cannot trace the network (steps depend on the image) or loses a step (an overwritten tensor is read)."""
    tracer = fx.Tracer()
    is_leaf = tracer.is_leaf_module
    vars(tracer)["is_leaf_module"] = lambda part, path: path == leaf or is_leaf(part, path)
    try:
        with left_as_found(module):  # traces a functional dropout in evaluation mode
            graph = tracer.trace(module)
    except Exception as error:  # the network's code may raise anything when called with a proxy
        raise ValueError(_FAULT.format(type(module).__name__, error)) from error
    network = fx.GraphModule(module, graph)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for number, node in enumerate(list(network.graph.nodes)):
        if (step := _replacement(network, node, leaf, calls)) is None:
            continue
        source = node.args[0] if node.args else node.kwargs["input"]
        overwrites = node.op != "call_module" and node.target in _IN_PLACE
        if overwrites or getattr(step, "inplace", False):  # later readers of the input see the output
            source.replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user > node)
            vars(step)["inplace"] = False
        step.training = False  # of this module alone: its children are shared
        network.add_module(f"gmcam_step{number}", step)
        with network.graph.inserting_before(node):
            if isinstance(step, Sum):
                source = network.graph.call_function(stacked, node.args[:2])
            node.replace_all_uses_with(network.graph.call_module(f"gmcam_step{number}", (source,)))
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()
    network.recompile()
    if example is not None:
        with without_gradients(module):
            expected, output = (logits_of(forward(each, example, extra)) for each in (module, network))
        if not torch.allclose(expected, output, rtol=1e-2 if example.dtype.itemsize < 4 else 1e-4, atol=1e-4):
            raise ValueError(_FAULT.format(type(module).__name__, "the outputs differ"))
    return network


def _replacement(network: fx.GraphModule, node: fx.Node, leaf: str, calls: Counter[Any]) -> nn.Module | None:
    if node.op == "call_module" and node.target != leaf:
        part = network.get_submodule(str(node.target))
        if isinstance(part, ACTIVATIONS) or calls[node.target] > 1:
            duplicate = copy.copy(part)
            nn.Module.__init__(duplicate)  # drops hooks, keeps settings
            vars(duplicate).update({k: dict(vars(part)[k]) for k in ("_parameters", "_buffers", "_modules")})
            return duplicate
    elif node.op in ("call_function", "call_method") and node.target in _MODULES:
        create, keywords = _MODULES[node.target], {k: v for k, v in node.kwargs.items() if k != "input"}
        if create is Sum:  # a constant summand, or ``alpha=``, is not a sum of two maps
            return Sum() if not node.kwargs and all(isinstance(term, fx.Node) for term in node.args) else None
        if len(node.all_input_nodes) == 1:  # no argument is computed, as a pooling's size may be
            return create(*node.args[1:], **keywords)
    return None
