"""``evaluate``: every method on every image of a dataset, into a run's folder."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils import data
from tqdm import tqdm

from gmcam.datasets import Dataset, class_groups
from gmcam.datasets.records import Root
from gmcam.evaluate import runs
from gmcam.evaluate.measuring import Case, Choices, Groups, cases_of, fitted, grouped, measure
from gmcam.evaluate.processes import join
from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import status, write_tables
from gmcam.network import Network

IMAGE_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError)  # one image's fault
_Image = list[Case] | dict[str, Any]  # an image's cases, or the row that says why there are none


def evaluate(network: Network, dataset: Dataset, choices: Choices, folder: Root, *, workers: int = 0) -> Run:
    """Measure ``choices.methods`` on every image of ``dataset``; write records and tables into ``folder``.
    The same command continues a run that ended early. Processes started by ``torchrun`` share the blocks.
    ``workers``: processes that read images ahead, as in ``DataLoader``. On a CPU, records are equal to the
    last bit for any number of processes of the same number of threads. Where several of the network's classes
    stand for one of the dataset's, they are one ``group``. An image is recorded with its error if
    reading it fails, or if measuring it alone raises one of ``IMAGE_ERRORS``; delete its block's file to try
    again. Lack of memory and errors of a device or the disk end the run. ``ValueError`` for a network without
    the dataset's classes, choices that do not fit it, another run's folder or one in use, no valid image."""
    folder, network = Path(folder), fitted(network, choices.fit)
    groups = class_groups(network.classes, dataset.classes)
    network = grouped(network, groups)
    indices = list(range(len(dataset)))
    blocks = [indices[start : start + choices.batch] for start in indices[:: choices.batch]]
    with join(next(network.module.parameters(), torch.empty(0)).device) as processes, ExitStack() as stack:

        def begin() -> list[int]:
            stack.enter_context(runs.locked(folder))
            if not (folder / "run.json").exists():  # refuse now what fails on any image
                noise = torch.rand(network.input_shape, generator=torch.Generator().manual_seed(0))
                area = torch.ones(network.input_shape[1:], dtype=torch.bool)
                case = Case("", "", next(iter(groups.values())), noise, area, area, area, torch.zeros(0, 4))
                measure(network, [case], choices)
            runs.begin(folder, network, dataset, choices, groups)
            return runs.missing(folder, len(blocks))

        def finish() -> None:
            if runs.missing(folder, len(blocks)):
                raise ValueError(f"expected all blocks in {folder}, got some: let all processes share it")
            if not status(run)["measured"]:
                error = run.records()["error"].iloc[0]
                raise ValueError(f"expected images that can be measured, got none; the first failed: {error}")
            write_tables(run)

        missing = processes.agree(begin)[processes.rank :: processes.size]
        loader = data.DataLoader(
            _Images(dataset, network.preprocess, groups),
            batch_sampler=[blocks[i] for i in missing],
            collate_fn=list,
            num_workers=workers,
            worker_init_fn=_share_by_name,
            generator=torch.Generator(),  # leaves the global random state alone
        )
        for block, images in zip(missing, tqdm(loader, f"rank {processes.rank}", delay=2), strict=True):
            runs.write_block(folder, block, _rows(network, images, choices))
        run = Run.open(folder)
        processes.agree(finish)
    return run


@dataclass(frozen=True)
class _Images(data.Dataset[_Image]):
    dataset: Dataset
    preprocess: Any
    groups: Groups

    def __getitem__(self, index: int) -> _Image:
        name = self.dataset.names[index]
        try:
            cases = cases_of(replace(self.dataset.read(index), name=name), self.preprocess, self.groups)
        except MemoryError:
            raise
        except Exception as error:  # of any kind that a dataset raises
            return {"image": name, "status": "unreadable", "error": str(error) or type(error).__name__}
        return cases or {"image": name, "status": "no class", "error": "the network has none of its classes"}


def _share_by_name(_worker: int) -> None:  # an open file for each tensor would exceed the system's limit
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]


def _rows(network: Network, images: Sequence[_Image], choices: Choices) -> list[dict[str, Any]]:
    cases = [case for image in images if isinstance(image, list) for case in image]
    parts = [cases[start : start + choices.batch] for start in range(0, len(cases), choices.batch)]
    try:
        measured = iter([row for part in parts for row in measure(network, part, choices)])
    except IMAGE_ERRORS as error:
        if len(images) > 1:  # the others may succeed alone
            return [row for image in images for row in _rows(network, [image], choices)]
        return [{"image": cases[0].image, "status": "failed", "error": str(error) or type(error).__name__}]
    rows: list[dict[str, Any]] = []
    for image in images:
        rows += [image] if isinstance(image, dict) else islice(measured, len(image) * len(choices.methods))
    return rows
