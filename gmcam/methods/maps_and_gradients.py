"""The methods that need one layer's feature maps and gradient maps, and nothing else: CAM, Grad-CAM,
HiResCAM, the global guidance map, and guided aggregation (GMCAM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmcam import equations
from gmcam.methods.registry import Query, method

_FAHIM = "Fahim, Saqib, Siam, Jung, Sensors 22(17):6516, 2022"


@method("cam", title="CAM", source="Zhou et al., CVPR 2016")
def cam(query: Query) -> Tensor:
    """Σ_k w_k M_k, with w the class's row of the last linear layer (signed).

    The layer must be followed by global average pooling and that linear layer, or by a 1 × 1
    convolution to one map per class and then global average pooling, with or without a rectifier
    between (SqueezeNet). That is checked by computing the logit from the map.
    """
    maps, target = query.M, query.captured.target
    if not isinstance(target, Tensor):
        raise ValueError("cam explains a class, given by name or index; a function has no class weights")
    weights, bias = _classifier(query.network.module, channels=maps.shape[1])
    raw = equations.class_map(maps, weights[target].to(maps.dtype))
    with_bias = raw + bias[target].to(maps.dtype)[:, None, None]
    logit = query.captured.scores.to(maps.dtype)
    # Rounding: the inputs of half-precision networks carry about three digits.
    tolerance = 1e-3 if query.inputs.dtype.itemsize >= 4 else 3e-2
    size = with_bias.abs().mean((1, 2)) + bias[target].abs().to(maps.dtype) + 1e-6
    for scores in (with_bias.mean((1, 2)), with_bias.relu().mean((1, 2))):
        if torch.all((scores - logit).abs() <= tolerance * size):
            return raw
    raise ValueError(
        f"cam is defined where global average pooling and one linear layer follow the layer; "
        f"after {query.layer!r} of {query.network.name} something else follows: use grad_cam"
    )


def _classifier(module: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Weights (classes, K) and bias (classes,) of the last layer that has one weight per channel."""
    for layer in reversed(list(module.modules())):
        pointwise = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
        if isinstance(layer, nn.Linear) or (pointwise and isinstance(layer, nn.Conv2d)):
            weights = layer.weight.detach().flatten(1)
            if weights.shape[1] != channels:
                break
            bias = layer.bias.detach() if layer.bias is not None else weights.new_zeros(len(weights))
            return weights, bias
    raise ValueError(
        f"cam needs a last linear layer with one weight for each of the {channels} channels; "
        "this network has none: use grad_cam"
    )


@method("grad_cam", title="Grad-CAM", source="Selvaraju et al., ICCV 2017")
def grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k M_k), with λ_k the mean of the gradient map C_k (Equations 3 and 4)."""
    return equations.grad_cam(query.M, query.C)


@method("hires_cam", title="HiResCAM", source="Draelos and Carin, arXiv:2011.08891, 2020")
def hires_cam(query: Query) -> Tensor:
    """Σ_k C_k ⊙ M_k (signed)."""
    return equations.hires_cam(query.M, query.C)


@method("guidance_map", title="Guidance map", source=_FAHIM)
def guidance_map(query: Query) -> Tensor:
    """GM = ReLU(Σ_k C_k ⊙ M_k), the global guidance map alone (Equation 5)."""
    return equations.guidance_map(query.M, query.C)


@method("gmcam", title="GMCAM", source=_FAHIM)
def gmcam(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k (GM ⊙ M_k)), guided aggregation (Equation 6)."""
    return equations.gmcam(query.M, query.C)
