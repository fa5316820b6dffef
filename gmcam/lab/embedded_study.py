"""Grad-CAM, the guidance map, GMCAM and rivals on 504 scenes of two objects: the measurement of the page *The
embedded networks*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from gmcam._extras import require
from gmcam.evaluate import differences, summary
from gmcam.explaining import compare
from gmcam.lab.charts import by_class
from gmcam.lab.scenes import Scene
from gmcam.metrics import points_inside, share_inside
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pandas import DataFrame

RIVALS = ("area", "centred_blob", "edges", "feature_sum", "random_network", "grad_cam_squared")
METHODS = (*RIVALS, "grad_cam", "guidance_map", "gmcam")
METRICS = ("inside", "trace", "pointing")
NETWORKS = ("collage-vgg", "collage-resnet")
SEEN = 0.2  # the least probability of a target that counts as recognised


def measured(network: Network, scenes: Sequence[Scene], methods: Sequence[str] = METHODS) -> DataFrame:
    """Records of both objects of each scene: a row for each scene, object and method, with the object's
    ``probability`` and the metrics of its map at the network's last layer. Of an empty map the shares are NaN,
    and it is a miss. ``image``: the scene's place among the ``scenes``."""
    rows, place = [], cast(Preprocessing, network.preprocess)
    for number, drawn in enumerate(scenes):
        masks = torch.stack([place.place_mask(mask) for mask in drawn.masks])
        boxes = place.place_boxes(drawn.boxes, drawn.image.size)[:, None]
        for result in compare(network, drawn.image, list(drawn.labels), methods=list(methods)):
            maps, before = result.maps, cast(torch.Tensor, result.probability)
            shares = share_inside(maps, masks), share_inside(maps, masks.flip(0))
            values = zip(before, *shares, points_inside(maps, boxes), strict=True)
            for label, each in zip(drawn.labels, values, strict=True):
                rows.append((network.name, str(number), label, result.method, *(v.item() for v in each)))
    columns = ["network", "image", "label", "method", "probability", *METRICS]
    return require("pandas", "evaluate").DataFrame(rows, columns=columns)
