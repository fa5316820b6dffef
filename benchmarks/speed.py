"""Time and memory of Grad-CAM and GMCAM beside the bare forward pass, grad-cam and Captum.

    python benchmarks/speed.py [--rounds 15] [--threads 2] [--networks vgg16 resnet50 …]

All contenders of a row run in turn, round after round, so that a slow spell of the machine meets
them all; the table gives medians of times and of ratios to the same round's forward pass. torchvision's
networks get random weights: what they compute takes the same time. Ours is timed from the input
tensor to picture-sized maps, grad-cam likewise; Captum's layer attributions stop at the layer's own
resolution, so it is spared the up-sampling.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable

import captum
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import gmcam
from gmcam.capture import find_layer

EMBEDDED = ("collage-vgg", "collage-resnet")
BATCHES = (1, 8)


def load(name: str) -> gmcam.Network:
    if name in gmcam.EMBEDDED:
        return gmcam.load(name)
    torch.manual_seed(0)
    return gmcam.Network(torchvision.models.get_model(name, weights=None).eval(), name=name)


def contenders(network: gmcam.Network, inputs: Tensor) -> dict[str, Callable[[], object]]:
    """One call each; the first is the bare forward pass that the others are divided by."""
    module, target = network.module, 3
    layer = find_layer(module, network.layer_path())
    targets = [ClassifierOutputTarget(target)] * len(inputs)

    def forward() -> object:
        with torch.inference_mode():
            return module(inputs)

    def forward_channels_last() -> object:
        with torch.inference_mode():
            return module(inputs.contiguous(memory_format=torch.channels_last))

    def grad_cam_library() -> object:
        with GradCAM(module, [layer]) as method:
            return method(inputs, targets)

    return {
        "forward": forward,
        "forward, channels last": forward_channels_last,
        "gmcam: Grad-CAM": lambda: gmcam.explain(network, inputs, target, method="grad_cam"),
        "gmcam: GMCAM": lambda: gmcam.explain(network, inputs, target, method="gmcam"),
        "Captum: LayerGradCam": lambda: LayerGradCam(module, layer).attribute(inputs, target),
        "grad-cam: GradCAM": grad_cam_library,
    }


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after two rounds that do not count.

    Every round goes through them in another order: what a call leaves in caches and in the allocator
    meets each of the others.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names, shuffle = list(calls), random.Random(0).shuffle
    for number in range(rounds + 2):
        shuffle(names)
        for name in names:
            started = time.perf_counter()
            calls[name]()
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def saved_bytes(module: torch.nn.Module, call: Callable[[], object]) -> int:
    """Bytes that autograd holds for the backward pass of a call, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(held.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50", *EMBEDDED])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, captum {captum.__version__}, {options.threads} threads, "
        f"{platform.machine()}, Python {platform.python_version()}, {options.rounds} rounds"
    )
    for name in options.networks:
        network = load(name)
        for batch in BATCHES:
            generator = torch.Generator().manual_seed(0)
            inputs = torch.rand((batch, *network.input_shape), generator=generator)
            calls = contenders(network, inputs)
            seconds = timed(calls, options.rounds)
            print(f"\n{name}, batch {batch}: {statistics.median(seconds['forward']) * 1000:.1f} ms forward")
            for contender, values in seconds.items():
                ratios = sorted(v / f for v, f in zip(values, seconds["forward"], strict=True))
                low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
                held = saved_bytes(network.module, calls[contender]) / 2**20
                print(
                    f"  {contender:22} {statistics.median(ratios):6.3f} x forward "
                    f"(quartiles {low:.3f} to {high:.3f}), {held:8.1f} MiB held for backward"
                )


if __name__ == "__main__":
    main()
