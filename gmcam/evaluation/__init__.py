"""How good a map is, against ground truth."""

from gmcam.evaluation.localisation import localise, points_inside, share_inside

__all__ = ["localise", "points_inside", "share_inside"]
