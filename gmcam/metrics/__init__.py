"""How good a map is: against ground truth, and by the network's response to it. Functions over batches."""

from gmcam.metrics.curves import Curves, blurred, curves, pixel_ranks
from gmcam.metrics.effects import FILLS, Effects, effect_map, effects, fidelity, filled, inside_error
from gmcam.metrics.localisation import dice, iou, points_inside, salient_area, share_inside
from gmcam.metrics.sanity import Stage, layers_from_logits, randomised, sanity_check
from gmcam.metrics.zones import ZONES, drop, increase, zones

# Column of an evaluation's records → title, and whether higher or lower is better, as the article has it.
METRICS = {
    "salience_drop": ("Drop, salience zone", "↓"),
    "salience_increase": ("Increase, salience zone", "↑"),
    "context_drop": ("Drop, context zone", "↑"),
    "context_increase": ("Increase, context zone", "↓"),
    "pointing": ("Pointing game", "↑"),
    "dice": ("Dice", "↑"),
    "iou": ("IoU", "↑"),
    "inside": ("Share inside", "↑"),
    "trace": ("Trace in other objects", "↓"),
    "fidelity": ("Fidelity", "↑"),
    "inside_error": ("Inside error", "→ 0"),
    "insertion": ("Insertion, area", "↑"),
    "deletion": ("Deletion, area", "↓"),
}

__all__ = ["FILLS", "METRICS", "ZONES", "Curves", "Effects", "Stage", "blurred", "curves", "dice", "drop"]
__all__ += ["effect_map", "effects", "fidelity", "filled", "increase", "inside_error", "iou"]
__all__ += ["layers_from_logits", "pixel_ranks", "points_inside", "randomised", "salient_area"]
__all__ += ["sanity_check", "share_inside", "zones"]
