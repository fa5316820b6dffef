"""What a whole evaluation costs over the passes that it needs, and what a second process gains.

    python benchmarks/evaluation.py [--dataset collage|voc] [--root DIR] [--network NAME] [--limit N]

First one process with all threads: every call of the network is counted with its batch size while the
run is timed (from its start to its tables); then the same passes are made bare, on noise, in the usual
layout and with channels last: forward passes in inference mode, those with gradients as one forward and
backward pass at the layer. Then one process with one thread, and two with one thread each: blocks per
second between the first block and the last, so that starting Python does not count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import gmcam
from gmcam.evaluation import Choices, evaluate
from gmcam.images import open_dataset


def passes_of(network: gmcam.Network, run: object) -> tuple[float, Counter[tuple[int, bool]]]:
    """Seconds of ``run()``, and how often the network ran by batch size, with gradients or without."""
    counted: Counter[tuple[int, bool]] = Counter()

    def count(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        counted[len(inputs[0]), output.requires_grad] += 1

    handle = network.module.register_forward_hook(count)
    started = time.perf_counter()
    try:
        run()  # type: ignore[operator]
    finally:
        handle.remove()
    return time.perf_counter() - started, counted


def bare(network: gmcam.Network, counted: Counter[tuple[int, bool]], layer: str, last: bool) -> float:
    """Seconds of the same passes and nothing else."""
    module = network.module
    layout = torch.channels_last if last else torch.contiguous_format
    total = 0.0
    for (batch, gradients), times in counted.items():
        inputs = torch.rand(batch, *network.input_shape).contiguous(memory_format=layout)
        for number in range(times + 1):  # the first of each kind does not count
            started = time.perf_counter()
            if gradients:
                gmcam.capture(module, inputs, [0] * batch, [layer])
            else:
                with torch.inference_mode():
                    module(inputs)
            total += (time.perf_counter() - started) * (number > 0)
    return total


def rate(arguments: list[str], out: Path, ranks: int) -> float:
    """Blocks per second of ``ranks`` processes with one thread each."""
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*launch, "-m", "gmcam", "evaluate", *arguments, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    ends = sorted(path.stat().st_mtime for path in (out / "records").iterdir())
    return (len(ends) - ranks) / (ends[-1] - ends[ranks - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="collage")
    parser.add_argument("--root")
    parser.add_argument("--network", default="collage-vgg")
    parser.add_argument("--layer")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--methods", default="grad_cam,grad_cam_pp,x_grad_cam,layer_cam,guidance_map,gmcam")
    parser.add_argument("--pixels", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    network = gmcam.load(options.network)
    layer = network.layer_path(options.layer)
    dataset = open_dataset(options.dataset, options.root, limit=options.limit)
    choices = Choices(tuple(options.methods.split(",")), layer, pixels=options.pixels, batch=options.batch)
    print(f"torch {torch.__version__}, {options.network}, {options.limit} pictures of {dataset.name}")
    with tempfile.TemporaryDirectory() as folder:
        seconds, counted = passes_of(
            network, lambda: evaluate(network, dataset, choices, Path(folder, "whole"))
        )
        times = {last: bare(network, counted, layer, last) for last in (False, True)}
        pictures = sum(batch * count for (batch, _), count in counted.items())
        print(
            f"{torch.get_num_threads()} threads: {seconds:.1f} s for {sum(counted.values())} passes over "
            f"{pictures} pictures; {seconds / times[False]:.3f} x the bare passes, "
            f"{seconds / times[True]:.3f} x those with channels last"
        )
        root = ["--root", options.root] if options.root else []
        arguments = ["--dataset", options.dataset, *root, "--limit", str(options.limit)]
        arguments += ["--network", options.network, "--layer", layer, "--methods", options.methods]
        arguments += ["--pixels", str(options.pixels), "--batch", str(options.batch)]
        rates = [rate(arguments, Path(folder, f"ranks-{ranks}"), ranks) for ranks in (1, 2)]
        print(
            f"one thread each: {rates[0]:.3f} blocks/s with one process, {rates[1]:.3f} with two, "
            f"{rates[1] / rates[0]:.2f} x"
        )


if __name__ == "__main__":
    main()
