"""Run a network once and keep the feature maps and gradient maps of named layers.

This is Equation 2, ``C_k(i, j) = ∂Y / ∂M_k(i, j)``, and the one file of the project that touches
hooks. The recipe: parameters stop asking for gradients, the network runs forward, and at the first
requested layer its output is cut off, made a leaf of the graph and kept. So no graph exists before
that layer, no gradient of a parameter is computed, and several layers cost one forward and one
backward pass. Whatever happens, the network is left as it was found.
"""

from __future__ import annotations

import copy
import difflib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from gmcam.chunks import in_chunks

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

INPUT = "<input>"  # in place of a layer's name: the picture itself
COMPILED = "_orig_mod."  # what torch.compile puts before the names of all layers

Target = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Capture:
    """What one pass left: ``T`` maps, one per target.

    ``logits`` (N, …): the network's output. ``scores`` (T,): what was differentiated.
    ``target``: (T,) class indices, or the callable that made the scores. ``maps`` and
    ``gradients``: by layer, (T, K, h, w) each; no ``gradients`` where none were asked for. Targets or
    cells that have the same values may share their memory, so write into a copy.
    """

    logits: Tensor
    scores: Tensor
    target: Tensor | Callable[[Tensor], Tensor]
    maps: dict[str, Tensor]
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Visit:
    """One module's part in a forward pass: the shape of its output, and how often it ran."""

    name: str
    kind: type[nn.Module]
    shape: tuple[int, ...]
    calls: int


def capture(
    module: nn.Module,
    inputs: Tensor,
    targets: Target = None,
    layers: Sequence[str] = (),
    *,
    gradients: bool = True,
    any_shape: bool = False,
    skip_idle: bool = False,
) -> Capture:
    """Feature maps and gradient maps of ``layers`` for the scores of ``targets``, in one pass.

    ``inputs``: (N, 3, H, W), whatever the module takes. ``targets``: one class index for all
    pictures; or a sequence or tensor of indices, one per picture; or, for a single picture, any
    number T of indices, whose T gradients are taken in one batched backward pass; or a callable
    from the network's output to one scalar per picture, (N,); or None for each picture's top
    class. Pictures are taken not to influence each other, as they would in a batch norm without running
    statistics: there give one at a time. ``layers``: dotted module paths, or ``INPUT`` for the
    network's input. Without ``gradients`` the network only runs forward. With ``any_shape`` a layer
    may give any tensor (N, …), as a linear layer or a transformer's block does. With ``skip_idle`` a
    layer that does not run is left out, and one without influence on the score has no gradient.

    Several targets are differentiated as one batch, or in its parts where memory does not suffice.
    The network runs in evaluation mode, whatever its flags, and without the programs that
    ``torch.compile`` made of it or of its parts. A network whose output is a tuple or a mapping is read
    by its first tensor; so is a layer's. Callers may be in ``no_grad`` or ``inference_mode``.
    Afterwards nothing is left behind: no hook, no changed ``requires_grad``, ``.grad`` or training flag.

    Raises ``ValueError`` for a layer that does not exist, is not reached, runs more than once, has
    no height and width, not one map per picture or no influence on the score; for targets that do
    not fit the output; for scores, maps or gradients that are not finite; for a network with a part that
    was made in inference mode.

    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> found = gmcam.capture(module, torch.rand(2, 3, 8, 8), [0, 4], layers=["0"])
    >>> found.maps["0"].shape, found.gradients["0"].shape
    (torch.Size([2, 4, 6, 6]), torch.Size([2, 4, 6, 6]))
    """
    return joined(
        list(
            captures(
                module,
                inputs,
                targets,
                layers,
                chunk_size=None,
                gradients=gradients,
                any_shape=any_shape,
                skip_idle=skip_idle,
            )
        )
    )


