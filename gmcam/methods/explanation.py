"""``explain``: one call for every method, network and picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gmcam.capture import Target
from gmcam.images.reading import Picture
from gmcam.methods.registry import METHODS, Query
from gmcam.networks.network import Network
from gmcam.postprocess import DEFAULT_SIGMA, postprocess

NamedTarget = Target | str | Sequence[str | int]


@dataclass(frozen=True)
class Result:
    """``T`` saliency maps and what they belong to.

    ``maps`` (T, H, W) float32 in [0, 1], at the size of the network's input. ``raw`` (T, h, w), the
    method's own values at the layer's resolution, before any post-processing. ``empty`` (T,) bool:
    the raw map was flat, so ``maps`` holds zeros. ``score`` (T,): the logits explained. ``target``:
    (T,) class indices, or the function that made the scores. ``probabilities`` (N, classes): the
    softmax of the logits, None where the output is not (N, classes).
    """

    maps: Tensor
    raw: Tensor
    empty: Tensor
    score: Tensor
    target: Tensor | Callable[[Tensor], Tensor]
    probabilities: Tensor | None
    layer: str
    method: str
    network: Network = field(repr=False)

    def label(self, index: int) -> str:
        """What map number ``index`` explains, in words."""
        if isinstance(self.target, Tensor):
            return self.network.class_name(int(self.target[index]))
        return getattr(self.target, "__name__", "score")


def explain(
    network: Network | nn.Module,
    images: Tensor | Picture | Sequence[Picture],
    targets: NamedTarget = None,
    *,
    method: str = "gmcam",
    layer: str | None = None,
    sigma: float = DEFAULT_SIGMA,
) -> Result:
    """Saliency maps of ``images`` for ``targets``.

    ``network``: a ``Network``, or any ``torch.nn.Module`` from (N, 3, H, W) to logits. ``images``: a
    picture or a list of them (path, PIL, array), or a preprocessed tensor (N, 3, H, W).
    ``targets``: a class name or index for all pictures; a list of them, one per picture, or any
    number for a single picture; a function from logits to one scalar per picture; None for each
    picture's top class. ``method``: a name in ``METHODS``. ``layer``: readable name or dotted path,
    None for the last convolutional map. ``sigma``: smoothing in cells of the layer's map, 0 for none.

    The network is left as it was found. Raises ``ValueError`` with one sentence for anything that
    does not fit.
    """
    if method not in METHODS:
        raise ValueError(f"no method is called {method!r}; there are {', '.join(METHODS)}")
    if not isinstance(network, Network):
        network = Network(network)
        if isinstance(images, Tensor) and images.ndim >= 3:
            network.input_shape = (images.shape[-3], images.shape[-2], images.shape[-1])
    query = Query(network, network.prepare(images), _indices(network, targets), network.layer_path(layer))
    raw = METHODS[method].compute(query)
    maps, empty = postprocess(raw, (query.inputs.shape[2], query.inputs.shape[3]), sigma)
    captured = query.captured
    probabilities = captured.logits.float().softmax(1) if captured.logits.ndim == 2 else None
    return Result(
        maps=maps,
        raw=raw,
        empty=empty,
        score=captured.scores,
        target=captured.target,
        probabilities=probabilities,
        layer=query.layer,
        method=method,
        network=network,
    )


def _indices(network: Network, targets: NamedTarget) -> Target:
    """Class names to indices; everything else as it is."""
    if isinstance(targets, str | int) and not isinstance(targets, bool):
        return network.class_index(targets)
    if isinstance(targets, list | tuple):
        return torch.tensor([network.class_index(target) for target in targets], dtype=torch.long)
    return targets  # type: ignore[return-value]  # no names are left in it
