"""Sanity checks: does a map change when the weights are drawn again, layer by layer from the logits down?
If not, it does not show what the network learned. Adebayo et al., *Sanity Checks for Saliency Maps*, 2018."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmcam._extras import require
from gmcam.capture import Layer
from gmcam.explaining import NamedTarget, explain
from gmcam.layers import trace
from gmcam.network import Images, Network


@dataclass(frozen=True, eq=False)
class Stage:
    """Agreement of T maps with the trained network's after ``layer``, a dotted path, was randomised:
    ``rank_correlation`` (T,), Spearman's ρ over the pixels, NaN for a flat map; ``similarity`` (T,), SSIM."""

    layer: str
    rank_correlation: np.ndarray
    similarity: np.ndarray


def layers_from_logits(network: Network) -> dict[str, list[str]]:
    """What is randomised together: dotted path of a layer → paths of its modules, from the logits down.
    A layer is a module with weights of two dimensions or more (a convolution, a linear layer), together with
    the modules between it and the next that have vectors only (batch norms). Modules that do not run belong
    to the one around them; those without ``reset_parameters`` are left out; ``ValueError`` if all are."""
    visits, _ = trace(network.module, network.prepare(torch.zeros(1, *network.input_shape)))
    layers: list[list[str]] = []
    placed: set[str] = set()
    for visit in visits:
        parts = network.module.get_submodule(visit.name).named_modules(prefix=visit.name)
        states = {name: state for name, part in parts if name not in placed and (state := _state(part))}
        if layers and all(tensor.ndim < 2 for state in states.values() for tensor in state):
            layers[-1] += states
        elif states:
            layers.append(list(states))
        placed |= states.keys()
    if not layers:
        raise ValueError(f"expected layers with reset_parameters, got none in {network.name}: define it")
    return {modules[0]: modules for modules in reversed(layers)}


def randomised(
    network: Network, cascading: bool, seed: int = 0, stages: Sequence[str] | None = None
) -> Iterator[tuple[str, Network]]:
    """Copies of the network, each with one more layer randomised, from the logits down: (path, copy).
    ``cascading``: randomise that layer and all between it and the logits; otherwise that layer alone. Each
    module draws by its ``reset_parameters``, seeded by ``seed`` and the layer: both ways give a layer the
    same weights, on any device. Batch norms lose their statistics too. ``stages``: paths to include; default
    all. Network and global random state are left as found. ``ValueError``: unknown stage, no layers."""
    names = list(layers := layers_from_logits(network))
    for name in (name for name in stages or () if name not in layers):
        raise ValueError(f"expected stages among {', '.join(names)}, got {name!r}: choose from these")
    seeds = torch.randint(2**62, (len(names),), generator=torch.Generator().manual_seed(seed)).tolist()

    def redrawn(index: int) -> Network:
        twin = copy.copy(network)
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            twin.module = copy.deepcopy(network.module)
            for i in range(0 if cascading else index, index + 1):
                torch.default_generator.manual_seed(seeds[i])
                for part in map(twin.module.get_submodule, layers[names[i]]):
                    device = _state(part)[0].device
                    part.to("cpu")  # the same numbers on any device, and no other generator is used
                    _reset(part)()
                    part.to(device)
        return twin

    return ((name, redrawn(i)) for i, name in enumerate(names) if stages is None or name in stages)


def sanity_check(
    network: Network,
    image: Images,
    target: NamedTarget = None,
    method: str = "gmcam",
    layer: Layer | None = None,
    *,
    cascading: bool = True,
    seed: int = 0,
    stages: Sequence[str] | None = None,
    **options: Any,
) -> list[Stage]:
    """Compare a method's maps before and after the network is ``randomised``, stage by stage.
    Arguments and errors as in ``explain`` and ``randomised``; without a target, the trained network's top
    class is explained throughout. Compared are the finished maps (T, H, W), at least 7 × 7."""
    inputs = network.prepare(image)
    trained = explain(network, inputs, target, method=method, layer=layer, **options)
    layer = None if layer is None else network.layer_path(layer)  # a module is the original's alone
    structural_similarity = require("skimage.metrics", "lab").structural_similarity
    spearman = require("scipy.stats", "evaluate").spearmanr
    records = []
    for name, twin in randomised(network, cascading, seed, stages):
        maps = explain(twin, inputs, trained.target, method=method, layer=layer, **options).maps
        del twin  # frees it before the next copy is made
        pairs = list(zip(trained.maps.cpu().numpy(), maps.cpu().numpy(), strict=True))
        flat = [min(map(np.ptp, pair)) == 0 for pair in pairs]
        rho = [np.nan if flat[i] else spearman(*map(np.ravel, pair))[0] for i, pair in enumerate(pairs)]
        similar = [structural_similarity(*pair, data_range=1.0) for pair in pairs]
        records.append(Stage(name, np.array(rho), np.array(similar)))
    return records


def _state(module: nn.Module) -> list[Tensor]:
    """The module's weights and statistics, without its children's, if it can reset them."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)] if _reset(module) else []


def _reset(module: nn.Module) -> Any:
    private = isinstance(module, nn.MultiheadAttention)
    return getattr(module, "_reset_parameters" if private else "reset_parameters", None)