def captures(
    module: nn.Module,
    inputs: Tensor,
    targets: Target,
    layers: Sequence[str],
    *,
    chunk_size: int | None,
    gradients: bool,
    any_shape: bool,
    skip_idle: bool,
) -> Iterator[Capture]:
    """``capture`` in parts, so that the gradients of a thousand classes need not be held at once.

    The network runs forward once. Where one picture has several targets and gradients are asked for,
    each part has ``chunk_size`` of them, or all where that is None; otherwise there is one part.
    """
    if not layers:
        raise ValueError("capture needs the name of at least one layer")
    wanted = {name: find_layer(module, name) for name in layers if name != INPUT}
    kept: dict[str, Tensor] = {}
    handed: list[Tensor] = []  # the copy of a picture's only layer with which the network went on

    def keep(name: str) -> Callable[[Any, bool], Any]:
        def hook(output: Any, in_place: bool) -> Any:
            if name in kept:
                raise ValueError(
                    f"layer {name!r} runs more than once in a forward pass, so it has no single map; "
                    "name a module that runs once, such as the block around it"
                )
            maps = _first_tensor(output)
            fits = maps is not None and maps.ndim > 0 and len(maps) == len(inputs)
            if maps is None or not fits or not (any_shape or maps.ndim == 4):
                shape = None if maps is None else tuple(maps.shape)
                raise ValueError(
                    f"layer {name!r} gives output of shape {shape}, without height and width; "
                    f"a layer for maps gives (N, K, h, w), here with N = {len(inputs)}"
                )
            torch.set_grad_enabled(gradients)
            if gradients and not maps.requires_grad:
                if in_place:
                    # It works in place: whoever uses its input again uses this output, so the leaf goes
                    # into that very tensor.
                    kept[name] = maps.detach().clone().requires_grad_()
                    maps.copy_(kept[name])
                    return output
                maps = maps.detach().contiguous().requires_grad_()
            kept[name] = maps
            # The network goes on with a copy: an in-place rectifier cannot spoil what is kept.
            changeable = maps.clone()
            if len(layers) == len(inputs) == 1:
                handed.append(changeable)
            return _replace_first_tensor(output, changeable)

        return hook

    def again() -> None:
        """Forget a forward pass that was given up."""
        for name in wanted:
            kept.pop(name, None)
        handed.clear()
        torch.set_grad_enabled(gradients and INPUT in layers)

    # Nothing is recorded until the first layer is reached: its hook switches gradients on.
    with torch.inference_mode(False), torch.no_grad(), left_as_found(module):
        hooks = [hook for name, layer in wanted.items() for hook in _hooked(layer, keep(name))]
        try:
            start = inputs.detach()
            if INPUT in layers:
                torch.set_grad_enabled(gradients)
                kept[INPUT] = start = start.clone().requires_grad_(gradients)
            logits = forward(module, start, again)
        finally:
            for handle in hooks:
                handle.remove()
        for name in layers:
            if name not in kept and not skip_idle:
                raise ValueError(f"layer {name!r} is not reached in a forward pass")
        scores, target = _scores(logits, targets, len(inputs))
    parts: Iterable[tuple[Any, dict[str, Tensor]]]
    if gradients and isinstance(target, Tensor) and len(target) != len(inputs):
        pooled = _pooled(logits, *handed) if handed else None
        run = partial(_gradients, module, logits, kept, skip_idle, pooled)
        parts = in_chunks(run, target, chunk_size or len(target))
    else:
        parts = [(target, _gradients(module, scores, kept, skip_idle) if gradients else {})]
    whole = {name: value.detach().contiguous() for name, value in kept.items()}
    for own, found in parts:
        values = (scores if own is target else logits[0, own]).detach()
        _refuse_infinite(values, whole, found)
        maps = {name: value.expand(len(values), *value.shape[1:]) for name, value in whole.items()}
        yield Capture(logits.detach(), values, own, maps, found)


