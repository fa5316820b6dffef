"""What an evaluation costs over the passes that it needs, how fast it is, and what more processes gain.

    python benchmarks/evaluation.py [--device cpu|cuda] [--dataset collage|voc] [--root DIR] [--network NAME]

First one process with all threads: every call of the network is counted with its batch size while the
run is timed (from its start to its tables); then the same passes are made bare, on noise, in the usual
layout and with channels last: forward passes in inference mode, those with gradients as one forward and
backward pass at the layer. Then the article's ten methods on each of ``--article``: pictures and passes a
second, without the curves of insertion and deletion and with them. On a CPU at last one process with one
thread, two of them, and two nodes of one process each, which find each other by an address as they would
on two machines: blocks per second between the first block and the last, so that starting Python does not
count.
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
    """Seconds of ``run()``, and how often the network ran by batch size, with gradients or without."""
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
    """Seconds of the same passes and nothing else."""
    module = network.module
    layout = torch.channels_last if last else torch.contiguous_format
    device = next(module.parameters()).device
    total = 0.0
    for (batch, gradients), times in counted.items():
        inputs = torch.rand(batch, *network.input_shape).to(device, memory_format=layout)
        for number in range(times + 1):  # the first of each kind does not count
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
    """A row: how long a whole run takes, and with how many passes."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, counted = passes_of(network, lambda: evaluate(network, dataset, choices, Path(folder)))
    passes = sum(batch * count for (batch, _), count in counted.items())
    row = {
        "network": network.name,
        "dataset": dataset.name,
        "methods": len(choices.methods),
        "pixels": choices.pixels,
        "pictures": len(dataset),
        "seconds": round(seconds, 2),
        "passes": passes,
        "pictures a second": round(len(dataset) / seconds, 3),
        "passes a second": round(passes / seconds, 1),
    }
    return row, counted


def rate(arguments: list[str], out: Path, ranks: int, nodes: int = 1) -> float:
    """Blocks per second of ``nodes`` times ``ranks`` processes with one thread each."""
    launch = [sys.executable]
    if ranks * nodes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        launch += ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={ranks}"]
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
    processes = ranks * nodes
    return (len(ends) - processes) / (ends[-1] - ends[processes - 1])


def shared(options: argparse.Namespace, layer: str) -> list[dict[str, Any]]:
    """A row for one process, for two, and for two nodes of one."""
    root = ["--root", str(options.root)] if options.root else []
    arguments = ["--dataset", options.dataset, *root, "--limit", str(options.limit), "--pixels", "0"]
    arguments += ["--network", options.network, "--layer", layer, "--methods", ",".join(ONE_PASS)]
    arguments += ["--batch", str(options.batch)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for ranks, nodes in ((1, 1), (2, 1), (1, 2)):
            blocks = rate(arguments, Path(folder, f"{ranks}-{nodes}"), ranks, nodes)
            rows.append(
                {
                    "network": options.network,
                    "nodes": nodes,
                    "processes a node": ranks,
                    "blocks a second": round(blocks, 3),
                }
            )
    return rows


def main() -> None:
    more = parser(__doc__ or "")
    more.add_argument("--dataset", default="collage")
    more.add_argument("--root", type=Path)
    more.add_argument("--network", default="collage-vgg")
    more.add_argument("--limit", type=int, default=32)
    more.add_argument("--batch", type=int, default=8)
    more.add_argument("--article", nargs="*", default=["collage-vgg"], metavar="NETWORK")
    more.add_argument("--pictures", type=int, default=8, help="for the article's methods")
    options = more.parse_args()
    torch.set_num_threads(options.threads)
    # Weights where there are some: the command line, which starts the other processes, loads them too.
    network = gmcam.load(options.network)
    network.module.to(options.device)
    layer = network.layer_path()
    dataset = open_dataset(options.dataset, options.root, limit=options.limit)
    row, counted = measured(network, dataset, Choices(ONE_PASS, layer, pixels=0, batch=options.batch))
    for last, column in ((False, "over bare passes"), (True, "over bare passes, channels last")):
        row[column] = round(row["seconds"] / bare(network, counted, layer, last), 3)
    write("evaluation", [row], options)
    few = open_dataset(options.dataset, options.root, limit=options.pictures)
    rows = []
    for name in options.article:
        network = load(name, options.device)
        for pixels in (0, 224):
            rows.append(measured(network, few, Choices(ARTICLE, pixels=pixels))[0])
            write("article", rows, options)
    if options.device == "cpu":
        write("processes", shared(options, layer), options)


if __name__ == "__main__":
    main()
