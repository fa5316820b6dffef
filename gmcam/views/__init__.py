"""What a reader looks at: figures, and explorers that need a kernel or none."""

from gmcam.views.figures import Picture, coloured, feature_sheet, greyed, grid, overlay, pipeline, show
from gmcam.views.frozen import freeze, frozen_explorer

__all__ = [
    "Picture",
    "coloured",
    "feature_sheet",
    "freeze",
    "frozen_explorer",
    "greyed",
    "grid",
    "overlay",
    "pipeline",
    "show",
]
