"""Areas under insertion and deletion curves with three fills: insertion_fills and insertion_photo.parquet.

    OMP_NUM_THREADS=1 python benchmarks/insertion_fills.py [--out FOLDER] [PART ...]

collage-vgg, collage-resnet: for the first object of 28 scenes, one of every second ordered pair of classes,
    its ``probability``, and the ``insertion`` and ``deletion`` areas in 8 steps of each ``method`` with each
    ``fill`` of ``gmcam.metrics.curves``. Besides gmcam's methods: "mask", the object's bare mask, and
    "mask_rows", the same with its ties broken from top to bottom (not with "road"). About ten minutes each.
photo: the curves themselves, in 10 steps, of a photograph on EfficientNet-Lite0, for its top class.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

import gmcam
from gmcam.metrics import curves

BOOK = Path(__file__).parents[1] / "book"
FILLS = ("zero", "blur", "road")
METHODS = ("grad_cam", "gmcam", "grad_cam_squared", "guidance_map", "x_grad_cam", "grad_cam_pp")
RIVALS = ("feature_sum", "random_network", "edges", "centred_blob", "area")
Row = dict[str, object]


def collages(name: str) -> Iterator[Row]:
    network = gmcam.load(name)
    for scene in gmcam.lab.dual_class_scenes(56, step=2):
        label, inputs = scene.labels[0], network.prepare([scene.image])
        probability = network.probabilities(inputs)[0, network.class_index(label)].item()
        maps = {m: gmcam.explain(network, scene.image, label, method=m).maps for m in METHODS + RIVALS}
        mask = network.preprocess.place_mask(scene.masks[0]).float()[None]
        order = torch.linspace(0.5, 0, mask.numel()).view_as(mask)
        maps["mask"] = mask
        for fill, more in zip(FILLS, ({"mask_rows": mask + order},) * 2 + ({},), strict=True):
            for method, each in (maps | more).items():
                found = curves(network, inputs, label, each, steps=8, fill=fill)
                about = {"network": name, "first": label, "second": scene.labels[1], "method": method}
                about["probability"] = probability
                areas = {"insertion": found.insertion_area.item(), "deletion": found.deletion_area.item()}
                yield about | {"fill": fill} | areas


def photo(name: str = "chelsea") -> Iterator[Row]:
    network, image = gmcam.load("efficientnet-lite0"), gmcam.lab.photo(name)
    top = int(network.probabilities(image)[0].argmax())
    for method in METHODS + RIVALS:
        maps = gmcam.explain(network, image, top, method=method).maps
        for fill in FILLS:
            found = curves(network, network.prepare(image), top, maps, steps=10, fill=fill, chunk_size=8)
            for i, share in enumerate(found.fractions.tolist()):
                values = {"insertion": found.insertion[0, i].item(), "deletion": found.deletion[0, i].item()}
                yield {"method": method, "fill": fill, "share": share} | values


PARTS = {"collage-vgg": "insertion_fills", "collage-resnet": "insertion_fills", "photo": "insertion_photo"}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    options.add_argument("--out", type=Path, default=BOOK)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        table = pd.DataFrame(photo() if part == "photo" else collages(part))
        floats = table.select_dtypes("float").columns
        table[floats] = table[floats].round(4).astype("float32")
        path = arguments.out / f"{PARTS[part]}.parquet"
        if "network" in table and path.exists():  # the other network's rows stay
            stored = pd.read_parquet(path)
            table = pd.concat([stored[stored["network"] != part], table])
        table.to_parquet(path, compression="zstd", index=False)
        print(f"{path.name}: {len(table)} rows, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
