"""``export_onnx``: a network and its gradient maps as one graph, for programs without torch.

ONNX knows no differentiation. So autograd differentiates here, once: what it does for a score
``Y = Σ_c w_c · logit_c`` is recorded operation by operation, and the record is an ordinary graph, whose
class is chosen by its input w. An operation's gradient that ONNX has no counterpart of is written below
as operations that it has.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gmcam.capture import capture
from gmcam.explaining import Images, as_list, as_network
from gmcam.files import written_whole
from gmcam.network import Network
from gmcam.version import __version__

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
TOLERANCE = 1e-5
# Where two values of a max pooling are equal but for rounding, or a rectifier's input is 0 but for it, two
# gradients are right. So the graph may differ from torch on a picture; a wrong one does on all.
NOISE, ENOUGH = 8, 2
Case = tuple[Tensor, Tensor]  # picture (1, 3, H, W) and class weights (1, classes)
Pass = Callable[[Tensor, Tensor], Sequence[Tensor]]  # from both to the outputs

aten = torch.ops.aten


@torch.inference_mode(False)
def export_onnx(
    network: Network | nn.Module,
    layers: str | list[str] | tuple[str, ...] | None,
    path: str | Path,
    images: Images | None = None,
) -> float:
    """Write a network to ``path`` as an ONNX graph that gives logits, feature maps and gradient maps.

    ``network`` and ``layers``: as ``explain`` takes them. The graph's inputs are ``image`` (1, 3, H, W),
    preprocessed, and ``weights`` (1, classes), which choose the score ``Y = Σ weights · logits``: 1 for a
    class and 0 elsewhere. Its outputs are ``logits`` (1, classes) and for each layer, by its dotted path,
    ``maps:<layer>`` (1, K, h, w) and ``gradients:<layer>``, Equation 2's ``∂Y / ∂M_k(i, j)``. Everything is
    float32.

    Before the file is kept, onnxruntime computes the graph for ``images``, or for noise of the network's
    ``input_shape``, and for each picture's highest and lowest class, until two pictures agree with torch in
    every value. Returns the largest difference, as a share of the largest value in the same output. The same
    network gives the same file, and is left as it was found.

    Raises ``ValueError`` for what ``explain`` refuses, an operation without a counterpart in ONNX, a
    difference above 1e-5, a network that is not in float32 on the CPU, a path that cannot be written, and
    a missing package: it needs ``onnx``, ``onnxscript`` and ``onnxruntime``, and torch from 2.9.

    >>> import tempfile
    >>> network = gmcam.load("collage-resnet")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gmcam.lab.export_onnx(network, "16x16", f"{folder}/network.onnx") < 1e-5
    True
    """
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise ValueError(f"export_onnx needs {package}; pip install {' '.join(PACKAGES)}") from None
    network = as_network(network, images)
    names = list(dict.fromkeys(network.layer_path(name) for name in as_list(layers)))
    outputs = ["logits", *(f"{kind}:{name}" for name in names for kind in ("maps", "gradients"))]

    def run(image: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        found = capture(
            network.module,
            image,
            lambda logits: (logits * weights).sum(1),
            names,
            any_shape=network.reshape is not None,
        )
        kept = (kind[name] for name in names for kind in (found.maps, found.gradients))
        return (found.logits, *map(network.as_maps, kept))

    with written_whole(Path(path)) as unfinished:
        pictures = _pictures(network, names, images)
        run(*pictures[0][0])  # whatever capture refuses, in its own words
        try:
            model = _as_onnx(run, pictures[0][0], outputs, network.name)
            compute = _session(model)
        except Exception as error:  # torch, onnxscript and onnxruntime each raise their own kinds
            raise ValueError(f"{network.name} cannot be exported: {_reason(error)}") from error
        unfinished.write_bytes(model)
        return _check(network.name, outputs, pictures, compute, run)


def _pictures(network: Network, names: list[str], images: Images | None) -> list[list[Case]]:
    """Each picture, or several of noise, with its highest and with its lowest class."""
    if images is None:
        images = torch.randn((NOISE, *network.input_shape), generator=torch.Generator().manual_seed(0))
    inputs = network.prepare(images).clone()  # the caller's may have been made in inference mode
    if not len(inputs):
        raise ValueError("there is no picture to check the graph on; give at least one")
    if (inputs.dtype, inputs.device.type) != (torch.float32, "cpu"):
        raise ValueError(
            f"a network in float32 on the CPU can be exported, and {network.name} is in {inputs.dtype} on "
            f"{inputs.device}: export copy.deepcopy(module).float().cpu()"
        )
    logits = capture(network.module, inputs, None, names, gradients=False, any_shape=True).logits
    extremes = F.one_hot(torch.stack([logits.argmax(1), logits.argmin(1)], 1), logits.shape[1]).float()
    pairs = zip(inputs, extremes, strict=True)
    return [[(image[None], weights[None]) for weights in both] for image, both in pairs]


class _AnyLayout(TorchFunctionMode):
    """With channels last, adaptive pooling works on strides, which a graph does not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.adaptive_avg_pool2d:
            args = (args[0].clone(memory_format=torch.contiguous_format), *args[1:])
        return func(*args, **(kwargs or {}))


