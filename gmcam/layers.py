"""Which layers of a network give maps, and the few of them that a reader would choose."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gmcam._hooks import first_tensor, left_as_found, output_of

Reshape = Callable[[Tensor], Tensor]
# They return their input in evaluation mode, so they are never the layer that is meant.
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Identity)


class Visit(NamedTuple):
    """One module's part in a forward pass: the shape of its output, and how often it ran."""

    name: str
    kind: type[nn.Module]
    shape: tuple[int, ...]
    calls: int


def trace(module: nn.Module, inputs: Tensor) -> tuple[list[Visit], Tensor]:
    """Run the network once: its modules that give a tensor, in the order they finished, and the output."""
    visits: dict[str, Visit] = {}

    def note(name: str, layer: nn.Module, _arguments: Any, output: Any) -> None:
        if (tensor := first_tensor(output)) is not None:
            calls = visits.pop(name).calls + 1 if name in visits else 1
            visits[name] = Visit(name, type(layer), tuple(tensor.shape), calls)

    with torch.inference_mode(False), torch.no_grad(), left_as_found(module), ExitStack() as stack:
        for name, part in module.named_modules():
            if name and not isinstance(part, torch.jit.ScriptModule):  # it takes no hooks
                stack.callback(part.register_forward_hook(partial(note, name)).remove)
        output = output_of(module, inputs)
    return list(visits.values()), output


def discover(
    module: nn.Module, inputs: Tensor, reshape: Reshape | None = None, last: str | None = None
) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
    """Run the network once and list its maps and stages, as ``Network.map_shapes`` and ``Network.layers``.

    A stage is named by its resolution; its map is the last output of that resolution among the least nested
    modules (``layer1`` rather than ``layer2.0.bn1`` in a ResNet). Resolutions without a convolution do not
    count, nor does a final convolution with one map per class that ``last`` does not name. With ``reshape``,
    every output that it turns into maps counts. ``last`` replaces the last stage's map. Raises ``ValueError``
    without a convolutional map, and for a transformer with neither ``reshape`` nor ``last``.
    """
    visits, output = trace(module, inputs)
    # A transformer cuts the image up by its only convolution; then its linear layers run over (N, …, K).
    convolutions = [i for i, visit in enumerate(visits) if issubclass(visit.kind, nn.Conv2d)]
    later = visits[convolutions[0] :] if len(convolutions) == 1 else []
    tokens = any(issubclass(visit.kind, nn.Linear) and len(visit.shape) > 2 for visit in later)
    if reshape is not None:
        for i, visit in enumerate(visits):
            shape: tuple[int, ...] = ()
            with suppress(RuntimeError, ValueError, IndexError):
                shape = tuple(reshape(torch.empty(visit.shape)).shape)
            visits[i] = visit._replace(shape=shape)
    elif last is None and tokens:
        remedy = "arrange them by gmcam.Network(module, reshape=…), or name a layer"
        raise ValueError(f"expected convolutional maps, got the tokens of a transformer: {remedy}")
    visits = _before_scores(module, visits, output.shape[1] if output.ndim > 1 else 0, last)
    once = [v for v in visits if len(v.shape) == 4 and v.calls == 1 and not issubclass(v.kind, _TRANSPARENT)]
    maps = [visit for visit in once if visit.shape[2] * visit.shape[3] > 1]
    convolved = [visit.shape[2:] for visit in maps if reshape or issubclass(visit.kind, nn.Conv2d)]
    if not convolved:
        raise ValueError("expected a convolutional layer with height and width, got none: name a layer")
    final = next((visit.shape[2:] for visit in maps if visit.name == last), convolved[-1])
    stages = {}
    # From fine to coarse; the last convolution's resolution comes last, also in a decoder.
    for size in [*sorted(set(convolved) - {final}, reverse=True), final]:
        names = [visit.name for visit in reversed(maps) if visit.shape[2:] == size]
        stages[f"{size[0]}x{size[1]}"] = min(names, key=lambda name: name.count("."))
    if last is not None:
        stages[f"{final[0]}x{final[1]}"] = last
    return {v.name: (v.shape[1], v.shape[2], v.shape[3]) for v in maps}, stages


def _before_scores(module: nn.Module, visits: list[Visit], classes: int, last: str | None) -> list[Visit]:
    """The visits before a final convolution with one map per class, unless ``last`` is it or a later one."""
    modules = dict(module.named_modules())
    end = max((i for i, visit in enumerate(visits) if modules[visit.name]._parameters), default=0)
    scores = visits and issubclass(visits[end].kind, nn.Conv2d) and visits[end].shape[1:2] == (classes,)
    return visits[:end] if scores and all(visit.name != last for visit in visits[end:]) else visits
