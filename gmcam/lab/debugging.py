"""The steps of *Monday morning: debug a classifier*, for any network: slice, cluster, edit, report.

Inputs are what ``Network.prepare`` returns, (N, C, H, W); a target is a class name, an index or a ``group``,
one for all images or a list of one per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam.capture import Layer, Recording, capture
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, interval
from gmcam.explaining import NamedTarget, explain
from gmcam.groups import resolved
from gmcam.lab.pictures import Dot
from gmcam.metrics import share_inside
from gmcam.network import Network

AT_ONCE = 2  # images in a batch, so that a laptop's memory is enough
FIELDS = {
    "network": "Network and weights",
    "slice": "Slice",
    "maps": "Maps and controls",
    "clusters": "Clusters",
    "hypothesis": "Hypothesis, written before the test",
    "edit": "Edit that tests it",
    "control": "The same edit elsewhere",
    "repair": "Repair",
    "price": "Price of the repair",
    "test": "Regression test",
    "untested": "Not tested",
}


def outcomes(network: Network, inputs: Tensor, target: NamedTarget) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the target, and whether it is the largest, of N images: (N,) float and (N,) bool.

    The probability of a ``group`` is the sum of its classes'. Raises ``ValueError`` as ``explain`` does.

    >>> from gmcam.lab.debugging import outcomes
    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", seed=3)
    >>> chance, right = outcomes(network, network.prepare([scene.image]), "cat")
    >>> right.tolist()
    [True]
    """
    joined, indices = per_image(network, target, len(inputs))
    all_classes = torch.cat([joined.probabilities(part) for part in torch.split(inputs, AT_ONCE)]).cpu()
    chance = all_classes.gather(1, indices[:, None])[:, 0]
    return chance.numpy(), (all_classes.argmax(1) == indices).numpy()


def estimate(values: Sequence[float] | np.ndarray, clusters: Sequence[str] | None = None) -> Dot:
    """A row of ``dots``: the mean of one value per image, and its 95 % interval.

    The interval resamples the images; with ``clusters``, such as the object of each image, crossed with
    these, whose means are the small dots. For a paired comparison pass the differences. Fewer than ten
    clusters make a rough interval. NaN ends where there are too few images.
    """
    numbers = np.asarray(values, float)
    images = [str(number) for number in range(len(numbers))]
    weights = bootstrap_weights(images, clusters and [(name,) for name in clusters])
    means = bootstrap_means(weights, numbers[:, None])
    (low,), (high,) = interval(means)
    labels = np.asarray(clusters if clusters else [])
    small = [float(numbers[labels == name].mean()) for name in dict.fromkeys(clusters or [])]
    return float(means[0, 0]), float(low), float(high), small


def gap(values: Sequence[float] | np.ndarray, chosen: Sequence[bool] | np.ndarray) -> Dot:
    """A row of ``dots``: the mean over the chosen images minus that over the others, with its 95 % interval.

    Both means use the same resampled images. NaN where all images are chosen, or none is.
    """
    numbers, flags = np.asarray(values, float), np.asarray(chosen, bool)
    columns = np.stack([np.where(flags, numbers, np.nan), np.where(flags, np.nan, numbers)], 1)
    means = bootstrap_means(bootstrap_weights([str(number) for number in range(len(numbers))]), columns)
    differences = means[:, :1] - means[:, 1:]
    (low,), (high,) = interval(differences)
    return float(differences[0, 0]), float(low), float(high), []


def accuracy(right: Sequence[bool] | np.ndarray) -> Dot:
    """A row of ``dots``: the per cent of images that are right, and Wilson's 95 % interval.

    It has a width also where all images are right, as a bootstrap has not.
    """
    hits, z = np.asarray(right, float), 1.96
    share, count = float(hits.mean()), len(hits)
    middle = (share + z**2 / 2 / count) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / 4 / count**2) ** 0.5
    low, high = min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))
    return 100 * share, 100 * low, 100 * high, []


