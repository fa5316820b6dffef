"""Every saliency method behind one call: ``explain``, ``compare`` and the registry ``METHODS``."""

# Each registers its methods; the order is that of the lists readers see.
from gmcam.methods import maps_and_gradients  # noqa: F401  isort: skip
from gmcam.methods import averaging, full_grad, perturbing, relevance  # noqa: F401  isort: skip
from gmcam.methods import captum_adapters  # noqa: F401  isort: skip
from gmcam.methods.explanation import Result, compare, explain
from gmcam.methods.registry import METHODS, Method, Query, method

__all__ = ["METHODS", "Method", "Query", "Result", "compare", "explain", "method"]
