"""The grid pointing game: is a map in its class's cell of a mosaic?"""

from __future__ import annotations

import torch
from torch import Tensor

from gmcam.datasets.records import Record
from gmcam.metrics.localisation import points_inside, share_inside
from gmcam.preprocessing import Preprocessing


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
