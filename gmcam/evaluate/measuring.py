"""From images with ground truth to rows of numbers: one row per image, class and method."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gmcam import metrics
from gmcam.datasets.records import Record
from gmcam.explaining import compare
from gmcam.groups import Group, Grouped
from gmcam.metrics.curves import STEPS
from gmcam.network import Network
from gmcam.postprocess import DEFAULT_SIGMA, upsample
from gmcam.preprocessing import Preprocessing
from gmcam.registry import find_method, require_counts

Groups = Mapping[str, tuple[int, ...]]  # class of a dataset → the network's classes that stand for it
MEANS = ("micro", "class")
THRESHOLDS = range(5, 100, 5)  # of Dice, in percent of a map's maximum
DICE_AT = [f"dice_{percent:02}" for percent in THRESHOLDS]


@dataclass(frozen=True)
class Choices:
    """What is measured, and how. The article leaves most of it open.
    ``methods``, ``layer``, ``sigma``: as for ``compare``. ``zone``: "soft", "hard", or None for no zones.
    ``threshold``: share of a map's maximum that counts as salient. ``tolerance``: of the pointing game, in
    pixels of the input. ``fit``: "squash" the image to the network's square, or "crop" its centre. ``steps``
    of insertion and deletion, or instead ``pixels`` per step; 0 for no curves. ``mean``: of the tables, over
    pairs of image and class ("micro") or classes' means ("class"). ``batch``: images read, and pairs
    explained, together. ``ValueError`` for an unknown name; ``evaluate`` raises it for values out of
    range."""

    methods: tuple[str, ...]
    layer: str | None = None
    zone: str | None = "soft"
    threshold: float = 0.5
    tolerance: float = 0
    sigma: float = DEFAULT_SIGMA
    fit: str = "squash"
    steps: int = STEPS
    pixels: int | None = None
    mean: str = "micro"
    batch: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(find_method(name).name for name in self.methods))
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"expected each method once, got {', '.join(self.methods)}: drop the repeated")
        options = {"zone": (*metrics.ZONES, None), "fit": ("squash", "crop"), "mean": MEANS}
        for name in (name for name in options if getattr(self, name) not in options[name]):
            raise ValueError(f"expected {name} to be one of {options[name]}, got {getattr(self, name)!r}")
        require_counts(batch=self.batch)


@dataclass(frozen=True, eq=False)
class Case:
    """An image and a class in it, as the network receives them; what the dataset does not have is empty.
    ``indices``: the network's classes that stand for it. ``inputs`` (3, H, W). ``mask``, ``others``,
    ``counts`` (h, w) bool: pixels of the class, of others alone, not void; maps get their size. ``boxes``
    (k, 4). ``without`` (3, H, W): the image without the class's objects, where the dataset has it."""

    image: str
    label: str
    indices: tuple[int, ...]
    inputs: Tensor
    mask: Tensor
    others: Tensor
    counts: Tensor
    boxes: Tensor
    without: Tensor | None = None


def fitted(network: Network, fit: str) -> Network:
    """A copy of the network that squashes or crops; ``ValueError`` if its preprocessing places no masks."""
    before, copied = network.preprocess, copy.copy(network)
    if not isinstance(before, Preprocessing):
        raise ValueError(f"expected a gmcam.Preprocessing, got {before!r}: pass one to gmcam.Network")
    copied.preprocess = replace(before, squash=fit == "squash")
    return copied


def grouped(network: Network, groups: Groups) -> Network:
    """The network in which each label that has several classes is one, see ``gmcam.group``."""
    several = [Group(indices, label) for label, indices in groups.items() if len(indices) > 1]
    return Grouped(network, several) if several else network


def cases_of(record: Record, preprocess: Preprocessing, groups: Groups) -> list[Case]:
    """A case for each class that has logits in ``groups``; its boxes count unless all are difficult."""
    if not any(truth.label in groups for truth in record.truths):
        return []
    inputs = preprocess(record.image)
    empty, no_boxes = torch.zeros(inputs.shape[1:], dtype=torch.bool), np.zeros((0, 4))
    counts = ~empty if record.void is None else ~preprocess.place_mask(record.void)
    masks = {t.label: empty if t.mask is None else preprocess.place_mask(t.mask) for t in record.truths}
    cases = []
    for truth in (truth for truth in record.truths if truth.label in groups):
        label, mask = truth.label, masks[truth.label]
        others = torch.stack([empty, *(masks[name] for name in masks if name != label)]).any(0) & ~mask
        ignored = truth.boxes is None or (truth.difficult is not None and truth.difficult.all())
        boxes = preprocess.place_boxes(no_boxes if ignored else truth.boxes, record.image.size)  # type: ignore
        without = None if truth.without is None else preprocess(truth.without)
        cases.append(Case(record.name, label, groups[label], inputs, mask, others, counts, boxes, without))
    return cases


