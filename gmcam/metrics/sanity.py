"""Sanity checks: does a map change when the network forgets what it has learned?

Adebayo et al., *Sanity Checks for Saliency Maps*, 2018: the layers' weights are drawn anew, from the
logits down, and the map is compared with that of the trained network. A map that stays as it was does
not show what the network has learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmcam.capture import trace
from gmcam.explaining import NamedTarget, explain
from gmcam.network import Network
from gmcam.reading import ImageSource


@dataclass(frozen=True)
class Stage:
    """How much T maps still look like the trained network's after ``layer`` was drawn anew.

    ``layer``: dotted path. ``rank_correlation`` (T,): Spearman's ρ over the pixels; NaN where one of
    the two maps is flat, for it ranks nothing. ``similarity`` (T,): SSIM, in which a flat map, which is
    all zeros, takes part.
    """

    layer: str
    rank_correlation: np.ndarray
    similarity: np.ndarray


def layers_from_logits(network: Network) -> dict[str, list[str]]:
    """What is drawn anew together: dotted path of a layer → paths of its modules, from the logits down.

    A layer is a module with weights of two dimensions or more (a convolution, a linear layer), and
    with it the modules that run after it, before the next, and hold vectors alone (batch norms). A
    module that does not run by itself goes with the one around it; one that does not run at all, or
    has no ``reset_parameters``, is left out. Raises ``ValueError`` where that leaves nothing.
    """
    visits, _ = trace(network.module, network.prepare(torch.zeros(1, *network.input_shape)))
    layers: list[list[str]] = []
    placed: set[str] = set()
    for visit in visits:
        parts = network.module.get_submodule(visit.name).named_modules(prefix=visit.name)
        own = {name: state for name, part in parts if name not in placed and (state := _state(part))}
        if layers and all(tensor.ndim < 2 for state in own.values() for tensor in state):
            layers[-1] += own
        elif own:
            layers.append(list(own))
        placed |= own.keys()
    if not layers:
        raise ValueError(f"{network.name} has no layer with weights and a method reset_parameters")
    return {modules[0]: modules for modules in reversed(layers)}


def randomised(
    network: Network, cascading: bool, seed: int = 0, stages: Sequence[str] | None = None
) -> Iterator[tuple[str, Network]]:
    """The network with one layer drawn anew after the other, from the logits down: (path, copy).

    ``cascading``: that layer and all between it and the logits; else that layer alone, the others as
    they were trained. Each module draws by its own ``reset_parameters``, from a stream of random
    numbers that depends on ``seed`` and on the layer, so that both ways give a layer the same weights
    on any device. Batch norms forget their statistics with it. ``stages``: the paths to give, of
    those in ``layers_from_logits``; None for all.

    Each copy is made when it is asked for, and is a ``Network`` like the caller's in all but its
    weights. The caller's network and the global random state stay as they are. Raises ``ValueError``
    for a stage that there is not, or a network of which nothing can be drawn anew.
    """
    layers = layers_from_logits(network)
    names = list(layers)
    for name in names if stages is None else stages:
        if name not in layers:
            raise ValueError(f"{name!r} is no layer that can be drawn anew; there are {', '.join(names)}")
    seeds = torch.randint(2**62, (len(names),), generator=torch.Generator().manual_seed(seed)).tolist()

    def draw(index: int) -> Network:
        first = 0 if cascading else index
        return _drawn_anew(network, [(layers[names[i]], seeds[i]) for i in range(first, index + 1)])

    return ((name, draw(i)) for i, name in enumerate(names) if stages is None or name in stages)


def sanity_check(
    network: Network,
    images: Tensor | ImageSource | Sequence[ImageSource],
    targets: NamedTarget = None,
    method: str = "gmcam",
    layer: str | None = None,
    *,
    cascading: bool = True,
    seed: int = 0,
    stages: Sequence[str] | None = None,
    **options: Any,
) -> list[Stage]:
    """Compare a method's maps with those it gives while the network is ``randomised``, stage by stage.

    ``images``, ``targets``, ``layer`` and ``options`` as ``explain`` takes them; without targets, each
    picture's top class in the trained network is explained throughout. Compared are the finished
    maps, (T, H, W) in [0, 1], at least 7 × 7. One copy of the network is held at a time. Raises
    ``ValueError`` like ``explain`` and ``randomised``.
    """
    inputs = network.prepare(images)
    trained = explain(network, inputs, targets, method=method, layer=layer, **options)
    records = []
    for name, twin in randomised(network, cascading, seed, stages):
        maps = explain(twin, inputs, trained.target, method=method, layer=layer, **options).maps
        del twin  # or the next copy would be made beside it
        pairs = [(a.numpy(), b.numpy()) for a, b in zip(trained.maps.cpu(), maps.cpu(), strict=True)]
        ranks, similarity = (np.array([f(*pair) for pair in pairs]) for f in (_rank_correlation, _ssim))
        records.append(Stage(name, ranks, similarity))
    return records


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # type: ignore[import-untyped]  # heavy, and used here alone

    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    from skimage.metrics import structural_similarity  # heavy, and used here alone

    return float(structural_similarity(one, other, data_range=1.0))  # type: ignore[no-untyped-call]


def _drawn_anew(network: Network, layers: Sequence[tuple[Sequence[str], int]]) -> Network:
    """A copy whose ``layers``, paths of modules with a seed each, have new weights."""
    twin = copy.copy(network)
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        twin.module = copy.deepcopy(network.module)
        for names, seed in layers:
            torch.default_generator.manual_seed(seed)
            for name in names:
                part = twin.module.get_submodule(name)
                reset = _reset(part)
                assert reset is not None
                home = _state(part)[0].device
                part.to("cpu")  # the same numbers on any device, and no other generator is touched
                reset()
                part.to(home)
    return twin


def _state(module: nn.Module) -> list[Tensor]:
    """What the module draws anew by itself: its own weights and statistics, if it can."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)] if _reset(module) else []


def _reset(module: nn.Module) -> Callable[[], None] | None:
    if isinstance(module, nn.MultiheadAttention):  # it keeps its own to itself
        return module._reset_parameters
    return getattr(module, "reset_parameters", None)