def joined(parts: Sequence[Capture]) -> Capture:
    """The parts of ``captures`` as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    target = first.target
    if isinstance(target, Tensor):
        target = torch.cat([part.target for part in parts if isinstance(part.target, Tensor)])
    count = sum(len(part.scores) for part in parts)
    return Capture(
        first.logits,
        torch.cat([part.scores for part in parts]),
        target,
        {name: value[:1].expand(count, *value.shape[1:]) for name, value in first.maps.items()},
        {name: torch.cat([part.gradients[name] for part in parts]) for name in first.gradients},
    )


def rerun(module: nn.Module, inputs: Tensor, layer: str, maps: Tensor) -> Tensor:
    """The network's output for one picture (1, 3, H, W) when ``layer`` gives ``maps`` (B, …) instead.

    → (B, …), without gradients; the network is left as it was found. What lies before the layer runs
    once for all B where the network allows it: the picture stays a batch of one until the maps take
    its place. Where both meet again, in a concatenation for example, it runs on B copies.
    """

    def replace(output: Any, in_place: bool) -> Any:
        own = _first_tensor(output)
        if own is not None and in_place:
            # Whoever uses its input again must find the maps there. Torch refuses where a batch of one has
            # no room for them all.
            own.copy_(maps)
            return output
        return _replace_first_tensor(output, maps.clone())  # a copy: an in-place rectifier may follow

    part = find_layer(module, layer)
    with torch.inference_mode(False), torch.no_grad(), left_as_found(module):
        hooks = _hooked(part, replace)
        try:
            with suppress(Exception):  # whatever a network says to maps and pictures of unequal number
                output = forward(module, inputs)
                if len(output) == len(maps):
                    return output
            return forward(module, inputs.expand(len(maps), -1, -1, -1))
        finally:
            for handle in hooks:
                handle.remove()


def _hooked(module: nn.Module, hook: Callable[[Any, bool], Any]) -> list[RemovableHandle]:
    """Have ``hook(output, in_place)`` called when ``module`` has run; what it returns is the new output.

    ``in_place``: the module has written its output into the tensor that it was given, as a rectifier may.
    One that hands that tensor on as it is, as ``nn.Identity`` does, has a copy of it for an output: who else
    uses the tensor does not use the output.
    """
    versions: dict[int, int] = {}

    def before(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        given = (one for one in arguments if isinstance(one, Tensor) and not one.is_inference())
        versions.clear()  # of a pass that failed in here, whose tensors are gone and their ids free
        versions.update((id(one), one._version) for one in given)

    def after(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        own = _first_tensor(output)
        version = versions.get(id(own))
        versions.clear()
        in_place = own is not None and version is not None and own._version > version
        if own is not None and version is not None and not in_place:
            output = _replace_first_tensor(output, own.clone())
        return hook(output, in_place)

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def forward(module: nn.Module, inputs: Tensor, again: Callable[[], None] = lambda: None) -> Tensor:
    """What the network gives for a copy of ``inputs``: its output, or the first tensor in it.

    A copy takes part in autograd where the caller's tensor was made in inference mode, and is there
    for layers that work in place. On a CPU it is laid out with channels last, for which convolutions
    take a tenth to a third less time. A network that views maps as flat vectors on the way refuses
    that layout, and runs with the usual one, after a call of ``again``.
    """

    def run(start: Tensor) -> Tensor:
        output = module(start)
        tensor = _first_tensor(output)
        if tensor is None:
            raise ValueError(f"the network's output holds no tensor; it is a {type(output).__name__}")
        return tensor

    if inputs.device.type == "cpu" and inputs.dtype == torch.float32 and inputs.ndim == 4:
        try:
            return run(inputs.clone(memory_format=torch.channels_last))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            again()
    return run(inputs.clone(memory_format=torch.contiguous_format))


def trace(module: nn.Module, inputs: Tensor) -> tuple[list[Visit], Tensor]:
    """Run the network once without gradients; the modules in the order they finished, and the output.

    Leaves the network as it was found, like ``capture``. Outputs that are not tensors (or tuples
    and mappings that start with one) are passed over.
    """
    visits: dict[str, Visit] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _arguments: Any, output: Any) -> None:
            tensor = _first_tensor(output)
            if tensor is None:
                return
            calls = visits.pop(name).calls + 1 if name in visits else 1
            visits[name] = Visit(name, type(layer), tuple(tensor.shape), calls)

        return hook

    with torch.inference_mode(False), torch.no_grad(), left_as_found(module):
        hooks = [
            part.register_forward_hook(note(name))
            for name, part in module.named_modules()
            if name and not isinstance(part, torch.jit.ScriptModule)  # it takes no hooks
        ]
        try:
            output = module(inputs)
        finally:
            for handle in hooks:
                handle.remove()
    logits = _first_tensor(output)
    if logits is None:
        raise ValueError(f"the network's output holds no tensor; it is a {type(output).__name__}")
    return list(visits.values()), logits


def original(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` made this one from; the module itself where it did not."""
    dynamo = sys.modules.get("torch._dynamo")  # nothing was compiled before it is loaded
    if dynamo is None or not isinstance(module, dynamo.OptimizedModule):
        return module
    inside: nn.Module = module._orig_mod
    return inside


def refuse_scripted(module: nn.Module) -> None:
    """``ValueError`` for what ``torch.jit`` scripted, traced or froze."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("torch.jit's programs pass over hooks: give the module that this one was made from")


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path; ``ValueError`` with the nearest names where there is none."""
    refuse_scripted(module)
    if name:
        with suppress(AttributeError):
            found = module.get_submodule(name)
            refuse_scripted(found)
            return found
    modules = [path for path, _ in module.named_modules() if path]
    near = difflib.get_close_matches(name, modules, n=5, cutoff=0.4) or modules[:5]
    raise ValueError(f"no layer is called {name!r}; the nearest names are {', '.join(near)}")