def _as_onnx(run: Pass, case: Case, outputs: Sequence[str], name: str) -> bytes:
    """The operations of ``run``, recorded, as a file's content."""
    with _AnyLayout():
        recorded = make_fx(run, {**core_aten_decompositions(), **_RULES})(*case).eval()
    program: Any = torch.onnx.export(
        recorded,
        case,
        dynamo=True,
        opset_version=OPSET,
        input_names=["image", "weights"],
        output_names=outputs,
        verbose=False,
    )
    model = program.model_proto
    model.producer_name, model.producer_version, model.graph.name = "gmcam", __version__, name
    # How torch came to each part is of no use to whoever runs them, and fills a tenth of a small file.
    model.graph.ClearField("value_info")
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _session(model: bytes) -> Pass:
    """A function that computes the graph's outputs by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of every constant that it does not need
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def compute(image: Tensor, weights: Tensor) -> list[Tensor]:
        values = session.run(None, {"image": image.numpy(), "weights": weights.numpy()})
        return [torch.from_numpy(value) for value in values]

    return compute


def _check(name: str, outputs: list[str], pictures: list[list[Case]], compute: Pass, run: Pass) -> float:
    """The largest difference on pictures that agree; ``ValueError`` with the numbers where too few do."""
    agreed: list[float] = []
    wrong: dict[str, float] = {}
    for cases in pictures:
        found = dict.fromkeys(outputs, 0.0)
        for case in cases:
            for output, own, true in zip(outputs, compute(*case), run(*case), strict=True):
                found[output] = max(found[output], _difference(own, true))
        above = {output: value for output, value in found.items() if value > TOLERANCE}
        wrong |= above
        if not above:
            agreed.append(max(found.values()))
        if len(agreed) == min(ENOUGH, len(pictures)):
            return max(agreed)
    raise ValueError(
        f"{name} is not exported: onnxruntime and torch may differ by {TOLERANCE:.0e} of the largest value, "
        f"and do in {', '.join(f'{output} by {value:.1e}' for output, value in wrong.items())}"
    )


def _difference(own: Tensor, true: Tensor) -> float:
    """The largest difference, as a share of the largest true value; infinite where a value is none."""
    gap = (own - true).abs().nan_to_num(nan=math.inf).max()
    return float(gap / true.abs().max().clamp(min=torch.finfo(true.dtype).tiny))


def _reason(error: BaseException) -> str:
    """What was wrong at the root of it, in a sentence that names the operation if there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).splitlines()), type(error).__name__)
    operation = re.search(r"op='([\w.]+)'", line)
    if operation is None:
        return f"it does not become one graph ({line.partition('. ')[0]})"
    behind = ", or name layers behind it" if operation[1].endswith("_backward") else ""
    return f"ONNX has no counterpart of {operation[1]}; use another operation there{behind}"


# Autograd's way back through an operation, from the gradient G at its output to that at its input x, in
# operations that ONNX has. Their arguments are those of torch's own, in its order.


def _convolution(G: Tensor, x: Tensor, weight: Tensor, *options: Any) -> tuple[Tensor, None, None]:
    """A transposed convolution, with the rows and columns that the stride had left over; and the reverse."""
    _, stride, padding, dilation, transposed, _, groups, _ = options
    sides = zip(x.shape[2:], G.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    left_over = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sides]
    more = [0, 0] if transposed else left_over
    back = aten.convolution(G, weight, None, stride, padding, dilation, not transposed, more, groups)
    return back, None, None


def _max_pool(G: Tensor, x: Tensor, *options: Any) -> Tensor:
    """Each value goes to where its maximum was found: the last of the options."""
    places = options[-1].flatten(2)
    return torch.zeros_like(x).flatten(2).scatter_add(2, places, G.flatten(2)).view(x.shape)


def _avg_pool(G: Tensor, x: Tensor, kernel: list[int], stride: list[int], *options: Any) -> Tensor:
    padding, ceil_mode, count_include_pad, divisor = options
    if divisor is not None:
        raise ValueError("ONNX's average pooling has no divisor_override")
    steps = stride or kernel

    def pool(axis: int, x: Tensor) -> Tensor:
        sizes = ([value[axis], 1] for value in (kernel, steps))
        pooled: Tensor = aten.avg_pool2d(x, *sizes, [padding[axis], 0], ceil_mode, count_include_pad)
        return pooled

    return _separable(G, x, pool)


def _adaptive_avg_pool(G: Tensor, x: Tensor) -> Tensor:
    return _separable(G, x, lambda axis, x: aten._adaptive_avg_pool2d(x, [G.shape[2 + axis], 1]))


def _separable(G: Tensor, x: Tensor, pool: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Averages are A_h · x · A_wᵀ, a matrix for the rows and one for the columns; back it is A_hᵀ · G · A_w.

    ``pool(axis, units)`` pools along one axis; what it makes of the unit vectors there is its matrix.
    """
    with disable_proxy_modes_tracing():  # the graph gets the numbers, not how they came about
        units = [torch.eye(n, dtype=G.dtype).view(n, 1, n, 1) for n in x.shape[2:]]
        back_h, back_w = (pool(axis, unit).flatten(1) for axis, unit in enumerate(units))
    return back_h @ G @ back_w.T


_RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten.adaptive_max_pool2d_backward.default: _max_pool,
    aten.avg_pool2d_backward.default: _avg_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool,
}
