"""Process many things a chunk at a time, and smaller chunks where memory runs out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

_Output = TypeVar("_Output")


def in_chunks(
    run: Callable[[Tensor], _Output], items: Tensor | Iterable[Tensor], size: int, label: str = ""
) -> Iterator[tuple[Tensor, _Output]]:
    """Chunks of ``items`` along their first axis, at most ``size`` long, each with ``run(chunk)``.

    Several tensors are cut separately. A chunk that runs out of memory is halved, and no later chunk is
    longer. ``label``: of a progress bar on stderr after two seconds; without it there is none.
    Raises ``ValueError`` for a size below 1, ``torch.OutOfMemoryError`` where one item is too much."""
    if size < 1:
        raise ValueError(f"expected a whole number from 1 on for chunk_size, got {size}: raise it")
    parts = [items] if isinstance(items, Tensor) else items
    total = sum(map(len, parts)) if isinstance(parts, Sequence) else None
    with tqdm(total=total, desc=label, delay=2, leave=False, disable=not label) as bar:
        for rest in parts:
            while length := min(size, len(rest)):
                output, count = halving(lambda n: run(rest[:n]), length)  # noqa: B023  (called at once)
                size = count if count < length else size
                chunk, rest = rest[:count], rest[count:]
                yield chunk, output
                bar.update(len(chunk))


def halving(run: Callable[[int], _Output], size: int) -> tuple[_Output, int]:
    """``run(size)``, with the size halved until it fits in memory; the output and that size.

    Raises ``torch.OutOfMemoryError`` where even 1 does not fit."""
    while True:
        try:
            return run(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                fault = f"expected memory for one at a time, and it ran out ({error}): use smaller images"
                raise torch.OutOfMemoryError(f"{fault}, a smaller network or another device") from error
        size //= 2  # out here, where the error no longer keeps the full memory alive


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch often reports it in a message alone."""
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )
