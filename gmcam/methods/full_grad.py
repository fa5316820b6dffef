"""FullGrad and Smooth FullGrad: the score as a sum over the input and all biases."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam._hooks import Extra, forward, without_gradients
from gmcam.capture import INPUT, Capture
from gmcam.chunks import in_chunks
from gmcam.groups import Grouped
from gmcam.network import Network
from gmcam.registry import Query, method, no_layer, require_counts, with_progress

_SOURCE = "Srinivas and Fleuret, NeurIPS 2019"
_full_gradient_method = partial(method, source=_SOURCE, convolutional=True, images_only=True)


def _input_and_biases(module: nn.Module) -> list[str]:
    return [INPUT, *(name for name, part in module.named_modules() if _bias(part) is not None)]


@_full_gradient_method("full_grad", title="FullGrad", keeps=_input_and_biases)
def full_grad(query: Query) -> Tensor:
    """ψ(x ⊙ ∂Y/∂x) + Σ_layers ψ(b ⊙ ∂Y/∂output), over all biases b of layers whose output is a map.

    ψ, as in the authors' code: absolute value, min–max over an image's channels and cells, bilinear
    up-sampling with ``align_corners=True``, sum over channels. A batch norm's bias is β − μγ/√(σ² + ε); a
    ReLU6 at its ceiling adds 6 (not in that code). Raises ``ValueError`` where the terms do not add up to the
    score: for activations other than rectifiers and for nonlinear target functions."""
    extra = query.rows()[2] if query.extra else ()
    return _add_up(full_gradient(query.network, query.captured, extra), query.size)


@_full_gradient_method("smooth_full_grad", title="Smooth FullGrad", keeps=no_layer, gradients=False)
def smooth_full_grad(
    query: Query, samples: int = 25, noise: float = 0.15, seed: int = 0, chunk_size: int = 8
) -> Tensor:
    """Σ ψ(mean of a FullGrad term over 25 noisy copies of the image), signs kept until ψ.

    Gaussian noise of standard deviation ``noise`` times the range of the image's values, from ``seed`` for
    every image. As in the authors' code, the input's term is summed over colours before ψ (in FullGrad,
    after). ``chunk_size``: noisy copies per pass. Errors as for FullGrad."""
    require_counts(samples=samples, chunk_size=chunk_size)
    if noise < 0:
        raise ValueError(f"expected noise of at least 0, got {noise}: pass a share of the image's range")
    layers = _input_and_biases(query.network.module)

    def summed_terms(row: int, noises: Tensor) -> dict[str, Tensor]:
        images, target, extra = query.rows(torch.full((len(noises),), row))
        noisy = images + noise * (images[0].max() - images[0].min()) * noises.to(images)
        anywhere: dict[str, Any] = {"arrange": None, "any_shape": True, "skip_idle": True}
        captured = query.again(noisy, target, extra, layer=layers, **anywhere)
        terms = full_gradient(query.network, captured, extra)
        terms[INPUT] = terms[INPUT].sum(1, keepdim=True)
        return {name: term.sum(0, keepdim=True) for name, term in terms.items()}

    raw = []
    for row in with_progress(range(len(query.captured.scores)), "Smooth FullGrad"):
        generator = torch.Generator().manual_seed(seed)
        noises = (  # a chunk at a time, drawn once even where in_chunks tries a chunk again
            torch.stack([torch.randn(query.inputs.shape[1:], generator=generator) for _ in copies])
            for copies in torch.split(torch.arange(samples), chunk_size)
        )
        means: dict[str, Tensor] = {}
        for _, sums in in_chunks(partial(summed_terms, row), noises, chunk_size):
            for name in list(sums):  # each is freed before the next chunk is computed
                means[name] = means.get(name, 0) + sums.pop(name) / samples
        raw.append(_add_up(means, query.size))
    return torch.cat(raw)


def full_gradient(network: Network, captured: Capture, extra: Extra = ()) -> dict[str, Tensor]:
    """The score's terms (T, …): x ⊙ ∂Y/∂x under ``INPUT``, b ⊙ ∂Y/∂output by path; errors as for FullGrad.

    Of a ``group``, the entropy of its classes' softmax is left out, which belongs to no place."""
    terms = {INPUT: captured.maps[INPUT] * captured.gradients[INPUT]}
    for name, part in network.module.named_modules():
        if (bias := _bias(part)) is None or (gradient := captured.gradients.get(name)) is None:
            continue
        bias = bias.to(gradient.device)
        if isinstance(part, nn.ReLU6):
            gradient = gradient * (captured.maps[name] >= bias)
        elif isinstance(part, nn.Linear):  # on (N, L, K) or (N, h, w, K), with channels last
            gradient = gradient.movedim(-1, 1)
        terms[name] = gradient * bias.view(-1, *[1] * (gradient.ndim - 2))
    flat = [term.flatten(1) for term in terms.values()]
    scores, target = captured.scores, captured.target
    if isinstance(network, Grouped) and isinstance(target, Tensor):
        with without_gradients(network.module):
            scores = network.linear_scores(forward(network.module, captured.maps[INPUT], extra), target)
    missing = (scores - sum(term.sum(1) for term in flat)).abs()
    size = captured.scores.abs() + sum(torch.linalg.vector_norm(term, ord=1, dim=1) for term in flat)
    passed = (captured.scores, *captured.maps.values(), *captured.gradients.values())  # autocast mixes dtypes
    rounding = max(torch.finfo(tensor.dtype).eps for tensor in passed)
    if size.is_cuda and size.dtype == torch.float32:  # TF32 rounds the factors of convolutions to ten bits
        rounding = max(rounding, 2**-10)
    if (missing > 32 * rounding * size).any():
        fault = f"got terms that miss the score by {missing.max():.2g} in {network.name}: use another method"
        raise ValueError(f"expected linear layers, rectifiers and pooling, and a logit as score, {fault}")
    return terms


def _bias(part: nn.Module) -> Tensor | None:
    """(K,): what a layer adds whatever its input; None for no bias. A ReLU6 adds its ceiling, (1,)."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        if part.running_mean is None or part.running_var is None:
            return None  # normalised by the batch, the terms do not add up to the score
        scale = (part.running_var + part.eps).rsqrt() * (1 if part.weight is None else part.weight.detach())
        return (0 if part.bias is None else part.bias.detach()) - part.running_mean * scale
    if isinstance(part, nn.modules.conv._ConvNd | nn.Linear) and part.bias is not None:
        return part.bias.detach()
    return torch.full((1,), 6.0) if isinstance(part, nn.ReLU6) else None


def _add_up(terms: dict[str, Tensor], size: tuple[int, ...]) -> Tensor:
    """Σ ψ over the terms that are maps, (T, K, h, w) each → (T, H, W)."""
    raw = torch.zeros((), device=terms[INPUT].device)
    for term in (term for term in terms.values() if term.ndim == 4):
        magnitude = term.abs().to(torch.promote_types(term.dtype, torch.float32))
        low, high = magnitude.amin((1, 2, 3), keepdim=True), magnitude.amax((1, 2, 3), keepdim=True)
        # Scaling and up-sampling are linear, so the sum over channels comes first.
        total = magnitude.sum(1, keepdim=True) - term.shape[1] * low
        scaled = total / (high - low).masked_fill(high == low, 1)
        raw = raw + F.interpolate(scaled, size, mode="bilinear", align_corners=True).squeeze(1)
    return raw
