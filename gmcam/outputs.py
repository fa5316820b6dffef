"""What a network's output means: which scalar is explained, and what its probability is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

Target = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None
Resolved = Tensor | Callable[[Tensor], Tensor]


def scores_of(logits: Tensor, target: Target, count: int) -> tuple[Tensor, Resolved]:
    """The scalars to differentiate, (T,), and the target: (T,) class indices, or the function itself.

    ``logits`` (N, classes), any for a function; ``count``: N. ``ValueError`` for a target that does not fit.
    """
    if callable(target):
        scores = target(logits)
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if shape != (count,):
            raise ValueError(f"expected one scalar per image, ({count},), got {shape}: reduce in the target")
        return scores, target
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
        if not 0 <= index < classes:
            raise ValueError(f"expected a class from 0 to {classes - 1}, got {index}: choose one in range")
    return indices


def probabilities(logits: Tensor) -> Tensor:
    """The softmax of (N, classes) logits, in float32 at least."""
    if logits.ndim != 2:
        raise ValueError(f"expected an output (N, classes), got {tuple(logits.shape)}: a classifier has it")
    return (logits.float() if logits.dtype.itemsize < 4 else logits).softmax(1)
