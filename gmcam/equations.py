"""Equations 1 and 3–6 of Fahim et al. (2022), and the class map of Zhou et al. (2016).

Every function takes tensors of one layer and returns tensors; no network, no image. Throughout,

- ``M`` is the stack of feature maps, shape (N, K, h, w): N images, K channels, h × w cells;
- a signal has cells in one dimension, (N, K, t), and a volume in three, (N, K, d, h, w); all formulas hold;
- ``C`` is the stack of gradient maps, same shape: ``C[n, k, i, j] = ∂Y[n] / ∂M[n, k, i, j]`` for the class
  score ``Y`` (the logit, before softmax); Equation 2, computed by ``gmcam.capture``.

Any floating-point dtype and device; everything is differentiable. ``M`` is in activation units, ``C`` in
logits per activation unit, so their product is in logits. All raise ``ValueError`` for maps that are not
(N, K, h, w) and for shapes that do not fit each other.

Sources: Fahim, Saqib, Siam, Jung: *Rethinking Gradient Weight's Influence over Saliency Map Estimation*,
Sensors 22(17):6516, 2022, doi:10.3390/s22176516. Zhou, Khosla, Lapedriza, Oliva, Torralba: *Learning Deep
Features for Discriminative Localization*, CVPR 2016.

One image, two channels, four cells:

>>> from gmcam import equations
>>> M = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]], [[1.0, 0.0], [2.0, 1.0]]]])
>>> C = torch.tensor([[[[2.0, 0.0], [1.0, 1.0]], [[-3.0, 0.0], [0.0, -1.0]]]])
>>> equations.cells(M)
(2, 3)
>>> equations.aggregated_map(M).tolist()
[[[2.0, 2.0], [2.0, 4.0]]]
>>> equations.channel_weights(C).tolist()
[[1.0, -1.0]]
>>> equations.class_map(M, torch.tensor([1.0, -1.0])).tolist()
[[[0.0, 2.0], [-2.0, 2.0]]]
>>> equations.grad_cam(M, C).tolist()
[[[0.0, 2.0], [0.0, 2.0]]]
>>> equations.hires_cam(M, C).tolist()
[[[-1.0, 0.0], [0.0, 2.0]]]
>>> equations.guidance_map(M, C).tolist()
[[[0.0, 0.0], [0.0, 2.0]]]
>>> equations.gmcam(M, C).tolist()
[[[0.0, 0.0], [0.0, 4.0]]]
"""

import torch
from torch import Tensor


def aggregated_map(M: Tensor) -> Tensor:
    """Equation 1: ``A = Σ_k M_k``; (N, K, h, w) → (N, h, w)."""
    _check_maps("M", M)
    return M.sum(1)


def channel_weights(C: Tensor) -> Tensor:
    """Equation 3: ``λ_k = (1/Z) Σ_ij C_k(i, j)`` with Z = h·w; (N, K, h, w) → (N, K)."""
    _check_maps("C", C)
    return C.mean(cells(C))


def class_map(M: Tensor, weights: Tensor) -> Tensor:
    """CAM: ``Σ_k w_k M_k``, not rectified; (N, K, h, w) and (N, K) or (K,) → (N, h, w).

    ``weights`` is the row of the class in the linear layer that follows global average pooling; in such a
    network ``mean(class_map) + bias`` is the logit."""
    _check_maps("M", M)
    if weights.shape not in (M.shape[:2], M.shape[1:2]):
        fault = f"weights of shape {tuple(weights.shape)} do not fit M of shape {tuple(M.shape)}"
        raise ValueError(f"{fault}: one weight per channel is {tuple(M.shape[:2])} or {tuple(M.shape[1:2])}")
    return torch.einsum("nk,nk...->n...", weights.expand(M.shape[:2]), M)


def grad_cam(M: Tensor, C: Tensor) -> Tensor:
    """Equation 4, Grad-CAM: ``S = ReLU(Σ_k λ_k M_k)``; two (N, K, h, w) → (N, h, w)."""
    _check_pair(M, C)
    return class_map(M, channel_weights(C)).relu()


def hires_cam(M: Tensor, C: Tensor) -> Tensor:
    """HiResCAM: ``Σ_k C_k ⊙ M_k``, not rectified; two (N, K, h, w) → (N, h, w).

    Each cell is weighted by its gradient, where Grad-CAM weights it by the channel's mean gradient. Source:
    Draelos and Carin, arXiv:2011.08891."""
    _check_pair(M, C)
    return (C * M).sum(1)


def guidance_map(M: Tensor, C: Tensor) -> Tensor:
    """Equation 5, the global guidance map, rectified HiResCAM: ``GM = ReLU(Σ_k C_k ⊙ M_k)``; → (N, h, w)."""
    return hires_cam(M, C).relu()


def gmcam(M: Tensor, C: Tensor) -> Tensor:
    """Equation 6, guided aggregation: ``S = ReLU(Σ_k λ_k (GM ⊙ M_k))``; → (N, h, w).

    ``GM ≥ 0`` is the same for every channel, so ``S = GM ⊙ ReLU(Σ_k λ_k M_k)``: guidance map times Grad-CAM,
    cell by cell. Computing it so avoids a stack of guided maps ``GM ⊙ M_k``; a test compares the sum."""
    return guidance_map(M, C) * grad_cam(M, C)


def cells(maps: Tensor) -> tuple[int, ...]:
    """The axes of the cells: (2, 3) for maps (N, K, h, w)."""
    return tuple(range(2, maps.ndim))


def _check_maps(name: str, maps: Tensor) -> None:
    if maps.ndim not in (3, 4, 5):
        raise ValueError(f"{name} has shape {tuple(maps.shape)}; feature maps are (N, K, h, w)")
    if 0 in maps.shape[1:]:
        raise ValueError(f"{name} has shape {tuple(maps.shape)}; K, h and w are at least 1")


def _check_pair(M: Tensor, C: Tensor) -> None:
    _check_maps("M", M)
    if M.shape != C.shape:
        fault = f"M has shape {tuple(M.shape)} and C has shape {tuple(C.shape)}"
        raise ValueError(f"{fault}; feature maps and gradient maps have the same shape")
