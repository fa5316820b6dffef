"""Every method beside the same method in grad-cam, torch-cam and Captum, and the bare forward pass.

    python benchmarks/methods.py [--device cpu|cuda] [--networks resnet50 …] [--batches 1 8 32] [--rounds 15]

All calls of a row run in turn, round after round, in a shuffled order. Ours is timed from the input tensor
to picture-sized maps, grad-cam likewise; torch-cam and Captum stop at the layer's own resolution, so they
are spared the up-sampling. Whether a library gives the same maps is measured beside its time: the largest
difference after rectifying, up-sampling and scaling to [0, 1]. torchvision's networks get random weights.
Score-CAM and Ablation-CAM run the network once for each channel: they explain one picture, on torchvision's
networks at an early layer of few channels, in equal chunks. A picture's thousand classes, and four layers
at once, are rows of their own. On a GPU, bfloat16 follows float32.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import captum.attr
import pytorch_grad_cam
import torch
import torchcam.methods
from common import held, load, parser, pictures, timed, write
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import gmcam
from gmcam.capture import find_layer
from gmcam.postprocess import normalise, upsample

Call = Callable[[], Tensor]
Row = dict[str, object]

FORWARD = ("forward pass", "bare")
NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "collage-vgg", "collage-resnet")
# One pass each; then those that need more than one, for which a single picture has to do.
ONE_PASS = (
    "cam",
    "grad_cam",
    "hires_cam",
    "guidance_map",
    "gmcam",
    "grad_cam_pp",
    "x_grad_cam",
    "layer_cam",
    "eigen_cam",
)
MORE = ("cameras", "integrated_grad_cam", "smooth_full_grad", "relevance_cam")
PER_CHANNEL = {"score_cam", "ablation_cam"}
EARLY = {"resnet50": "layer1", "vgg16": "features.9", "mobilenet_v2": "features.6"}

GRAD_CAM = {
    "grad_cam": pytorch_grad_cam.GradCAM,
    "hires_cam": pytorch_grad_cam.HiResCAM,
    "grad_cam_pp": pytorch_grad_cam.GradCAMPlusPlus,
    "x_grad_cam": pytorch_grad_cam.XGradCAM,
    "layer_cam": pytorch_grad_cam.LayerCAM,
    "eigen_cam": pytorch_grad_cam.EigenCAM,
    "full_grad": pytorch_grad_cam.FullGrad,
    "score_cam": pytorch_grad_cam.ScoreCAM,
    "ablation_cam": pytorch_grad_cam.AblationCAM,
}
TORCH_CAM = {
    "cam": torchcam.methods.CAM,
    "grad_cam": torchcam.methods.GradCAM,
    "grad_cam_pp": torchcam.methods.GradCAMpp,
    "x_grad_cam": torchcam.methods.XGradCAM,
    "layer_cam": torchcam.methods.LayerCAM,
    "score_cam": torchcam.methods.ScoreCAM,
}
CAPTUM = {"grad_cam": captum.attr.LayerGradCam, "hires_cam": captum.attr.LayerGradientXActivation}


def with_grad_cam(
    network: gmcam.Network, inputs: Tensor, targets: list[int], name: str, layer: str
) -> Tensor:
    with GRAD_CAM[name](network.module, [find_layer(network.module, layer)]) as method:
        if name in PER_CHANNEL:
            method.batch_size = gmcam.METHODS[name].options["chunk_size"]
        return torch.from_numpy(method(inputs, [ClassifierOutputTarget(target) for target in targets]))


def with_torch_cam(
    network: gmcam.Network, inputs: Tensor, targets: list[int], name: str, layer: str
) -> Tensor:
    options = {}
    if name == "score_cam":
        options["batch_size"] = gmcam.METHODS[name].options["chunk_size"]
    method = TORCH_CAM[name](network.module, layer, **options)
    try:
        scores = network.module(inputs)
        maps: Tensor = method(targets, scores)[0]
        return maps
    finally:
        method.remove_hooks()


def with_captum(network: gmcam.Network, inputs: Tensor, targets: list[int], name: str, layer: str) -> Tensor:
    method = CAPTUM[name](network.module, find_layer(network.module, layer))
    maps: Tensor = method.attribute(inputs, targets).sum(1)
    return maps


LIBRARIES = {
    "grad-cam": (GRAD_CAM, with_grad_cam),
    "torch-cam": (TORCH_CAM, with_torch_cam),
    "Captum": (CAPTUM, with_captum),
}


def bare(network: gmcam.Network, inputs: Tensor, last: bool = False) -> Tensor:
    """The forward pass that everything is divided by; with channels last as a row of its own."""
    layout = torch.channels_last if last else torch.contiguous_format
    with torch.inference_mode():
        scores: Tensor = network.module(inputs.contiguous(memory_format=layout))
        return scores


def ours(network: gmcam.Network, inputs: Tensor, targets: list[int], name: str, layer: str) -> Tensor:
    return gmcam.explain(network, inputs, targets, method=name, layer=layer).raw


def contenders(network: gmcam.Network, inputs: Tensor, name: str) -> dict[str, Call]:
    """Who → a call that gives the method's maps of each picture's top class."""
    layer = network.layer_path()
    if name in PER_CHANNEL:
        layer = EARLY.get(network.name, layer)
    targets = bare(network, inputs).argmax(1).tolist()
    calls: dict[str, Call] = {"gmcam": partial(ours, network, inputs, targets, name, layer)}
    for library, (methods, call) in LIBRARIES.items():
        if name in methods:
            calls[library] = partial(call, network, inputs, targets, name, layer)
    return calls


def unit(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Rectified, scaled, at the picture's size: what all libraries' maps can be brought to."""
    maps = maps.detach().float().cpu().relu()
    return normalise(upsample(normalise(maps)[0], size))[0]