def all_finite(*tensors: Tensor) -> bool:
    """No NaN and no infinite value in any of them.

    Sums tell in a fraction of the time, unless they overflow, and one look at all of them lets a GPU go on
    until then.
    """
    if get_proxy_mode() is not None:
        return True  # a graph is being traced, for any values
    sums = [tensor.detach().sum() for tensor in tensors]
    told = torch.stack([one.to(sums[0].device) for one in sums]).tolist()
    return all(
        math.isfinite(one) or bool(tensor.isfinite().all()) for one, tensor in zip(told, tensors, strict=True)
    )


def _refuse_infinite(scores: Tensor, maps: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """``ValueError`` for the first of them that is not finite."""
    named = {"the network's scores for the targets": scores}
    named |= {f"the maps at layer {name!r}": value for name, value in maps.items()}
    named |= {f"the gradients at layer {name!r}": value for name, value in gradients.items()}
    if not all_finite(*named.values()):
        worst = next(what for what, value in named.items() if not all_finite(value))
        raise ValueError(f"{worst} are not finite")


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, frozen parameters and nothing compiled inside; everything as it was outside.

    A compiled program is the module as it was when it was made, and passes over hooks that came later.
    Raises ``ValueError`` outside inference mode for a network with a part that was made in it.
    """
    parts, parameters = list(module.modules()), list(module.parameters())
    if not torch.is_inference_mode_enabled() and any(p.is_inference() for p in parameters):
        raise ValueError("the network was made in inference mode, where no gradient passes; make it outside")
    trained = [p for p in parameters if p.requires_grad]
    training = [part for part in parts if part.training]
    programs = [(place, name, place[name], plain) for place, name, plain in _programs(parts)]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for part in training:
            part.training = False
        for place, name, _, plain in programs:
            place[name] = plain
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True
        for place, name, program, _ in programs:
            place[name] = program


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """The network runs forward, and is ``left_as_found``.

    Not in inference mode, since a module may keep a tensor for later passes that need gradients; except for a
    network that was made in it, which never has any.
    """
    made_in_it = any(p.is_inference() for p in module.parameters())
    with torch.inference_mode(made_in_it), torch.no_grad(), left_as_found(module):
        yield


def _programs(parts: Iterable[nn.Module]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Where compiled programs hang: a part's attributes, the name of one, what stands there without one."""
    for part in parts:
        if "_compiled_call_impl" in vars(part):  # of ``module.compile()``
            yield vars(part), "_compiled_call_impl", None
        if original(part) is not part:
            yield vars(part), "forward", original(part).__call__


def _scores(
    logits: Tensor, targets: Target, pictures: int
) -> tuple[Tensor, Tensor | Callable[[Tensor], Tensor]]:
    """One scalar per target, and the targets as they were understood."""
    if callable(targets):
        scores = targets(logits)
        if not isinstance(scores, Tensor) or scores.shape != (pictures,):
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"the target function gave {shape}; it gives one scalar per picture, ({pictures},)"
            )
        return scores, targets
    if logits.ndim != 2 or len(logits) != pictures:
        raise ValueError(
            f"the network's output has shape {tuple(logits.shape)}, not (N, classes); "
            "give the target as a function from that output to one scalar per picture"
        )
    if targets is None:
        indices = logits.detach().argmax(1)
    else:
        indices = _indices(targets, logits.shape[1])
        # uint8 would be taken for a mask; a copy may be made in inference mode and still serve a graph. A
        # GPU that is still at work need not be waited for.
        indices = indices.to(logits.device, torch.long, non_blocking=logits.is_cuda, copy=True)
        if indices.ndim == 0:
            indices = indices.expand(pictures)
    if len(indices) == 0 and pictures:
        raise ValueError("the list of targets is empty; it names at least one class")
    if pictures == 1:
        return logits[0, indices], indices
    if len(indices) != pictures:
        raise ValueError(f"{len(indices)} targets do not fit {pictures} pictures: one target each")
    return logits.gather(1, indices.unsqueeze(1)).squeeze(1), indices


