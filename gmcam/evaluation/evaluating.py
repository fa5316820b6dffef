"""``evaluate``: every method on every picture of a dataset, into a run's folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from gmcam.evaluation import runs
from gmcam.evaluation.measuring import Case, Choices, cases_of, fitted, measure
from gmcam.evaluation.ranks import ranks
from gmcam.evaluation.runs import Run
from gmcam.evaluation.tables import write_tables
from gmcam.images.matching import class_groups
from gmcam.images.records import Dataset
from gmcam.methods import compare
from gmcam.networks.network import Network
from gmcam.networks.preprocessing import Preprocessing

AHEAD = 2  # blocks that are being read while one is computed
_Picture = list[Case] | dict[str, Any]  # a picture's cases, or the row that says why there are none


def evaluate(
    network: Network, dataset: Dataset, choices: Choices, out: str | Path, *, readers: int = 1
) -> Run:
    """Measure ``choices.methods`` on every picture of ``dataset``; fill the folder ``out``.

    Where ``out`` holds a part of the same run, it is continued; no finished block is computed again.
    Under ``torchrun`` the blocks are shared between its processes. ``readers``: threads that decode
    pictures while others are computed. A picture that cannot be read, or that a method fails on, is
    recorded with its error and counted.

    Raises ``ValueError`` in one sentence: a network without the dataset's classes, a method that the
    network cannot serve, a folder with another run (the difference is named) or one in use by another
    process, or a disk that takes no more, in which case the finished blocks stay.
    """
    folder = Path(out)
    network = fitted(network, choices.fit)
    groups = class_groups(network.classes, dataset.classes)
    with ranks() as us, ExitStack() as held:

        def begin() -> list[int]:
            held.enter_context(runs.locked(folder))
            if not (folder / "run.json").exists():  # refuse now what no picture could change
                noise = torch.rand((1, *network.input_shape), generator=torch.Generator().manual_seed(0))
                compare(network, noise, 0, methods=choices.methods, layer=choices.layer)
            return runs.begin(folder, network, dataset, choices)

        missing = us.agree(begin)
        mine = missing[us.rank :: us.size]
        work = _read_ahead(dataset, choices.batch, mine, network, groups, readers)
        bar = tqdm(work, desc=f"rank {us.rank}" if us.size > 1 else "blocks", total=len(mine), delay=2)
        for block, pictures in bar:
            runs.write_block(folder, block, _rows(network, pictures, choices))
        us.wait()
        run = Run.open(folder)
        if us.rank == 0:
            with runs.disk(folder, runs.KEPT):
                write_tables(run)
        us.wait()
    return run


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
            cases = cases_of(dataset.read(index), cast(Preprocessing, network.preprocess), groups)
        except (ValueError, OSError) as error:
            return {**row, "status": "unreadable", "error": str(error)}
        return cases or {**row, "status": "no class"}

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
    except ValueError as error:  # one picture's fault: alone, the others come through
        if len(pictures) == 1:
            return [{"picture": cases[0].picture, "status": "failed", "error": str(error)}]
        return [row for picture in pictures for row in _rows(network, [picture], choices)]
    rows: list[dict[str, Any]] = []
    for picture in pictures:
        if isinstance(picture, list):
            rows += islice(measured, len(picture) * len(choices.methods))
        else:
            rows.append(picture)
    return rows
