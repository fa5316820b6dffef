"""Metrics of a map that run the network again: ADCC and its parts, infidelity and max-sensitivity.

``maps`` (N, H, W): finished saliency maps, non-negative. A metric is (N,), NaN where it is undefined.
Infidelity and max-sensitivity are Captum's; what is added here is which change of the image they see.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gmcam._extras import require

MapsOf = Callable[[Tensor], Tensor]  # inputs (N, 3, H, W) → maps (N, H, W)
SIDE, SQUARES = 32, 32  # of infidelity: pixels of a square's side, squares an image
RADIUS, SAMPLES = 0.1, 5  # of max-sensitivity: of the noise, in normalised units; noisy copies an image


def complexity(maps: Tensor) -> Tensor:
    """The mean of ``maps`` in [0, 1]: Poppi et al.'s complexity. ``ValueError`` if they are not (N, H, W).

    >>> from gmcam.lab.network_metrics import complexity
    >>> complexity(torch.tensor([[[0.0, 0.5, 1.0, 0.5]]]))
    tensor([0.5000])
    """
    return _checked(maps).mean((1, 2))


def sparseness(maps: Tensor) -> Tensor:
    """The Gini index of a map's values: 0 for a uniform map, 1 − 1/n for one pixel of n.

    NaN for an empty map. ``ValueError`` if ``maps`` are not (N, H, W). Source: Chalasani et al., ICML 2020.

    >>> from gmcam.lab.network_metrics import sparseness
    >>> sparseness(torch.tensor([[[0.0, 0.0, 0.0, 2.0]], [[1.0, 1.0, 1.0, 1.0]]])).tolist()
    [0.75, 0.0]
    """
    ordered = _checked(maps).flatten(1).double().sort(1).values
    n = ordered.shape[1]
    ranks = torch.arange(1, n + 1, dtype=torch.double, device=maps.device)
    return ((2 * ranks - n - 1) * ordered).sum(1).div(n * ordered.sum(1)).to(maps.dtype)


def coherency(maps: Tensor, again: Tensor) -> Tensor:
    """``(r + 1) / 2``, r Pearson's correlation of a map with ``again``, the map of the image ``x ⊙ S``.

    NaN where either map is flat: r is undefined there. ``ValueError`` for shapes that differ. Source: Poppi
    et al., CVPR Workshops 2021.

    >>> from gmcam.lab.network_metrics import coherency
    >>> maps = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[1.0, 1.0]]])
    >>> coherency(maps, torch.tensor([[[0.0, 0.5]], [[1.0, 0.0]], [[0.0, 1.0]]])).round(decimals=6).tolist()
    [1.0, 0.0, nan]
    """
    if maps.shape != again.shape:
        shapes = f"{tuple(maps.shape)} and {tuple(again.shape)}"
        raise ValueError(f"expected two sets of maps of one shape, got {shapes}: explain the same images")
    a, b = (_checked(each).flatten(1).double() for each in (maps, again))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    r = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    found: Tensor = (r.clamp(-1, 1) + 1) / 2
    return found.to(maps.dtype)


def adcc(drop: Tensor, coherency: Tensor, complexity: Tensor) -> Tensor:
    """The harmonic mean of ``1 − drop``, ``coherency`` and ``1 − complexity``, each (N,) in [0, 1].

    0 where one of the three is 0; NaN where one is NaN. ``ValueError`` for shapes that differ. Source: Poppi
    et al., CVPR Workshops 2021.

    >>> from gmcam.lab.network_metrics import adcc
    >>> adcc(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.0])).tolist()
    [0.6000000238418579, 0.0]
    """
    if not drop.shape == coherency.shape == complexity.shape:
        shapes = [tuple(each.shape) for each in (drop, coherency, complexity)]
        raise ValueError(f"expected three tensors (N,) of one shape, got {shapes}: measure the same maps")
    return 3 / (1 / (1 - drop) + 1 / coherency + 1 / (1 - complexity))


def infidelity(
    score: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    *,
    side: int = SIDE,
    count: int = SQUARES,
    seed: int = 0,
) -> Tensor:
    """Captum's infidelity of the best multiple of each map, over that of an empty map.

    ``count`` squares of ``side`` pixels, at places drawn from ``seed``, are set to 0 one by one; the sum of
    the map in the square predicts by how much ``score`` (inputs → (N,), such as a logit) falls. 0: every fall
    is proportional to the sum. 1: the map predicts no better than zero. NaN if nothing changes the score.
    ``inputs`` (N, 3, H, W) in the network's normalised space. ``ValueError`` for shapes that do not fit.
    Source: Yeh et al., NeurIPS 2019.
    """
    _fit(inputs, maps)
    if not 0 < side <= min(maps.shape[1:]):
        raise ValueError(f"expected a side of 1 to {min(maps.shape[1:])} pixels, got {side}: lower it")
    from_captum = require("captum.metrics", "captum").infidelity

    def measure(attributions: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)

        def remove(images: Tensor) -> tuple[Tensor, Tensor]:
            inside = squares(len(images), maps.shape[1:], side, generator).to(images)[:, None]
            return inside.expand_as(images) / images.shape[1], images * (1 - inside)

        expanded = attributions[:, None].expand_as(inputs)
        found: Tensor = from_captum(score, remove, inputs, expanded, n_perturb_samples=count, normalize=True)
        return found

    with torch.no_grad():
        return (measure(maps).clamp(min=0) / measure(torch.zeros_like(maps))).detach()


def squares(count: int, size: tuple[int, ...], side: int, generator: torch.Generator) -> Tensor:
    """``count`` masks (count, H, W) in {0, 1}, each a square of ``side`` pixels at a random place inside."""
    masks = torch.zeros(count, *size)
    places = [torch.randint(length - side + 1, (count,), generator=generator).tolist() for length in size]
    for mask, row, column in zip(masks, *places, strict=True):
        mask[row : row + side, column : column + side] = 1
    return masks


def max_sensitivity(
    maps_of: MapsOf, inputs: Tensor, *, radius: float = RADIUS, count: int = SAMPLES, seed: int = 0
) -> Tensor:
    """Captum's ``sensitivity_max``: the largest relative change of a map, of ``count`` noisy copies.

    The noise is uniform in ``[−radius, radius]`` for each value of ``inputs`` (N, 3, H, W), and the change
    is the norm of the difference over the norm of the map. A method that ignores its input scores 0, and so
    does one whose maps are empty. ``ValueError`` for a negative radius. Source: Yeh et al., NeurIPS 2019.
    """
    if not radius >= 0:
        raise ValueError(f"expected a radius of 0 or more, got {radius}: raise it")
    generator = torch.Generator().manual_seed(seed)

    def disturb(images: Tensor, radius: float) -> Tensor:
        noise = torch.rand(images.shape, generator=generator).to(images)
        return images + radius * (2 * noise - 1)

    def as_tuple(images: Tensor | tuple[Tensor]) -> tuple[Tensor]:  # Captum passes either, and iterates
        return (maps_of(images[0] if isinstance(images, tuple) else images),)

    sensitivity = require("captum.metrics", "captum").sensitivity_max
    found: Tensor = sensitivity(as_tuple, inputs, disturb, perturb_radius=radius, n_perturb_samples=count)
    return found.detach()


def _checked(maps: Tensor) -> Tensor:
    if maps.ndim != 3:
        raise ValueError(f"expected maps (N, H, W), got {tuple(maps.shape)}: pass one map per image")
    return maps


def _fit(inputs: Tensor, maps: Tensor) -> None:
    if inputs.ndim != 4 or (len(inputs), *inputs.shape[2:]) != tuple(maps.shape):
        shapes = f"{tuple(inputs.shape)} and {tuple(maps.shape)}"
        raise ValueError(f"expected inputs (N, 3, H, W) and maps (N, H, W), got {shapes}: match their sizes")