def measure(network: Network, cases: Sequence[Case], choices: Choices) -> list[dict[str, Any]]:
    """One row per case and method, in this order. ``network``: with the cases' groups, see ``grouped``. Where
    a metric is undefined it is NaN: Dice, IoU and share inside without pixels of the class, the trace without
    others, both shares of an empty map (whose Dice is 0), fidelity without an image without the object."""
    inputs = network.prepare(torch.stack([case.inputs for case in cases]))
    targets = torch.tensor([_target(network, case) for case in cases], device=inputs.device)
    methods, layer, sigma = choices.methods, choices.layer, choices.sigma
    results, measured = compare(network, inputs, targets, methods=methods, layer=layer, sigma=sigma), []
    effect_maps = _effect_maps(network, inputs, targets, cases, layer)
    for result in results:
        nothing = torch.full_like(result.score, torch.nan)  # where the output has no probabilities
        before = (nothing if result.probability is None else result.probability).float()
        rank = nothing if result.rank is None else result.rank
        values = {"probability": before, "rank": rank, "score": result.score, "empty": result.empty}
        values |= _localisation(result.maps, cases, choices)
        if effect_maps is not None:
            values["fidelity"] = metrics.fidelity(result.raw, effect_maps)
            masks = torch.stack([case.mask for case in cases]).to(inputs.device)
            values["inside_error"] = metrics.inside_error(result.raw, effect_maps, masks)
        if choices.zone is not None:
            zones = metrics.zones(inputs, result.maps, choices.zone, choices.threshold)
            for name, images in zip(("salience", "context"), zones, strict=True):
                after = network.probabilities(images).gather(1, targets.unsqueeze(1)).squeeze(1)
                values[f"{name}_drop"] = metrics.drop(before, after)
                values[f"{name}_increase"] = metrics.increase(before, after)
        how: Any = {"steps": choices.steps} if choices.pixels is None else {"pixels": choices.pixels}
        if any(how.values()):
            areas = metrics.curves(network, inputs, targets, result.maps, chunk_size=2 * choices.batch, **how)
            values |= {"insertion": areas.insertion_area, "deletion": areas.deletion_area}
        measured.append({name: value.tolist() for name, value in values.items()})
    return [
        {"image": case.image, "label": case.label, "status": "measured", "method": result.method}
        | {name: column[i] for name, column in values.items()}
        for i, case in enumerate(cases)
        for result, values in zip(results, measured, strict=True)
    ]


def _target(network: Network, case: Case) -> int:
    if isinstance(network, Grouped):
        return network.columns.index(case.indices)
    (index,) = case.indices  # several are a group, see ``grouped``
    return index


def _effect_maps(
    network: Network, inputs: Tensor, targets: Tensor, cases: Sequence[Case], layer: str | None
) -> Tensor | None:
    """The effect map of each case's own objects on its class; NaN where the image without them is unknown."""
    known = [i for i, case in enumerate(cases) if case.without is not None]
    if not known:
        return None
    without = network.prepare(torch.stack([w for case in cases if (w := case.without) is not None]))
    maps = metrics.effect_map(network, inputs[known], without, targets[known], layer)
    return maps.new_full((len(cases), *maps.shape[1:]), torch.nan).index_copy(
        0, torch.tensor(known).to(maps.device), maps
    )


def _localisation(maps: Tensor, cases: Sequence[Case], choices: Choices) -> dict[str, Tensor]:
    stacks = [torch.stack([getattr(case, name) for case in cases]) for name in ("mask", "others", "counts")]
    masks, others, counts = (stack.to(maps.device) for stack in stacks)
    boxes = pad_sequence([case.boxes for case in cases], batch_first=True).to(maps.device)  # with empty boxes
    maps = upsample(maps, (masks.shape[1], masks.shape[2]))  # the masks' size
    values = {
        "dice": metrics.dice(maps, masks, counts, choices.threshold),
        "iou": metrics.iou(maps, masks, counts, choices.threshold),
        "inside": metrics.share_inside(maps, masks, counts),
        "trace": metrics.share_inside(maps, others, counts),
    }
    for name, percent in zip(DICE_AT, THRESHOLDS, strict=True):
        values[name] = metrics.dice(maps, masks, counts, percent / 100)
    for name in values:
        area = (others if name == "trace" else masks) & counts
        values[name] = values[name].masked_fill(~area.flatten(1).any(1), torch.nan)
    return values | {"pointing": metrics.points_inside(maps, boxes, choices.tolerance)}
