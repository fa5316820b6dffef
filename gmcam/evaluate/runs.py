"""A run: a folder that an evaluation fills block by block, and that can be stopped and continued at any time.
``run.json`` describes it; ``records/`` has a Parquet file per block of images, complete or absent. A block
always has the same images in the same batches, whatever the interruptions and the number of processes."""

import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import torch

from gmcam._extras import require
from gmcam.datasets import Dataset
from gmcam.evaluate.measuring import DICE_AT, Choices, Groups
from gmcam.files import UNFINISHED, written_whole
from gmcam.methods import METHODS
from gmcam.metrics import METRICS
from gmcam.network import Network

# Name → Arrow type. A row per image, class and method, with the status "measured"; or one per image, with the
# status "unreadable", "no class" (of the network's) or "failed", and the error.
COLUMNS = dict.fromkeys(("image", "label", "method", "status", "error"), "string")
COLUMNS |= {"empty": "bool_"}
COLUMNS |= dict.fromkeys(("probability", "rank", "score", *METRICS, *DICE_AT), "float64")
_BLOCK = "records/block-{:06d}.parquet"
_PACKAGES = ("gmcam", "torch", "torchvision", "numpy", "scipy", "pillow", "pycocotools", "captum", "zennit")


@dataclass(frozen=True, eq=False)
class Run:
    """An evaluation, finished or not: ``folder``, and ``description``, the content of its run.json."""

    folder: Path
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The run in a folder; ``ValueError`` where there is none."""
        try:
            return cls(Path(folder), dict(**json.loads(Path(folder, "run.json").read_text("utf-8"))))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"expected a run in {folder}, got no run.json ({error}): name another") from None

    def records(self) -> Any:
        """A DataFrame of all rows, in the images' order, with the columns ``COLUMNS``."""
        read = require("pandas", "evaluate").read_parquet
        return read(self.folder / "records", engine="pyarrow", page_checksum_verification=True)


def begin(folder: Path, network: Network, dataset: Dataset, choices: Choices, groups: Groups) -> None:
    """Write run.json, or check that the folder has the same run."""
    weights = hashlib.sha256()
    for name, tensor in sorted(network.module.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    first, sha256 = next(network.module.parameters(), torch.empty(0)), weights.hexdigest()
    kind, preprocessing = f"{first.dtype} on {first.device.type}", repr(network.preprocess)
    texts = "\n".join(dataset.names), json.dumps(groups)
    images, classes = (hashlib.sha256(text.encode()).hexdigest() for text in texts)
    versions = {name: package.version for name in _PACKAGES for package in metadata.distributions(name=name)}
    description: dict[str, Any] = {
        "arguments": asdict(choices) | {"layer": network.layer_path(choices.layer)},
        "options": {name: METHODS[name].options for name in choices.methods},
        "dataset": {"name": dataset.name, "images": len(dataset), "sha256": images, "groups": classes},
        "network": {"name": network.name, "sha256": sha256, "preprocessing": preprocessing, "type": kind},
        "versions": versions | {"python": platform.python_version()},
    }
    description = json.loads(json.dumps(description))  # as it is read again: tuples become lists
    if (folder / "run.json").exists():
        stored = Run.open(folder).description
        for part, name in ((part, name) for part, values in description.items() for name in values):
            if (before := stored.get(part, {}).get(name)) != (now := description[part][name]):
                fault = f"expected {part}: {name} {before!r} as in the run in {folder}, got {now!r}"
                raise ValueError(f"{fault}: give the same arguments to continue, or name another folder")
    else:
        description["machine"] = {"threads": torch.get_num_threads(), "platform": platform.platform()}
        description["started"] = datetime.now(UTC).isoformat(timespec="seconds")
        with written_whole(folder / "run.json") as file:
            file.write_text(json.dumps(description, indent=2) + "\n")
    (folder / "records").mkdir(exist_ok=True)
    for abandoned in folder.rglob(UNFINISHED + "*"):  # by a process that was killed
        abandoned.unlink(missing_ok=True)


def missing(folder: Path, blocks: int) -> list[int]:
    """The blocks without a file."""
    return [block for block in range(blocks) if not (folder / _BLOCK.format(block)).exists()]


def write_block(folder: Path, block: int, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a block."""
    arrow, parquet = require("pyarrow", "evaluate"), require("pyarrow.parquet", "evaluate")
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in COLUMNS.items()])
    with written_whole(folder / _BLOCK.format(block)) as unfinished:
        parquet.write_table(arrow.Table.from_pylist(rows, schema), unfinished, write_page_checksum=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create and lock the folder; ``ValueError`` if that fails or the folder has other files than a run's."""
    filelock = require("filelock", "evaluate")
    names = {path.name for path in folder.glob("*")}
    if "run.json" not in names and any(name != "lock" and UNFINISHED not in name for name in names):
        raise ValueError(f"expected an empty folder or a run, got other files in {folder}: name another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"expected a run's folder, got {folder} ({error.strerror}): name another") from None
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(f"expected a free folder, got {folder}, which is in use: wait") from None
