"""From pictures with ground truth to rows of numbers: one row per picture, class and method."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmcam import metrics
from gmcam.datasets.records import Record
from gmcam.explaining import compare
from gmcam.methods import METHODS
from gmcam.metrics.curves import curves
from gmcam.network import Network
from gmcam.postprocess import DEFAULT_SIGMA
from gmcam.preprocessing import Preprocessing

FITS = ("squash", "crop")
MEANS = ("micro", "class")


@dataclass(frozen=True)
class Choices:
    """What is measured, and how: the article leaves most of it open, so each is a choice of ours.

    ``methods``: names in ``METHODS``. ``layer``: as for ``explain``. ``zone``, ``threshold``: how the
    salient picture is cut out, and where a map counts as salient for Dice and IoU. ``tolerance``: of
    the pointing game, in pixels of the network's input. ``sigma``: smoothing. ``fit``: ``squash``
    brings the whole picture to the network's square, ``crop`` takes the middle of it as for
    classification; masks and boxes are cut with it. ``pixels``: how many change between two points of
    the insertion and deletion curves, 0 for no curves. ``mean``: of the tables, over all pairs of picture and
    class alike (``micro``) or of the classes' means (``class``). ``batch``: pictures read together, and
    pairs explained together.

    Raises ``ValueError`` for a value that cannot be.
    """

    methods: tuple[str, ...]
    layer: str | None = None
    zone: str = "soft"
    threshold: float = 0.5
    tolerance: float = 0
    sigma: float = DEFAULT_SIGMA
    fit: str = "squash"
    pixels: int = 224
    mean: str = "micro"
    batch: int = 16

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ValueError(f"an evaluation takes at least one method, each once, not {self.methods}")
        if self.zone not in metrics.ZONES:
            raise ValueError(f"a zone is {' or '.join(metrics.ZONES)}, not {self.zone!r}")
        if self.fit not in FITS:
            raise ValueError(f"a picture is fitted by {' or '.join(FITS)}, not by {self.fit!r}")
        if self.mean not in MEANS:
            raise ValueError(f"a mean is {' or '.join(MEANS)}, not {self.mean!r}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"a threshold lies above 0 and up to 1, not at {self.threshold}")
        if not (0 <= self.tolerance < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError(f"tolerance and sigma are 0 or more, not {self.tolerance} and {self.sigma}")
        if self.pixels < 0 or self.batch < 1:
            raise ValueError(
                f"pixels are 0 or more and a batch 1 or more, not {self.pixels} and {self.batch}"
            )

    def values(self) -> dict[str, Any]:
        """Name → value, as it is written into a run's description."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Case:
    """One class in one picture, as the network sees it: ``inputs`` (3, H, W); on the same pixels the
    class's ``mask``, the ``others``' and those that ``count`` (without void), (H, W) bool; ``boxes``
    (k, 4). ``indices``: the logits that stand for the class. What the dataset does not know is empty."""

    picture: str
    label: str
    indices: tuple[int, ...]
    inputs: Tensor
    mask: Tensor
    others: Tensor
    counts: Tensor
    boxes: Tensor


def fitted(network: Network, fit: str) -> Network:
    """The network with a preprocessing that fits pictures as asked.

    Raises ``ValueError`` for a network whose preprocessing says nothing of where a pixel goes.
    """
    if not isinstance(network.preprocess, Preprocessing):
        raise ValueError(
            f"{network.name} needs a gmcam.Preprocessing, which places masks and boxes as it "
            "places pictures; give one to Network(..., preprocess=...)"
        )
    fitting = copy.copy(network)
    fitting.preprocess = replace(network.preprocess, squash=fit == "squash")
    return fitting


def cases_of(record: Record, preprocess: Preprocessing, groups: Mapping[str, tuple[int, ...]]) -> list[Case]:
    """One case for each class of the picture that has logits in ``groups``.

    A class of which every object is marked difficult has no boxes; of another, all boxes count.
    """
    known = [truth for truth in record.truths if truth.label in groups]
    if not known:
        return []
    inputs = preprocess(record.image)
    nothing = torch.zeros(inputs.shape[1:], dtype=torch.bool)
    counts = ~nothing if record.void is None else ~preprocess.place_mask(record.void)
    masks = {t.label: preprocess.place_mask(t.mask) for t in record.truths if t.mask is not None}
    found = []
    for truth in known:
        mask = masks.get(truth.label, nothing)
        others = [other for label, other in masks.items() if label != truth.label]
        boxes = np.zeros((0, 4)) if truth.boxes is None else truth.boxes
        if truth.difficult is not None and truth.difficult.all():
            boxes = boxes[:0]
        found.append(
            Case(
                picture=record.name,
                label=truth.label,
                indices=groups[truth.label],
                inputs=inputs,
                mask=mask,
                others=torch.stack([nothing, *others]).any(0) & ~mask,
                counts=counts,
                boxes=preprocess.place_boxes(boxes, record.image.size),
            )
        )
    return found


