"""The registry of saliency methods, each a function from a ``Query`` to raw maps (T, h, w)."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gmcam._hooks import Extra, extra_at, first_tensor, forward, without_gradients
from gmcam.capture import INPUT, Capture, Recording
from gmcam.chunks import is_out_of_memory
from gmcam.network import Network
from gmcam.outputs import Target, bound

Compute = Callable[..., Tensor]
with_progress = partial(tqdm, delay=2, leave=False)  # items, with a progress bar on stderr after two seconds


@dataclass(frozen=True, eq=False)
class Query:
    """What a method explains: ``network``, ``inputs`` (N, 3, H, W), ``layer`` (a dotted path), and
    ``captured``, the pass at that layer. ``target``: as requested; ``captured.target``: T indices, one per
    image, or any number for a single image. ``extra``: further inputs of the network. ``M``, ``C``: feature
    and gradient maps (T, K, h, w), in float32 at least, all that most methods need. ``size``: (H, W) of the
    maps to be returned; of signals (T,), of volumes (D, H, W)."""

    network: Network
    inputs: Tensor
    target: Target
    layer: str
    captured: Capture
    extra: Extra = ()

    @property
    def M(self) -> Tensor:
        maps = self.captured.maps[self.layer]
        return maps.float() if maps.dtype.itemsize < 4 else maps

    @property
    def C(self) -> Tensor:
        gradients = self.captured.gradients[self.layer]
        return gradients.float() if gradients.dtype.itemsize < 4 else gradients

    @property
    def size(self) -> tuple[int, ...]:
        return self.network.size_of(self.inputs)

    def rows(self, indices: Tensor | None = None) -> tuple[Tensor, Target, Extra]:
        """An image, a target and further inputs for each of the T maps, or for those at ``indices``.

        A target function is bound to the images. ``ValueError`` for a network that depends on its batch."""
        rows = torch.arange(len(self.captured.scores)) if indices is None else indices
        images, target = self.images_at(rows), self.captured.target
        at = images.to(self.inputs.device)
        target = target[rows.to(target.device)] if isinstance(target, Tensor) else bound(target, images)
        return self.inputs[at], target, self.extra_at(images)

    def images_at(self, rows: Tensor) -> Tensor:
        """The image's index of each of these maps."""
        return rows if len(self.inputs) == len(self.captured.scores) else torch.zeros_like(rows)

    def extra_at(self, images: Tensor) -> Extra:
        """The further inputs of a new batch made of these images, see ``rows``."""
        self._check_batch  # noqa: B018  (computed once)
        return extra_at(self.extra, images, len(self.inputs))

    @cached_property
    def _check_batch(self) -> None:
        """Image 0 alone must give row 0 of the batch, or a batch made anew would be a different question."""
        if len(self.inputs) < 2:
            return
        first, target = torch.zeros(1, dtype=torch.long), self.captured.target
        try:
            with without_gradients(self.network.module):
                extra = extra_at(self.extra, first, len(self.inputs))
                output = forward(self.network.module, self.inputs[:1], extra)
                if isinstance(target, Tensor):
                    alone, row = self.network.logits_of(output), self.captured.logits[:1]
                else:
                    alone, row = bound(target, first)(output), self.captured.scores[:1]
            gap = (alone - row).abs().max() / row.abs().max().clamp(min=1e-6)
            if alone.shape == row.shape and gap <= (5e-2 if row.dtype.itemsize < 4 else 1e-2):
                return
            cause = f"its output differs by {gap:.1%}"
        except (RuntimeError, ValueError, IndexError, TypeError) as error:  # as for shapes that do not fit
            if is_out_of_memory(error):
                raise
            cause = f"it fails: {next(iter(str(error).splitlines()), type(error).__name__)}"
        raise ValueError(
            "expected images that do not influence each other, got a network or target that depends on its "
            f"batch (for image 0 alone {cause}): give one image at a time, pass what belongs to each image "
            "as extra=, or give the target function a second parameter, the images' indices"
        )

    def again(self, inputs: Tensor, target: Target, extra: Extra | None = None, **changed: Any) -> Capture:
        """The pass at the same layer for other inputs; of the same images, unless ``extra`` is given.
        ``changed``: further arguments of ``Recording``, such as another ``module``."""
        network, extra = self.network, self.extra if extra is None else extra
        given: dict[str, Any] = {"module": network.module, "layer": self.layer, "arrange": network.as_maps}
        given |= {"read": network.logits_of, "extra": extra} | changed
        return Recording(inputs=inputs, **given).capture(target)

    def scores(self, output: Any, image: int, probability: bool = False) -> Tensor:
        """Scores (B, targets) of one image's targets, or the classes' probabilities, from the network's own
        output for B variants of that image. A target function has no probability, only a score."""
        target = self.captured.target
        if not isinstance(target, Tensor):
            logits = first_tensor(output)
            count = 1 if logits is None else len(logits)
            return bound(target, torch.full((count,), image))(output).unsqueeze(1)
        network = self.network
        by_probability = probability and network.output is not None
        values = network.probabilities_of(output) if by_probability else network.logits_of(output)
        return values[:, target if len(self.inputs) == 1 else target[image : image + 1]]


@dataclass(frozen=True)
class Method:
    """A saliency method: ``compute`` maps a query to raw maps (T, h, w).

    ``keeps``: for a method that explains the network as a whole, the layers its pass keeps; None where it
    explains one layer. ``gradients``: it needs gradients of what is kept. ``convolutional``: it is not
    defined on a transformer's tokens. ``signed``: raw values may be negative, evidence against the target.
    ``images_only``: it is not defined on signals and volumes. ``needs_target``: False if it ignores it."""

    name: str
    title: str
    source: str
    compute: Compute
    keeps: Callable[[nn.Module], list[str]] | None = None
    gradients: bool = True
    convolutional: bool = False
    signed: bool = False
    images_only: bool = False
    needs_target: bool = True

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

    ``fields``: those of ``Method`` from ``keeps`` on. ``ValueError`` for a name that is taken, unless by the
    same notebook, whose cells may run again."""

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
