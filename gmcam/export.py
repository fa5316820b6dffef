"""``export_onnx``: a network with its gradients as one graph, for a page or a program without torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from gmcam.capture import capture
from gmcam.networks.network import Network

OPSET = 20
TOLERANCE = 1e-5
aten = torch.ops.aten


def export_onnx(network: Network | nn.Module, layers: str | Sequence[str] | None, path: str | Path) -> float:
    """Write (image, class weights) → logits, feature maps and gradient maps."""
    if not isinstance(network, Network):
        network = Network(network)
    asked = [layers] if layers is None or isinstance(layers, str) else list(layers)
    names = [network.layer_path(layer) for layer in asked]

    def graph(image: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        found = capture(network.module, image, lambda logits: (logits * weights).sum(1), names)
        pairs = ((found.maps[name], found.gradients[name]) for name in names)
        return (found.logits, *(tensor for pair in pairs for tensor in pair))

    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, *network.input_shape), generator=generator)
    classes = capture(network.module, image, None, names, gradients=False).logits.shape[1]
    weights = F.one_hot(torch.tensor([0]), classes).float()
    traced = make_fx(graph, decomposition_table={**core_aten_decompositions(), **_RULES})(image, weights)
    for node in list(traced.graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    outputs = ["logits", *(f"{kind}:{name}" for name in names for kind in ("maps", "gradients"))]
    program = torch.onnx.export(
        traced,
        (image, weights),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image", "weights"],
        output_names=outputs,
        verbose=False,
    )
    model = program.model_proto
    import onnxruntime

    data = model.SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for index in range(2):
        weights = F.one_hot(torch.tensor([index]), classes).float()
        computed = session.run(outputs, {"image": image.numpy(), "weights": weights.numpy()})
        for own, true in zip(computed, graph(image, weights), strict=True):
            worst = max(worst, float(np.abs(own - true.numpy()).max() / true.abs().max()))
    if worst > TOLERANCE:
        raise ValueError(f"error {worst}")
    Path(path).write_bytes(data)
    return worst


def _convolution(grad, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, mask):  # type: ignore
    sides = zip(x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    extra = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sides]
    back = aten.convolution(
        grad, weight, None, stride, padding, dilation, not transposed, [0, 0] if transposed else extra, groups
    )
    return back, None, None


def _max_pool(grad, x, kernel, stride, padding, dilation, ceil, indices):  # type: ignore
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add(2, indices.flatten(2), grad.flatten(2)).view(x.shape)


def _average(x, axis, pool):  # type: ignore
    size = x.shape[axis]
    return pool(torch.eye(size).view(size, 1, size, 1)).view(size, -1)


def _avg_pool(grad, x, kernel, stride, padding, ceil, include, divisor):  # type: ignore
    kernel, stride, padding = ([v[0], v[-1]] if len(v) else kernel for v in (kernel, stride, padding))
    down = [
        _average(
            x,
            2 + i,
            lambda eye, i=i: aten.avg_pool2d(
                eye,
                [kernel[i], 1],
                [stride[i], 1],
                [padding[i], 0],
                ceil,
                include,
                divisor and (divisor if i else 1),
            ),
        )
        for i in (0, 1)
    ]
    return down[0] @ grad @ down[1].T


def _adaptive_avg_pool(grad, x):  # type: ignore
    down = [
        _average(x, i, lambda eye, i=i: aten._adaptive_avg_pool2d(eye, [grad.shape[i], 1])) for i in (2, 3)
    ]
    return down[0] @ grad @ down[1].T


_RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten.avg_pool2d_backward.default: _avg_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool,
}
