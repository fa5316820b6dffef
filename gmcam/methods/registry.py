"""The registry of saliency methods, and what a method is given.

A method is one function from a ``Query`` to raw maps (T, h, w). Registering it under a name puts it
within reach of ``explain``, of the command line and of the tests that run over all methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from gmcam.capture import Capture, Target, capture
from gmcam.networks.network import Network


@dataclass(frozen=True)
class Query:
    """What is to be explained: ``network``, ``inputs`` (N, 3, H, W), ``targets``, ``layer`` (dotted).

    Most methods need no more than the feature maps ``M`` and gradient maps ``C``, (T, K, h, w).
    """

    network: Network
    inputs: Tensor
    targets: Target
    layer: str

    @cached_property
    def captured(self) -> Capture:
        """The one forward and backward pass, run when it is first asked for."""
        return capture(self.network.module, self.inputs, self.targets, [self.layer])

    @property
    def M(self) -> Tensor:
        """Feature maps, in float32 at least."""
        return _at_least_float32(self.captured.maps[self.layer])

    @property
    def C(self) -> Tensor:
        """Gradient maps, in float32 at least."""
        return _at_least_float32(self.captured.gradients[self.layer])


@dataclass(frozen=True)
class Method:
    """A saliency method: ``compute`` gives raw maps (T, h, w) for a query."""

    name: str
    title: str
    source: str
    compute: Callable[[Query], Tensor]

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: its formula."""
        return (self.compute.__doc__ or "").strip().splitlines()[0]


METHODS: dict[str, Method] = {}


def method(
    name: str, *, title: str, source: str
) -> Callable[[Callable[[Query], Tensor]], Callable[[Query], Tensor]]:
    """Register a function as a saliency method; its docstring starts with its formula.

    Raises ``ValueError`` for a name that is taken.
    """

    def register(compute: Callable[[Query], Tensor]) -> Callable[[Query], Tensor]:
        if name in METHODS:
            raise ValueError(f"a method called {name!r} is registered already")
        METHODS[name] = Method(name, title, source, compute)
        return compute

    return register


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
