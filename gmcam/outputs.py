"""What a network's output means: which scalar is explained, and what its probability is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from gmcam._hooks import first_tensor

# A function may take the rows' image indices (B,) as its second parameter.
Target = int | Sequence[int] | Tensor | Callable[..., Tensor] | None
Resolved = Tensor | Callable[..., Tensor]
Read = Callable[[Any], Tensor]
Meaning = str | Read | None
MEANINGS = ("softmax", "sigmoid", None)


def logits_of(output: Any, classes: int = 0) -> Tensor:
    """The logits (N, classes): the first tensor in the network's output.

    ``classes``: the number of class names. For one logit z and two names, class 0 is the negative: (−z, z).
    """
    logits = first_tensor(output)
    if logits is None:
        fault = f"expected an output with a tensor in it, got a {type(output).__name__}"
        raise ValueError(f"{fault}: pass a function of the output as target, or a module that returns one")
    return torch.cat([-logits, logits], 1) if classes == 2 and logits.shape[1:] == (1,) else logits


def has_classes(output: Any, count: int) -> bool:
    """Whether the first tensor in the output of ``count`` images is (N, classes)."""
    logits = first_tensor(output)
    return logits is not None and logits.ndim == 2 and len(logits) == count


def scores_of(output: Any, target: Target, count: int, read: Read = logits_of) -> tuple[Tensor, Resolved]:
    """The scalars to differentiate, (T,), and the target: (T,) class indices, or the function itself.

    ``output``: the network's own, which a function receives as it is; a class is a column of its logits,
    which ``read`` returns. ``count``: N. ``ValueError`` for a target that does not fit."""
    if callable(target):
        scores = bound(target, torch.arange(count))(output)
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if shape != (count,):
            raise ValueError(f"expected one scalar per image, ({count},), got {shape}: reduce in the target")
        return scores, target
    logits = read(output)
    if logits.ndim != 2 or len(logits) != count:
        fault = f"expected an output of shape (N, classes), got {tuple(logits.shape)}"
        raise ValueError(f"{fault}: pass target as a function from it to one scalar per image")
    if target is None:
        indices = logits.detach().argmax(1)
    else:
        # Copied: uint8 would index as a mask, and the caller's tensor may be an inference tensor.
        indices = class_indices(target, logits.shape[1])
        indices = indices.to(logits.device, torch.long, non_blocking=logits.is_cuda, copy=True)
        indices = indices.expand(count) if indices.ndim == 0 else indices
    if len(indices) == 0 and count:
        raise ValueError("expected at least one target, got an empty list: name a class")
    if count == 1:
        return logits[0, indices], indices
    if len(indices) != count:
        raise ValueError(f"expected targets for {count} images, got {len(indices)}: pass one class per image")
    return logits.gather(1, indices.unsqueeze(1)).squeeze(1), indices


def bound(target: Callable[..., Tensor], images: Tensor) -> Callable[[Any], Tensor]:
    """A target function of the output alone; its second parameter, if there is one, is ``images`` (B,).

    A function that fails on a tuple or mapping is tried on the first tensor in it."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments: tuple[Tensor, ...] = ()
    with suppress(TypeError, ValueError):  # some builtin functions have no signature
        parameters = inspect.signature(target).parameters.values()
        if sum(p.kind in positional and p.default is p.empty for p in parameters) > 1:
            arguments = (images,)

    def score(output: Any) -> Tensor:
        try:
            return target(output, *arguments)
        except (TypeError, AttributeError, LookupError, ValueError):
            first = first_tensor(output)
            if first is None or first is output:
                raise
            with suppress(Exception):
                return target(first, *arguments)
            raise

    return score


def class_indices(target: Any, classes: int) -> Tensor:
    """``target`` as a tensor of class indices below ``classes``; ``ValueError`` where it is none."""
    indices = torch.tensor(0.0)
    with suppress(TypeError, ValueError, RuntimeError):
        indices = torch.as_tensor(target)
    indices = indices.long() if indices.numel() == 0 else indices  # an empty list becomes a float tensor
    integers = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    if not integers or indices.ndim > 1:
        raise ValueError(f"expected class indices as target, got {target!r}: pass one index per image")
    for index in indices.flatten().tolist():
        if classes == 1 and index != 0:
            remedy = 'for two classes pass classes=["no", "yes"], or a function such as lambda y: -y[:, 0]'
            raise ValueError(f"expected class 0 of a single logit, got {index}: {remedy}")
        if not 0 <= index < classes:
            raise ValueError(f"expected a class from 0 to {classes - 1}, got {index}: choose one in range")
    return indices


def probabilities(output: Any, meaning: Meaning = "softmax", classes: int = 0) -> Tensor:
    """(N, classes) probabilities, in float32 at least.

    ``meaning``: "softmax" over the classes, and the sigmoid where there is one logit; "sigmoid" of each
    logit; or a function from the network's own output to probabilities. ``ValueError`` for None, which means
    that there are no probabilities, and for another shape or values outside [0, 1]."""
    if meaning is None:
        raise ValueError("expected an output with probabilities, got output=None: pass output= to Network")
    if callable(meaning):
        values = meaning(output)
        values = torch.cat([1 - values, values], 1) if classes == 2 and values.shape[1:] == (1,) else values
        if values.ndim != 2 or not ((values >= 0) & (values <= 1 + 1e-3)).all():
            fault = f"expected output= to return probabilities (N, classes), got {tuple(values.shape)}"
            raise ValueError(f"{fault} from {values.min():.3g} to {values.max():.3g}: change it")
        return values.float() if values.dtype.itemsize < 4 else values
    logits = logits_of(output, classes)
    if logits.ndim != 2:
        raise ValueError(f"expected an output (N, classes), got {tuple(logits.shape)}: a classifier has it")
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    binary = meaning == "sigmoid" or logits_of(output).shape[1] == 1
    return logits.sigmoid() if binary else logits.softmax(1)