def slices(right: Sequence[bool] | np.ndarray, groups: Sequence[str]) -> dict[str, Dot]:
    """Accuracy in per cent of each group of images, the lowest first, each as by ``accuracy``.

    ``right``: whether each image is classified correctly; ``groups``: a word for each image, such as its
    class, its camera or its month. Raises ``ValueError`` unless there is one word per image.
    """
    values, words = np.asarray(right, float), np.asarray(groups)
    if values.shape != words.shape or values.ndim != 1:
        raise ValueError(f"expected one group per image, got {len(words)} for {len(values)}: name each")
    rows = {str(word): accuracy(values[words == word]) for word in dict.fromkeys(groups)}
    return dict(sorted(rows.items(), key=lambda row: row[1][0]))


def outside(
    network: Network, inputs: Tensor, target: NamedTarget, masks: Tensor, method: str = "grad_cam"
) -> np.ndarray:
    """The part of each image's map outside its mask (N, H, W) bool, in per cent; 0 for an empty map: (N,)."""
    joined, indices = per_image(network, target, len(inputs))
    shares = []
    for part, chosen, inner in zip(*(torch.split(x, AT_ONCE) for x in (inputs, indices, masks)), strict=True):
        maps = explain(joined, part, chosen, method=method, sigma=0).maps.cpu()
        shares.append((1 - share_inside(maps, inner)).nan_to_num())
    return 100 * torch.cat(shares).numpy()


def activations(network: Network, inputs: Tensor, layer: Layer | None = None) -> Tensor:
    """The mean of each channel of a layer over the cells, without a class: (N, K)."""
    path, rows = network.layer_path(layer), []
    for part in torch.split(inputs, AT_ONCE):
        maps = capture(network.module, part, layer=path, gradients=False, any_shape=True).maps[path]
        rows.append(network.as_maps(maps, path).flatten(2).mean(2).cpu())
    return torch.cat(rows)


def contributions(
    network: Network, inputs: Tensor, target: NamedTarget, layer: Layer | None = None
) -> Tensor:
    """What each channel of a layer adds to the target's logit, ``Σ_cells C_k ⊙ M_k``: (N, K).

    The sum runs over all cells, so the place of an object does not matter. At a map that is pooled and
    followed by one linear layer, the row adds up to the logit minus the bias. ``layer``: as in ``explain``.
    """
    joined, indices = per_image(network, target, len(inputs))
    path, rows = joined.layer_path(layer), []
    for part, chosen in zip(torch.split(inputs, AT_ONCE), torch.split(indices, AT_ONCE), strict=True):
        recording = Recording(joined.module, part, path, read=joined.logits_of, arrange=joined.as_maps)
        captured = recording.capture(chosen)
        rows.append((captured.maps[path] * captured.gradients[path]).flatten(2).sum(2).cpu())
    return torch.cat(rows)


def cluster(vectors: Tensor, count: int = 2) -> np.ndarray:
    """k-means of the directions of N vectors (N, …): the number of each one's cluster, the largest is 0.

    The best of 20 starts from images drawn with a fixed seed, so equal vectors give equal clusters. Raises
    ``ValueError`` for fewer vectors than clusters.
    """
    if not 1 <= count <= len(vectors):
        raise ValueError(f"expected 1 to {len(vectors)} clusters of {len(vectors)} images, got {count}")
    rows = F.normalize(vectors.flatten(1).double(), dim=1)
    generator, best = torch.Generator().manual_seed(0), (torch.inf, torch.zeros(len(rows), dtype=torch.long))
    for _ in range(20):
        centres = rows[torch.randperm(len(rows), generator=generator)[:count]]
        for _ in range(50):
            nearest = torch.cdist(rows, centres).argmin(1)
            groups = [rows[nearest == number] for number in range(count)]
            pairs = zip(groups, centres, strict=True)
            centres = torch.stack([group.mean(0) if len(group) else old for group, old in pairs])
        cost = float((rows - centres[nearest]).square().sum())
        best = min(best, (cost, nearest), key=lambda pair: pair[0])
    order = torch.bincount(best[1], minlength=count).argsort(descending=True, stable=True)
    return order.argsort()[best[1]].numpy()


