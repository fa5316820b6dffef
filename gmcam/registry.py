"""The registry of saliency methods, each a function from a ``Query`` to raw maps (T, h, w)."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from tqdm import tqdm

from gmcam.capture import INPUT, Capture, capture
from gmcam.network import Network
from gmcam.outputs import Target

_Item = TypeVar("_Item")
Compute = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Query:
    """What a method explains: ``network``, ``inputs`` (N, 3, H, W), ``layer`` (a dotted path), and
    ``captured``, the pass at that layer. ``target``: as requested; ``captured.target``: T indices, one per
    image, or any number for a single image. ``M``, ``C``: feature and gradient maps (T, K, h, w), in float32
    at least, all that most methods need. ``size``: the input's (H, W).
    """

    network: Network
    inputs: Tensor
    target: Target
    layer: str
    captured: Capture

    @property
    def M(self) -> Tensor:
        return self._as_maps(self.captured.maps)

    @property
    def C(self) -> Tensor:
        return self._as_maps(self.captured.gradients)

    def _as_maps(self, by_layer: Mapping[str, Tensor]) -> Tensor:
        maps = self.network.as_maps(by_layer[self.layer])
        return maps.float() if maps.dtype.itemsize < 4 else maps

    @property
    def size(self) -> tuple[int, int]:
        return self.inputs.shape[2], self.inputs.shape[3]

    def rows(self, indices: Tensor | None = None) -> tuple[Tensor, Target]:
        """An image and a target for each of the T maps, or for those at ``indices``."""
        images, target = self.inputs.expand(len(self.captured.scores), -1, -1, -1), self.captured.target
        at = slice(None) if indices is None else indices
        return images[at], target[at] if isinstance(target, Tensor) else target

    def again(self, inputs: Tensor, target: Target) -> Capture:
        """The pass at the same layer for other inputs."""
        tokens = self.network.reshape is not None
        return capture(self.network.module, inputs, target, self.layer, any_shape=tokens)

    def scores(self, logits: Tensor, image: int) -> Tensor:
        """Scores (B, targets) of one image's targets, from the output (B, …) for B variants of that image."""
        target = self.captured.target
        if not isinstance(target, Tensor):
            return target(logits).unsqueeze(1)
        return logits[:, target if len(self.inputs) == 1 else target[image : image + 1]]


@dataclass(frozen=True)
class Method:
    """A saliency method: ``compute`` maps a query to raw maps (T, h, w).

    ``keeps``: for a method that explains the network as a whole, the layers its pass keeps; None where it
    explains one layer. ``gradients``: it needs gradients of what is kept. ``convolutional``: it is not
    defined on a transformer's tokens. ``signed``: raw values may be negative, evidence against the target.
    """

    name: str
    title: str
    source: str
    compute: Compute
    keeps: Callable[[nn.Module], list[str]] | None = None
    gradients: bool = True
    convolutional: bool = False
    signed: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: its formula."""
        return (self.compute.__doc__ or "").strip().splitlines()[0]

    @property
    def options(self) -> dict[str, Any]:
        """Name → default of each option."""
        parameters = list(inspect.signature(self.compute).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` for an unknown option, or a value of another type than the default's."""
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise ValueError(f"expected an option of {self.name}, got {name!r}: its options are {known}")
            default, numbers = self.options[name], {int: int, float: int | float}
            kind = numbers.get(type(default), type(default) if isinstance(default, bool | str) else object)
            if not isinstance(value, kind) or (isinstance(value, bool) and type(default) in numbers):
                raise ValueError(f"expected a value like {default!r} for {name}, got {value!r}: fix its type")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"expected a finite number for {name}, got {value!r}: default {default!r}")


METHODS: dict[str, Method] = {}


def method(name: str, *, title: str, source: str, **fields: Any) -> Callable[[Compute], Compute]:
    """Register a function as a saliency method; its docstring starts with its formula.

    ``fields``: ``keeps``, ``gradients``, ``convolutional`` and ``signed`` of ``Method``. Raises
    ``ValueError`` for a name that is taken, unless by the same notebook, whose cells may run again.
    """

    def register(compute: Compute) -> Compute:
        again = name in METHODS and METHODS[name].compute.__module__ == compute.__module__ == "__main__"
        if name in METHODS and not again:
            raise ValueError(f"expected a new name, got {name!r}, which is registered: choose another")
        METHODS[name] = Method(name, title, source, compute, **fields)
        return compute

    return register


def find_method(name: str) -> Method:
    """The method of a name in any spelling ("GradCAM", "grad-cam++"); ``ValueError`` with close names."""
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    plain = {_plain(registered): registered for registered in METHODS}
    if _plain(name) in plain:
        return METHODS[plain[_plain(name)]]
    near = [plain[key] for key in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)]
    hint = f"the closest are {', '.join(near)}" if near else f"there are {', '.join(METHODS)}"
    raise ValueError(f"expected the name of a method, got {name!r}: {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", str(name).casefold().replace("+", "p"))


def require_counts(**counts: int) -> None:
    """Raise ``ValueError`` unless every value is a whole number from 1 on."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"expected a whole number from 1 on for {name}, got {value!r}: raise it")


def no_layer(_module: nn.Module) -> list[str]:
    """``keeps`` of a method that needs no layer: the input."""
    return [INPUT]


def with_progress(items: Iterable[_Item], label: str) -> Iterator[_Item]:
    """The items, with a progress bar on stderr after two seconds."""
    yield from tqdm(items, desc=label, delay=2, leave=False)
