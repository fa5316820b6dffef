"""Time of every method as a multiple of the bare forward pass, beside the same method in grad-cam.

    python benchmarks/methods.py [--rounds 3] [--threads 2] [--networks resnet50 collage-resnet …]

One picture, one class, default options; random weights for torchvision's networks, where every channel
is alive and Score-CAM can skip none. All calls of a row run in turn, round after round. Score-CAM and
Ablation-CAM run the network once for each channel: on resnet50 they explain the 256 channels of
``layer1``, in chunks of grad-cam's sizes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable

import pytorch_grad_cam as peer
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from speed import load, timed
from tqdm import tqdm

import gmcam
from gmcam.capture import find_layer

PEERS = {
    "grad_cam": peer.GradCAM,
    "hires_cam": peer.HiResCAM,
    "grad_cam_pp": peer.GradCAMPlusPlus,
    "x_grad_cam": peer.XGradCAM,
    "layer_cam": peer.LayerCAM,
    "eigen_cam": peer.EigenCAM,
    "score_cam": peer.ScoreCAM,
    "ablation_cam": peer.AblationCAM,
    "full_grad": peer.FullGrad,
}
PER_CHANNEL = ("score_cam", "ablation_cam")
TARGET = 3


def calls(network: gmcam.Network, inputs: torch.Tensor, name: str) -> dict[str, Callable[[], object]]:
    """The bare forward pass, our method, and grad-cam's where it has it."""
    module = network.module
    path = "layer1" if name in PER_CHANNEL and network.name == "resnet50" else network.layer_path()

    def forward() -> object:
        with torch.inference_mode():
            return module(inputs)

    def theirs() -> object:
        with PEERS[name](module, [find_layer(module, path)]) as method:
            if name in PER_CHANNEL:
                method.batch_size = gmcam.METHODS[name].options["chunk_size"]
            return method(inputs, [ClassifierOutputTarget(TARGET)])

    found: dict[str, Callable[[], object]] = {
        "forward": forward,
        "ours": lambda: gmcam.explain(network, inputs, TARGET, method=name, layer=path),
    }
    if name in PEERS:
        found["grad-cam"] = theirs
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--networks", nargs="+", default=["resnet50", "collage-resnet", "collage-vgg"])
    parser.add_argument("--methods", nargs="+", default=list(gmcam.METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} threads, {platform.machine()}, "
        f"Python {platform.python_version()}, {options.rounds} rounds, medians"
    )
    for name in options.networks:
        network = load(name)
        inputs = torch.rand((1, *network.input_shape), generator=torch.Generator().manual_seed(0))
        print(f"\n{name}\n  {'':36} {'x forward':>10} {'grad-cam':>10} {'faster':>8}")
        for method in tqdm(options.methods, leave=False):
            try:
                seconds = timed(calls(network, inputs, method), options.rounds)
            except ValueError as error:  # cam, where it is not defined
                tqdm.write(f"  {method:36} {error}")
                continue
            median = {who: statistics.median(values) for who, values in seconds.items()}
            row = f"  {method:36} {median['ours'] / median['forward']:10.2f}"
            if "grad-cam" in median:
                row += f" {median['grad-cam'] / median['forward']:10.2f}"
                row += f" {median['grad-cam'] / median['ours']:7.2f}x"
            tqdm.write(row)


if __name__ == "__main__":
    main()
