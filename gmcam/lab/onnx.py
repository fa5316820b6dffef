"""``export_onnx``: a network and its gradient maps as one graph, for programs without torch.

ONNX has no differentiation, so autograd differentiates here, once: the operations of its pass for a score
``Y = Σ_c w_c · logit_c`` are recorded as an ordinary graph, whose class is selected by the input w. Where
ONNX has no counterpart of an operation's gradient, a rule below expresses it in operations that ONNX has.
"""

from __future__ import annotations

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

from gmcam._extras import require
from gmcam.capture import Layer, capture
from gmcam.explaining import Explainable, as_network
from gmcam.files import written_whole
from gmcam.network import Images, Network
from gmcam.version import __version__

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
TOLERANCE = 1e-5
# Where rounding decides between equal values of a max pooling, or on the sign of a rectifier's input, two
# gradients are right. So a correct graph may differ from torch on some images; a wrong one differs on all.
NOISE, ENOUGH = 8, 2
Case = tuple[Tensor, Tensor]  # image (1, 3, H, W) and class weights (1, classes)
Pass = Callable[[Tensor, Tensor], Sequence[Tensor]]  # from both to the outputs

aten = torch.ops.aten


@torch.inference_mode(False)
def export_onnx(
    network: Explainable,
    layer: Layer | Sequence[Layer] | None,
    path: str | Path,
    image: Images | None = None,
) -> float:
    """Write a network to ``path`` as an ONNX graph that outputs logits, feature maps and gradient maps.

    ``network``: as ``explain`` takes it. ``layer``: a readable name, a dotted path or a module, or a list
    of these; None for the default layer. The graph's inputs are ``image`` (1, 3, H, W), preprocessed, and
    ``weights`` (1, classes), which select the score ``Y = Σ weights · logits``: 1 for a class and 0
    elsewhere. Its outputs are ``logits`` (1, classes) and for each layer, by its dotted path,
    ``maps:<layer>`` (1, K, h, w) and ``gradients:<layer>``, Equation 2's ``∂Y / ∂M_k(i, j)``. Everything is
    float32.

    Before the file is written, onnxruntime computes the graph for ``image`` (one or several, as ``explain``
    takes them), by default for noise, and for each image's highest and lowest class, until two images agree
    with torch in every value. Returns the largest difference, as a share of the largest value in the same
    output. The same network gives the same file, and is left as found.

    Raises ``ValueError`` as ``explain`` does, for an operation without a counterpart in ONNX, a difference
    above 1e-5, a network that is not in float32 on the CPU, and a path that cannot be written;
    ``ImportError`` without ``onnx``, ``onnxscript`` or ``onnxruntime``. Needs torch 2.9 or later.

    >>> import tempfile
    >>> network = gmcam.load("collage-resnet")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gmcam.lab.export_onnx(network, "16x16", f"{folder}/network.onnx") < 1e-5
    True
    """
    for package in PACKAGES:
        require(package, "onnx")
    network = as_network(network, image)
    layers = [layer] if layer is None or isinstance(layer, str | nn.Module) else list(layer)
    paths = list(dict.fromkeys(network.layer_path(each) for each in layers))
    outputs = ["logits", *(f"{kind}:{name}" for name in paths for kind in ("maps", "gradients"))]

    def run(image: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        def score(output: Any) -> Tensor:
            return (network.logits_of(output) * weights).sum(1)

        captured = capture(network.module, image, score, paths, any_shape=True)
        kinds = (captured.maps, captured.gradients)
        maps = (network.as_maps(kind[name], name) for name in paths for kind in kinds)
        return (captured.logits, *maps)

    with written_whole(Path(path)) as unfinished:
        cases = _cases(network, paths, image)
        run(*cases[0][0])  # raises what capture refuses, before anything is traced
        try:
            model = _as_onnx(run, cases[0][0], outputs, network.name)
            compute = _session(model)
        except Exception as error:  # torch, onnxscript and onnxruntime each raise their own kinds
            raise ValueError(f"expected {network.name} to become an ONNX graph, {_reason(error)}") from error
        unfinished.write_bytes(model)
        return _check(network.name, outputs, cases, compute, run)


def _cases(network: Network, paths: Sequence[str], image: Images | None) -> list[list[Case]]:
    """For each image, or for several of noise, two cases: its highest and its lowest class."""
    if image is None:
        image = torch.randn((NOISE, *network.input_shape), generator=torch.Generator().manual_seed(0))
    inputs = network.prepare(image).clone()  # the caller's may be inference tensors
    if not len(inputs):
        raise ValueError("expected at least one image to check the graph on, got none: pass one")
    if (inputs.dtype, inputs.device.type) != (torch.float32, "cpu"):
        raise ValueError(
            f"expected a network in float32 on the CPU, got {network.name} in {inputs.dtype} on "
            f"{inputs.device}: export copy.deepcopy(module).float().cpu()"
        )
    logits = capture(network.module, inputs, None, paths, gradients=False, any_shape=True).logits
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
    """The recorded operations of ``run``, as the content of an ONNX file."""
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
    # Notes on where torch found each part fill a tenth of a small file.
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


def _check(
    name: str, outputs: Sequence[str], cases: Sequence[Sequence[Case]], compute: Pass, run: Pass
) -> float:
    """The largest difference on images that agree; ``ValueError`` with the numbers where too few do."""
    agreed: list[float] = []
    wrong: dict[str, float] = {}
    for both in cases:
        differences = dict.fromkeys(outputs, 0.0)
        for case in both:
            for output, value, expected in zip(outputs, compute(*case), run(*case), strict=True):
                differences[output] = max(differences[output], _difference(value, expected))
        above = {output: value for output, value in differences.items() if value > TOLERANCE}
        wrong |= above
        if not above:
            agreed.append(max(differences.values()))
        if len(agreed) == min(ENOUGH, len(cases)):
            return max(agreed)
    raise ValueError(
        f"expected onnxruntime and torch to agree on {name} within {TOLERANCE:.0e} of the largest value, got "
        f"differences in {', '.join(f'{output} of {value:.1e}' for output, value in wrong.items())}"
    )


def _difference(value: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value expected; infinite for NaN."""
    gap = (value - expected).abs().nan_to_num(nan=math.inf).max()
    return float(gap / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny))


def _reason(error: BaseException) -> str:
    """The root cause, naming the operation where there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).splitlines()), type(error).__name__)
    operation = re.search(r"op='([\w.]+)'", line)
    if operation is None:
        return f"got the error: {line.partition('. ')[0]}"
    later = ", or name layers after it" if operation[1].endswith("_backward") else ""
    return f"got {operation[1]}, which ONNX has no counterpart of: use another operation{later}"