def _indices(targets: Any, classes: int) -> Tensor:
    """Class indices in range as a tensor where they are: on a CPU they are looked at without a GPU's help."""
    indices: Tensor | None = None
    with suppress(TypeError, ValueError, RuntimeError):
        indices = torch.as_tensor(targets)
    if indices is not None and indices.numel() == 0:
        indices = indices.long()  # an empty list has no type of its own
    if indices is None or indices.dtype not in _INTEGERS or indices.ndim > 1:
        raise ValueError(f"targets are class indices, one per picture, not {targets!r}")
    for index in indices.flatten().tolist():
        if not 0 <= index < classes:
            raise ValueError(f"class {index} is out of range: the classes are 0 to {classes - 1}")
    return indices


def _gradients(
    module: nn.Module,
    values: Tensor,
    kept: Mapping[str, Tensor],
    skip_idle: bool,
    pooled: GradientEdge | None = None,
    classes: Tensor | None = None,
) -> dict[str, Tensor]:
    """Equation 2 for every layer: of each picture's score, (N, K, h, w) each; or of a single picture's
    logits, (1, …), those of ``classes``, (classes, K, h, w) each, in one batched backward pass.

    Where the only layer is ``pooled``, that pass ends there, and all cells of a channel share one number.
    ``skip_idle``: a layer without influence on the score is left out.
    """
    # Pictures do not mix, so the gradient of the sum holds each picture's own.
    outputs = torch.ones_like(values)
    if classes is not None:
        # Of the logits themselves: an index before them would be differentiated one class after the other.
        outputs = F.one_hot(classes, values.shape[1]).to(values.dtype).unsqueeze(1)
    found: Sequence[Tensor | None] = [None] * len(kept)
    if values.requires_grad:
        # A part that saves memory runs forward again on the way back, and must be as it was.
        with torch.inference_mode(False), left_as_found(module):
            found = torch.autograd.grad(
                values,
                list(kept.values()) if pooled is None else [pooled],
                outputs,
                retain_graph=classes is not None,  # the next classes need it
                is_grads_batched=classes is not None,
                allow_unused=True,
            )
    gradients = {}
    for (name, value), gradient in zip(kept.items(), found, strict=True):
        if gradient is None and skip_idle:
            continue
        if gradient is None:
            raise ValueError(f"layer {name!r} does not influence the score")
        if pooled is not None:
            shape = (len(gradient), *value.shape[1:])
            gradients[name] = (gradient.reshape(*shape[:2], 1, 1) / value[0, 0].numel()).expand(shape)
        else:
            gradients[name] = (gradient if classes is None else gradient.squeeze(1)).contiguous()
    return gradients


def _pooled(values: Tensor, handed: Tensor) -> GradientEdge | None:
    """Where maps (N, K, h, w) are averaged over their cells, if nothing else becomes of them on the way to
    ``values``: then the gradient of the average says it all.

    ``handed``: the copy of the maps with which the network went on. What does not look exactly like that, a
    rectifier in place or a hook that may change gradients, counts as something else.
    """
    copied, last = handed.grad_fn, values.grad_fn
    if copied is None or last is None or copied.name() != "CloneBackward0":
        return None
    users: dict[Node | None, list[Node]] = {}
    todo, seen = [last], {last}
    while todo:
        node = todo.pop()
        for before, _ in node.next_functions:
            users.setdefault(before, []).append(node)
            if before is not None and before not in seen:
                seen.add(before)
                todo.append(before)
    average = users.get(copied, [copied])[0]
    alone = users.get(copied.next_functions[0][0]) == [copied] and users.get(copied) == [average]
    if not alone or handed.ndim != 4 or handed._backward_hooks or average.name() != "MeanBackward1":
        return None
    dimensions = {one % 4 for one in getattr(average, "_saved_dim", ())}  # -1 is counted from 2⁶⁴ there
    return GradientEdge(average, 0) if dimensions == {2, 3} else None


def _first_tensor(output: Any) -> Tensor | None:
    """The tensor itself, or the first one inside a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    values: Any = ()
    if isinstance(output, Mapping):
        values = output.values()
    elif isinstance(output, tuple | list):
        values = output
    return next((value for value in values if isinstance(value, Tensor)), None)


def _replace_first_tensor(output: Any, tensor: Tensor) -> Any:
    """The same structure with another first tensor."""
    if isinstance(output, Tensor):
        return tensor
    pairs = output.items() if isinstance(output, Mapping) else enumerate(output)
    position = next(key for key, value in pairs if isinstance(value, Tensor))
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[position] = tensor
        return changed
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[position]: tensor})
    return type(output)([*output[:position], tensor, *output[position + 1 :]])
