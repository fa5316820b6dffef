"""Methods that need only one layer's feature maps ``M`` and gradient maps ``C``, from one pass."""

import torch
from torch import Tensor, nn

from gmcam import equations
from gmcam.equations import cells
from gmcam.groups import Grouped
from gmcam.registry import Query, method

_FAHIM = "Fahim, Saqib, Siam, Jung, Sensors 22(17):6516, 2022"
_NO_TARGET = {"gradients": False, "needs_target": False, "signed": True}


@method("cam", title="CAM", source="Zhou et al., CVPR 2016", gradients=False, convolutional=True, signed=True)
def cam(query: Query) -> Tensor:
    """Σ_k w_k M_k, with w the class's weights in the last linear layer; signed.

    Raises ``ValueError`` for a target function, and unless global average pooling and that layer follow, or a
    1 × 1 convolution, perhaps a rectifier, and global average pooling (SqueezeNet)."""
    M, target, logits = query.M, query.captured.target, query.captured.logits
    if not isinstance(target, Tensor) or isinstance(query.network, Grouped):
        raise ValueError("expected a class as target of cam, got a function or a group: use grad_cam")
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    last = next((p for p in reversed([*query.network.module.modules()]) if isinstance(p, kinds)), None)
    weights = M.new_zeros(0, 0) if last is None else last.weight.detach().flatten(1)
    added = getattr(last, "bias", None)
    biases = weights.new_zeros(len(weights)) if added is None else added.detach()
    reason = " (no weight per channel)"
    if len(weights) == 1 and logits.shape[1] == 2:  # one logit z for two classes, −z and z
        weights, biases = torch.cat([-weights, weights]), torch.cat([-biases, biases])
    if weights.shape == (logits.shape[1], M.shape[1]):
        raw, reason = equations.class_map(M, weights[target].to(M.dtype)), ""
        bias = biases[target].to(M.dtype)
        with_bias = raw.flatten(1) + bias[:, None]
        half = min(logits.dtype.itemsize, query.captured.maps[query.layer].dtype.itemsize) < 4
        tolerance = (3e-2 if half else 1e-3) * (with_bias.abs().mean(1) + bias.abs() + 1e-6)
        for mean in (with_bias.mean(1), with_bias.relu().mean(1)):
            if torch.all((mean - query.captured.scores).abs() <= tolerance):
                return raw
    fault = f"got something else in {query.network.name}{reason}: use grad_cam"
    raise ValueError(f"expected global average pooling and one linear layer after {query.layer!r}, {fault}")


@method("grad_cam", title="Grad-CAM", source="Selvaraju et al., ICCV 2017")
def grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k M_k), with λ_k the mean of the gradient map C_k (Equations 3 and 4)."""
    return equations.grad_cam(query.M, query.C)


@method("hires_cam", title="HiResCAM", source="Draelos and Carin, arXiv:2011.08891, 2020", signed=True)
def hires_cam(query: Query) -> Tensor:
    """Σ_k C_k ⊙ M_k; signed."""
    return equations.hires_cam(query.M, query.C)


@method("guidance_map", title="Guidance map", source=_FAHIM)
def guidance_map(query: Query) -> Tensor:
    """GM = ReLU(Σ_k C_k ⊙ M_k), the global guidance map alone (Equation 5)."""
    return equations.guidance_map(query.M, query.C)


@method("gmcam", title="GMCAM", source=_FAHIM)
def gmcam(query: Query) -> Tensor:
    """ReLU(Σ_k λ_k (GM ⊙ M_k)), guided aggregation (Equation 6).

    Off average pooling, ``guidance_map`` is at least as close to the measured effect of removing an object.
    """
    return equations.gmcam(query.M, query.C)


@method("grad_cam_pp", title="Grad-CAM++", source="Chattopadhay et al., WACV 2018")
def grad_cam_pp(query: Query) -> Tensor:
    """ReLU(Σ_k w_k M_k), w_k = Σ_ij α ReLU(C_k), α ∝ C² / (2C² + C³ Σ_ij M_k) where C_k > 0, Σ_ij α = 1.

    As in the authors' code, a denominator of 0 counts as 1, and α sums to one (not in the paper; changes maps
    by a fifth and more). Their factor e^Y, equal for all cells, is omitted; 1 / (2 + C Σ M) is computed."""
    M, C = query.M, query.C
    denominator = 2 + C * M.sum(cells(M), keepdim=True)
    alpha = torch.where(denominator == 0, C**2, 1 / denominator).masked_fill(C <= 0, 0)
    total = alpha.sum(cells(M), keepdim=True)
    alpha = alpha / total.masked_fill(total == 0, 1)
    return equations.class_map(M, (alpha * C.relu()).sum(cells(M))).relu()


@method("x_grad_cam", title="XGrad-CAM", source="Fu et al., BMVC 2020")
def x_grad_cam(query: Query) -> Tensor:
    """ReLU(Σ_k w_k M_k), w_k = Σ_ij C_k ⊙ M_k / Σ_ij M_k, or 0 where Σ M_k rounds to 0 (unstable nearby)."""
    M, C = query.M, query.C
    total = M.sum(cells(M))
    undefined = total.abs() <= 8 * torch.finfo(M.dtype).eps * M.abs().sum(cells(M))
    weights = (C * M).sum(cells(M)) / total.masked_fill(undefined, 1)
    return equations.class_map(M, weights.masked_fill(undefined, 0)).relu()


@method("layer_cam", title="LayerCAM", source="Jiang et al., IEEE TIP 2021")
def layer_cam(query: Query) -> Tensor:
    """ReLU(Σ_k ReLU(C_k) ⊙ M_k)."""
    return (query.C.relu() * query.M).sum(1).relu()


@method("eigen_cam", title="Eigen-CAM", source="Muhammad et al., IJCNN 2020", **_NO_TARGET)
def eigen_cam(query: Query) -> Tensor:
    """Σ_k v_k M_k, with v the first right singular vector of the maps as an (h·w, K) matrix; signed.

    The same for every class. Follows the paper: maps are not centred first, as they are in pytorch-grad-cam.
    The arbitrary sign of v is chosen so that the map correlates positively with the mean feature map."""
    M = query.M
    raw = equations.class_map(M, torch.linalg.svd(M.flatten(2).mT, full_matrices=False).Vh[:, 0])
    mean = M.mean(1).flatten(1)
    agreement = (raw.flatten(1) * (mean - mean.mean(1, keepdim=True))).sum(1)
    return raw * torch.where(agreement < 0, -1, 1).view(-1, *[1] * (raw.ndim - 1))
