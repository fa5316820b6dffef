"""From a raw saliency map to a picture-sized one: smooth, normalise, up-sample.

Fahim et al. (2022) name these steps ("typical smoothing and normalization … before post aggregation
up-sampling") without the kernel. The choices here are ours: a Gaussian of σ = 0.5 cells at the
layer's resolution, min–max normalisation per map, bilinear up-sampling with ``align_corners=False``.
Every method goes through the same three, so that methods differ only in what they compute.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DEFAULT_SIGMA = 0.5


def smooth(maps: Tensor, sigma: float = DEFAULT_SIGMA) -> Tensor:
    """Convolve (N, h, w) maps with a Gaussian of ``sigma`` cells; 0 leaves them as they are.

    The kernel is cut at four σ, rounded to whole cells, and sums to one; beyond the border the
    nearest cell is repeated. Raises ``ValueError`` for a negative or infinite ``sigma`` or a wrong
    shape.
    """
    _check(maps)
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma is zero or a positive number of cells, not {sigma}")
    radius = int(4 * sigma + 0.5)
    if radius == 0 or maps.numel() == 0:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(maps.unsqueeze(1), (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(padded, torch.outer(kernel, kernel)[None, None]).squeeze(1)


def normalise(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Min–max per map: ``(S − min S)/(max S − min S)``; (N, h, w) → (N, h, w), and (N,) bool.

    The second result is True where a map is flat (its range is within rounding of its size): such a
    map becomes all zeros, never NaN. Raises ``ValueError`` for a wrong shape.
    """
    _check(maps)
    if maps.numel() == 0:
        return maps, torch.zeros(len(maps), dtype=torch.bool, device=maps.device)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    rounding = 8 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    flat = high - low <= rounding
    scaled = (maps - low) / torch.where(flat, torch.ones_like(low), high - low)
    return torch.where(flat, torch.zeros_like(maps), scaled), flat.flatten()


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to ``size`` = (H, W), ``align_corners=False``: cell centres stay where they are.

    (N, h, w) → (N, H, W). Raises ``ValueError`` for a wrong shape.
    """
    _check(maps)
    if maps.numel() == 0:
        return maps.new_zeros((len(maps), *size))
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def postprocess(raw: Tensor, size: tuple[int, int], sigma: float = DEFAULT_SIGMA) -> tuple[Tensor, Tensor]:
    """The three steps in order: (N, h, w) raw → (N, H, W) float32 in [0, 1], and which are empty."""
    normalised, empty = normalise(smooth(raw, sigma))
    return upsample(normalised.float(), size).clamp(0, 1), empty


def _check(maps: Tensor) -> None:
    if maps.ndim != 3:
        raise ValueError(f"saliency maps have shape (N, h, w), not {tuple(maps.shape)}")
