"""The methods that need one layer's feature maps and gradient maps, and nothing else: CAM, Grad-CAM,
HiResCAM, the global guidance map, guided aggregation (GMCAM), Grad-CAM++, XGrad-CAM, LayerCAM and
Eigen-CAM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmcam import equations
from gmcam.registry import Query, method

_FAHIM = "Fahim, Saqib, Siam, Jung, Sensors 22(17):6516, 2022"


@method("cam", title="CAM", source="Zhou et al., CVPR 2016", gradients=False, convolutional=True)
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
    bias = bias[target].to(maps.dtype)
    with_bias = raw + bias[:, None, None]
    logit = query.captured.scores.to(maps.dtype)
    # Rounding: the inputs of half-precision networks carry about three digits.
    tolerance = 1e-3 if query.inputs.dtype.itemsize >= 4 else 3e-2
    size = with_bias.abs().mean((1, 2)) + bias.abs() + 1e-6
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


@method("grad_cam_pp", title="Grad-CAM++", source="Chattopadhay et al., WACV 2018")
def grad_cam_pp(query: Query) -> Tensor:
    """ReLU(Σ_k w_k M_k), w_k = Σ_ij α ReLU(C_k), α ∝ C² / (2C² + C³ Σ_ij M_k) where C_k > 0, Σ_ij α = 1.

    As in the authors' code: a denominator of zero counts as one, and α is scaled to sum to one over
    the cells where the gradient is positive (the paper has no such scaling; it changes maps by a
    fifth and more). α is computed as 1 / (2 + C Σ M), its equal wherever C ≠ 0: without a small
    number in the denominator, which would drown C². The factor e^Y of the authors' raw map, the same
    for every cell, is left out.
    """
    M, C = query.M, query.C
    denominator = 2 + C * M.sum((2, 3), keepdim=True)
    alpha = torch.where(denominator == 0, C**2, 1 / denominator)
    positive = torch.where(C > 0, alpha, torch.zeros_like(C))
    total = positive.sum((2, 3), keepdim=True)
    alpha = positive / torch.where(total == 0, torch.ones_like(total), total)
    return equations.class_map(M, (alpha * C.relu()).sum((2, 3))).relu()


@method("x_grad_cam", title="XGrad-CAM", source="Fu et al., BMVC 2020")
def x_grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_k w_k M_k), with w_k = Σ_ij C_k ⊙ M_k / Σ_ij M_k.

    A channel whose sum is zero within rounding has no such weight and takes no part. Before a
    rectifier sums of either sign come close to zero, and weights become as large as they please:
    there the definition itself is unstable.
    """
    M, C = query.M, query.C
    total, size = M.sum((2, 3)), M.abs().sum((2, 3))
    void = total.abs() <= 8 * torch.finfo(M.dtype).eps * size
    weights = (C * M).sum((2, 3)) / total.masked_fill(void, 1)
    return equations.class_map(M, weights.masked_fill(void, 0)).relu()


@method("layer_cam", title="LayerCAM", source="Jiang et al., IEEE TIP 2021")
def layer_cam(query: Query) -> Tensor:
    """ReLU(Σ_k ReLU(C_k) ⊙ M_k)."""
    return (query.C.relu() * query.M).sum(1).relu()


@method("eigen_cam", title="Eigen-CAM", source="Muhammad and Yeasin, IJCNN 2020", gradients=False)
def eigen_cam(query: Query) -> Tensor:
    """Σ_k v_k M_k, with v the first right singular vector of the maps as an (h·w, K) matrix (signed).

    The same for every class. As in the paper, and not in a common library, the maps are not centred
    first. A singular vector's sign is arbitrary: it is chosen so that the map correlates positively
    with the mean of the feature maps.
    """
    M = query.M
    _, _, right = torch.linalg.svd(M.flatten(2).transpose(1, 2), full_matrices=False)
    raw = equations.class_map(M, right[:, 0])
    mean = M.mean(1)
    covariance = (raw * (mean - mean.mean((1, 2), keepdim=True))).sum((1, 2), keepdim=True)
    return torch.where(covariance < 0, -raw, raw)
