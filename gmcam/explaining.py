"""``explain``: one call for every method, network and picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from gmcam.capture import INPUT, Capture, Target, captures, joined
from gmcam.methods import METHODS
from gmcam.network import Network
from gmcam.postprocess import DEFAULT_SIGMA, postprocess
from gmcam.reading import ImageSource
from gmcam.registry import Method, Query

NamedTarget = Target | str | Sequence[str | int]
Anything = Network | nn.Module
Images = Tensor | ImageSource | Sequence[ImageSource]
Layers = list[str] | tuple[str, ...]
CLASSES_AT_A_TIME = 64  # of one picture: more are no faster, and their gradients fill the memory


FUSE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.mean(0),
    "max": lambda maps: maps.amax(0),
    "product": lambda maps: maps.prod(0),
}


@dataclass(frozen=True)
class Result:
    """``T`` saliency maps and what they belong to.

    ``maps`` (T, H, W) float32 in [0, 1], at the size of the network's input. ``raw`` (T, h, w), the
    method's own values before any post-processing; of fused layers, their normalised maps put
    together. ``empty`` (T,) bool: the raw map was flat, so ``maps`` holds zeros. ``score`` (T,): the
    logits explained. ``target``: (T,) class indices, or the function that made the scores.
    ``probabilities`` (N, classes): the softmax of the logits, None where the output is not
    (N, classes). ``layer``: dotted path, ``<input>`` for a method that does not explain a layer, and
    several with commas between them where they were fused.
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


@overload
def explain(
    network: Anything, images: Images, targets: NamedTarget = None, *, layer: str | None = None, **more: Any
) -> Result: ...


@overload
def explain(
    network: Anything, images: Images, targets: NamedTarget = None, *, layer: Layers, fuse: str, **more: Any
) -> Result: ...


@overload
def explain(
    network: Anything, images: Images, targets: NamedTarget = None, *, layer: Layers, **more: Any
) -> list[Result]: ...


def explain(
    network: Anything,
    images: Images,
    targets: NamedTarget = None,
    *,
    method: str = "gmcam",
    layer: str | Layers | None = None,
    fuse: str | None = None,
    sigma: float = DEFAULT_SIGMA,
    **options: Any,
) -> Result | list[Result]:
    """Saliency maps of ``images`` for ``targets``.

    ``network``: a ``Network``, or any ``torch.nn.Module`` from (N, 3, H, W) to logits. ``images``: a
    picture or a list of them (path, PIL, array), or a preprocessed tensor (N, 3, H, W).
    ``targets``: a class name or index for all pictures; a list of them, one per picture, or any
    number for a single picture; a function from logits to one scalar per picture; None for each
    picture's top class. ``method``: a name in ``METHODS``. ``layer``: readable name or dotted path,
    None for the last convolutional map; a list of them gives a list of results, at the cost of one
    pass where the method needs one, or with ``fuse`` one result: the "mean", "max" or "product" of
    the layers' maps, normalised again. ``sigma``: smoothing in cells of the raw map, 0 for none.
    ``options``: what the method takes beside these, such as ``chunk_size``, ``steps``, ``seed``.

    The network is left as it was found, and so is the global random state. Raises ``ValueError`` with
    one sentence for anything that does not fit.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> result = gmcam.explain(network, scene.image, ["cat", "cup"])
    >>> result.maps.shape, result.label(1)
    (torch.Size([2, 128, 128]), 'cup')
    >>> for one in gmcam.explain(network, scene.image, "cat", method="grad_cam", layer=["32x32", "16x16"]):
    ...     print(one.layer, tuple(one.raw.shape))
    stage3 (1, 32, 32)
    stage4 (1, 16, 16)

    With a module of your own:

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> gmcam.explain(module, torch.rand(2, 3, 8, 8), [0, 4], layer="0").maps.shape
    torch.Size([2, 8, 8])
    """
    entry = _entry(method)
    entry.check(options)
    network = as_network(network, images)
    _check_tokens(entry, network)
    several = isinstance(layer, list | tuple)
    if several and entry.keeps:
        raise ValueError(f"{method} explains no single layer, so there are none to choose from")
    if fuse is not None and not (several and isinstance(fuse, str) and fuse in FUSE):
        raise ValueError(f"fuse is one of {', '.join(FUSE)}, for a list of layers; it is {fuse!r}")
    asked = as_list(layer)
    layers = [INPUT] if entry.keeps else [network.layer_path(name) for name in asked]
    inputs = network.prepare(images)
    wanted = _indices(network, targets)
    parts, raws = [], []
    for part in _passes(network, inputs, wanted, entry, layers):
        raws.append([_compute(entry, Query(network, inputs, wanted, path, part), options) for path in layers])
        parts.append(replace(part, maps={}, gradients={}))  # the next part takes their room
    queries = [Query(network, inputs, wanted, path, joined(parts)) for path in layers]
    results = [
        _result(entry, query, torch.cat(raw) if len(raw) > 1 else raw[0], sigma)
        for query, raw in zip(queries, zip(*raws, strict=True), strict=True)
    ]
    if fuse is not None:
        fused = FUSE[fuse](torch.stack([one.maps for one in results]))
        return replace(_result(entry, queries[0], fused, sigma=0), layer=", ".join(layers))
    return results if several else results[0]


