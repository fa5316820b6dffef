"""The grid pointing game: does a map find its class among the cells of a mosaic?"""

from __future__ import annotations

import torch
from torch import Tensor

from gmcam.datasets.records import Record
from gmcam.metrics.localisation import points_inside, share_inside
from gmcam.preprocessing import Preprocessing


def grid_pointing(maps: Tensor, record: Record, preprocess: Preprocessing) -> tuple[Tensor, Tensor]:
    """The share of each map's positive values in its class's cell, and whether its maximum lies there.

    ``maps`` (n, H, W): one for each of the ``record``'s n truths, in their order, at the input's size;
    ``preprocess`` brought the record to it. ``L_t = Σ_{p ∈ c_t} S⁺(p) / Σ_q Σ_{p ∈ c_q} S⁺(p)``: pixels
    outside all cells do not count. Two results (n,); an empty map scores 0 in both. Chance is 1/n, and
    the shares of one map for all n truths add up to 1. Source: Böhle, Fritz and Schiele, *Convolutional
    Dynamic Alignment Networks for Interpretable Classifications*, CVPR 2021; the second is the pointing
    game of Zhang et al., IJCV 2018. Raises ``ValueError`` for a record without masks and boxes, and for
    maps of another number or size.
    """
    cells, boxes = [], []
    for truth in record.truths:
        if truth.mask is None or truth.boxes is None:
            raise ValueError(f"{truth.label} has no cell: the grid pointing game needs its mask and its box")
        cells.append(preprocess.place_mask(truth.mask))
        boxes.append(preprocess.place_boxes(truth.boxes, record.image.size))
    if len(maps) != len(cells):
        raise ValueError(f"there are {len(maps)} maps for {len(cells)} cells; give one map for each")
    masks = torch.stack(cells).to(maps.device)
    if maps.shape != masks.shape:
        raise ValueError(f"maps {tuple(maps.shape)} and cells {tuple(masks.shape)} are (n, H, W) alike")
    placed = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True).to(maps.device)  # an empty box is none
    positive = maps.clamp(min=0) * masks.any(0)
    return share_inside(positive, masks).nan_to_num(), points_inside(positive, placed)
