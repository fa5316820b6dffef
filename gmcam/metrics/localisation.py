"""Does a map agree with ground truth? Dice, IoU, share inside, and the pointing game.
``maps`` (N, H, W): saliency maps, non-negative. ``masks`` (N, H, W) bool: the pixels of the class. ``counts``
(N, H, W) bool: the pixels that are not void; all by default. A metric is (N,), NaN where it is undefined, and
means leave NaN out. ``ValueError`` for shapes that differ and a threshold outside (0, 1]. Source: the article
(Fahim et al., Sensors 22(17):6516, 2022, Section 4)."""

import torch
from torch import Tensor


def salient_area(maps: Tensor, threshold: float = 0.5) -> Tensor:
    """``S ≥ threshold · max S``, (N, H, W) bool.

    >>> gmcam.metrics.salient_area(torch.tensor([[[1.0, 3.0, 4.0]]])).tolist()
    [[[False, True, True]]]
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}: pass a share")
    peaks = maps.amax((1, 2), keepdim=True)
    return (maps >= threshold * peaks) & (maps > 0)  # the product may be rounded to zero


def dice(maps: Tensor, masks: Tensor, counts: Tensor | None = None, threshold: float = 0.5) -> Tensor:
    """``2 |A ∩ B| / (|A| + |B|)`` of the salient area A and the mask B; NaN where both are empty.

    >>> gmcam.metrics.dice(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.5000])
    """
    counts = torch.ones_like(masks) if counts is None else counts
    check_alike(3, maps=maps, masks=masks, counts=counts)
    salient, masks = salient_area(maps, threshold) & counts, masks & counts
    both, either = (salient & masks).sum((1, 2)), salient.sum((1, 2)) + masks.sum((1, 2))
    return 2 * both.to(maps.dtype) / either


def iou(maps: Tensor, masks: Tensor, counts: Tensor | None = None, threshold: float = 0.5) -> Tensor:
    """``|A ∩ B| / |A ∪ B|``, which is ``D / (2 − D)`` of the same image's Dice; otherwise as ``dice``.

    >>> gmcam.metrics.iou(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.3333])
    """
    overlap = dice(maps, masks, counts, threshold)
    return overlap / (2 - overlap)


def share_inside(maps: Tensor, masks: Tensor, counts: Tensor | None = None) -> Tensor:
    """``Σ S·mask / Σ S``: the share of each map inside its mask; NaN for an empty map.

    >>> gmcam.metrics.share_inside(torch.tensor([[[1.0, 3.0, 4.0]]]), torch.tensor([[[True, True, False]]]))
    tensor([0.5000])
    """
    check_alike(3, maps=maps, masks=masks, counts=masks if counts is None else counts)
    maps = maps if counts is None else maps * counts
    return (maps * masks).sum((1, 2)) / maps.sum((1, 2))


def points_inside(maps: Tensor, boxes: Tensor, tolerance: float = 0) -> Tensor:
    """Pointing game: 1 if the map's maximum is in a box or within ``tolerance`` pixels of one, else 0.
    ``boxes`` (N, k, 4), or (N, 4) for one each: left, upper, right, lower in pixels of the map, right and
    lower exclusive; empty ones (right ≤ left) do not count. A pixel is in a box if its upper left corner is.
    Of equal maxima the first in reading order counts; an empty map scores 0. NaN for an image without a box.
    ``ValueError`` for shapes that do not fit or a negative tolerance. Source: Zhang et al., IJCV 2018.

    >>> maps = torch.tensor([[[1.0, 3.0, 4.0]]])  # the maximum is the last of three pixels
    >>> box = torch.tensor([[0, 0, 2, 1]])  # the first two
    >>> [gmcam.metrics.points_inside(maps, box, tolerance=pixels) for pixels in (0, 1)]
    [tensor([0.]), tensor([1.])]
    """
    boxes = boxes.unsqueeze(1) if boxes.ndim == 2 else boxes
    if maps.ndim != 3 or boxes.ndim != 3 or boxes.shape[::2] != (len(maps), 4):
        shapes = f"{tuple(maps.shape)} and {tuple(boxes.shape)}"
        raise ValueError(f"expected maps (N, H, W) and boxes (N, k, 4) or (N, 4), got {shapes}: match them")
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of 0 or more pixels, got {tolerance}: raise it")
    peaks = maps.flatten(1).argmax(1, keepdim=True)
    rows, columns = peaks // maps.shape[2], peaks % maps.shape[2]
    left, upper, right, lower = boxes.unbind(2)
    # Distance from the box, whose last pixel is the one before its right and lower side.
    across = torch.maximum(left - columns, columns - (right - 1).ceil()).clamp(min=0)
    down = torch.maximum(upper - rows, rows - (lower - 1).ceil()).clamp(min=0)
    real = (right > left) & (lower > upper)
    hit = (real & (across**2 + down**2 <= tolerance**2)).any(1) & (maps.amax((1, 2)) > 0)
    return torch.where(real.any(1), hit.to(maps.dtype), torch.nan)


def check_alike(ndim: int, **tensors: Tensor) -> None:
    """Raise ``ValueError`` unless the tensors have one shape of ``ndim`` dimensions."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or {len(shape) for shape in shapes.values()} != {ndim}:
        raise ValueError(f"expected one shape of {ndim} dimensions, got {shapes}: match their shapes")
