"""``evaluate``: every method on every picture of a dataset, into a run's folder."""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from gmcam.chunks import is_out_of_memory
from gmcam.datasets.matching import class_groups
from gmcam.datasets.records import Dataset
from gmcam.evaluate import runs
from gmcam.evaluate.measuring import Case, Choices, cases_of, fitted, measure
from gmcam.evaluate.processes import ranks
from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import status, write_tables
from gmcam.explaining import compare
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

AHEAD = 2  # blocks that are being read while one is computed
# What a system says that is out of files or memory, or has lost a disk.
_DISK = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.ENODEV,
}
_Picture = list[Case] | dict[str, Any]  # a picture's cases, or the row that says why there are none


def evaluate(
    network: Network, dataset: Dataset, choices: Choices, out: str | Path, *, readers: int = 1
) -> Run:
    """Measure ``choices.methods`` on every picture of ``dataset``; fill the folder ``out``.

    Where ``out`` holds a part of the same run, it is continued; no finished block is computed again.
    Under ``torchrun`` the blocks are shared between its processes. ``readers``: threads that decode
    pictures while others are computed. A picture that cannot be read, or that a method fails on, is
    recorded with its error and counted; to try it again, delete its block's file. On a CPU the records
    are the same to the last bit for any number of processes with the same number of threads each; a GPU
    adds up in an order of its own.

    Raises ``ValueError`` in one sentence: a network without the dataset's classes, a method that the
    network cannot serve, a folder with another run (the difference is named) or one in use by another
    process, a disk that takes no more, in which case the finished blocks stay, or a dataset of which no
    picture could be measured. Under ``torchrun`` let the error end the process: the others wait for it
    until torchrun ends them too.
    """
    folder = Path(out)
    network = fitted(network, choices.fit)
    groups = class_groups(network.classes, dataset.classes)
    device = next(network.module.parameters(), torch.empty(0)).device
    with ranks(device) as us, ExitStack() as held:

        def begin() -> list[int]:
            held.enter_context(runs.locked(folder))
            if not (folder / "run.json").exists():  # refuse now what no picture could change
                noise = torch.rand((1, *network.input_shape), generator=torch.Generator().manual_seed(0))
                compare(network, noise, 0, methods=choices.methods, layer=choices.layer, sigma=choices.sigma)
            return runs.begin(folder, runs.describe(network, dataset, choices, groups), dataset, choices)

        missing = us.agree(begin)
        mine = missing[us.rank :: us.size]
        work = _read_ahead(dataset, choices.batch, mine, network, groups, readers)
        bar = tqdm(work, desc=f"rank {us.rank}" if us.size > 1 else "blocks", total=len(mine), delay=2)
        for block, pictures in bar:
            runs.write_block(folder, block, _rows(network, pictures, choices))
        us.wait()
        run = Run.open(folder)
        us.agree(lambda: _finish(run, dataset, choices))
    return run


def _finish(run: Run, dataset: Dataset, choices: Choices) -> None:
    """The tables, once every block is there."""
    lost = runs.missing(run.folder, dataset, choices)
    if lost:
        raise ValueError(
            f"{len(lost)} blocks of {run.folder} are not there, such as {runs.path_of(run.folder, lost[0])}: "
            "all processes must see one folder"
        )
    if not status(run)["measured"]:
        rows = next(run.blocks()).to_pylist()
        raise ValueError(
            f"no picture of {dataset.name} could be measured; of the first, {rows[0]['status']}: "
            f"{rows[0]['error']}"
        )
    with runs.disk(run.folder, runs.KEPT):
        write_tables(run)


def _read_ahead(
    dataset: Dataset,
    batch: int,
    blocks: Sequence[int],
    network: Network,
    groups: Mapping[str, tuple[int, ...]],
    readers: int,
) -> Iterator[tuple[int, list[_Picture]]]:
    """Each block's pictures as cases, or as the row that says why there are none; read by threads."""

    def read(index: int) -> _Picture:
        row = {"picture": dataset.names[index]}
        try:
            record = replace(dataset.read(index), name=dataset.names[index])
            cases = cases_of(record, cast(Preprocessing, network.preprocess), groups)
        except Exception as error:  # whatever else a dataset's own code raises is one picture's fault
            if _of_the_machine(error):
                raise
            return {**row, "status": "unreadable", "error": str(error) or type(error).__name__}
        return cases or {**row, "status": "no class", "error": "none of its classes is among the network's"}

    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[tuple[int, list[Future[_Picture]]]] = deque()
        for block in [*blocks, *[None] * AHEAD]:
            if block is not None:
                indices = range(block * batch, min((block + 1) * batch, len(dataset)))
                waiting.append((block, [pool.submit(read, index) for index in indices]))
            if waiting and (block is None or len(waiting) > AHEAD):
                number, futures = waiting.popleft()
                yield number, [future.result() for future in futures]


def _rows(network: Network, pictures: Sequence[_Picture], choices: Choices) -> list[dict[str, Any]]:
    """A block's rows, in the pictures' order."""
    cases = [case for picture in pictures if isinstance(picture, list) for case in picture]
    try:
        measured = iter(measure(network, cases, choices))
    except Exception as error:  # of whatever kind: readers register methods of their own
        if is_out_of_memory(error):
            less = "fewer at a time" if choices.batch > 1 else "a smaller network or another device"
            raise ValueError(
                f"pictures take too much memory, {choices.batch} at a time: take {less} ({error})"
            ) from None
        if _of_the_machine(error):
            raise
        # One picture's fault: alone, the others come through.
        if len(pictures) == 1:
            said = str(error) or type(error).__name__
            return [{"picture": cases[0].picture, "status": "failed", "error": said}]
        return [row for picture in pictures for row in _rows(network, [picture], choices)]
    rows: list[dict[str, Any]] = []
    for picture in pictures:
        if isinstance(picture, list):
            rows += islice(measured, len(picture) * len(choices.methods))
        else:
            rows.append(picture)
    return rows


def _of_the_machine(error: BaseException) -> bool:
    """Whether the next picture would meet the same: no memory, no files, or a GPU that has failed, as it then
    does until the process ends. Nothing is written of the picture; the run ends, and can be continued."""
    met: BaseException | None = error
    while met is not None:
        disk = isinstance(met, OSError) and met.errno in _DISK
        device = isinstance(met, RuntimeError) and re.search("CUDA error|CUDNN_|CUBLAS_|HIP error", str(met))
        if disk or device or isinstance(met, MemoryError):
            return True
        met = met.__cause__ or met.__context__
    return False
