"""From a raw saliency map to a picture-sized one: smooth, normalise, up-sample.

Fahim et al. (2022) name these steps ("typical smoothing and normalization … before post aggregation
up-sampling") without the kernel. The choices here are ours: a Gaussian of σ = 0.5 cells at the
layer's resolution, min–max normalisation per map, bilinear up-sampling with ``align_corners=False``.
Every method goes through the same three. The Gaussian is one in cells of the method's own raw map: where
that has the picture's size, as with FullGrad or Score-CAM, it is half a pixel wide and hardly smooths.
"""

from __future__ import annotations

import math
from functools import lru_cache
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam.capture import all_finite

DEFAULT_SIGMA = 0.5
MAX_SIGMA = 100  # the kernel's cells grow with its square, and few layers give maps as wide


def smooth(maps: Tensor, sigma: float = DEFAULT_SIGMA) -> Tensor:
    """Convolve (N, h, w) maps with a Gaussian of ``sigma`` cells; 0 leaves them as they are.

    The kernel is cut at four σ, rounded to whole cells, and sums to one; beyond the border the
    nearest cell is repeated. Raises ``ValueError`` for a ``sigma`` that is negative or over a hundred cells,
    and for a wrong shape.

    >>> from gmcam.postprocess import smooth
    >>> smooth(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]])).mul(100).round().tolist()
    [[[0.0, 11.0, 79.0, 11.0, 0.0]]]
    """
    _check(maps)
    if not (isinstance(sigma, Real) and 0 <= sigma <= MAX_SIGMA):
        raise ValueError(f"sigma is zero or a positive number of cells, not {sigma!r}; at most {MAX_SIGMA}")
    radius = int(4 * sigma + 0.5)
    if radius == 0 or maps.numel() == 0:
        return maps
    padded = F.pad(maps.unsqueeze(1), (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(padded, _gaussian(sigma, radius, maps.dtype, maps.device)).squeeze(1)


@lru_cache(maxsize=8)  # each copy to a GPU would wait until that has done all it was told before
def _gaussian(sigma: float, radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # In Python's own numbers: a dozen tensor operations on 25 values would cost more than the rest.
    bell = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    total = sum(bell)
    with torch.inference_mode(False):  # others may differentiate through the same kernel later
        return torch.tensor([[[[a * b / total**2 for b in bell] for a in bell]]], dtype=dtype, device=device)


def normalise(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Min–max per map: ``(S − min S)/(max S − min S)``; (N, h, w) → (N, h, w), and (N,) bool.

    The second result is True where a map is flat (its range is within rounding of its size): such a
    map becomes all zeros, never NaN. Raises ``ValueError`` for a wrong shape, and for values or a range
    that are not finite.

    >>> from gmcam.postprocess import normalise
    >>> normalised, flat = normalise(torch.tensor([[[-1.0, 1.0, 3.0]], [[5.0, 5.0, 5.0]]]))
    >>> normalised.tolist(), flat.tolist()
    ([[[0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0]]], [False, True])
    """
    _check(maps)
    if maps.numel() == 0:
        return maps, torch.ones(len(maps), dtype=torch.bool, device=maps.device)
    low, high = maps.flatten(1).aminmax(dim=1)
    spread = high - low
    if not all_finite(spread):
        raise ValueError(
            f"saliency maps and their ranges are finite; these overflow {maps.dtype} or hold NaN"
        )
    flat = spread <= 8 * torch.finfo(maps.dtype).eps * torch.maximum(high, -low)
    # Divided by infinity, a flat map is zero.
    spread = spread.masked_fill(flat, math.inf)
    return (maps - low[:, None, None]) / spread[:, None, None], flat


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to ``size`` = (H, W), ``align_corners=False``: cell centres stay where they are.

    (N, h, w) → (N, H, W). Raises ``ValueError`` for a wrong shape.

    >>> from gmcam.postprocess import upsample
    >>> upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4)).tolist()
    [[[0.0, 0.25, 0.75, 1.0]]]
    """
    _check(maps)
    if maps.numel() == 0:
        return maps.new_zeros((len(maps), *size))
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def postprocess(raw: Tensor, size: tuple[int, int], sigma: float = DEFAULT_SIGMA) -> tuple[Tensor, Tensor]:
    """The three steps in order: (N, h, w) raw → (N, H, W) float32 in [0, 1], and which are empty.

    >>> from gmcam.postprocess import postprocess
    >>> maps, empty = postprocess(torch.tensor([[[-1.0, 3.0]]]), (1, 4), sigma=0)
    >>> maps.tolist(), empty.tolist()
    ([[[0.0, 0.25, 0.75, 1.0]]], [False])
    """
    normalised, empty = normalise(smooth(raw, sigma))
    # The weights of an interpolation add up to one but for rounding.
    return upsample(normalised.float(), size).clamp_(max=1), empty


def _check(maps: Tensor) -> None:
    if maps.ndim != 3:
        raise ValueError(f"saliency maps have shape (N, h, w), not {tuple(maps.shape)}")
