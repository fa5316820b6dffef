"""A run: a folder that an evaluation fills block by block, and can be stopped and continued anywhere.

``run.json`` says what was asked; ``records/`` holds one Parquet file per block of pictures, written
beside its name and then moved there, so that a block is there whole or not at all; ``tables/`` is
made of the records at the end. A block always holds the same pictures in the same batches, whoever
computes it: the records do not depend on how often a run was stopped or on how many processes share it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from gmcam.datasets.records import Dataset
from gmcam.evaluate.measuring import Choices
from gmcam.files import UNFINISHED, written_whole
from gmcam.methods import METHODS
from gmcam.metrics import METRICS
from gmcam.network import Network
from gmcam.version import __version__

# One row per picture, class and method. ``status``: "measured"; or, in the one row of a picture without
# any, "unreadable", "no class" (none of its classes is among the network's) or "failed", with ``error``.
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("picture", "label", "method", "status", "error")),
        ("target", pa.int64()),
        ("empty", pa.bool_()),
        *((name, pa.float64()) for name in ("probability", "score", *METRICS)),
    ]
)
_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow", "pycocotools", "captum", "zennit")
KEPT = "what is finished is kept: make room or allow writing, and give the same command again"


@dataclass(frozen=True)
class Run:
    """A finished or unfinished evaluation: ``folder``, and ``description``, the contents of its run.json."""

    folder: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Raises ``ValueError`` for a folder that holds no run."""
        path = Path(folder, "run.json")
        try:
            description = json.loads(path.read_text("utf-8"))
            if not isinstance(description, dict):
                raise ValueError("it describes nothing")
            return cls(Path(folder), description)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no run: its run.json cannot be read ({error})") from None

    def blocks(self) -> Iterator[pa.Table]:
        """The records, a block at a time, in the pictures' order."""
        for path in sorted(Path(self.folder, "records").glob("block-*.parquet")):
            yield pq.read_table(path, page_checksum_verification=True)


def describe(
    network: Network, dataset: Dataset, choices: Choices, groups: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, Any]]:
    """What two runs must share to be one: the choices; the methods' options, with their seeds; the
    pictures; the network's weights, preprocessing and logits for the dataset's classes; versions."""
    weights = hashlib.sha256()
    for name, tensor in sorted(network.module.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    like = next(network.module.parameters(), torch.empty(0))
    arguments = {**choices.values(), "layer": network.layer_path(choices.layer)}
    return {
        "arguments": {**arguments, "methods": list(choices.methods)},
        "options": {name: METHODS[name].options for name in choices.methods},
        "dataset": {
            "name": dataset.name,
            "pictures": len(dataset),
            "sha256": _sha256("\n".join(dataset.names)),
            "groups": _sha256(json.dumps(groups)),
        },
        "network": {
            "name": network.name,
            "sha256": weights.hexdigest(),
            "preprocessing": repr(network.preprocess),
            "type": f"{like.dtype} on {like.device.type}",
        },
        "versions": {
            "gmcam": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
    }


def begin(folder: Path, wanted: Mapping[str, Any], dataset: Dataset, choices: Choices) -> list[int]:
    """Make the folder or check that it holds the run that is wanted; which blocks are missing."""
    if not len(dataset):
        raise ValueError(f"{dataset.name} holds no picture")
    path = folder / "run.json"
    wanted = json.loads(json.dumps(wanted))  # as it would be read again: a tuple is a list
    if path.exists():
        there = Run.open(folder).description
        for part, values in wanted.items():
            for name, value in values.items():
                held = there.get(part, {}).get(name)
                if held != value:
                    raise ValueError(
                        f"{folder} holds a run with {part}: {name} {held!r}, not {value!r}; "
                        "name another folder, or give the same arguments to continue"
                    )
    else:
        if any(entry.name != "lock" and UNFINISHED not in entry.name for entry in folder.iterdir()):
            raise ValueError(f"{folder} holds other files and no run; name a new or an empty folder")
        machine = {"threads": torch.get_num_threads(), "platform": platform.platform()}
        started = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({**wanted, "machine": machine, "started": started}, indent=2)
        with disk(folder, KEPT), written_whole(path) as unfinished:
            unfinished.write_text(text + "\n", "utf-8")
    with disk(folder, KEPT):
        (folder / "records").mkdir(exist_ok=True)
        for left in folder.rglob(UNFINISHED + "*"):  # of a process that was killed
            left.unlink(missing_ok=True)
    return missing(folder, dataset, choices)


def missing(folder: Path, dataset: Dataset, choices: Choices) -> list[int]:
    """The blocks that are not there, or not whole."""
    starts = range(0, len(dataset), choices.batch)
    return [
        block
        for block, start in enumerate(starts)
        if not _is_whole(path_of(folder, block), dataset.names[start : start + choices.batch])
    ]


def path_of(folder: Path, block: int) -> Path:
    """Where a block is kept."""
    return folder / "records" / f"block-{block:06d}.parquet"


def _is_whole(path: Path, pictures: Sequence[str]) -> bool:
    """Whether a block's file can be read to its end and holds these pictures; a torn one is told of."""
    if not path.exists():
        return False
    try:
        column = pq.read_table(path, page_checksum_verification=True)["picture"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        warnings.warn(f"{path} is torn and computed again ({error})", stacklevel=2)
        return False
    if list(dict.fromkeys(column)) != list(pictures):
        warnings.warn(f"{path} holds other pictures and is computed again", stacklevel=2)
        return False
    return True


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_block(folder: Path, block: int, rows: list[dict[str, Any]]) -> None:
    """Put a finished block into the folder; ``ValueError`` where the disk takes no more."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    with disk(folder, KEPT), written_whole(path_of(folder, block)) as unfinished:
        pq.write_table(table, unfinished, write_page_checksum=True)


@contextmanager
def disk(folder: Path, kept: str) -> Iterator[None]:
    """Whatever the disk refuses becomes a ``ValueError`` that says what is ``kept``."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}); {kept}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else works on the folder meanwhile; the lock goes with the process, however it ends."""
    with disk(folder, "name a folder that can be"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"another process works on {folder}; wait for it, or name another folder"
            ) from None
    try:
        yield
    finally:
        lock.release()
