"""Relevance-CAM: channels weighted by the relevance that reaches them from the output."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from gmcam import equations
from gmcam.capture import Target, capture
from gmcam.chunks import in_chunks
from gmcam.methods.canonical import ACTIVATIONS, Mean, Sum, canonical, stacked
from gmcam.registry import Query, method

_CONVOLUTIONS = (nn.Conv2d,)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
_PROPORTIONAL = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, Mean, Sum)
_AS_GRADIENT = (nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)
_FUNCTIONS = (  # they put numbers elsewhere and change none
    stacked,
    operator.getitem,
    torch.cat,
    nn.functional.dropout,
    *(torch.flatten, torch.reshape, torch.squeeze, torch.permute, torch.transpose, torch.chunk),
    *("flatten", "view", "reshape", "squeeze", "permute", "transpose", "chunk", "contiguous"),
)


@method(
    "relevance_cam",
    title="Relevance-CAM",
    source="Lee et al., CVPR 2021",
    gradients=False,
    convolutional=True,
)
def relevance_cam(query: Query, chunk_size: int = 8) -> Tensor:
    """Σ_k w_k M_k, with w_k the mean relevance R_k at the layer (signed, not rectified).

    Relevance starts at the logits, 1 at the class and −1/N at the other of the N classes, and is
    propagated to the layer by zennit: through convolutions and linear layers by the z⁺ rule (the
    bias of a convolution counts once in the denominator, where the authors' code counts it twice;
    that of a linear layer, as theirs, not at all), through sums and average pooling in proportion,
    through batch norms and rectifiers unchanged. Denominators are kept from zero by a millionth of each
    step's own scale, so that relevance is conserved for pictures of any scale. In float32 the proportional
    rule amplifies rounding where signed terms cancel. ``chunk_size``: maps at a time.
    """
    relevance = propagate(query.network.module, query.layer, *query.rows(), chunk_size)
    return equations.class_map(query.M, equations.channel_weights(relevance.to(query.M.dtype)))


def propagate(module: nn.Module, layer: str, inputs: Tensor, target: Target, chunk_size: int = 8) -> Tensor:
    """The relevance at ``layer``, (N, K, h, w), of the contrastive start for each ``target`` (N,),
    ``chunk_size`` of them at a time.

    Raises ``ValueError`` for a target that is no class, and for a network with a step after the layer
    for which there is no rule.
    """
    from zennit.composites import LayerMapComposite
    from zennit.core import Stabilizer
    from zennit.rules import Norm, Pass, ZPlus

    scaled = Stabilizer(epsilon=1e-6, norm_scale=True)

    def steady(denominator: Tensor) -> Tensor:
        shifted: Tensor = scaled(denominator)
        return shifted.masked_fill(shifted == 0, 1)  # of a step that gives zeros alone

    if not isinstance(target, Tensor):
        raise ValueError("relevance_cam explains a class, given by name or index, not a function")
    network = canonical(module, leaf=layer, like=inputs[:1])
    _check_rules(network, layer)
    rules: list[tuple[tuple[type[nn.Module], ...], Any]] = [
        (_CONVOLUTIONS, ZPlus(steady)),
        ((nn.Linear,), ZPlus(steady, zero_params=["bias"])),
        (_PROPORTIONAL, Norm(steady)),
        ((*_NORMS, *ACTIVATIONS), Pass()),
    ]

    def relevance(rows: Tensor) -> Tensor:
        def contrast(logits: Tensor) -> Tensor:
            start = torch.full_like(logits, -1 / logits.shape[1])
            start[torch.arange(len(logits)), target[rows]] = 1
            return (start * logits).sum(1)

        return capture(ruled, inputs[rows], contrast, [layer]).gradients[layer]

    with LayerMapComposite(rules).context(network) as ruled:
        chunks = in_chunks(relevance, torch.arange(len(inputs)), chunk_size, "Relevance-CAM")
        return torch.cat([found for _, found in chunks])


def _check_rules(network: fx.GraphModule, layer: str) -> None:
    """``ValueError`` where a step after the layer has no rule."""
    ruled = (*_CONVOLUTIONS, nn.Linear, *_PROPORTIONAL, *_NORMS, *ACTIVATIONS, *_AS_GRADIENT)
    after: set[fx.Node] = set()
    sizes: set[fx.Node] = set()  # numbers, such as x.shape[0]: no relevance runs through them
    for node in network.graph.nodes:
        parents = node.all_input_nodes
        shape = (node.op == "call_method" and node.target == "size") or node.args[1:] == ("shape",)
        if shape or (parents and sizes.issuperset(parents)):
            sizes.add(node)
            continue
        follows = any(parent in after for parent in parents)
        if follows and node.op == "call_module":
            part = network.get_submodule(str(node.target))
            known = isinstance(part, ruled)
            what = type(part).__name__
        else:
            known = not follows or node.op == "output" or node.target in _FUNCTIONS
            what = getattr(node.target, "__name__", node.target)
        if not known:
            raise ValueError(f"relevance_cam has no rule for {what}, which follows {layer!r}")
        if follows or node.target == layer:
            after.add(node)
    if not after:
        raise ValueError(f"layer {layer!r} is not a step of its own in the forward pass")
