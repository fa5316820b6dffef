"""How time and memory grow with the image, the batch, the classes, the layers and the number of images.

    python benchmarks/scaling.py [--device cpu|cuda] [--network resnet50] [--rounds 5]

GMCAM of one network; one size is doubled while the others stay. Memory is the peak above the level before the
call: of the process on a CPU (Linux), of torch's allocations on a GPU. The number of images is that of an
evaluation of the collage scenes with Grad-CAM and GMCAM, on an embedded network.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from common import clock, load, parser, peak, scenes, write

import gmcam
from gmcam.datasets import open_dataset
from gmcam.evaluate import Choices, evaluate

SIDES = (96, 128, 192, 256, 384, 512)
BATCHES = (1, 2, 4, 8, 16, 32)
CLASSES = (16, 32, 64, 128, 256, 512, 1000)
IMAGES = (16, 32, 64, 128)


def calls(network: gmcam.Network, small: gmcam.Network) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """What grows, how large it is, and the call."""
    image = scenes(network, 1)
    last, stages = network.layer_path(), list(network.layers.values())
    for side in SIDES:
        yield "pixels", side**2, partial(gmcam.explain, network, scenes(network, 1, side), 0, layer=last)
    for batch in BATCHES:
        yield "batch", batch, partial(gmcam.explain, network, scenes(network, batch), 0, layer=last)
    for count in CLASSES:
        yield "classes", count, partial(gmcam.explain, network, image, list(range(count)), layer=last)
    for count in range(1, len(stages) + 1):
        yield "layers", count, partial(gmcam.explain_layers, network, image, 0, layers=stages[-count:])
    for count in IMAGES:
        yield "images", count, partial(evaluated, small, count)


def evaluated(network: gmcam.Network, count: int) -> None:
    choices = Choices(("grad_cam", "gmcam"), steps=0)
    with tempfile.TemporaryDirectory() as folder:
        evaluate(network, open_dataset("collage", limit=count), choices, Path(folder))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--network", default="resnet50")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    network, small = load(options.network, options.device), load("collage-vgg", options.device)
    rows = []
    for what, size, call in calls(network, small):
        call()
        memory = peak(call, options.device)
        seconds = statistics.median(clock(call, options.device) for _ in range(options.rounds))
        name = small.name if what == "images" else network.name
        rows.append({"network": name, "what": what, "size": size, "seconds": seconds, "megabytes": memory})
    write("scaling", rows, options)


if __name__ == "__main__":
    main()
