"""``explain``, ``compare`` and ``explain_layers``: one call for every method, network and image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gmcam import methods as _registered  # noqa: F401  registers every method
from gmcam._hooks import LOCK, Extra, extra_at
from gmcam.capture import INPUT, Capture, Layer, Recording
from gmcam.chunks import in_chunks
from gmcam.groups import Group, resolved
from gmcam.loading import wrap
from gmcam.network import Images, Network
from gmcam.outputs import Resolved, Target, has_classes
from gmcam.postprocess import DEFAULT_SIGMA, postprocess
from gmcam.registry import Method, Query, find_method

NamedTarget = Target | str | Group | Sequence[str | int | Group]
Explainable = Network | nn.Module
_Tasks = Sequence[tuple[Method, Layer | None, Mapping[str, Any]]]  # method, layer, options
CLASSES_AT_A_TIME = 64  # of one image: more are no faster, and their gradients fill the memory
FUSE: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "max": torch.amax, "product": torch.prod}


@dataclass(frozen=True, eq=False)
class Result:
    """``T`` saliency maps, one per target. Compares by identity.

    ``maps`` (T, H, W): float32 in [0, 1], at the input's size; of signals (T, length), of volumes
    (T, D, H, W). ``raw`` (T, h, w): the method's values before post-processing, with their sign; of fused
    layers, the fused maps. ``empty`` (T,) bool: the raw map has no evidence for the target, so ``maps`` is
    zero. ``score`` (T,): what was explained, such as logits. ``probability`` (T,): of the target classes as
    ``Network.output`` says, and ``rank`` (T,), 1 for the most probable class; None if ``output`` is None or
    the target a function. ``target``: (T,) indices or the function. ``layer``: dotted path, ``<input>`` for
    none, with commas where fused. ``images``: N."""

    maps: Tensor
    raw: Tensor
    empty: Tensor
    score: Tensor
    probability: Tensor | None
    rank: Tensor | None
    target: Resolved
    layer: str
    method: str
    images: int
    network: Network = field(repr=False)

    @property
    def cells(self) -> tuple[int, ...]:
        """Height and width of the raw map; of signals its length, of volumes depth, height and width."""
        return tuple(self.raw.shape[1:])

    @property
    def depth(self) -> float:
        """The share of the network's layers with weights that have run when ``layer`` returns, 0 to 1."""
        return self.network.depth(self.layer)

    def label(self, index: int) -> str:
        """The name of what map ``index`` explains."""
        if isinstance(self.target, Tensor):
            return self.network.class_name(int(self.target[index]))
        return getattr(self.target, "__name__", "score")


def explain(
    network: Explainable,
    image: Images,
    target: NamedTarget = None,
    *,
    method: str = "gmcam",
    layer: Layer | None = None,
    extra: Any = (),
    sigma: float = DEFAULT_SIGMA,
    normalise: str = "rectified",
    **options: Any,
) -> Result:
    """Saliency maps of ``image`` for ``target``.

    ``network``: a ``Network``, or any ``torch.nn.Module``, see ``wrap``. ``image``: an image or a list of
    them (path, PIL, array), a preprocessed tensor (N, 3, H, W), a signal (N, C, T), a volume (N, C, D, H, W),
    or a list of tensors without N. ``target``: a class name or index for all images; a list, one per image,
    or any number for a single image; a function from the network's own output to one scalar per image,
    perhaps with the images' indices as second parameter; a ``group`` of classes; None for each image's top
    class. ``method``: a name in ``METHODS``, in any spelling. ``layer``: a readable name ("14x14"), a dotted
    path or a module; None for the last map before the network pools or flattens it. ``extra``: further inputs
    of the network, a tuple, or a dict of keywords; tensors with N rows go with the images wherever a method
    makes new batches. ``sigma``: smoothing in cells of the raw map, 0 for none. ``normalise``: as in
    ``gmcam.postprocess``. ``options``: of the method, such as ``chunk_size``, ``steps``, ``seed``.

    The network and the global random state are left as found. A caller's autocast does not apply; calls from
    several threads wait for each other. Raises ``ValueError`` for anything that does not fit.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> result = gmcam.explain(network, scene.image, ["cat", "cup"])
    >>> result.maps.shape, result.label(1)
    (torch.Size([2, 128, 128]), 'cup')

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> gmcam.explain(module, torch.rand(2, 3, 8, 8), [0, 4], layer="0").maps.shape
    torch.Size([2, 8, 8])
    """
    tasks = [(find_method(method), layer, options)]
    return _explain(network, image, target, tasks, extra, sigma=sigma, normalise=normalise)[0]


