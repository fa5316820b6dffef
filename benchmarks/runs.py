"""Measure the stored runs of the book, or continue them: book/runs.

    GMCAM_DATA=DIR TORCH_HOME=DIR python benchmarks/runs.py [--out FOLDER] [NAME ...]

``GMCAM_DATA`` holds the folders ``voc``, ``coco`` and ``imagenet_sample`` of the datasets, and ``TORCH_HOME``
SqueezeNet's weights. A run that ended early continues with its next block. ``NAME``: a key of ``RUNS``; by
default all of them. Each has the article's methods and the rivals. On photographs the runs leave out
insertion and deletion, and the methods of hundreds of passes; those whose names end in ``-part`` measure
these, too, with the default curves, on a random part of the images. Those with ``hard`` in their names
compare Grad-CAM and GMCAM in hard zones.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import gmcam
from gmcam.datasets import Dataset, open_dataset
from gmcam.evaluate import Choices, evaluate
from gmcam.metrics.curves import STEPS

OUT = Path(__file__).parents[1] / "book" / "runs"
RIVALS = (
    "area",
    "centred_blob",
    "edges",
    "feature_sum",
    "random_network",
    "grad_cam_squared",
    "guidance_map",
)
FAST = ("grad_cam", "grad_cam_pp", "x_grad_cam", "layer_cam", "full_grad", "relevance_cam", "gmcam")
SLOW = ("cameras", "smooth_full_grad", "integrated_grad_cam", "score_cam")
SOURCES = {"voc": "voc", "coco": "coco", "imagenet": "imagenet_sample"}
PART = {"voc": 24, "coco": 8, "imagenet": 8}  # images of the runs that end in -part


@dataclass(frozen=True)
class Plan:
    """A run: a dataset, how many of its images (the first, or a random part), a network and a layer.

    ``hard``: the threshold of hard zones, for two methods without curves.
    """

    dataset: str
    network: str
    layer: str | None = None
    images: int | None = None
    part: bool = False
    hard: float | None = None

    @property
    def choices(self) -> Choices:
        if self.hard:
            return Choices(("grad_cam", "gmcam"), zone="hard", threshold=self.hard, steps=0, batch=8)
        everything = self.part or self.dataset == "collage"
        methods = RIVALS + FAST + SLOW * everything
        return Choices(methods, layer=self.layer, steps=STEPS * everything, batch=8)

    def images_of(self, data: Path) -> Dataset:
        if self.dataset == "collage":
            return open_dataset("collage", limit=self.images)
        dataset = open_dataset(self.dataset, data / SOURCES[self.dataset])
        if not self.part:
            return dataset
        order = np.random.default_rng(0).permutation(len(dataset))
        chosen = sorted(order[: PART[self.dataset]].tolist())
        names = tuple(dataset.names[i] for i in chosen)
        return replace(dataset, names=names, read=lambda index: dataset.read(chosen[index]))


RUNS = {name: Plan("collage", name, images=56) for name in ("collage-resnet", "collage-vgg")}
for _hard in (0.5, 0.15):
    RUNS[f"collage-vgg-hard-{_hard}"] = Plan("collage", "collage-vgg", images=56, hard=_hard)
for _part in (False, True):
    for _dataset in SOURCES:
        for _suffix, _layer in (("7x7", None), ("14x14", "14x14")):
            _name = f"{_dataset}-efficientnet-lite0-{_suffix}" + "-part" * _part
            RUNS[_name] = Plan(_dataset, "efficientnet-lite0", _layer, part=_part)
        _name = f"{_dataset}-squeezenet1_0" + "-part" * _part
        RUNS[_name] = Plan(_dataset, "squeezenet1_0", part=_part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that any machine adds up in the same order
    for name in arguments.names or RUNS:
        plan = RUNS[name]
        dataset = plan.images_of(Path(os.environ.get("GMCAM_DATA", ".")))
        evaluate(gmcam.load(plan.network), dataset, plan.choices, arguments.out / name)
        print(name, len(dataset), "images", flush=True)


if __name__ == "__main__":
    main()
