"""What ``capture`` leans on: hooks that understand modules working in place, and a network left as found."""

import copy
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gmcam.chunks import is_out_of_memory

_Output = TypeVar("_Output")
Extra = tuple[Any, ...] | Mapping[str, Any]  # further inputs of a network, positional or by keyword
COMPILED = "_orig_mod."  # torch.compile puts it before the names of all layers
# One for all networks: they may share modules, and torch.compile and torch.fx switch the whole process.
LOCK = RLock()


@contextmanager
def left_as_found(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, frozen parameters and no compiled code inside; everything restored afterwards.

    One thread at a time. Raises ``ValueError`` for a module created in inference mode, unless that is on."""
    parts = list(module.modules())
    parameters = [p for part in parts for p in part._parameters.values() if p is not None]
    if not torch.is_inference_mode_enabled() and any(p.is_inference() for p in parameters):
        fault = "expected parameters that can carry gradients, got some created under torch.inference_mode"
        raise ValueError(f"{fault}: create the network outside of it")
    with LOCK:
        trainable = [p for p in parameters if p.requires_grad]
        training = [part for part in parts if part.training]
        # Compiled code ignores hooks registered later. Without torch._dynamo nothing has been compiled.
        eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            for part in training:
                part.training = False
            with eager:
                yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            for part in training:
                part.training = True


@contextmanager
def with_gradients(module: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Run ``module`` forward, or backward, with gradients if ``enabled``, ``left_as_found``."""
    with torch.inference_mode(False), torch.set_grad_enabled(enabled), left_as_found(module):
        yield


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """Run ``module`` forward without gradients, ``left_as_found``."""
    # Inference mode only for a module created in it: others may store a tensor for a pass with gradients.
    created_in_it = any(p.is_inference() for p in module.parameters())
    with torch.inference_mode(created_in_it), torch.no_grad(), left_as_found(module):
        yield


def forward(module: nn.Module, inputs: Tensor, extra: Extra = ()) -> Any:
    """The network's output for a copy of ``inputs``; layout as ``in_fast_layout``."""
    return in_fast_layout(lambda copied: call(module, copied, extra), inputs)


def call(module: nn.Module, inputs: Tensor, extra: Extra = ()) -> Any:
    """``module(inputs, *extra)``, or with ``extra`` as keyword arguments where it is a mapping."""
    return module(inputs, **extra) if isinstance(extra, Mapping) else module(inputs, *extra)


def extra_at(extra: Extra, images: Tensor, count: int) -> Extra:
    """Further inputs of the images at these indices: tensors with ``count`` rows are bound to the images."""

    def pick(value: Any) -> Any:
        per_image = isinstance(value, Tensor) and value.ndim and len(value) == count
        return value[images.to(value.device)] if per_image else value

    if isinstance(extra, Mapping):
        return {name: pick(value) for name, value in extra.items()}
    return tuple(pick(value) for value in extra)


def in_fast_layout(run: Callable[[Tensor], _Output], inputs: Tensor) -> _Output:
    """``run`` on a copy of ``inputs``, which layers may overwrite; with channels last on a CPU in float32.

    That layout took 0.56 to 0.99 of the usual one's time in 14 of the 15 cases on the benchmarks page, and
    1.13 for a single image on ResNet50. Where it fails, ``run`` starts again in the usual one."""
    if inputs.device.type == "cpu" and inputs.dtype == torch.float32 and inputs.ndim == 4:
        try:
            return run(inputs.clone(memory_format=torch.channels_last))
        except RuntimeError as error:  # such as a view that needs the usual layout
            if is_out_of_memory(error):
                raise
    return run(inputs.clone(memory_format=torch.contiguous_format))


@contextmanager
def hooked(module: nn.Module, hook: Callable[[Any, bool], Any]) -> Iterator[None]:
    """Call ``hook(output, in_place)`` after ``module`` and its other hooks; its result replaces the output.

    ``in_place``: the module wrote its output into an input, as ``nn.ReLU(inplace=True)`` does. An unchanged
    input, as ``nn.Identity`` returns it, is copied: other users of the input do not use the output."""
    versions: dict[int, int] = {}

    def before(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        versions.clear()  # ids of an earlier pass that failed inside the module may be in use again
        inputs = tensors_in((arguments, keywords))
        versions.update((id(tensor), tensor._version) for tensor in inputs if not tensor.is_inference())

    def after(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        tensor = first_tensor(output)
        version = versions.get(id(tensor))
        versions.clear()
        if tensor is None or version is None:
            return hook(output, False)
        in_place = tensor._version > version
        return hook(output if in_place else replace_tensor(output, tensor, tensor.clone()), in_place)

    with module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after):
        yield


def find_layer(module: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """Dotted path and module of ``layer``; ``ValueError`` with the nearest names if ``module`` lacks it."""
    refuse_scripted(module)
    paths = (entry for entry in module.named_modules(remove_duplicate=False) if entry[0])
    path, part = "", None
    if isinstance(layer, nn.Module):
        path, part = next((entry for entry in paths if entry[1] is layer), (path, part))
    elif isinstance(layer, str) and layer:
        with suppress(AttributeError):
            path, part = layer, module.get_submodule(layer)
    if part is None:
        given = type(layer).__name__ if isinstance(layer, nn.Module) else repr(layer)
        names = [path for path, _ in module.named_modules(remove_duplicate=False) if path]
        near = difflib.get_close_matches(str(layer), names, n=5, cutoff=0.4) or names[:5]
        raise ValueError(f"expected a layer of the network, got {given}: the nearest are {', '.join(near)}")
    refuse_scripted(part)
    return path, part


def refuse_scripted(module: nn.Module) -> None:
    """Raise ``ValueError`` for a module from ``torch.jit``, whose programs ignore hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        fault = "expected a plain torch.nn.Module, got one scripted or traced by torch.jit"
        raise ValueError(f"{fault}, which ignores hooks: pass the module it was created from")


def tensors_in(output: Any) -> list[Tensor]:
    """All tensors in tuples, lists and mappings, however nested."""
    values = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in tensors_in(value)]
    return [output] if isinstance(output, Tensor) else []


def first_tensor(output: Any) -> Tensor | None:
    """The tensor itself, or the first one inside."""
    return next(iter(tensors_in(output)), None)


def replace_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """The same structure with ``new`` wherever ``old`` was."""
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        for key, value in output.items():
            changed[key] = replace_tensor(value, old, new)
        return changed
    if isinstance(output, tuple | list):
        values = [replace_tensor(value, old, new) for value in output]
        return output._make(values) if hasattr(output, "_make") else type(output)(values)
    return new if output is old else output