def compare(
    network: Explainable,
    image: Images,
    target: NamedTarget = None,
    *,
    methods: Sequence[str],
    layer: Layer | None = None,
    extra: Any = (),
    sigma: float = DEFAULT_SIGMA,
    normalise: str = "rectified",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Result]:
    """One result for each of ``methods``; the other arguments as in ``explain``.

    ``options``: by method, such as ``{"score_cam": {"chunk_size": 32}}``. Methods that explain a layer share
    one forward pass, and a backward pass if any needs gradients. Raises ``ValueError`` as ``explain`` does,
    for an empty list of methods, and for options of a method that is not compared.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> results = gmcam.compare(network, scene.image, "cat", methods=["grad_cam", "gmcam"])
    >>> [result.method for result in results]
    ['grad_cam', 'gmcam']
    """
    if not isinstance(methods, list | tuple) or not methods:
        raise ValueError(f"expected a list of methods, got {methods!r}: name at least one")
    by_name = {find_method(name).name: chosen for name, chosen in (options or {}).items()}
    tasks = [(entry := find_method(name), layer, by_name.get(entry.name, {})) for name in methods]
    if not by_name.keys() <= {entry.name for entry, *_ in tasks}:
        raise ValueError(f"expected options of {', '.join(methods)}, got {', '.join(by_name)}: drop the rest")
    return _explain(network, image, target, tasks, extra, sigma=sigma, normalise=normalise)


def explain_layers(
    network: Explainable,
    image: Images,
    target: NamedTarget = None,
    *,
    layers: Sequence[Layer],
    method: str = "gmcam",
    fuse: str | None = None,
    extra: Any = (),
    sigma: float = DEFAULT_SIGMA,
    normalise: str = "rectified",
    **options: Any,
) -> Any:
    """A list of one result per layer, in one forward and one backward pass; otherwise like ``explain``.

    ``fuse``: one result instead, the "mean", "max" or "product" of the layers' maps, normalised again. Raises
    ``ValueError`` as ``explain`` does, for an empty list of layers, and a method that explains no layer.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> for result in gmcam.explain_layers(network, scene.image, "cat", layers=["32x32", "16x16"]):
    ...     print(result.layer, result.cells)
    stage3 (32, 32)
    stage4 (16, 16)
    """
    entry = find_method(method)
    if not isinstance(layers, list | tuple) or not layers:
        raise ValueError(f"expected a list of layers, got {type(layers).__name__}: list at least one")
    if entry.keeps:
        raise ValueError(f"expected a method that explains a layer, got {entry.name}: use explain")
    if fuse is not None and str(fuse) not in FUSE:
        raise ValueError(f"expected fuse to be one of {', '.join(FUSE)}, got {fuse!r}: choose one")
    tasks = [(entry, at, options) for at in layers]
    results = _explain(network, image, target, tasks, extra, sigma=sigma, normalise=normalise)
    if fuse is None:
        return results
    fused = FUSE[fuse](torch.stack([result.maps for result in results]), 0)
    maps, empty = postprocess(fused, tuple(fused.shape[1:]), sigma=0, normalise=normalise)
    joined = ", ".join(result.layer for result in results)
    return replace(results[0], maps=maps, raw=fused, empty=empty, layer=joined)


def _explain(
    network: Explainable, image: Images, target: NamedTarget, tasks: _Tasks, extra: Any, **shaping: Any
) -> list[Result]:
    """A result for each task. Tasks at layers share a pass; each of the others has its own. ``shaping``: the
    options of ``postprocess``."""
    network = as_network(network, image)
    inputs = network.prepare(image)
    network, indices = resolved(network, target)
    extra = (extra,) if isinstance(extra, Tensor) else extra
    if extra:
        network.extra = extra_at(extra, torch.zeros(1, dtype=torch.long), len(inputs))
    for method, _, options in tasks:
        method.check(options)
        if method.images_only and inputs.ndim != 4:
            fault = f"expected images (N, C, H, W) for {method.name}, got {tuple(inputs.shape)}"
            raise ValueError(f"{fault}: use grad_cam, gmcam or another method of one pass")
    paths = [INPUT if method.keeps else network.layer_path(layer) for method, layer, _ in tasks]
    at_layers = [i for i, path in enumerate(paths) if path != INPUT]
    groups = [[i] for i, path in enumerate(paths) if path == INPUT] + [at_layers] * bool(at_layers)
    results: dict[int, Result] = {}
    # A caller's autocast is switched off; the network's own still applies.
    with LOCK, torch.autocast(inputs.device.type, enabled=False):
        for group in groups:
            part, layers = [tasks[i] for i in group], [paths[i] for i in group]
            captured, raws, (probability, rank) = _one_pass(network, inputs, indices, part, layers, extra)
            for i, raw in zip(group, raws, strict=True):
                raw = raw.float() if raw.dtype.itemsize < 4 else raw
                maps, empty = postprocess(raw, network.size_of(inputs), **shaping)
                what = (captured.target, paths[i], tasks[i][0].name, len(inputs), network)
                results[i] = Result(maps, raw, empty, captured.scores, probability, rank, *what)
    return [results[i] for i in range(len(tasks))]


