"""Every saliency method, one function each; importing this registers them in the order that lists show."""

from gmcam.methods import one_pass  # noqa: F401  isort: skip
from gmcam.methods import averaging, full_grad, perturbing, relevance  # noqa: F401  isort: skip
from gmcam.methods import captum  # noqa: F401  isort: skip
from gmcam.registry import METHODS

__all__ = ["METHODS"]
