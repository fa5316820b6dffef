"""The steps of *Monday morning: debug a classifier*, for any network: slice, cluster, edit, repair, report.

Inputs are what ``Network.prepare`` returns, (N, C, H, W); a target is a class name, an index or a ``group``,
one for all images or a list of one per image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam._hooks import forward, without_gradients
from gmcam.capture import Layer, Recording
from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, interval
from gmcam.explaining import NamedTarget, explain
from gmcam.groups import resolved
from gmcam.lab.pictures import Dot
from gmcam.metrics import share_inside
from gmcam.network import Network

AT_ONCE = 8  # images in a batch
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
    joined, indices = _per_image(network, target, len(inputs))
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


def slices(right: Sequence[bool] | np.ndarray, groups: Sequence[str]) -> dict[str, Dot]:
    """Accuracy in per cent of each group of images, the lowest first, with its 95 % interval.

    The interval is Wilson's, which has a width also where all images of a group are right.

    ``right``: whether each image is classified correctly; ``groups``: a word for each image, such as its
    class, its camera or its month. Raises ``ValueError`` unless there is one word per image.
    """
    values, words = np.asarray(right, float), np.asarray(groups)
    if values.shape != words.shape or values.ndim != 1:
        raise ValueError(f"expected one group per image, got {len(words)} for {len(values)}: name each")
    rows = {str(word): _wilson(values[words == word]) for word in dict.fromkeys(groups)}
    return dict(sorted(rows.items(), key=lambda row: row[1][0]))


def _wilson(hits: np.ndarray, z: float = 1.96) -> Dot:
    share, count = float(hits.mean()), len(hits)
    middle = (share + z**2 / 2 / count) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / 4 / count**2) ** 0.5
    low, high = min(share, middle - half), max(share, middle + half)  # no −1e-17
    return 100 * share, 100 * low, 100 * high, []


def outside(
    network: Network, inputs: Tensor, target: NamedTarget, masks: Tensor, method: str = "grad_cam"
) -> np.ndarray:
    """The part of each image's map outside its mask (N, H, W) bool, in per cent; 0 for an empty map: (N,)."""
    joined, indices = _per_image(network, target, len(inputs))
    shares = []
    for part, chosen, inner in zip(*(torch.split(x, AT_ONCE) for x in (inputs, indices, masks)), strict=True):
        maps = explain(joined, part, chosen, method=method, sigma=0).maps.cpu()
        shares.append((1 - share_inside(maps, inner)).nan_to_num())
    return 100 * torch.cat(shares).numpy()


def contributions(
    network: Network, inputs: Tensor, target: NamedTarget, layer: Layer | None = None
) -> Tensor:
    """What each channel of a layer adds to the target's logit, ``Σ_cells C_k ⊙ M_k``: (N, K).

    The sum runs over all cells, so the place of an object does not matter. At a map that is pooled and
    followed by one linear layer, the row adds up to the logit minus the bias. ``layer``: as in ``explain``.
    """
    joined, indices = _per_image(network, target, len(inputs))
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


def boxed(inputs: Tensor, boxes: Sequence[Sequence[int]]) -> Tensor:
    """Masks (N, H, W) bool of one box an image: left, upper, right, lower in pixels of the *inputs*.

    Right and lower are exclusive. ``Preprocessing.place_boxes`` converts boxes of a photograph.
    """
    masks = torch.zeros(len(inputs), *inputs.shape[2:], dtype=torch.bool)
    for mask, (left, upper, right, lower) in zip(masks, boxes, strict=True):
        mask[max(upper, 0) : lower, max(left, 0) : right] = True
    return masks


def flattened(inputs: Tensor, masks: Tensor) -> Tensor:
    """Images (N, C, H, W) whose region (N, H, W) bool has its own mean colour, and hence no texture."""
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


def retrained(
    network: Network, inputs: Tensor, target: NamedTarget, keep: Tensor | None = None, pull: float = 0.01
) -> Network:
    """The network with its last linear layer trained further; the given network does not change.

    The loss is the cross-entropy of ``inputs`` for ``target``; for the images ``keep`` the divergence from
    the old probabilities, so that these stay; and ``pull`` times the squared change of the weights.
    30 steps of L-BFGS on stored features: the same images give the same network. Raises ``ValueError`` for a
    network without a softmax, and one whose output is not that of its last linear layer.
    """
    if network.output != "softmax":
        raise ValueError(f"expected a network with a softmax, got {network.output!r}: retrain it yourself")
    joined, indices = _per_image(network, target, len(inputs))
    new = copy.copy(network)
    new.module, new.name = copy.deepcopy(network.module), f"{network.name}, retrained"
    last = _last_linear(new)
    features, kept = _features(new, last, inputs), None if keep is None else _features(new, last, keep)
    names, old = zip(*((name, p.detach().clone()) for name, p in last.named_parameters()), strict=True)
    own = [p.clone().requires_grad_() for p in old]
    optimiser = torch.optim.LBFGS(own, max_iter=30, line_search_fn="strong_wolfe")

    def log_probabilities(reader: Network, rows: Tensor, values: Sequence[Tensor]) -> Tensor:
        logits = torch.func.functional_call(last, dict(zip(names, values, strict=True)), (rows,))
        return reader.logits_of(logits).log_softmax(1)

    def loss() -> Tensor:
        optimiser.zero_grad()
        chosen = log_probabilities(joined, features, own).gather(1, indices[:, None].to(features.device))
        moved = torch.cat([(now - p).flatten() for now, p in zip(own, old, strict=True)])
        total = pull * moved.square().sum() - chosen.mean()
        if kept is not None:
            before = log_probabilities(network, kept, old)
            change = before - log_probabilities(network, kept, own)
            total = total + (before.exp() * change).sum(1).mean()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter, value in zip(last.parameters(), own, strict=True):
            parameter.copy_(value)
    return new


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


def _per_image(network: Network, target: NamedTarget, count: int) -> tuple[Network, Tensor]:
    """The network in which groups are classes, and one class index per image."""
    if target is None or callable(target):
        raise ValueError(f"expected a class name, index or group, got {target!r}: name the right class")
    joined, indices = resolved(network, target)
    indices = torch.as_tensor(indices).reshape(-1).cpu()
    if len(indices) not in (1, count):
        raise ValueError(f"expected targets for {count} images, got {len(indices)}: pass one per image")
    return joined, indices.expand(count)


def _last_linear(network: Network) -> nn.Linear:
    layers = [part for part in network.module.modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ValueError(f"expected a last linear layer in {network.name}, got none: retrain it yourself")
    return layers[-1]


def _features(network: Network, last: nn.Linear, inputs: Tensor) -> Tensor:
    """What the last linear layer receives, (N, F); ``ValueError`` if its output is not the network's."""
    rows, outputs, logits = list[Tensor](), list[Tensor](), list[Tensor]()

    def keep(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(arguments[0].detach())
        outputs.append(network.logits_of(output.detach()) if output.ndim == 2 else output.detach())

    hook = last.register_forward_hook(keep)
    try:
        for part in torch.split(inputs, AT_ONCE):
            with without_gradients(network.module):
                logits.append(network.logits_of(forward(network.module, network.prepare(part))))
    finally:
        hook.remove()
    if len(outputs) != len(logits) or not all(map(torch.equal, outputs, logits)):
        fault = f"expected the output of {network.name} to be that of its last linear layer"
        raise ValueError(f"{fault}, got something else: retrain it yourself")
    return torch.cat(rows)
