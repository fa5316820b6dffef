"""What a reader looks at: figures, and the explorer."""

from gmcam.views.figures import Picture, feature_sheet, grid, overlay, pipeline, show

__all__ = ["Picture", "feature_sheet", "grid", "overlay", "pipeline", "show"]
