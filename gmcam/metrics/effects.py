"""What an object does to a score, measured by removing it; and how near a saliency map is to that.

With Y(S, g) the score of an image with objects S on background g, and all else identical, the **removal
effect** of an object i is Y(S, g) − Y(S∖i, g). ``effect_map`` divides it among the cells of a layer;
``fidelity`` and ``inside_error`` compare saliency maps with it. Both take images, so any pair will do that
differs by the object alone; ``filled`` makes a second one where only a mask is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam._extras import require
from gmcam._hooks import (
    call,
    first_tensor,
    forward,
    hooked,
    replace_tensor,
    with_gradients,
    without_gradients,
)
from gmcam.capture import UNUSED, Layer, Recording
from gmcam.chunks import in_chunks
from gmcam.explaining import NamedTarget
from gmcam.groups import Group, resolved
from gmcam.metrics.localisation import check_alike, share_inside
from gmcam.network import Images, Network
from gmcam.outputs import Target, scores_of
from gmcam.registry import require_counts

SCORES, PATHS = ("logit", "log-probability"), ("maps", "images")
FILLS = ("mean", "harmonic", "blur", "zero", "road")
POINTS_AT_A_TIME = 8  # of the way, so that a network of ImageNet's size fits into a few hundred MiB
Run = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of an object on a score Y, (N,) each, in the score's unit; None where images were not given.
    ``removal``: Y(S) − Y(S∖i). ``addition``: Y(i) − Y(∅), the object alone against the bare background.
    ``background``: Y(S, g) − the mean of Y(S, g′) over other backgrounds g′."""

    removal: Tensor
    addition: Tensor | None = None
    background: Tensor | None = None

    @property
    def interaction(self) -> Tensor | None:
        """Removal − addition: what the other objects change in this one's effect."""
        return None if self.addition is None else self.removal - self.addition


def effects(
    network: Network,
    image: Images,
    without: Images,
    target: NamedTarget = None,
    *,
    alone: Images | None = None,
    empty: Images | None = None,
    backgrounds: Sequence[Images] = (),
    score: str = "logit",
    against: str | int | Group | None = None,
) -> Effects:
    """Effects of an object on the score of ``target``: of removing, of adding it, and of the background.
    ``image``, ``without``: N images with the object, and the same N without it. ``alone``, ``empty``: with
    this object only, and with none. ``backgrounds``: the N images on each other background. ``target``: as
    for ``explain``; None is the top class of ``image``. ``score``: "logit" (of a group, its log-sum-exp) or
    "log-probability". ``against``: a class whose score is subtracted, so that a shift common to all logits
    cancels. ``ValueError`` for numbers of images that differ, one of ``alone`` and ``empty`` without the
    other, and another score. On collages, removal is the truth to teach: no network saw a bare background."""
    if score not in SCORES:
        raise ValueError(f"expected score to be {' or '.join(SCORES)}, got {score!r}: choose one")
    if (alone is None) != (empty is None):
        raise ValueError("expected alone and empty together, got one of them: pass both, or neither")
    given = {"image": image, "without": without, "alone": alone, "empty": empty}
    given |= {f"backgrounds[{i}]": images for i, images in enumerate(backgrounds)}
    inputs = {name: network.prepare(images) for name, images in given.items() if images is not None}
    check_alike(inputs["image"].ndim, **inputs)
    network, chosen, reference = _resolved(network, inputs["image"], target, against)

    def read(output: object) -> Tensor:
        logits = network.logits_of(output)
        if score == "logit":
            return logits
        several = network.output == "softmax" and logits.shape[1] > 1  # where a probability may round to 0
        return logits.log_softmax(1) if several else network.probabilities_of(output).log()

    def scores(images: Tensor) -> Tensor:
        output = forward(network.module, images)
        values = scores_of(output, chosen, len(images), read)[0]
        return values if against is None else values - read(output)[:, reference]

    with without_gradients(network.module):
        values = {name: scores(images) for name, images in inputs.items()}
    others = [values[name] for name in values if name.startswith("backgrounds")]
    background = values["image"] - torch.stack(others).mean(0) if others else None
    addition = None if alone is None else values["alone"] - values["empty"]
    return Effects(values["image"] - values["without"], addition, background)


