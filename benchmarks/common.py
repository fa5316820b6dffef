"""What the benchmarks share: networks, a clock, memory, and the tables that the book reads.

Each benchmark writes ``book/benchmarks/<cpu|cuda>/<its name>.csv``, and ``machine.csv`` beside it: what it
was measured with. ``book/benchmarks.ipynb`` shows them.
"""

from __future__ import annotations

import argparse
import csv
import gc
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

import gmcam
from gmcam.preprocessing import Preprocessing

RESULTS = Path(__file__).parents[1] / "book" / "benchmarks"
Found = TypeVar("Found")
PACKAGES = ("torch", "torchvision", "captum", "grad-cam", "torchcam")


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    gc.freeze()  # what was imported stays: no collection need go through it
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on the CPU")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    return made


def load(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> gmcam.Network:
    """An embedded network, or one of torchvision's with random weights: time does not depend on them."""
    if name in gmcam.lab.EMBEDDED:
        network = gmcam.load(name)
    else:
        torch.manual_seed(0)
        module = torchvision.models.get_model(name, weights=None).eval()
        classes = torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]
        network = gmcam.Network(module, name=name, classes=classes, preprocess=Preprocessing(224, 224))
    network.module.to(device, dtype)
    return network


def pictures(network: gmcam.Network, batch: int, side: int = 0) -> Tensor:
    """Scenes for a network, on its device and in its dtype; enlarged or reduced to ``side``."""
    names = [gmcam.lab.scene("cat", "cup", seed=seed).image for seed in range(batch)]
    inputs = network.prepare(names)
    return F.interpolate(inputs, (side, side), mode="bilinear") if side else inputs


def clock(call: Callable[[], object], device: str) -> float:
    """Seconds of one call, on a GPU between two of its own events."""
    if device == "cpu":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def timed(
    calls: Mapping[str, Callable[[], object]], device: str, rounds: int, patience: float
) -> dict[str, list[float]]:
    """Seconds of each call in each round. The calls have run once before, which does not count.

    Every round goes through them in another order: what a call leaves in caches and in the allocator, and a
    slow spell of the machine, meets all of them. After ``patience`` seconds, and three rounds, without which
    a median tells nothing, no other begins.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names, shuffle = list(calls), random.Random(0).shuffle
    began = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - began > patience:
            break
        shuffle(names)
        for name in names:
            gc.collect()  # what a library leaves in cycles, graphs among it, would fill the memory
            seconds[name].append(clock(calls[name], device))
    return seconds


def held(module: torch.nn.Module, call: Callable[[], Found]) -> tuple[Found, float]:
    """What a call gives, and the megabytes that autograd holds for its backward pass beside parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a result that its own graph holds would never be freed

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return result, sum(found.values()) / 1e6


def peak(call: Callable[[], object], device: str) -> float:
    """Megabytes that a call takes at most beyond what there was before it."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest is counted from here
    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) / 1e3


def write(name: str, rows: Sequence[Mapping[str, object]], options: argparse.Namespace) -> None:
    """A table of the book, and beside it what it was measured with."""
    folder = options.out / options.device
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    machine = {
        "Date": f"{datetime.now(UTC):%Y-%m-%d}",
        "Device": _processor(options),
        "Python": platform.python_version(),
        "gmcam": gmcam.__version__,
        **{package: _version(package) for package in PACKAGES},
    }
    with (folder / "machine.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("What", "Which"), *machine.items()])
    print(f"{folder / name}.csv: {len(rows)} rows")


def _processor(options: argparse.Namespace) -> str:
    if options.device != "cpu":
        return torch.cuda.get_device_name()
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0] if models else platform.machine()}, {options.threads} threads"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
