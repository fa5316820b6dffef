"""From a raw saliency map to one at the image's size: rectify, smooth, normalise, up-sample.

Fahim et al. (2022) name the steps ("typical smoothing and normalization … before post aggregation
up-sampling") without the kernel; here a Gaussian of σ = 0.5 cells of the raw map for every method. Signed
maps are rectified: min–max draws "no evidence" as bright as the evidence against is strong. ``normalise``:

- ``"rectified"``: rectify, then ``(S − min S)/(max S − min S)`` per map; the default.
- ``"max"``: rectify, then ``S / max S`` per map; zero stays zero.
- ``"batch"``: rectify, then divide all maps of a call by their common maximum, to compare strength.
- ``"minmax"``: ``(S − min S)/(max S − min S)`` without rectifying, for a paper that does so (Relevance-CAM).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam.capture import all_finite

DEFAULT_SIGMA = 0.5
MAX_SIGMA = 100  # cells; the kernel grows with its square, and few layers have maps as wide
NORMALISATIONS = ("rectified", "max", "batch", "minmax")
NOT_FINITE = "expected finite saliency maps, got NaN or values that overflow: check the dtype and the weights"


def smooth(maps: Tensor, sigma: float = DEFAULT_SIGMA) -> Tensor:
    """Convolve maps (N, h, w), or (N, t) and (N, d, h, w), with a Gaussian of ``sigma`` cells; 0: unchanged.

    The kernel is cut at 4σ, rounded to cells, and sums to one; the border is replicated. ``ValueError`` for
    a ``sigma`` outside [0, 100] and a wrong shape.

    >>> gmcam.postprocess.smooth(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]])).mul(100).round().tolist()
    [[[0.0, 11.0, 79.0, 11.0, 0.0]]]
    """
    _check(maps)
    if not (isinstance(sigma, Real) and 0 <= sigma <= MAX_SIGMA):
        raise ValueError(f"expected sigma from 0 to {MAX_SIGMA} cells, got {sigma!r}: choose one in range")
    radius = int(4 * sigma + 0.5)
    if radius == 0 or maps.numel() == 0:
        return maps
    dimensions = maps.ndim - 1
    padded = F.pad(maps.unsqueeze(1), [radius] * 2 * dimensions, mode="replicate")
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dimensions - 1]
    return convolve(padded, _gaussian(sigma, radius, dimensions, maps.dtype, maps.device)).squeeze(1)


@lru_cache(maxsize=8)  # a new copy to a GPU would wait for all work queued on it
def _gaussian(sigma: float, radius: int, dimensions: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    bell = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    with torch.inference_mode(False):  # a later call may differentiate through the cached kernel
        kernel = row = torch.tensor(bell, dtype=torch.float64) / sum(bell)
        for _ in range(dimensions - 1):
            kernel = kernel.unsqueeze(-1) * row
        return kernel.to(device, dtype)[None, None]


def min_max(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Min–max per map: ``(S − min S)/(max S − min S)``; (N, …) → (N, …), and (N,) bool.

    The second is True where a map is flat, its range within rounding of its magnitude; such a map becomes
    zeros. Raises ``ValueError`` for a wrong shape, and for values or a range that are not finite.

    >>> normalised, flat = gmcam.postprocess.min_max(torch.tensor([[[-1.0, 1.0, 3.0]], [[5.0, 5.0, 5.0]]]))
    >>> normalised.tolist(), flat.tolist()
    ([[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]], [False, True])
    """
    _check(maps)
    if maps.numel() == 0:
        return maps, torch.ones(len(maps), dtype=torch.bool, device=maps.device)
    low, high = maps.flatten(1).aminmax(dim=1)
    spread = high - low
    if not all_finite(spread):
        raise ValueError(NOT_FINITE)
    flat = spread <= 8 * torch.finfo(maps.dtype).eps * torch.maximum(high, -low)
    spread = spread.masked_fill(flat, math.inf)  # a flat map divided by infinity is zero
    form = (-1, *[1] * (maps.ndim - 1))
    return (maps - low.view(form)) / spread.view(form), flat


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (N, h, w) → (N, H, W), ``align_corners=False``; signals (N, t) and volumes (N, d, h, w) alike.
    ``ValueError`` for a wrong shape, and a ``size`` of another number of dimensions.

    >>> gmcam.postprocess.upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    """
    _check(maps)
    if len(size) != maps.ndim - 1:
        fault = f"expected maps of {len(size)} dimensions, as the input has, got {tuple(maps.shape[1:])}"
        raise ValueError(f"{fault}: name a layer whose maps have them, or use raw")
    if maps.numel() == 0:
        return maps.new_zeros((len(maps), *size))
    return resize(maps.unsqueeze(1), size).squeeze(1)


def resize(stack: Tensor, size: Sequence[int]) -> Tensor:
    """(N, K, h, w) → (N, K, H, W), bilinear; linear in one dimension, trilinear in three.

    >>> gmcam.postprocess.resize(torch.tensor([[[0.0, 1.0]]]), [4]).tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    """
    mode = ("linear", "bilinear", "trilinear")[stack.ndim - 3]
    return F.interpolate(stack, list(size), mode=mode, align_corners=False)


def postprocess(
    raw: Tensor, size: Sequence[int], sigma: float = DEFAULT_SIGMA, normalise: str = "rectified"
) -> tuple[Tensor, Tensor]:
    """All steps in order: (N, h, w) raw → (N, H, W) float32 in [0, 1], and which maps are empty, (N,) bool.
    Signals (N, t) and volumes (N, d, h, w) alike.

    An empty map is flat, or has nothing above zero where zero stays zero; it becomes zeros. Raises
    ``ValueError`` for an unknown ``normalise``, a wrong shape or ``sigma``, and values that are not finite.

    >>> raw = torch.tensor([[[-1.0, 0.0, 3.0]]])
    >>> gmcam.postprocess.postprocess(raw, (1, 3), sigma=0)[0].tolist()
    [[[0.0, 0.0, 1.0]]]
    >>> gmcam.postprocess.postprocess(raw, (1, 3), sigma=0, normalise="minmax")[0].tolist()
    [[[0.0, 0.25, 1.0]]]
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(f"expected normalise in {', '.join(NORMALISATIONS)}, got {normalise!r}: choose one")
    rectified = raw if normalise == "minmax" else raw.relu() + 0 * raw  # 0 · ∞ is NaN, and refused below
    smoothed = smooth(rectified, sigma)
    if normalise in ("rectified", "minmax"):
        scaled, empty = min_max(smoothed)
    else:
        peaks = smoothed.flatten(1).amax(1) if smoothed.numel() else smoothed.new_zeros(len(smoothed))
        if not all_finite(peaks):
            raise ValueError(NOT_FINITE)
        empty = peaks == 0
        scale = peaks.max() if normalise == "batch" and len(peaks) else peaks
        scaled = smoothed / scale.masked_fill(scale == 0, 1).view(-1, *[1] * (raw.ndim - 1))
    # The weights of an interpolation add up to one but for rounding.
    return upsample(scaled.float(), size).clamp_(max=1), empty


def _check(maps: Tensor) -> None:
    if maps.ndim not in (2, 3, 4):
        raise ValueError(f"expected saliency maps (N, h, w), got {tuple(maps.shape)}: one map per target")
