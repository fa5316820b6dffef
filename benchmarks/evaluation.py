"""The cost of an evaluation relative to its forward passes, its speed, and the gain of more processes.

    python benchmarks/evaluation.py [--device cpu|cuda] [--dataset collage|voc] [--root DIR] [--network NAME]

First one process with all threads: every call of the network is counted with its batch size while the run is
timed, from its start to its tables; then the same passes run alone, on noise, in the usual layout and with
channels last: forward passes in inference mode, those with gradients as one forward and backward pass at the
layer. Then the article's ten methods on each network of ``--article``: images and passes a second, without
insertion and deletion curves and with the article's 224 pixels a step. On a CPU, finally, one process with
one thread, two of them, and two nodes of one process each, which find each other by an address as on two
machines: blocks a second between the first block and the last, so that the start of Python does not count.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import load, parser, write

import gmcam
from gmcam.__main__ import ARTICLE
from gmcam.datasets import open_dataset
from gmcam.datasets.records import Dataset
from gmcam.evaluate import Choices, evaluate

ONE_PASS = ("grad_cam", "grad_cam_pp", "x_grad_cam", "layer_cam", "guidance_map", "gmcam")
Passes = Counter[tuple[int, bool]]


def passes_of(network: gmcam.Network, run: Callable[[], object]) -> tuple[float, Passes]:
    """Seconds of ``run()``, and the network's passes by batch size, with and without gradients."""
    counted: Passes = Counter()

    def count(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counted[len(inputs[0]), output.requires_grad] += 1

    handle = network.module.register_forward_hook(count)
    started = time.perf_counter()
    try:
        run()
    finally:
        handle.remove()
    return time.perf_counter() - started, counted


def bare(network: gmcam.Network, counted: Passes, layer: str, last: bool) -> float:
    """Seconds of the same passes alone."""
    module = network.module
    layout = torch.channels_last if last else torch.contiguous_format
    device = next(module.parameters()).device
    total = 0.0
    for (batch, gradients), times in counted.items():
        inputs = torch.rand(batch, *network.input_shape).to(device, memory_format=layout)
        for number in range(times + 1):  # the first of each kind is not timed
            started = time.perf_counter()
            if gradients:
                gmcam.capture(module, inputs, [0] * batch, [layer])
            else:
                with torch.inference_mode():
                    module(inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()
            total += (time.perf_counter() - started) * (number > 0)
    return total


def measured(network: gmcam.Network, dataset: Dataset, choices: Choices) -> tuple[dict[str, Any], Passes]:
    """A row for a whole run, and its passes."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, counted = passes_of(network, lambda: evaluate(network, dataset, choices, Path(folder)))
    passes = sum(batch * count for (batch, _), count in counted.items())
    row = {
        "network": network.name,
        "dataset": dataset.name,
        "methods": len(choices.methods),
        "pixels": choices.pixels,
        "images": len(dataset),
        "seconds": round(seconds, 2),
        "passes": passes,
        "images a second": round(len(dataset) / seconds, 3),
        "passes a second": round(passes / seconds, 1),
    }
    return row, counted


def rate(arguments: list[str], out: Path, processes: int, nodes: int = 1) -> float:
    """Blocks a second of ``nodes`` times ``processes`` processes with one thread each."""
    launch = [sys.executable]
    if processes * nodes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        launch += ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={processes}"]
        launch += ["--rdzv-backend=c10d", f"--rdzv-endpoint={address}", "--rdzv-id=benchmark"]
    command = [*launch, "-m", "gmcam", "evaluate", *arguments, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(nodes)
    ]
    for process in running:
        if process.wait():
            raise SystemExit(f"a process ended with {process.returncode}: {' '.join(command)}")
    ends = sorted(path.stat().st_mtime for path in (out / "records").iterdir())
    first = processes * nodes - 1  # every process has finished a block
    return (len(ends) - 1 - first) / (ends[-1] - ends[first])


def shared(options: argparse.Namespace, layer: str) -> list[dict[str, Any]]:
    """A row for one process, for two, and for two nodes of one."""
    root = ["--root", str(options.root)] if options.root else []
    arguments = ["--dataset", options.dataset, *root, "--limit", str(options.limit), "--steps", "0"]
    arguments += ["--network", options.network, "--layer", layer, "--methods", ",".join(ONE_PASS)]
    arguments += ["--batch", str(options.batch)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for processes, nodes in ((1, 1), (2, 1), (1, 2)):
            blocks = rate(arguments, Path(folder, f"{processes}-{nodes}"), processes, nodes)
            rows.append(
                {
                    "network": options.network,
                    "nodes": nodes,
                    "processes a node": processes,
                    "blocks a second": round(blocks, 3),
                }
            )
    return rows


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--dataset", default="collage")
    arguments.add_argument("--root", type=Path)
    arguments.add_argument("--network", default="collage-vgg")
    arguments.add_argument("--limit", type=int, default=32)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--article", nargs="*", default=["collage-vgg"], metavar="NETWORK")
    arguments.add_argument("--images", type=int, default=8, help="for the article's methods")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    # With weights, because the command line, which starts the other processes, loads them too.
    network = gmcam.load(options.network)
    network.module.to(options.device)
    layer = network.layer_path()
    dataset = open_dataset(options.dataset, options.root, limit=options.limit)
    row, counted = measured(network, dataset, Choices(ONE_PASS, layer, steps=0, batch=options.batch))
    for last, column in ((False, "over bare passes"), (True, "over bare passes, channels last")):
        row[column] = round(row["seconds"] / bare(network, counted, layer, last), 3)
    write("evaluation", [row], options)
    few = open_dataset(options.dataset, options.root, limit=options.images)
    rows = []
    for name in options.article:
        network = load(name, options.device)
        for pixels in (0, 224):
            rows.append(measured(network, few, Choices(tuple(ARTICLE.split(",")), pixels=pixels))[0])
            write("article", rows, options)
    if options.device == "cpu":
        write("processes", shared(options, layer), options)


if __name__ == "__main__":
    main()