def rows_of(
    network: gmcam.Network, batch: int, names: Sequence[str], options: argparse.Namespace
) -> Iterator[Row]:
    """A row for each call that works, and one with the reason for each that a library refuses."""
    inputs = pictures(network, batch)
    size = (inputs.shape[2], inputs.shape[3])
    about: Row = {
        "network": network.name,
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "batch": batch,
    }
    calls: dict[tuple[str, str], Call] = {
        FORWARD: partial(bare, network, inputs),
        ("forward pass", "channels last"): partial(bare, network, inputs, last=True),
    }
    for name in names:
        calls |= {(name, who): call for who, call in contenders(network, inputs, name).items()}
    if batch == 1 and names == ONE_PASS and network.name == "resnet50":
        last, stages = network.layer_path(), list(network.layers.values())[-4:]
        for name in ("grad_cam", "gmcam"):
            every = partial(ours, network, inputs, list(range(1000)), name, last)
            calls[f"{name}, 1000 classes", "gmcam"] = every
            calls[f"{name}, 4 layers", "gmcam"] = partial(explain_layers, network, inputs, name, stages)
    found: dict[tuple[str, str], Row] = {}
    mine: dict[str, Tensor] = {}
    for call in list(calls):
        try:
            maps, kept = held(network.module, calls[call])
        except Exception as error:  # whatever a library raises for a network or a dtype
            found[call] = {"refused": (str(error).splitlines() or [type(error).__name__])[0]}
            del calls[call]
            continue
        found[call] = {"held": round(kept, 2)}
        method, who = call
        if who == "gmcam":
            mine[method] = maps
        elif method in mine:
            off = (unit(maps, size) - unit(mine[method], size)).abs().max()
            found[call]["difference"] = f"{float(off):.1e}"
    seconds = timed(calls, options.device, options.rounds, options.patience)
    for call, values in seconds.items():
        ratios = sorted(v / f for v, f in zip(values, seconds[FORWARD], strict=True))
        found[call] |= {
            "milliseconds": round(statistics.median(values) * 1000, 3),
            "passes": round(statistics.median(ratios), 3),
            "low": round(ratios[len(ratios) // 4], 3),
            "high": round(ratios[-1 - len(ratios) // 4], 3),
            "rounds": len(values),
        }
    for (method, who), row in found.items():
        if names == ONE_PASS or method != "forward pass":
            yield {**about, "method": method, "library": who, **row}


def explain_layers(network: gmcam.Network, inputs: Tensor, name: str, layers: list[str]) -> Tensor:
    """Several layers at once: their maps at the picture's size, one after the other."""
    return torch.cat([one.maps for one in gmcam.explain(network, inputs, method=name, layer=layers)])


def main() -> None:
    more = parser(__doc__ or "")
    more.add_argument("--networks", nargs="+", default=NETWORKS)
    more.add_argument("--batches", nargs="+", type=int, default=(1, 8, 32))
    more.add_argument("--rounds", type=int, default=15)
    more.add_argument("--patience", type=float, default=30, help="seconds for each table")
    options = more.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16)[: 1 if options.device == "cpu" else 2]:
        for name in options.networks:
            network = load(name, options.device, dtype)
            for batch in options.batches:
                rows += rows_of(network, batch, ONE_PASS, options)
                write("methods", rows, options)
            if dtype == torch.float32:
                for names in (MORE, ("ablation_cam",), ("score_cam",), ("full_grad",)):
                    rows += rows_of(network, 1, names, options)
            write("methods", rows, options)


if __name__ == "__main__":
    main()