def measure(network: Network, cases: Sequence[Case], choices: Choices) -> list[dict[str, Any]]:
    """One row per case and method, in this order; see ``SCHEMA`` in ``gmcam.evaluate.runs``.

    The class that is explained and whose probability is followed is the one with the highest logit
    on the whole picture among the logits that stand for the label. Dice, IoU and the share inside are
    not defined for a class without a pixel that counts, nor the trace in a picture without another class.
    """
    rows = []
    for start in range(0, len(cases), choices.batch):
        rows += _measure(network, cases[start : start + choices.batch], choices)
    return rows


def _measure(network: Network, cases: Sequence[Case], choices: Choices) -> list[dict[str, Any]]:
    def together(name: str) -> Tensor:
        return torch.stack([getattr(case, name) for case in cases])

    inputs = network.prepare(together("inputs"))
    masks, others, counts = (together(name).to(inputs.device) for name in ("mask", "others", "counts"))
    # Empty boxes fill up what a case has fewer.
    boxes = torch.nn.utils.rnn.pad_sequence([case.boxes for case in cases], batch_first=True)
    boxes = boxes.to(inputs.device)
    targets = _targets(network, inputs, cases)
    rows = torch.arange(len(cases), device=inputs.device)
    results = compare(
        network, inputs, targets, methods=choices.methods, layer=choices.layer, sigma=choices.sigma
    )
    assert results[0].probabilities is not None  # class indices are refused for any other output
    before = results[0].probabilities[rows, targets]
    found = []
    for result in results:
        maps = result.maps
        after = [
            network.probabilities(picture)[rows, targets]
            for picture in metrics.zones(inputs, maps, choices.zone, choices.threshold)
        ]
        values = {
            "probability": before,
            "score": result.score,
            "empty": result.empty,
            "salience_drop": metrics.drop(before, after[0]),
            "salience_increase": metrics.increase(before, after[0]),
            "context_drop": metrics.drop(before, after[1]),
            "context_increase": metrics.increase(before, after[1]),
            "pointing": metrics.points_inside(maps, boxes, choices.tolerance),
            "dice": metrics.dice(maps, masks, counts, choices.threshold),
            "iou": metrics.iou(maps, masks, counts, choices.threshold),
            # An empty map lies nowhere: it must not leave the mean, as an undefined share would.
            "inside": metrics.share_inside(maps, masks, counts).nan_to_num(),
            "trace": metrics.share_inside(maps, others, counts).nan_to_num(),
        }
        for names, area in ((("dice", "iou", "inside"), masks), (("trace",), others)):
            unknown = ~(area & counts).flatten(1).any(1)
            values |= {name: values[name].masked_fill(unknown, torch.nan) for name in names}
        if choices.pixels:
            both = curves(network, inputs, targets, maps, pixels=choices.pixels, chunk_size=2 * choices.batch)
            values["insertion"] = both.insertion_area
            values["deletion"] = both.deletion_area
        lists = {name: value.tolist() for name, value in values.items()}
        found.append(
            [
                {"method": result.method, "target": int(target), **{key: lists[key][i] for key in lists}}
                for i, target in enumerate(targets)
            ]
        )
    return [
        {"picture": case.picture, "label": case.label, "status": "measured", **by_method[i]}
        for i, case in enumerate(cases)
        for by_method in found
    ]


def _targets(network: Network, inputs: Tensor, cases: Sequence[Case]) -> Tensor:
    """The class that stands for each case's label; a forward pass where there is a choice."""
    best = [case.indices[0] for case in cases]
    if any(len(case.indices) > 1 for case in cases):
        # The highest probability of a picture is its highest logit.
        chances = network.probabilities(inputs).tolist()
        best = [max(case.indices, key=row.__getitem__) for case, row in zip(cases, chances, strict=True)]
    return torch.tensor(best, device=inputs.device)
