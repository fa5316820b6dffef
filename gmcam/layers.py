"""Which layers of a network give maps, and which of them a reader would want to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gmcam.capture import Visit, trace

# They pass a map on unchanged in evaluation mode, so they are never the layer one means.
_TRANSPARENT = (nn.Dropout, nn.Dropout2d, nn.Identity)


@dataclass(frozen=True)
class Layers:
    """``shapes``: dotted path → (K, h, w) of every module that gives one map per pass, in the order
    they run. ``stages``: readable name, such as ``14x14``, → dotted path of the last map at that
    resolution; the last stage is the last convolutional map."""

    shapes: dict[str, tuple[int, int, int]]
    stages: dict[str, str]


def discover(
    module: nn.Module,
    inputs: Tensor,
    reshape: Callable[[Tensor], Tensor] | None = None,
    last: str | None = None,
) -> Layers:
    """Run the network once and find its maps.

    A stage is named by its resolution; its map is the last output of that resolution among the least
    nested modules (``layer1`` rather than ``layer2.0.bn1`` in a ResNet). Resolutions at which nothing
    is convolved do not count, nor does a final convolution that gives one map per class. (The last
    convolution of an embedding looks like one where it has as many channels as the embedding has
    numbers: ``last`` names it.) With ``reshape``, every output that it makes maps of counts. ``last``
    takes the place of the last stage's map. Raises ``ValueError`` for a network without a
    convolutional map, and for a transformer with neither ``reshape`` nor ``last``.
    """
    visits, logits = trace(module, inputs)
    if reshape is not None:
        visits = [replace(v, shape=_shape_after(reshape, v.shape)) for v in visits]
    elif last is None and _gives_tokens(visits):
        raise ValueError(
            "this network makes tokens of its only convolution's map, as a transformer does: say with "
            "gmcam.Network(module, reshape=…) how they lie in the picture, or name a layer"
        )
    classes = logits.shape[1] if logits.ndim > 1 else 0
    visits = _before_scores(module, visits, classes, last)
    maps = [
        visit
        for visit in visits
        if len(visit.shape) == 4
        and visit.shape[2] * visit.shape[3] > 1
        and visit.calls == 1
        and not issubclass(visit.kind, _TRANSPARENT)
    ]
    convolved = [visit.shape[2:] for visit in maps if reshape or issubclass(visit.kind, nn.Conv2d)]
    if not convolved:
        raise ValueError("this network has no convolutional layer whose output has height and width")
    final = next((visit.shape[2:] for visit in maps if visit.name == last), convolved[-1])
    stages = {}
    # From fine to coarse; the last convolution's resolution comes last, also in a decoder.
    for size in [*sorted(set(convolved) - {final}, reverse=True), final]:
        group = [visit.name for visit in maps if visit.shape[2:] == size]
        depth = min(name.count(".") for name in group)
        stages[f"{size[0]}x{size[1]}"] = [name for name in group if name.count(".") == depth][-1]
    if last is not None:
        stages[f"{final[0]}x{final[1]}"] = last
    return Layers(
        shapes={visit.name: (visit.shape[1], visit.shape[2], visit.shape[3]) for visit in maps},
        stages=stages,
    )


def _shape_after(reshape: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that ``reshape`` gives such an output; () where it does not fit."""
    try:
        return tuple(reshape(torch.empty(shape)).shape)
    except (RuntimeError, ValueError, IndexError):
        return ()


def _gives_tokens(visits: list[Visit]) -> bool:
    """Whether a linear layer runs over (N, …, K) behind the only convolution: it cut the picture into
    patches. Behind several, that may be attention at the end of a convolutional network."""
    convolutions = [i for i, visit in enumerate(visits) if issubclass(visit.kind, nn.Conv2d)]
    return len(convolutions) == 1 and any(
        issubclass(visit.kind, nn.Linear) and len(visit.shape) > 2 for visit in visits[convolutions[0] :]
    )


def _before_scores(module: nn.Module, visits: list[Visit], classes: int, last: str | None) -> list[Visit]:
    """The visits before a convolution that ends the network by giving one map per class.

    One channel per number of the output is all that tells it from other convolutions, so the body of
    an embedding may be taken for it. It is not where ``last``, a layer that is asked for, lies there.
    """
    modules = dict(module.named_modules())
    own = [
        i for i, v in enumerate(visits) if next(modules[v.name].parameters(recurse=False), None) is not None
    ]
    if not own:
        return visits
    final = visits[own[-1]]
    scores = issubclass(final.kind, nn.Conv2d) and final.shape[1:2] == (classes,)
    asked = any(visit.name == last for visit in visits[own[-1] :])
    return visits[: own[-1]] if scores and not asked else visits
