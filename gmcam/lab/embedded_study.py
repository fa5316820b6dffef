"""Grad-CAM, the guidance map, GMCAM and rivals on 504 scenes of two objects: the measurement of the page *The
embedded networks*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from gmcam._extras import require
from gmcam.evaluate import differences, summary
from gmcam.explaining import compare
from gmcam.lab.charts import by_class
from gmcam.lab.fill_study import signed
from gmcam.lab.pictures import Dot
from gmcam.lab.scenes import Scene
from gmcam.methods import METHODS as NAMES
from gmcam.metrics import METRICS as TITLES
from gmcam.metrics import points_inside, share_inside
from gmcam.network import Network
from gmcam.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pandas import DataFrame

RIVALS = ("area", "centred_blob", "edges", "feature_sum", "random_network", "grad_cam_squared")
METHODS = (*RIVALS, "grad_cam", "guidance_map", "gmcam")
METRICS = ("inside", "trace", "pointing")
NETWORKS = ("collage-vgg", "collage-resnet")
SEEN = 0.2  # the least probability of a target that counts as recognised


def measured(network: Network, scenes: Sequence[Scene], methods: Sequence[str] = METHODS) -> DataFrame:
    """Records of both objects of each scene: a row for each scene, object and method, with the object's
    ``probability`` and the metrics of its map at the network's last layer. The shares of an empty map are
    NaN, and it is a miss. ``image``: the scene's place among the ``scenes``."""
    rows, place = [], cast(Preprocessing, network.preprocess)
    for number, drawn in enumerate(scenes):
        masks = torch.stack([place.place_mask(mask) for mask in drawn.masks])
        boxes = place.place_boxes(drawn.boxes, drawn.image.size)[:, None]
        for result in compare(network, drawn.image, list(drawn.labels), methods=list(methods)):
            maps, before = result.maps, cast(torch.Tensor, result.probability)
            shares = share_inside(maps, masks), share_inside(maps, masks.flip(0))
            values = zip(before, *shares, points_inside(maps, boxes), strict=True)
            for label, each in zip(drawn.labels, values, strict=True):
                rows.append((network.name, str(number), label, result.method, *(v.item() for v in each)))
    columns = ["network", "image", "label", "method", "probability", *METRICS]
    return require("pandas", "evaluate").DataFrame(rows, columns=columns)


def panels(
    records: DataFrame, base: str | None = None
) -> tuple[dict[str, dict[str, Dot]], dict[str, dict[str, Dot]]]:
    """For ``dots``, a panel per network and metric with a row per method, and the same for the targets that
    the network recognises: the means of ``measured``, or their differences to ``base``."""
    drawn: tuple[dict[str, dict[str, Dot]], ...] = ({}, {})
    for network in NETWORKS:
        of_network = records[records["network"] == network]
        seen = of_network[of_network["probability"] >= SEEN]
        for found, rows in zip(drawn, (of_network, seen), strict=True):
            call = differences(rows, base, metrics=METRICS) if base else summary(rows, metrics=METRICS)
            call = by_class(call, rows, base)
            for metric in METRICS:
                panel = found[f"{' '.join(TITLES[metric])}\n{network}"] = {}
                for row in call[call["metric"] == metric].itertuples():
                    name = "*" * (row.method == "gmcam") + NAMES[row.method].title
                    panel[name] = (row.value, row.low, row.high, row.classes)
    return drawn[0], drawn[1]


def numbers(records: DataFrame) -> dict[str, str]:
    """Name → number, with its interval, for the text: ``METHOD_METRIC_vgg`` and ``…_resnet`` are differences
    to Grad-CAM, those that end in ``_seen`` for recognised targets; ``rest`` is GMCAM minus Grad-CAM squared
    in share inside on ``collage-vgg``, its p adjusted for three metrics; ``squaring`` is the part of GMCAM's
    gain in share inside that the square has."""
    found = dict[str, str]()
    for network in NETWORKS:
        of_network, short = records[records["network"] == network], network.removeprefix("collage-")
        seen = of_network[of_network["probability"] >= SEEN]
        for rows, end in ((of_network, short), (seen, f"{short}_seen")):
            gaps = differences(rows, "grad_cam", metrics=METRICS).set_index(["method", "metric"])
            for method in ("grad_cam_squared", "guidance_map", "gmcam"):
                for metric in METRICS:
                    dot = gaps.loc[(method, metric), ["value", "low", "high"]]
                    found[f"{method}_{metric}_{end}"] = signed(dot, 3 if metric == "trace" else 2)
            gain = gaps["value"].xs("inside", level="metric")
            found[f"squaring_{end}"] = f"{100 * gain['grad_cam_squared'] / gain['gmcam']:.0f} %"
            found[f"pairs_{end}"] = f"{(rows['method'] == 'gmcam').sum():,}"
        means = of_network.groupby("method")[list(METRICS)].mean()
        for method in ("centred_blob", "grad_cam", "grad_cam_squared", "gmcam"):
            found |= {f"mean_{method}_{m}_{short}": f"{means.loc[method, m]:.2f}" for m in METRICS}
        found[f"empty_{short}"] = str(of_network["inside"].isna().sum())
    little = records[records["method"].isin(RIVALS[:5])].groupby(["network", "method"])["inside"].mean()
    found["know_little"] = f"{little.max():.2f}"
    vgg = records[records["network"] == "collage-vgg"]
    two = vgg[vgg["method"].isin(["grad_cam_squared", "gmcam"])]
    row = differences(two, "grad_cam_squared", metrics=METRICS).set_index("metric").loc["inside"]
    return found | {"rest": signed(row[["value", "low", "high"]], 2), "rest_p": f"{row['p']:.2f}"}
