"""Work on many things a chunk at a time, and on fewer where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

_Found = TypeVar("_Found")


def in_chunks(
    run: Callable[[Tensor], _Found], items: Tensor | Iterable[Tensor], size: int, what: str = ""
) -> Iterator[tuple[Tensor, _Found]]:
    """Chunks of ``items`` along their first axis, at most ``size`` long, each with what ``run`` gives for it.

    Of several tensors each is cut by itself. Where a chunk takes too much memory its halves are tried,
    and no later chunk is longer than they. A bar called ``what`` stands on stderr once the work takes over
    two seconds; without a name there is none. Raises ``torch.OutOfMemoryError`` where one item is too much.
    """

    def begin(count: int) -> _Found:
        return run(rest[:count])

    parts = [items] if isinstance(items, Tensor) else items
    total = sum(map(len, parts)) if isinstance(parts, Sequence) else None
    with tqdm(total=total, desc=what, delay=2, leave=False, disable=not what) as bar:
        for rest in parts:
            while len(rest):
                wanted = min(size, len(rest))
                found, count = halving(begin, wanted)
                size = count if count < wanted else size
                chunk, rest = rest[:count], rest[count:]
                yield chunk, found
                bar.update(len(chunk))


def halving(run: Callable[[int], _Found], size: int) -> tuple[_Found, int]:
    """What ``run`` gives for ``size``, or for the first of its halves, quarters, … that memory suffices for,
    and which size that was. Raises ``torch.OutOfMemoryError`` where it does not suffice for 1."""
    while True:
        try:
            return run(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise torch.OutOfMemoryError(
                    "memory does not suffice even for one at a time: take smaller pictures, a smaller "
                    f"network or another device ({error})"
                ) from error
        size //= 2  # out here, where the error no longer keeps alive what filled the memory


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice; torch often says so in words alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(one in str(error) for one in words)