def boxed(inputs: Tensor, boxes: Sequence[Sequence[float]] | np.ndarray | Tensor) -> Tensor:
    """Masks (N, H, W) bool of one box an image: left, upper, right, lower in pixels of the *inputs*.

    A pixel that a box cuts belongs to it. ``Preprocessing.place_boxes`` converts boxes of a photograph.
    Raises ``ValueError`` unless there is one box per image.
    """
    rows = torch.as_tensor(np.asarray(boxes, float)).reshape(-1, 4)
    if len(rows) != len(inputs):
        raise ValueError(f"expected one box per image, got {len(rows)} for {len(inputs)}: pass (N, 4)")
    masks = torch.zeros(len(inputs), *inputs.shape[2:], dtype=torch.bool)
    starts, ends = rows[:, :2].floor().long().clamp(min=0), rows[:, 2:].ceil().long().clamp(min=0)
    for mask, (left, upper), (right, lower) in zip(masks, starts.tolist(), ends.tolist(), strict=True):
        mask[upper:lower, left:right] = True
    return masks


def flattened(inputs: Tensor, masks: Tensor) -> Tensor:
    """Images (N, C, H, W) whose region (N, H, W) bool has its own mean colour, and hence no texture.

    Raises ``ValueError`` for masks of another shape or kind.
    """
    if masks.dtype != torch.bool or masks.shape != (len(inputs), *inputs.shape[2:]):
        given = f"{masks.dtype} {tuple(masks.shape)} for inputs {tuple(inputs.shape)}"
        raise ValueError(f"expected bool masks (N, H, W), got {given}: match them")
    regions = masks.to(inputs.device)[:, None]
    pixels = regions.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(regions, (inputs * regions).sum((2, 3), keepdim=True) / pixels, inputs)


def elsewhere(masks: Tensor, seed: int = 0) -> Tensor:
    """Each region (N, H, W) bool at a random other place: as large and of the same shape, cut at the borders
    and continued on the opposite side. It is moved by a quarter to three quarters of each side."""
    rng, moved = np.random.default_rng(seed), []
    for mask in masks:
        shifts = [int(rng.integers(side // 4, side - side // 4 + 1)) for side in mask.shape]
        moved.append(mask.roll(shifts, (0, 1)))
    return torch.stack(moved)


class Page(str):
    """Markdown that a notebook displays; write it with ``Path("report.md").write_text(page)``."""

    def _repr_markdown_(self) -> str:
        return str(self)


def report(title: str = "Report", **entries: str) -> Page:
    """A page in Markdown with an entry for each of ``FIELDS``; those left out read *not done*.

    Without entries it is the template. Raises ``ValueError`` for an entry that is not a field.

    >>> from gmcam.lab.debugging import report
    >>> report("Pagodas", slice="5 of 10 are right").splitlines()[2:5]
    ['**Network and weights.** *Not done.*', '', '**Slice.** 5 of 10 are right']
    """
    if unknown := sorted(entries.keys() - FIELDS.keys()):
        raise ValueError(f"expected entries among {', '.join(FIELDS)}, got {', '.join(unknown)}: rename them")
    lines = [f"**{words}.** {entries.get(name) or '*Not done.*'}" for name, words in FIELDS.items()]
    return Page("\n\n".join([f"**Report: {title}**", *lines]) + "\n")


def per_image(network: Network, target: NamedTarget, count: int) -> tuple[Network, Tensor]:
    """The network in which groups are classes, and one class index per image."""
    if target is None or callable(target):
        raise ValueError(f"expected a class name, index or group, got {target!r}: name the right class")
    joined, indices = resolved(network, target)
    indices = torch.as_tensor(indices).reshape(-1).cpu()
    if len(indices) not in (1, count):
        raise ValueError(f"expected targets for {count} images, got {len(indices)}: pass one per image")
    return joined, indices.expand(count)
