"""The registry of saliency methods, and what a method is given.

A method is one function from a ``Query`` to raw maps (T, h, w). Registering it under a name puts it
within reach of ``explain``, of the command line and of the tests that run over all methods.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from tqdm import tqdm

from gmcam.capture import INPUT, Capture, Target, capture
from gmcam.network import Network

_Item = TypeVar("_Item")
_COUNTS = ("chunk_size", "steps", "samples", "sizes", "share", "seed")


@dataclass(frozen=True)
class Query:
    """What is to be explained: ``network``, ``inputs`` (N, 3, H, W), ``layer`` (a dotted path), and
    ``captured``, the pass at that layer. ``targets`` as they were asked for; ``captured.target`` holds
    the T that they came to: one per picture, or any number for a single picture.

    Most methods need no more than the feature maps ``M`` and gradient maps ``C``, (T, K, h, w).
    """

    network: Network
    inputs: Tensor
    targets: Target
    layer: str
    captured: Capture

    @property
    def M(self) -> Tensor:
        """Feature maps, in float32 at least."""
        return self._as_maps(self.captured.maps)

    @property
    def C(self) -> Tensor:
        """Gradient maps, in float32 at least."""
        return self._as_maps(self.captured.gradients)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.inputs.shape[2], self.inputs.shape[3]

    def rows(self, indices: Tensor | None = None) -> tuple[Tensor, Target]:
        """A picture and a target for each of the T maps, or for those of ``indices``."""
        target = self.captured.target
        pictures = self.inputs.expand(len(self.captured.scores), -1, -1, -1)
        if indices is None:
            return pictures, target
        return pictures[indices], target[indices] if isinstance(target, Tensor) else target

    def again(self, inputs: Tensor, target: Target) -> Capture:
        """The pass at the same layer for other inputs."""
        tokens = self.network.reshape is not None
        return capture(self.network.module, inputs, target, [self.layer], any_shape=tokens)

    def scores(self, logits: Tensor, picture: int) -> Tensor:
        """For output (B, …) of variants of one picture: the scores of its targets, (B, targets)."""
        target = self.captured.target
        if not isinstance(target, Tensor):
            return target(logits).unsqueeze(1)
        return logits[:, target if len(self.inputs) == 1 else target[picture : picture + 1]]

    def _as_maps(self, found: Mapping[str, Tensor]) -> Tensor:
        maps = self.network.as_maps(found[self.layer])
        return maps.float() if maps.dtype.itemsize < 4 else maps


@dataclass(frozen=True)
class Method:
    """A saliency method: ``compute`` gives raw maps (T, h, w) for a query.

    ``keeps``: for a method that explains the network as a whole, what its pass keeps (the layer that
    is asked for plays no part); None where it explains a layer. ``gradients``: it needs the gradients
    of what is kept. ``convolutional``: it is not defined on a transformer's tokens.
    """

    name: str
    title: str
    source: str
    compute: Callable[..., Tensor]
    keeps: Callable[[nn.Module], list[str]] | None
    gradients: bool
    convolutional: bool

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: its formula."""
        return (self.compute.__doc__ or "").strip().splitlines()[0]

    @property
    def options(self) -> dict[str, Any]:
        """Name → default of what can be set beside the query."""
        parameters = list(inspect.signature(self.compute).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def check(self, options: Mapping[str, Any]) -> None:
        """``ValueError`` for an option that this method does not have, or a value that it cannot take."""
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise ValueError(f"{self.name} has no option {name!r}; it has {known}")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if name in _COUNTS:
                if not whole or (name != "seed" and value < 1):
                    least = "" if name == "seed" else " from 1 on"
                    raise ValueError(f"{name} is a whole number{least}, not {value!r}")
            elif name == "noise" and not ((whole or isinstance(value, float)) and 0 <= value < math.inf):
                raise ValueError(f"{name} is a number from 0 on, not {value!r}")


METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    title: str,
    source: str,
    keeps: Callable[[nn.Module], list[str]] | None = None,
    gradients: bool = True,
    convolutional: bool = False,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function as a saliency method; its docstring starts with its formula.

    A notebook's own method may be registered again, as happens when its cell is run again. Raises
    ``ValueError`` for any other name that is taken.
    """

    def register(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        again = name in METHODS and METHODS[name].compute.__module__ == compute.__module__ == "__main__"
        if name in METHODS and not again:
            raise ValueError(f"a method called {name!r} is registered already")
        METHODS[name] = Method(name, title, source, compute, keeps, gradients, convolutional)
        return compute

    return register


def no_layer(_module: nn.Module) -> list[str]:
    """What a method keeps that needs no layer: the picture."""
    return [INPUT]


def with_progress(items: Iterable[_Item], what: str) -> Iterator[_Item]:
    """The items, with a bar on stderr once they take over two seconds."""
    yield from tqdm(items, desc=what, delay=2, leave=False)