# The backward pass of an operation, from the gradient G at its output to the gradient at its input x, in
# operations that ONNX has. Arguments are those of torch's own backward operation, in the same order.


def _convolution(G: Tensor, x: Tensor, weight: Tensor, *options: Any) -> tuple[Tensor, None, None]:
    """A transposed convolution, padded by the rows and columns that the stride left over; or the reverse."""
    _, stride, padding, dilation, transposed, _, groups, _ = options
    sides = zip(x.shape[2:], G.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    left_over = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sides]
    more = [0, 0] if transposed else left_over
    back = aten.convolution(G, weight, None, stride, padding, dilation, not transposed, more, groups)
    return back, None, None


def _max_pool(G: Tensor, x: Tensor, *options: Any) -> Tensor:
    """Each value returns to the place of its maximum, which is the last of the options."""
    places = options[-1].flatten(2)
    return torch.zeros_like(x).flatten(2).scatter_add(2, places, G.flatten(2)).view(x.shape)


def _avg_pool(G: Tensor, x: Tensor, kernel: list[int], stride: list[int], *options: Any) -> Tensor:
    padding, ceil_mode, count_include_pad, divisor = options
    if divisor is not None:
        raise ValueError("ONNX's average pooling has no divisor_override: remove it")
    steps = stride or kernel

    def pool(axis: int, x: Tensor) -> Tensor:
        sizes = ([value[axis], 1] for value in (kernel, steps))
        pooled: Tensor = aten.avg_pool2d(x, *sizes, [padding[axis], 0], ceil_mode, count_include_pad)
        return pooled

    return _separable(G, x, pool)


def _adaptive_avg_pool(G: Tensor, x: Tensor) -> Tensor:
    return _separable(G, x, lambda axis, x: aten._adaptive_avg_pool2d(x, [G.shape[2 + axis], 1]))


def _separable(G: Tensor, x: Tensor, pool: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Averages are A_h · x · A_wᵀ, a matrix for rows and one for columns; the gradient is A_hᵀ · G · A_w.

    ``pool(axis, units)`` pools along one axis: applied to the unit vectors, it gives the matrix.
    """
    with disable_proxy_modes_tracing():  # the graph receives the matrices as constants
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