def no_target(output: Any, images: Tensor) -> Tensor:
    """In place of a target, where no method needs one and the output has no classes."""
    return torch.zeros(len(images))


def _one_pass(
    network: Network, inputs: Tensor, target: Target, tasks: _Tasks, paths: Sequence[str], extra: Extra
) -> tuple[Capture, list[Tensor], tuple[Tensor | None, Tensor | None]]:
    """For tasks that share a forward pass: its capture, emptied of maps, each task's raw maps, and the
    probabilities and ranks of the target classes."""
    keeps = tasks[0][0].keeps  # such a task is alone
    layers = keeps(network.module) if keeps else paths
    gradients = any(method.gradients for method, *_ in tasks)
    arrangement = {"any_shape": True, "skip_idle": True} if keeps else {"arrange": network.as_maps}
    more: dict[str, Any] = {"extra": extra, "read": network.logits_of, **arrangement}
    recording = Recording(network.module, inputs, layers, gradients, **more)
    for method, *_ in tasks:
        if method.convolutional and (network.reshape is not None or recording.rearranged):
            fault = f"expected convolutional maps for {method.name}, got the tokens of {network.name}"
            raise ValueError(f"{fault}: use grad_cam, gmcam or another method of one pass")
    needs_target = any(method.needs_target for method, *_ in tasks)
    if target is None and not needs_target and not has_classes(recording.output, len(inputs)):
        target = no_target
    several = target if isinstance(target, Tensor) and len(inputs) == 1 and target.numel() > 1 else None

    def compute(part: Target) -> tuple[Capture, list[Tensor]]:
        captured = recording.capture(part, last=several is None)
        raws = [inputs[:, 0]] * len(tasks)  # stays if N is 0
        for i, (method, _, options) in enumerate(tasks if len(inputs) else ()):
            raws[i] = method.compute(Query(network, inputs, part, paths[i], captured, extra), **options)
        return replace(captured, maps={}, gradients={}), raws  # frees memory for the next part

    if several is None:
        captured, raws = compute(target)
    else:
        chunks = in_chunks(compute, several, CLASSES_AT_A_TIME)
        captures, parts = zip(*(part for _, part in chunks), strict=True)
        scores = torch.cat([captured.scores for captured in captures])
        classes = torch.cat([captured.target for captured in captures])
        captured = replace(captures[0], scores=scores, target=classes)
        raws = [torch.cat(raw) for raw in zip(*parts, strict=True)]
    if isinstance(captured.target, Tensor):  # then logits are (N, classes)
        network.check_class_names(captured.logits.shape[1])
        if network.output is not None:
            with torch.no_grad():
                all_classes = network.probabilities_of(recording.output).expand(len(captured.target), -1)
            probability = all_classes.gather(1, captured.target[:, None])
            return captured, raws, (probability[:, 0], 1 + (all_classes > probability).sum(1))
    return captured, raws, (None, None)


def as_network(network: Explainable, image: Images | None) -> Network:
    """The network itself, or one around a module, for inputs of the size of ``image``."""
    if isinstance(network, Network):
        return network
    if not isinstance(network, nn.Module) or not isinstance(image, Tensor):
        return wrap(network)
    convolutions = (part for part in network.modules() if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    dimensions = next((len(part.kernel_size) for part in convolutions), 2)
    batched = image.ndim > 1 + dimensions  # of frames (N, T, C, H, W), too
    return wrap(network, input_shape=tuple(image.shape[1:] if batched else image.shape))
