"""Every method compared with grad-cam, torch-cam and Captum, and with the bare forward pass.

    python benchmarks/methods.py [--device cpu|cuda] [--networks resnet50 …] [--batches 1 8 32] [--rounds 15]

The calls of a row run in a shuffled order in every round. gmcam and grad-cam are timed from the input tensor
to maps of the image's size; torch-cam and Captum stop at the layer's resolution, so they save the
up-sampling. The largest difference of a library's maps from gmcam's is measured as well, after rectifying,
up-sampling and scaling to [0, 1]. torchvision's networks have random weights. Score-CAM and Ablation-CAM run
the network once per channel, so they explain one image, on torchvision's networks at an early layer with few
channels, in equal chunks. A thousand classes of one image, and four layers at once, are separate rows. On a
GPU, bfloat16 follows float32.
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
from common import load, parser, saved_megabytes, scenes, timed, write
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import gmcam
from gmcam._hooks import find_layer
from gmcam.postprocess import min_max, upsample

Call = Callable[[], Tensor]
Row = dict[str, object]

FORWARD = ("forward pass", "bare")
NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "collage-vgg", "collage-resnet")
# One pass each; then methods of several passes, on a single image.
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
    with GRAD_CAM[name](network.module, [find_layer(network.module, layer)[1]]) as method:
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
    method = CAPTUM[name](network.module, find_layer(network.module, layer)[1])
    maps: Tensor = method.attribute(inputs, targets).sum(1)
    return maps


LIBRARIES = {
    "grad-cam": (GRAD_CAM, with_grad_cam),
    "torch-cam": (TORCH_CAM, with_torch_cam),
    "Captum": (CAPTUM, with_captum),
}


def bare(network: gmcam.Network, inputs: Tensor, last: bool = False) -> Tensor:
    """The forward pass that all times are divided by. ``last``: with channels last, a separate row."""
    layout = torch.channels_last if last else torch.contiguous_format
    with torch.inference_mode():
        scores: Tensor = network.module(inputs.contiguous(memory_format=layout))
        return scores


def with_gmcam(network: gmcam.Network, inputs: Tensor, targets: list[int], name: str, layer: str) -> Tensor:
    return gmcam.explain(network, inputs, targets, method=name, layer=layer).raw


def contenders(network: gmcam.Network, inputs: Tensor, name: str) -> dict[str, Call]:
    """Library → a call that computes the method's maps for each image's top class."""
    layer = network.layer_path()
    if name in PER_CHANNEL:
        layer = EARLY.get(network.name, layer)
    targets = bare(network, inputs).argmax(1).tolist()
    calls: dict[str, Call] = {"gmcam": partial(with_gmcam, network, inputs, targets, name, layer)}
    for library, (methods, call) in LIBRARIES.items():
        if name in methods:
            calls[library] = partial(call, network, inputs, targets, name, layer)
    return calls


def unit(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps rectified, scaled and at the image's size, which makes all libraries' maps comparable."""
    maps = maps.detach().float().cpu().relu()
    return min_max(upsample(min_max(maps)[0], size))[0]


def rows_of(
    network: gmcam.Network, batch: int, names: Sequence[str], options: argparse.Namespace
) -> Iterator[Row]:
    """A row for each call: its times, or the reason why a library refuses it."""
    inputs = scenes(network, batch)
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
        calls |= {(name, library): call for library, call in contenders(network, inputs, name).items()}
    if batch == 1 and names == ONE_PASS and network.name == "resnet50":
        last, stages = network.layer_path(), list(network.layers.values())[-4:]
        for name in ("grad_cam", "gmcam"):
            calls[f"{name}, 1000 classes", "gmcam"] = partial(
                with_gmcam, network, inputs, list(range(1000)), name, last
            )
            calls[f"{name}, 4 layers", "gmcam"] = partial(layer_maps, network, inputs, name, stages)
    rows: dict[tuple[str, str], Row] = {}
    references: dict[str, Tensor] = {}
    for call in list(calls):
        try:
            maps, megabytes = saved_megabytes(network.module, calls[call])
        except Exception as error:  # any error that a library raises for a network or a dtype
            rows[call] = {"refused": (str(error).splitlines() or [type(error).__name__])[0]}
            del calls[call]
            continue
        rows[call] = {"held": round(megabytes, 2)}
        method, library = call
        if library == "gmcam":
            references[method] = maps
        elif method in references:
            difference = (unit(maps, size) - unit(references[method], size)).abs().max()
            rows[call]["difference"] = f"{float(difference):.1e}"
    seconds = timed(calls, options.device, options.rounds, options.patience)
    for call, values in seconds.items():
        ratios = sorted(v / f for v, f in zip(values, seconds[FORWARD], strict=True))
        rows[call] |= {
            "milliseconds": round(statistics.median(values) * 1000, 3),
            "passes": round(statistics.median(ratios), 3),
            "low": round(ratios[len(ratios) // 4], 3),
            "high": round(ratios[-1 - len(ratios) // 4], 3),
            "rounds": len(values),
        }
    for (method, library), row in rows.items():
        if names == ONE_PASS or method != "forward pass":
            yield {**about, "method": method, "library": library, **row}


def layer_maps(network: gmcam.Network, inputs: Tensor, name: str, layers: list[str]) -> Tensor:
    """The maps of several layers at the image's size, one after the other."""
    results = gmcam.explain_layers(network, inputs, layers=layers, method=name)
    return torch.cat([result.maps for result in results])


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--networks", nargs="+", default=NETWORKS)
    arguments.add_argument("--batches", nargs="+", type=int, default=(1, 8, 32))
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--patience", type=float, default=30, help="seconds for each table")
    options = arguments.parse_args()
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
