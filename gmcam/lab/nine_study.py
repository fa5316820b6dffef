"""The measurements of the chapter *Nine methods side by side*, on EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from gmcam._extras import require
from gmcam.evaluate import differences, summary
from gmcam.explaining import compare, explain
from gmcam.groups import group
from gmcam.lab.grid_study import signed
from gmcam.lab.scenes import Scene, scene
from gmcam.methods import METHODS
from gmcam.metrics import points_inside, share_inside
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing
from gmcam.reading import ImageSource
from gmcam.show import by_cell

if TYPE_CHECKING:
    from pandas import DataFrame

TEN: tuple[str, ...] = ("grad_cam", "grad_cam_pp", "x_grad_cam", "cameras", "full_grad", "smooth_full_grad")
TEN += ("integrated_grad_cam", "score_cam", "relevance_cam", "gmcam")
# Fewer samples than by default, and small batches, for a page that is fast and fits into memory.
FEWER: Mapping[str, Mapping[str, Any]] = {
    "smooth_full_grad": {"samples": 5, "chunk_size": 1},
    "full_grad": {},
    "cameras": {"sizes": 2},
    "score_cam": {"chunk_size": 4},
    "integrated_grad_cam": {"steps": 10, "chunk_size": 2},
}
ONE_CLASS = ("smooth_full_grad", "full_grad", "cameras")

KINDS = {
    "cat": ("tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"),
    "cup": ("cup", "coffee mug", "espresso"),
}
# Of the seeds 0 to 89 those of a scene in which both groups of classes have a probability of a fifth or more.
SEEDS = (3, 4, 11, 20, 40, 43, 50, 65, 66, 80, 81, 82, 87)
CHEAP = ("grad_cam", "grad_cam_pp", "x_grad_cam", "relevance_cam", "gmcam")
FREE = ("area", "centred_blob", "edges")  # they depend on no layer
AT: Mapping[str | None, Sequence[str]] = {
    None: FREE,
    "7x7": ("feature_sum", *CHEAP),
    "14x14": ("feature_sum", "random_network", "grad_cam_squared", "guidance_map", *CHEAP),
}
RIVALS = (*FREE, "feature_sum_7", *(f"{name}_14" for name in AT["14x14"][:4]))
ROWS = (*RIVALS, *(f"{name}_{size}" for size in (7, 14) for name in CHEAP), "full_grad")
METRICS = ("pointing", "inside", "trace")


def ten_maps(
    network: Network, image: ImageSource, labels: Sequence[str], layer: str = "14x14"
) -> dict[str, tuple[Tensor, list[object]]]:
    """Method → its maps (classes, H, W), and each as cells for ``overlay``, with the samples of ``FEWER``."""
    found: dict[str, tuple[Tensor, list[object]]] = {}
    options = {name: dict(FEWER[name]) for name in FEWER if name not in ONE_CLASS}
    quick = [name for name in TEN if name not in ONE_CLASS]
    for result in compare(network, image, list(labels), methods=quick, options=options, layer=layer):
        found[result.method] = result.maps, [by_cell(result, row) for row in range(len(labels))]
    for name in ONE_CLASS:
        each = [explain(network, image, k, method=name, layer=layer, **FEWER[name]) for k in labels]
        found[name] = torch.cat([result.maps for result in each]), [by_cell(result) for result in each]
    return {name: found[name] for name in TEN}


def two_shares(network: Network, drawn: Scene, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The share of each map on its own object and on the other, of a scene of two."""
    place = cast(Preprocessing, network.preprocess)
    masks = torch.stack([place.place_mask(mask) for mask in drawn.masks])
    return share_inside(maps, masks), share_inside(maps, masks.flip(0))


def _maps_of(network: Network, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each row's name, and its maps of the cat and of the cup."""
    kinds = [group(list(classes), name) for name, classes in KINDS.items()]
    for layer, names in AT.items():
        end = f"_{layer.partition('x')[0]}" if layer else ""
        for result in compare(network, inputs, kinds, methods=list(names), layer=layer):
            yield result.method + end, result.maps
    each = [explain(network, inputs, kind, method="full_grad").maps for kind in kinds]
    yield "full_grad", torch.cat(each)


def measured(network: Network, seeds: Sequence[int] = SEEDS) -> DataFrame:
    """Records of ``ROWS`` on scenes of a cat and a cup: share inside, trace in the other object, and the
    pointing game; a method's name ends with the cells of its layer, as in "gmcam_14"."""
    rows, place = [], cast(Preprocessing, network.preprocess)
    for seed in seeds:
        drawn = scene("cat", "cup", seed=seed, size=384)
        boxes = place.place_boxes(drawn.boxes, drawn.image.size)[:, None]
        for name, maps in _maps_of(network, network.prepare(drawn.image)):
            values = zip(*two_shares(network, drawn, maps), points_inside(maps, boxes), strict=True)
            for label, each in zip(KINDS, values, strict=True):
                rows.append((str(seed), label, name, *(value.item() for value in each)))
    columns = ["image", "label", "method", "inside", "trace", "pointing"]
    return require("pandas", "evaluate").DataFrame(rows, columns=columns)


def titles() -> dict[str, str]:
    """Row → its title: "GMCAM, 14 × 14"."""
    named = {}
    for row in ROWS:
        name, _, size = row.rpartition("_")
        if size in {"7", "14"}:
            named[row] = f"{METHODS[name].title}, {size}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{size}"
    return named


def numbers(records: DataFrame) -> tuple[DataFrame, dict[str, str]]:
    """The summary of ``measured`` over images alone, in the order of ``ROWS``, and the text's numbers."""
    found = summary(records, metrics=list(METRICS), clusters=None)
    glued = {
        f"{row.metric}_{row.method}": f"{100 * row.value:.0f} % [{100 * row.low:.0f}, {100 * row.high:.0f}]"
        for row in found.itertuples()
    }
    for base in ("grad_cam_7", "guidance_map_14", "grad_cam_squared_14"):
        gaps = differences(records, base, metrics=["inside", "pointing"], clusters=None)
        gaps = gaps[gaps["method"] == f"gmcam_{base.rpartition('_')[2]}"]
        for gap in gaps.itertuples():
            ends = [signed(100 * end) for end in (gap.value, gap.low, gap.high)]
            glued[f"gain_{gap.metric}_{base}"] = f"{ends[0]} [{ends[1]}, {ends[2]}]"
    hits = records.pivot(index=["image", "label"], columns="method", values="pointing")
    glued |= {"scenes": str(len(hits) // 2), "left_out": str(90 - len(hits) // 2), "maps": str(len(hits))}
    glued["moved"] = str(int((hits["gmcam_7"] != hits["grad_cam_7"]).sum()))
    return found.set_index("method").loc[list(ROWS)].reset_index(), glued


def pair_differences(results: Sequence[object]) -> dict[str, float]:
    """The largest difference between raw maps, each divided by its maximum, of four pairs of methods that are
    equal where average pooling and one linear layer follow."""
    unit = {result.method: result.raw / result.raw.max() for result in results}  # type: ignore[attr-defined]
    pairs = {
        "Grad-CAM, XGrad-CAM": (unit["grad_cam"], unit["x_grad_cam"]),
        "Grad-CAM, guidance map": (unit["grad_cam"], unit["guidance_map"]),
        "Grad-CAM++, LayerCAM": (unit["grad_cam_pp"], unit["layer_cam"]),
        "Grad-CAM squared, GMCAM": (unit["grad_cam"] ** 2, unit["gmcam"]),
    }
    return {name: (one - other).abs().max().item() for name, (one, other) in pairs.items()}
