"""FullGrad and Smooth FullGrad: the score as a sum over the input and every bias of the network."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam.capture import INPUT, Capture, capture
from gmcam.chunks import in_chunks
from gmcam.network import Network
from gmcam.registry import Query, method, no_layer, with_progress

_SOURCE = "Srinivas and Fleuret, NeurIPS 2019"
_WITH_BIAS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm)


def _input_and_biases(module: nn.Module) -> list[str]:
    return [INPUT, *_biases(module), *_ceilings(module)]


@method("full_grad", title="FullGrad", source=_SOURCE, keeps=_input_and_biases, convolutional=True)
def full_grad(query: Query) -> Tensor:
    """ψ(x ⊙ ∂Y/∂x) + Σ_layers ψ(b ⊙ ∂Y/∂output), over all biases b of layers that give maps.

    ψ: absolute value, min–max over the channels and cells of a picture, bilinear up-sampling (with
    ``align_corners=True``, as in the authors' code), sum over channels. The bias of a batch norm is
    β − μγ/√(σ² + ε); a ReLU6 at its ceiling adds 6, which the authors' code leaves out. Each module
    meets its own gradient, whatever the order they were registered in.
    """
    return _add_up(full_gradient(query.network, query.captured), query.size)


@method(
    "smooth_full_grad",
    title="Smooth FullGrad",
    source=_SOURCE,
    keeps=no_layer,
    gradients=False,
    convolutional=True,
)
def smooth_full_grad(
    query: Query, samples: int = 25, noise: float = 0.15, seed: int = 0, chunk_size: int = 8
) -> Tensor:
    """Σ ψ(mean of a term of FullGrad over 25 noisy copies of the picture), signs kept until ψ.

    The noise is normal, with a deviation of ``noise`` times the range of each picture's values. As
    in the authors' code, the input's term is summed over colours before its absolute value (FullGrad
    sums after). ``seed`` draws the noise, the same for every picture. ``chunk_size``: noisy copies at
    a time.
    """
    network = query.network
    kept = _input_and_biases(network.module)

    def summed(row: int, drawn: Tensor) -> dict[str, Tensor]:
        pictures, target = query.rows(torch.full((len(drawn),), row))
        deviation = noise * (pictures[0].max() - pictures[0].min())
        noisy = pictures + deviation * drawn.to(pictures)
        captured = capture(network.module, noisy, target, kept, any_shape=True, skip_idle=True)
        terms = full_gradient(network, captured)
        terms[INPUT] = terms[INPUT].sum(1, keepdim=True)
        return {name: term.sum(0, keepdim=True) for name, term in terms.items()}

    raw = []
    for row in with_progress(range(len(query.captured.scores)), "Smooth FullGrad"):
        generator = torch.Generator().manual_seed(seed)
        noises = (  # drawn when their turn comes, and once, however often a chunk is tried
            torch.stack([torch.randn(query.inputs.shape[1:], generator=generator) for _ in copies])
            for copies in torch.split(torch.arange(samples), chunk_size)
        )
        means: dict[str, Tensor] = {}
        for _, sums in in_chunks(partial(summed, row), noises, chunk_size):
            for name, total in sums.items():
                means[name] = means.get(name, 0) + total / samples
        raw.append(_add_up(means, query.size))
    return torch.cat(raw)


def full_gradient(network: Network, captured: Capture) -> dict[str, Tensor]:
    """The terms of the score: x ⊙ ∂Y/∂x and, by module, b ⊙ ∂Y/∂output; (T, …) each.

    ``captured``: a pass that kept the input and every module with a bias. The terms add up to the
    score, ``Y = Σ x·∂Y/∂x + Σ b·∂Y/∂output``, where every module is linear with a bias, or a
    rectifier or pooling. Raises ``ValueError`` where they do not.
    """
    gradients = captured.gradients
    terms = {INPUT: captured.maps[INPUT] * gradients[INPUT]}
    biases = {name: bias for name, bias in _biases(network.module).items() if name in gradients}
    for name, bias in biases.items():
        # Channels second, as in maps: a linear layer over (N, L, K) or (N, h, w, K) has them last.
        linear = isinstance(network.module.get_submodule(name), nn.Linear)
        gradient = gradients[name].movedim(-1, 1) if linear else gradients[name]
        terms[name] = gradient * bias.view(-1, *[1] * (gradient.ndim - 2))
    for name in filter(gradients.__contains__, _ceilings(network.module)):
        terms[name] = 6 * gradients[name] * (captured.maps[name] >= 6)
    missing = captured.scores
    size = missing.abs()
    for term in terms.values():
        missing = missing - term.flatten(1).sum(1)
        size = size + torch.linalg.vector_norm(term.flatten(1), ord=1, dim=1)
    if (missing.abs() > 32 * _rounding(size) * size).any():
        raise ValueError(
            f"FullGrad needs a network of linear layers, rectifiers and pooling, and a logit for its "
            f"score: in {network.name} the terms miss the score by {missing.abs().max():.2g}"
        )
    return terms


def _rounding(values: Tensor) -> float:
    """The relative rounding of what a network computes in ``values``' type, on their device."""
    if values.is_cuda and values.dtype == torch.float32 and _allows_tf32():
        return 2**-10  # convolutions keep ten bits of their factors
    return torch.finfo(values.dtype).eps


def _allows_tf32() -> bool:
    """Whether cuDNN's convolutions may round their factors to ten bits."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # they were told by name, which the older flag does not know
        return bool(torch.backends.cudnn.conv.fp32_precision != "ieee")  # type: ignore[attr-defined]


def _ceilings(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, nn.ReLU6)]


def _biases(module: nn.Module) -> dict[str, Tensor]:
    """(K,) by module path: what each linear layer, convolution and batch norm adds whatever its input."""
    parts = {name: part for name, part in module.named_modules() if isinstance(part, _WITH_BIAS)}
    return {name: bias for name, part in parts.items() if (bias := _bias(part)) is not None}


def _bias(part: nn.Module) -> Tensor | None:
    """(K,): what a module adds whatever its input, None where that is nothing."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        if part.running_mean is None or part.running_var is None:
            raise ValueError("FullGrad needs batch norms with running statistics")
        scale = (part.running_var + part.eps).rsqrt()
        if part.weight is not None:
            scale = scale * part.weight.detach()
        shift = part.bias.detach() if part.bias is not None else 0
        return shift - part.running_mean * scale
    bias = part.bias
    return bias.detach() if isinstance(bias, Tensor) else None


def _add_up(terms: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Σ ψ over the terms that are maps, (N, K, h, w) each → (N, H, W)."""
    raw: Tensor | None = None
    for term in terms.values():
        if term.ndim != 4:
            continue
        size_of = term.abs().float() if term.dtype.itemsize < 4 else term.abs()
        low, high = (end.flatten(1) for end in size_of.aminmax(dim=3))
        low, high = low.amin(1), high.amax(1)
        spread = torch.where(high > low, high - low, torch.ones_like(high))
        # Scaling and up-sampling are linear: the sum over channels may come first, and saves their share.
        total = size_of.sum(1, keepdim=True) - term.shape[1] * low[:, None, None, None]
        scaled = total / spread[:, None, None, None]
        up = F.interpolate(scaled, size, mode="bilinear", align_corners=True).squeeze(1)
        raw = up if raw is None else raw + up
    assert raw is not None  # the input's term is a map
    return raw
