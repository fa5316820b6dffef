"""Every saliency method behind one call: ``explain`` and the registry ``METHODS``."""

from gmcam.methods import maps_and_gradients  # noqa: F401  registers its methods
from gmcam.methods.explanation import Result, explain
from gmcam.methods.registry import METHODS, Method, Query, method

__all__ = ["METHODS", "Method", "Query", "Result", "explain", "method"]
