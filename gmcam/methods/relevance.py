"""Relevance-CAM: channels weighted by the relevance that reaches them from the output."""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gmcam import equations
from gmcam._extras import require
from gmcam._hooks import extra_at, left_as_found
from gmcam.capture import capture
from gmcam.chunks import in_chunks
from gmcam.methods.canonical import ACTIVATIONS, Mean, Sum, canonical, stacked
from gmcam.registry import Query, method

_LEE = "Lee et al., CVPR 2021"
_UNCHANGED = (nn.BatchNorm2d, nn.BatchNorm1d, *ACTIVATIONS)
_PROPORTIONAL = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, Mean, Sum)
_AS_GRADIENT = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)
_RULED = (nn.Conv2d, nn.Linear, *_PROPORTIONAL, *_UNCHANGED, *_AS_GRADIENT)
_FUNCTIONS = (  # they move values without changing them
    *(stacked, operator.getitem, torch.cat, nn.functional.dropout),
    *(torch.flatten, torch.reshape, torch.squeeze, torch.permute, torch.transpose, torch.chunk),
    *("flatten", "view", "reshape", "squeeze", "permute", "transpose", "chunk", "contiguous"),
)
_SHAPE = {"gradients": False, "convolutional": True, "signed": True, "images_only": True}


@method("relevance_cam", title="Relevance-CAM", source=_LEE, **_SHAPE)
def relevance_cam(query: Query, chunk_size: int = 8) -> Tensor:
    """Σ_k w_k M_k, with w_k the mean relevance R_k at the layer; signed.

    Relevance starts at the logits, 1 at the class and −1/N at the others of N classes. zennit propagates it:
    by the z⁺ rule through convolutions and linear layers, in proportion through sums and average pooling,
    unchanged through batch norms and rectifiers. Denominators contain a convolution's bias once (twice in the
    authors' code), a linear layer's never (as there), and a millionth of their scale; in float32, rounding
    grows where signed terms cancel. ``normalise="minmax"``: the paper's scale, 0 is bright; ``chunk_size``:
    maps per pass. Raises ``ValueError`` for target functions, untraceable networks and steps without a rule.
    """
    relevance = propagate(query, chunk_size).to(query.M.dtype)
    return equations.class_map(query.M, equations.channel_weights(relevance))


def propagate(query: Query, chunk_size: int = 8) -> Tensor:
    """The relevance at the layer, (T, K, h, w), of each target; errors as for ``relevance_cam``."""
    module, layer, (inputs, target, extra) = query.network.module, query.layer, query.rows()
    if not isinstance(target, Tensor):
        raise ValueError("expected a class as target of relevance_cam, got a function: use grad_cam")
    zennit = require("zennit", "captum")
    rules, stabilise = zennit.rules, zennit.core.Stabilizer(epsilon=1e-6, norm_scale=True)

    def steady(denominator: Tensor) -> Any:
        shifted = stabilise(denominator)
        return shifted.masked_fill(shifted == 0, 1)  # where a step outputs only zeros

    first = extra_at(extra, torch.tensor([0]), len(inputs))
    network = canonical(module, leaf=layer, example=inputs[:1], extra=first)
    _check_rules(network, layer)
    by_type: list[tuple[Any, Any]] = [(_PROPORTIONAL, rules.Norm(steady)), (_UNCHANGED, rules.Pass())]
    by_type += [(nn.Conv2d, rules.ZPlus(steady)), (nn.Linear, rules.ZPlus(steady, zero_params=["bias"]))]

    def relevance(rows: Tensor) -> Tensor:
        def contrast(output: Any) -> Tensor:
            logits = query.network.logits_of(output)
            start = torch.full_like(logits, -1 / logits.shape[1])
            start[torch.arange(len(logits)), target[rows]] = 1
            return (start * logits).sum(1)

        more = extra_at(extra, rows, len(inputs))
        return capture(ruled, inputs[rows], contrast, layer, extra=more).gradients[layer]

    # The rewritten network shares modules with the original, which no other thread may run meanwhile.
    with left_as_found(module), zennit.composites.LayerMapComposite(by_type).context(network) as ruled:
        chunks = in_chunks(relevance, torch.arange(len(inputs)), chunk_size, "Relevance-CAM")
        return torch.cat([maps for _, maps in chunks])


def _check_rules(network: fx.GraphModule, layer: str) -> None:
    after, numbers = set[fx.Node](), set[fx.Node]()  # sizes such as x.shape[0] carry no relevance
    for node in network.graph.nodes:
        parents = node.all_input_nodes
        is_size = (node.op == "call_method" and node.target == "size") or node.args[1:] == ("shape",)
        if is_size or (parents and numbers.issuperset(parents)):
            numbers.add(node)
        elif after.intersection(parents):
            after.add(node)
            part = network.get_submodule(str(node.target)) if node.op == "call_module" else None
            if not (isinstance(part, _RULED) or node.op == "output" or node.target in _FUNCTIONS):
                step = getattr(node.target, "__name__", node.target) if part is None else type(part).__name__
                fault = f"expected steps with a relevance rule after {layer!r}, got {step}"
                raise ValueError(f"{fault}: choose a later layer, or use grad_cam")
        elif node.target == layer:
            after.add(node)
    if not after:
        raise ValueError(f"expected a step of the traced network, got {layer!r}: name the module around it")
