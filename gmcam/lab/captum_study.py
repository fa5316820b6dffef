"""Captum's pixel methods, two of ours and their rivals on scenes of two objects: the measurement of the
chapter *Captum baselines*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from gmcam._extras import require
from gmcam.explaining import explain
from gmcam.lab.scenes import Scene
from gmcam.methods import METHODS
from gmcam.metrics import points_inside, share_inside
from gmcam.network import Network
from gmcam.postprocess import DEFAULT_SIGMA, postprocess
from gmcam.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pandas import DataFrame

RIVALS = (
    "area",
    "centred_blob",
    "edges",
    "feature_sum",
    "random_network",
    "grad_cam_squared",
    "guidance_map",
)
OURS = ("grad_cam", "gmcam")
TITLES = {
    "captum.saliency": "Saliency",
    "captum.input_x_gradient": "Input × gradient",
    "captum.integrated_gradients": "Integrated gradients",
    "captum.guided_backprop": "Guided backprop",
    "captum.guided_grad_cam": "Guided Grad-CAM",
    "captum.occlusion": "Occlusion",
    "captum.deep_lift": "DeepLIFT",
}
PIXELS = tuple(TITLES)
METHODS_SHOWN = (*RIVALS, *OURS, *PIXELS)
SIGMA = 2.0  # of the Gaussian over the maps of pixel methods, in pixels: unsmoothed they are speckled


def title_of(method: str) -> str:
    """A method's title, for Captum's in words that break into lines."""
    return TITLES.get(method) or METHODS[method].title


def agreement(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two maps (H, W): 1 for the same order of pixels, NaN for a flat map."""
    rank = require("scipy.stats", "metrics").rankdata
    pair = torch.stack([torch.from_numpy(rank(each.flatten().numpy())) for each in (one, other)])
    return float(torch.corrcoef(pair)[0, 1])


def measured(network: Network, scenes: Sequence[Scene], methods: Sequence[str] = METHODS_SHOWN) -> DataFrame:
    """A row for each scene, object and method: ``inside``, ``trace``, ``pointing`` of its finished map, and
    the ``agreement`` of the two objects' maps without smoothing, the same in both rows."""
    rows, place = [], cast(Preprocessing, network.preprocess)
    for number, drawn in enumerate(scenes):
        masks = torch.stack([place.place_mask(mask) for mask in drawn.masks])
        boxes = place.place_boxes(drawn.boxes, drawn.image.size)[:, None]
        for method in methods:
            sigma = SIGMA if method in PIXELS else DEFAULT_SIGMA
            result = explain(network, drawn.image, list(drawn.labels), method=method, sigma=sigma)
            plain, _ = postprocess(result.raw, masks.shape[1:], sigma=0)
            shares = share_inside(result.maps, masks), share_inside(result.maps, masks.flip(0))
            values = [result.probability, result.rank, *shares, points_inside(result.maps, boxes)]
            for label, each in zip(drawn.labels, zip(*values, strict=True), strict=True):
                numbers = [value.item() for value in each]
                rows.append((str(number), label, method, *numbers, agreement(*plain)))
    columns = ["image", "label", "method", "probability", "rank", "inside", "trace", "pointing", "agreement"]
    return require("pandas", "evaluate").DataFrame(rows, columns=columns)
