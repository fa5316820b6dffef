"""What the article's nine methods and GMCAM cost on EfficientNet-Lite0, in units of its bare forward pass.

    python benchmarks/nine_methods.py [--rounds 5]

One image of 224 × 224 pixels, one class, one thread, each method's default options, at the last map (7x7) and
at the map of 14 × 14 cells. FullGrad and Smooth FullGrad depend on no layer and are timed with either. Every
call runs once to warm up; then the calls of a layer run in a shuffled order in every round, 20 forward passes
among them, and a time is divided by the forward pass of its own round. Times are the processor's: on one
thread they are those of the clock on an idle machine, and other programs hardly change them. Writes
``book/nine_methods.csv``, which the chapter reads: the median of the ratios, the smallest and the largest.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import gmcam

OUT = Path(__file__).parents[1] / "book" / "nine_methods.csv"
NAMES = ("grad_cam", "grad_cam_pp", "x_grad_cam", "cameras", "full_grad", "smooth_full_grad")
NAMES += ("integrated_grad_cam", "score_cam", "relevance_cam", "gmcam")
LAYERS = ("7x7", "14x14")
FORWARD, PASSES = "forward", 20


def forward_passes(network: gmcam.Network, inputs: Tensor) -> None:
    """Several bare forward passes: one alone is too short to be timed well."""
    with torch.inference_mode():
        for _ in range(PASSES):
            network.module(inputs)


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor for each call in each round, after one call of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names, shuffle = list(calls), random.Random(0).shuffle
    for number in range(rounds + 1):
        for name in names:
            gc.collect()
            started = time.process_time()
            calls[name]()
            if number:
                seconds[name].append(time.process_time() - started)
        shuffle(names)
    return seconds


def rows_of(network: gmcam.Network, inputs: Tensor, layer: str, rounds: int) -> list[dict[str, object]]:
    """A row for each method at a layer."""
    target = int(network.probabilities(inputs).argmax())
    calls: dict[str, Callable[[], object]] = {FORWARD: partial(forward_passes, network, inputs)}
    for name in NAMES:
        calls[name] = partial(gmcam.explain, network, inputs, target, method=name, layer=layer)
    seconds = timed(calls, rounds)
    forward = [value / PASSES for value in seconds.pop(FORWARD)]
    about = {
        "forward_ms": round(statistics.median(forward) * 1000, 1),
        "rounds": rounds,
        "threads": 1,
        "cores": os.cpu_count(),
        "torch": torch.__version__.split("+")[0],
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    rows = []
    for name, values in seconds.items():
        ratios = [value / one for value, one in zip(values, forward, strict=True)]
        three = {"passes": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        rounded = {key: round(value, 2) for key, value in three.items()}
        rows.append({"method": name, "layer": layer, **rounded, **about})
    return rows


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    rounds = options.parse_args().rounds
    torch.set_num_threads(1)
    network = gmcam.load("efficientnet-lite0")
    inputs = network.prepare(gmcam.lab.scene("cat", "cup", seed=98, size=384).image)
    rows = [row for layer in LAYERS for row in rows_of(network, inputs, layer, rounds)]
    with OUT.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(f"{OUT}: {len(rows)} rows")


if __name__ == "__main__":
    main()
