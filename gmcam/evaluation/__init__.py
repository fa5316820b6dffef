"""How good a map is: against ground truth, by what the network makes of it, over whole datasets."""

from gmcam.evaluation.curves import Curves, blurred, curves, pixel_ranks
from gmcam.evaluation.evaluating import evaluate
from gmcam.evaluation.grid_pointing import grid_pointing
from gmcam.evaluation.localisation import localise
from gmcam.evaluation.measuring import Choices
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
from gmcam.evaluation.runs import Run
from gmcam.evaluation.sanity import Stage, layers_from_logits, randomised, sanity_check
from gmcam.evaluation.tables import differences, status, summary, table, write_figures, write_tables
from gmcam.evaluation.totals import Totals

__all__ = [
    "METRICS",
    "Choices",
    "Curves",
    "Run",
    "Stage",
    "Totals",
    "blurred",
    "curves",
    "dice",
    "differences",
    "drop",
    "evaluate",
    "grid_pointing",
    "increase",
    "iou",
    "layers_from_logits",
    "localise",
    "pixel_ranks",
    "points_inside",
    "randomised",
    "salient_area",
    "sanity_check",
    "share_inside",
    "status",
    "summary",
    "table",
    "write_figures",
    "write_tables",
    "zones",
]