def compare(
    network: Anything,
    images: Images,
    targets: NamedTarget = None,
    *,
    methods: Sequence[str],
    layer: str | None = None,
    sigma: float = DEFAULT_SIGMA,
) -> list[Result]:
    """One result for each of ``methods``, each with its default options; the rest as in ``explain``.

    The methods that explain a layer share one forward pass, and one backward pass if any of them asks
    for gradients. Raises ``ValueError`` like ``explain``, and for an empty list of methods.

    >>> from gmcam import compare
    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> results = compare(network, scene.image, "cat", methods=["grad_cam", "gmcam"])
    >>> [result.method for result in results]
    ['grad_cam', 'gmcam']
    """
    entries = [_entry(name) for name in methods]
    if not entries:
        raise ValueError("the list of methods is empty; name at least one")
    network = as_network(network, images)
    for entry in entries:
        _check_tokens(entry, network)
    path = INPUT if all(entry.keeps for entry in entries) else network.layer_path(layer)
    inputs = network.prepare(images)
    wanted = _indices(network, targets)
    shared: Capture | None = None
    results = []
    # The first of those that want gradients, if there is one, makes the pass that all of a layer share.
    of_layer = sorted((entry for entry in entries if not entry.keeps), key=lambda entry: not entry.gradients)
    for entry in entries:
        if entry.keeps:
            captured = joined(list(_passes(network, inputs, wanted, entry, [INPUT])))
        else:
            shared = shared or joined(list(_passes(network, inputs, wanted, of_layer[0], [path])))
            captured = shared
        query = Query(network, inputs, wanted, INPUT if entry.keeps else path, captured)
        results.append(_result(entry, query, _compute(entry, query, {}), sigma))
    return results


def _entry(name: str) -> Method:
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def as_list(layer: str | Layers | None) -> list[str | None]:
    """The names of one layer or of several; None stands for the default. ``ValueError`` for anything else."""
    asked: list[str | None] = [*layer] if isinstance(layer, list | tuple) else [layer]
    if not asked:
        raise ValueError("the list of layers is empty; name at least one")
    for name in asked:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"a layer goes by its name, not by {name!r}")
    return asked


def as_network(network: Anything, images: Images | None) -> Network:
    """The network itself, or one around a module, with pictures of the size of ``images``."""
    if isinstance(network, Network):
        return network
    wrapped = Network(network)
    if isinstance(images, Tensor) and images.ndim >= 3:
        wrapped.input_shape = (images.shape[-3], images.shape[-2], images.shape[-1])
    return wrapped


def _check_tokens(entry: Method, network: Network) -> None:
    if entry.convolutional and network.reshape is not None:
        raise ValueError(
            f"{entry.name} needs a convolutional map, and {network.name} gives tokens: use grad_cam, gmcam "
            "or another method of one pass"
        )


def _passes(
    network: Network, inputs: Tensor, wanted: Target, entry: Method, layers: list[str]
) -> Iterator[Capture]:
    """The pass that a method asks for: at ``layers``, or at what it keeps of the network as a whole."""
    return captures(
        network.module,
        inputs,
        wanted,
        entry.keeps(network.module) if entry.keeps else layers,
        chunk_size=CLASSES_AT_A_TIME,
        gradients=entry.gradients,
        any_shape=entry.keeps is not None or network.reshape is not None,
        skip_idle=entry.keeps is not None,
    )


def _compute(entry: Method, query: Query, options: Mapping[str, Any]) -> Tensor:
    return entry.compute(query, **options) if len(query.inputs) else query.inputs.new_zeros((0, *query.size))


def _result(entry: Method, query: Query, raw: Tensor, sigma: float) -> Result:
    captured, names = query.captured, len(query.network.classes)
    if names and captured.logits.ndim == 2 and captured.logits.shape[1] != names:
        raise ValueError(
            f"{query.network.name} has {names} class names for {captured.logits.shape[1]} logits: name each"
        )
    raw = raw.float() if raw.dtype.itemsize < 4 else raw
    maps, empty = postprocess(raw, query.size, sigma)
    return Result(
        maps=maps,
        raw=raw,
        empty=empty,
        score=captured.scores,
        target=captured.target,
        probabilities=captured.logits.float().softmax(1) if captured.logits.ndim == 2 else None,
        layer=query.layer,
        method=entry.name,
        network=query.network,
    )


def _indices(network: Network, targets: NamedTarget) -> Target:
    """Class names to indices; everything else as it is."""
    if isinstance(targets, str | int) and not isinstance(targets, bool):
        return network.class_index(targets)
    if isinstance(targets, list | tuple):
        return torch.tensor([network.class_index(target) for target in targets], dtype=torch.long)
    return targets  # type: ignore[return-value]  # no names are left in it
