"""The metrics, as functions of batches of tensors: what one picture is worth under each.

``maps`` (N, H, W) are saliency maps, non-negative; ``masks`` (N, H, W) bool the pixels of the class;
``counts`` (N, H, W) bool the pixels that count at all (without void ones), all of them by default.
Every function gives one value per picture, (N,), NaN where it is not defined: such a picture takes no
part in a mean. Sources: the article (Fahim et al., Sensors 22(17):6516, 2022, Section 4) for the
choice of the seven, and where noted.
"""

from __future__ import annotations

import torch
from torch import Tensor


def salient_area(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """``S ≥ threshold · max S``, (N, H, W) bool; nothing in an empty map.

    Raises ``ValueError`` for a threshold outside (0, 1].

    >>> from gmcam.metrics import salient_area
    >>> salient_area(torch.tensor([[[1.0, 3.0, 4.0]]])).tolist()
    [[[False, True, True]]]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is a share of the map's maximum, above 0 and up to 1, not {threshold}")
    peaks = maps.amax((1, 2), keepdim=True)
    return (maps >= threshold * peaks) & (maps > 0)  # the product may be rounded to zero


def dice(maps: Tensor, masks: Tensor, counts: Tensor | None = None, threshold: float = 0.5) -> Tensor:
    """``2 |A ∩ B| / (|A| + |B|)``, with A the salient area and B the mask; NaN where both are empty.

    Raises ``ValueError`` for shapes that differ or a threshold outside (0, 1].

    >>> from gmcam.metrics import dice
    >>> dice(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.5000])
    """
    both, salient, masked = _areas(maps, masks, counts, threshold)
    return 2 * both / (salient + masked)


def iou(maps: Tensor, masks: Tensor, counts: Tensor | None = None, threshold: float = 0.5) -> Tensor:
    """``|A ∩ B| / |A ∪ B|``, as ``dice``; for one picture it is ``D / (2 − D)``.

    >>> from gmcam.metrics import iou
    >>> iou(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.3333])
    """
    both, salient, masked = _areas(maps, masks, counts, threshold)
    return both / (salient + masked - both)


def share_inside(maps: Tensor, masks: Tensor, counts: Tensor | None = None) -> Tensor:
    """``Σ S·mask / Σ S``: the share of each map that lies in its mask; NaN for an empty map.

    Raises ``ValueError`` where the shapes differ.

    >>> from gmcam.metrics import share_inside
    >>> share_inside(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.5000])
    """
    _check_alike(maps=maps, masks=masks)
    if counts is not None:
        _check_alike(maps=maps, counts=counts)
        maps = maps * counts
    return (maps * masks).sum((1, 2)) / maps.sum((1, 2))


def points_inside(maps: Tensor, boxes: Tensor, tolerance: float = 0) -> Tensor:
    """Pointing game: does the map's maximum lie in a box, or within ``tolerance`` pixels of one?

    ``boxes`` (N, k, 4), or (N, 4) for one each, as (left, upper, right, lower), right and lower
    exclusive, in pixels of the map. A pixel lies in a box if its upper left corner does, so that a box
    between two corners is out of reach but for the tolerance, as is one outside the map; an empty box
    (right ≤ left) is none and fills a row up. Of several equal maxima the first in reading order counts;
    an empty map points nowhere. Float, 0 or 1; NaN for a picture without a box. Source: Zhang et al.,
    *Top-Down Neural Attention by Excitation Backprop*, IJCV 2018. Raises ``ValueError`` for shapes that do
    not fit or a negative tolerance.

    >>> from gmcam.metrics import points_inside
    >>> maps = torch.tensor([[[1.0, 3.0, 4.0]]])  # the maximum is the last of three pixels
    >>> box = torch.tensor([[0, 0, 2, 1]])  # the first two
    >>> points_inside(maps, box), points_inside(maps, box, tolerance=1)
    (tensor([0.]), tensor([1.]))
    """
    boxes = boxes.unsqueeze(1) if boxes.ndim == 2 else boxes
    if maps.ndim != 3 or boxes.ndim != 3 or boxes.shape[::2] != (len(maps), 4):
        raise ValueError(
            f"maps {tuple(maps.shape)} are (N, H, W) and boxes {tuple(boxes.shape)} (N, k, 4), or (N, 4)"
        )
    if not tolerance >= 0:
        raise ValueError(f"a tolerance is zero or a positive number of pixels, not {tolerance}")
    peaks = maps.flatten(1).argmax(1, keepdim=True)
    rows, columns = peaks // maps.shape[2], peaks % maps.shape[2]
    left, upper, right, lower = boxes.unbind(2)
    # How far outside: the last pixel of a box is the one before its right and lower side.
    across = torch.maximum(left - columns, columns - (right - 1).ceil()).clamp(min=0)
    down = torch.maximum(upper - rows, rows - (lower - 1).ceil()).clamp(min=0)
    real = (right > left) & (lower > upper)
    hit = (real & (across**2 + down**2 <= tolerance**2)).any(1) & (maps.amax((1, 2)) > 0)
    return torch.where(real.any(1), hit.to(maps.dtype), torch.nan)


def _areas(
    maps: Tensor, masks: Tensor, counts: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of the salient area within the mask, of the salient area, and of the mask."""
    _check_alike(maps=maps, masks=masks)
    salient = salient_area(maps, threshold)
    if counts is not None:
        _check_alike(maps=maps, counts=counts)
        salient, masks = salient & counts, masks & counts
    both = salient & masks
    return tuple(area.sum((1, 2)).to(maps.dtype) for area in (both, salient, masks))  # type: ignore[return-value]


def _check_alike(**tensors: Tensor) -> None:
    (one, first), (other, second) = tensors.items()
    if first.shape != second.shape or first.ndim not in (1, 3):
        layout = "(N, H, W)" if one == "maps" else "(N,)"
        raise ValueError(f"{one} {tuple(first.shape)} and {other} {tuple(second.shape)} are {layout} alike")
