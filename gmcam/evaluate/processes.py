"""The processes that share a run: a single one, or those started by ``torchrun``."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist


class Processes(NamedTuple):
    """``rank``: this process's number, of ``size``."""

    rank: int
    size: int

    def agree(self, compute: Callable[[], Any]) -> Any:
        """Wait for every rank; the result of ``compute`` on rank 0, or its ``ValueError``, on all of them."""
        if self.size == 1:
            return compute()
        dist.barrier()
        try:
            results = [compute() if self.rank == 0 else None]
        except ValueError as error:
            results = [ValueError(str(error))]
        dist.broadcast_object_list(results, src=0)
        if isinstance(results[0], ValueError):
            raise results[0]
        return results[0]


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Join the other processes and leave them at the end. ``device``: the network's; a GPU needs NCCL."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes(0, 1)
        return
    if cuda := device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL sends from the current device
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=7))  # some wait long
    left = False
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        left = True
    finally:
        if left or not cuda:  # after an error, NCCL would wait for ranks that wait for this one
            dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the only one or the first, which prints the results."""
    return os.environ.get("RANK", "0") == "0"


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none; ``ValueError`` for more processes than GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= count:
        raise ValueError(f"expected a GPU for each process, got {count} for process {rank + 1}: start fewer")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