def effect_map(
    network: Network,
    image: Images,
    without: Images,
    target: NamedTarget = None,
    layer: Layer | None = None,
    *,
    path: str = "maps",
    steps: int = 32,
) -> Tensor:
    """The removal effect on the logit of ``target``, cell by cell: (N, h, w), in logits.
    ``E = Σ_k C̄_k ⊙ (M_k − M⁻_k)``: a layer's maps with and without the object, and the gradient averaged
    along a way from M⁻ to M. Its sum is the removal effect, if nothing passes the layer by. Where average
    pooling and a linear layer follow, C is constant and E is exact: the CAM minus the CAM without the object.
    Elsewhere the way is a convention: ``path="maps"`` goes straight from M⁻ to M; "images" goes through
    blended images. Of ``steps`` parts, by the trapezoid rule. ``image``, ``without``, ``target``: as for
    ``effects``; ``layer``: as for ``explain``. ``ValueError`` as for both, and for another path."""
    if path not in PATHS:
        raise ValueError(f"expected path to be {' or '.join(PATHS)}, got {path!r}: choose one")
    require_counts(steps=steps)
    pair = {"image": network.prepare(image), "without": network.prepare(without)}
    check_alike(pair["image"].ndim, **pair)
    name, (network, chosen, _) = network.layer_path(layer), _resolved(network, pair["image"], target)
    classes = [chosen] if callable(chosen) else chosen.reshape(-1)
    count = max(len(pair["image"]), len(classes))
    if {len(pair["image"]), len(classes)} - {1, count}:
        raise ValueError(f"expected {len(pair['image'])} targets, got {len(classes)}: pass one for each pair")
    triples = zip(*(list(part) * (count // len(part)) for part in (*pair.values(), classes)), strict=True)
    points, along, parts = torch.linspace(0, 1, steps + 1), {"maps": _along_maps, "images": _along_images}, []
    for after, before, each in triples:
        run = along[path](network, torch.stack([before, after]), each, name)
        chunks = in_chunks(run, points.to(after), POINTS_AT_A_TIME)
        maps, gradients = map(torch.cat, zip(*(part for _, part in chunks), strict=True))
        parts.append(((gradients[1:] + gradients[:-1]) / 2 * maps.diff(dim=0)).sum((0, 1)))
    return torch.stack(parts)


def _along_maps(network: Network, ends: Tensor, target: Target, layer: str) -> Run:
    """At shares of the way from M⁻ to M: the layer's maps and their gradients, (P, K, h, w) each."""
    raw = Recording(network.module, ends, layer, gradients=False, any_shape=True).maps[layer]

    def run(points: Tensor) -> tuple[Tensor, Tensor]:
        maps = _between(raw, points).requires_grad_()

        def replace(output: Any, in_place: bool) -> Any:
            value = first_tensor(output)
            assert value is not None  # seen by the recording
            return value.copy_(maps) if in_place else replace_tensor(output, value, maps.clone())

        inputs = ends[1:].repeat(len(points), *[1] * (ends.ndim - 1))
        with with_gradients(network.module):
            with hooked(network.module.get_submodule(layer), replace):
                output = call(network.module, inputs)
            scores, _ = scores_of(output, target, len(points), network.logits_of)
            if not scores.requires_grad:
                raise ValueError(f"expected a gradient from the score to layer {layer!r}, got none: {UNUSED}")
            [gradients] = torch.autograd.grad(scores.sum(), maps)
        return network.as_maps(maps.detach(), layer), network.as_maps(gradients, layer)

    return run


def _along_images(network: Network, ends: Tensor, target: Target, layer: str) -> Run:
    """The same for images blended from the one without the object to the one with it."""

    def run(points: Tensor) -> tuple[Tensor, Tensor]:
        inputs, read = _between(ends, points), network.logits_of
        recording = Recording(network.module, inputs, layer, read=read, arrange=network.as_maps)
        captured = recording.capture(target)
        return captured.maps[layer], captured.gradients[layer]

    return run


def _between(ends: Tensor, points: Tensor) -> Tensor:
    """(1 − t) · ends[0] + t · ends[1] for each of P shares t: (P, …)."""
    return torch.lerp(ends[0], ends[1], points.view(-1, *[1] * (ends.ndim - 1)))


def fidelity(maps: Tensor, effect_maps: Tensor) -> Tensor:
    """Pearson's r over cells of a map (N, H, W) with the effect map (N, h, w) of its target's object: (N,).
    A finer map is averaged into the effect map's cells; use raw maps, which keep amounts and signs. A flat
    map scores 0; NaN for an effect map that is flat. ``ValueError`` for shapes that do not fit.

    >>> gmcam.metrics.fidelity(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 0.5]]]))
    tensor([1.])
    """
    maps, effect = (cells.flatten(1) for cells in _in_cells(effect_maps, maps, effect_maps))
    maps, effect = (values - values.mean(1, keepdim=True) for values in (maps, effect))
    norms = maps.norm(dim=1) * effect.norm(dim=1)
    r = (maps * effect).sum(1) / norms.masked_fill(norms == 0, 1)
    return torch.where(effect.norm(dim=1) == 0, torch.nan, r.clamp(-1, 1))


def inside_error(maps: Tensor, effect_maps: Tensor, masks: Tensor) -> Tensor:
    """Share inside of a map minus that of the effect itself, whose best value is 0: (N,), in [−1, 1].
    ``Σ S⁺·m / Σ S⁺ − Σ E⁺·m / Σ E⁺`` over the effect map's cells; m: the share of a cell in ``masks`` (N, H,
    W). An effect spreads beyond its object, so a map can be too sharp. NaN for an empty map or effect.

    >>> maps, masks = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[True, False]]])
    >>> gmcam.metrics.inside_error(maps, torch.tensor([[[0.6, 0.4]]]), masks)
    tensor([0.4000])
    """
    maps, effect, shares = _in_cells(effect_maps, maps, effect_maps, masks.to(maps.dtype))
    return share_inside(maps.relu(), shares) - share_inside(effect.relu(), shares)


def filled(inputs: Tensor, masks: Tensor, fill: str = "mean") -> Tensor:
    """Images without an object of which only the mask is known: (N, C, H, W) with (N, H, W) bool replaced.
    ``fill``: the "mean" of the surroundings, pixels outside within a 16th of the width (at least one pixel);
    "harmonic", each pixel the mean of its neighbours; "blur" by a Gaussian of an eighth of the width; "zero"
    in the network's space; "road", the mean of eight neighbours, ⅙ of each direct and 1/12 of each diagonal
    one, plus a fixed noise of σ = 0.01 (Rong et al., ICML 2022). *Insertion and deletion* compares them.
    ``ValueError`` for another fill, shapes that do not fit, and masks without a pixel outside."""
    if fill not in FILLS:
        raise ValueError(f"expected fill to be one of {', '.join(FILLS)}, got {fill!r}: choose one")
    if inputs.ndim != 4 or masks.shape != (len(inputs), *inputs.shape[2:]) or masks.dtype != torch.bool:
        given = f"{tuple(inputs.shape)} and {masks.dtype} {tuple(masks.shape)}"
        raise ValueError(f"expected inputs (N, C, H, W) and bool masks (N, H, W), got {given}: match them")
    if masks.flatten(1).all(1).any():
        raise ValueError("expected masks that leave pixels outside, got one without: pass smaller masks")
    outside, filling = ~masks.to(inputs.device).unsqueeze(1), torch.zeros_like(inputs)
    if fill == "mean":
        reach = max(1, inputs.shape[3] // 16)
        near = F.max_pool2d((~outside).to(inputs.dtype), 2 * reach + 1, 1, reach) * outside
        filling += (inputs * near).sum((2, 3), keepdim=True) / near.sum((2, 3), keepdim=True).clamp(min=1)
    elif fill == "blur":
        gaussian, sigma = require("scipy.ndimage", "evaluate").gaussian_filter, inputs.shape[3] / 8
        filling = torch.from_numpy(gaussian(inputs.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest"))
    elif fill in ("harmonic", "road"):
        filling = torch.stack([_imputed(*pair, fill == "road") for pair in zip(inputs, masks, strict=True)])
    return torch.where(outside, inputs, filling.to(inputs))


def _imputed(image: Tensor, mask: Tensor, road: bool) -> Tensor:
    """Each pixel of the mask as the mean of its four neighbours, or of eight with ROAD's noise: (C, H, W)."""
    sparse, linalg = require("scipy.sparse", "evaluate"), require("scipy.sparse.linalg", "evaluate")
    rows, columns = (sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(n, n)) for n in mask.shape)
    neighbours = sparse.csr_array(sparse.kronsum(columns, rows) + 0.5 * road * sparse.kron(rows, columns))
    laplacian = sparse.csr_array(sparse.diags_array(neighbours.sum(1)) - neighbours)
    pixels, inside = image.flatten(1).double().cpu().numpy().T.copy(), mask.flatten().cpu().numpy()
    known = laplacian[inside][:, ~inside] @ pixels[~inside]
    pixels[inside] = linalg.spsolve(laplacian[inside][:, inside].tocsc(), -known).reshape(-1, len(image))
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    return torch.from_numpy(pixels.T.copy()).view_as(image).to(image) + 0.01 * road * noise


def _resolved(
    network: Network, inputs: Tensor, target: NamedTarget, against: Any = None
) -> tuple[Network, Any, int]:
    """The network in which groups are classes; class indices (), (N,), or a function; that of ``against``."""
    if target is None:
        with without_gradients(network.module):
            target = scores_of(forward(network.module, inputs), None, len(inputs), network.logits_of)[1]
    if callable(target):
        return network, target, 0
    given: Any = target.tolist() if isinstance(target, Tensor) else target
    listed = list(given) if isinstance(given, list | tuple) else [given]
    network, indices = resolved(network, listed + [against] * (against is not None))
    assert isinstance(indices, Tensor)  # of a list
    return network, indices[: len(listed)] if len(listed) > 1 else indices[0], int(indices[-1])


def _in_cells(effect_maps: Tensor, *maps: Tensor) -> list[Tensor]:
    """Maps averaged into the cells of the effect maps."""
    if {each.ndim for each in maps} != {3} or len({len(each) for each in maps}) > 1:
        shapes = " and ".join(str(tuple(each.shape)) for each in maps)
        raise ValueError(f"expected maps (N, H, W) for as many effect maps (N, h, w), got {shapes}: match")
    height, width = effect_maps.shape[1:]
    return [F.adaptive_avg_pool2d(each.float(), (height, width)) for each in maps]
