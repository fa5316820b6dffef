"""Every saliency method, one function each; importing this registers them in the order that lists show."""

from gmcam.methods import one_pass, averaging, full_grad, perturbing, relevance, captum, rivals  # noqa: F401, I001
from gmcam.registry import METHODS

__all__ = ["METHODS"]
