"""The processes that share a run: one alone, or those that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

_Answer = TypeVar("_Answer")
PATIENCE = timedelta(days=7)  # a process with little left waits for the others, however long they take


@dataclass(frozen=True)
class Ranks:
    """``rank``, this process's number, of ``size``."""

    rank: int
    size: int

    def agree(self, ask: Callable[[], _Answer]) -> _Answer:
        """What ``ask`` gives on rank 0, on every rank; the ``ValueError`` that it raises likewise."""
        if self.size == 1:
            return ask()
        said: list[tuple[_Answer | None, str | None]] = [(None, None)]
        if self.rank == 0:
            try:
                said = [(ask(), None)]
            except ValueError as error:
                said = [(None, str(error))]
        dist.broadcast_object_list(said, src=0)
        answer, complaint = said[0]
        if complaint is not None:
            raise ValueError(complaint)
        return answer  # type: ignore[return-value]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes, by gloo for networks on a CPU and NCCL for those on a GPU each, and leave
    them at the end.

    ``device``: the network's. A process group that the caller has made already is used, and left standing.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(0, 1)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL sends from the current one
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size())
    # Not after an error: NCCL would wait here for the others, who wait for this process. It is its end that
    # torchrun sees.
    dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is alone or the first of those that share a run: the one that speaks."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK") == "0"


def device() -> torch.device:
    """This process's own: its GPU where there are some, the CPU otherwise.

    Raises ``ValueError`` where there are more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    own, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= there:
        raise ValueError(
            f"{there} GPUs do not suffice for process {own + 1}; start one process per GPU, and where each "
            "sees one of its own, set LOCAL_RANK to 0"
        )
    torch.cuda.set_device(own)
    return torch.device("cuda", own)
