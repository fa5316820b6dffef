"""Shared by the benchmarks: networks, a clock, memory, and the tables that the book reads.

Each benchmark writes ``book/benchmarks/<cpu|cuda>/<its name>.csv`` and ``machine.csv``, which records the
machine and the versions. ``book/benchmarks.ipynb`` shows them.
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
Output = TypeVar("Output")
PACKAGES = ("torch", "torchvision", "captum", "grad-cam", "torchcam")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    gc.freeze()  # collections need not visit imported modules
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="on the CPU")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    return options


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


def scenes(network: gmcam.Network, batch: int, side: int = 0) -> Tensor:
    """A batch of scenes, on the network's device and in its dtype; resized to ``side``, if given."""
    inputs = network.prepare([gmcam.lab.scene("cat", "cup", seed=seed).image for seed in range(batch)])
    return F.interpolate(inputs, (side, side), mode="bilinear") if side else inputs


def clock(call: Callable[[], object], device: str) -> float:
    """Seconds of one call, on a GPU between two CUDA events."""
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
    """Seconds of each call in each round. The caller has run each call once, to warm up.

    Every round has another order, so that caches, the allocator and slow phases of the machine affect all
    calls alike. No round begins after ``patience`` seconds, once there are three.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names, shuffle = list(calls), random.Random(0).shuffle
    began = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - began > patience:
            break
        shuffle(names)
        for name in names:
            gc.collect()  # graphs left in reference cycles would fill the memory
            seconds[name].append(clock(calls[name], device))
    return seconds


def saved_megabytes(module: torch.nn.Module, call: Callable[[], Output]) -> tuple[Output, float]:
    """A call's output, and the megabytes that autograd saves for its backward pass, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output saved by its own graph would never be freed

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()
    return output, sum(saved.values()) / 1e6


def peak(call: Callable[[], object], device: str) -> float:
    """The peak memory of a call in megabytes, above the memory in use before it."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak
    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) / 1e3


def write(name: str, rows: Sequence[Mapping[str, object]], options: argparse.Namespace) -> None:
    """Write a table of the book, and the machine and versions that it was measured with."""
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
