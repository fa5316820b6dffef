"""The grid pointing game: is a map in its class's cell of a mosaic?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from gmcam._extras import require
from gmcam.datasets.records import Record
from gmcam.explaining import compare
from gmcam.metrics.localisation import points_inside, share_inside
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pandas import DataFrame


def grid_pointing(maps: Tensor, record: Record, preprocess: Preprocessing) -> tuple[Tensor, Tensor]:
    """The share of each map's positive values in its class's cell, and whether its maximum is there.

    ``maps`` (n, H, W): one for each of the ``record``'s n truths, in their order, at the input's size;
    ``preprocess`` brings the record to that size. ``L_t = Σ_{p ∈ c_t} S⁺(p) / Σ_q Σ_{p ∈ c_q} S⁺(p)``: pixels
    outside all cells do not count, and an empty map scores 0 in both. Chance is 1/n, and the shares of a
    single map for all n truths add up to 1. Source: Böhle, Fritz and Schiele, *Convolutional Dynamic
    Alignment Networks for Interpretable Classifications*, CVPR 2021; the second is the pointing game of Zhang
    et al., IJCV 2018. Raises ``ValueError`` for a record without masks and boxes, and for maps of another
    number or size.
    """
    cells, boxes = [], []
    for truth in record.truths:
        if truth.mask is None or truth.boxes is None:
            raise ValueError(f"expected a mask and a box for {truth.label}, got none: draw it with mosaic")
        cells.append(preprocess.place_mask(truth.mask))
        boxes.append(preprocess.place_boxes(truth.boxes, record.image.size))
    masks = torch.stack(cells).to(maps.device)
    if maps.shape != masks.shape:
        raise ValueError(
            f"expected maps {tuple(masks.shape)}, got {tuple(maps.shape)}: pass one for each cell"
        )
    placed = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True).to(maps.device)  # with empty boxes
    positive = maps.clamp(min=0) * masks.any(0)
    return share_inside(positive, masks).nan_to_num(), points_inside(positive, placed)


def play(
    network: Network, records: Iterable[Record], methods: Sequence[str], layer: str | None = None
) -> DataFrame:
    """A row for each mosaic, target and method of the grid pointing game.

    Columns: ``members``, the mosaic's labels; ``label``, the target; ``method``; ``cell``, the index of the
    target's cell; ``inside`` and ``pointing``, see ``grid_pointing``; ``recognised``: the label's probability
    is at least 0.2, or among the five highest. ``ValueError`` as for ``explain``.
    """
    rows, preprocess = [], cast(Preprocessing, network.preprocess)
    for record in records:
        labels = [truth.label for truth in record.truths]
        chances = network.probabilities(record.image)[0]
        targets = chances[[network.class_index(label) for label in labels]]
        rank = 1 + (chances > targets[:, None]).sum(1)
        recognised = ((targets >= 0.2) | (rank <= 5)).tolist()
        for result in compare(network, record.image, labels, methods=methods, layer=layer):
            scores = (score.tolist() for score in grid_pointing(result.maps, record, preprocess))
            for cell, values in enumerate(zip(*scores, recognised, strict=True)):
                rows.append((tuple(labels), labels[cell], result.method, cell, *values))
    names = ["members", "label", "method", "cell", "inside", "pointing", "recognised"]
    return require("pandas", "evaluate").DataFrame(rows, columns=names)
