"""How good a map is, against ground truth and by what the network makes of it."""

from gmcam.evaluation.curves import Curves, blurred, curves, pixel_ranks
from gmcam.evaluation.localisation import localise
from gmcam.evaluation.metrics import (
    METRICS,
    dice,
    drop,
    increase,
    iou,
    points_inside,
    salient_area,
    share_inside,
    zones,
)

__all__ = [
    "METRICS",
    "Curves",
    "blurred",
    "curves",
    "dice",
    "drop",
    "increase",
    "iou",
    "localise",
    "pixel_ranks",
    "points_inside",
    "salient_area",
    "share_inside",
    "zones",
]
