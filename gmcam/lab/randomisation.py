"""Parameter randomisation with several seeds: ``python -m gmcam.lab.randomisation --out book``.

A method's maps of the trained network are compared with those of copies whose layers have new weights. The
comparison is ``gmcam.metrics.sanity_check``'s, of signed values and absolute values as well, with the rise of
entropy (Hedström et al., 2024, *A Fresh Look at Sanity Checks for Saliency Maps*).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gmcam._extras import require
from gmcam.capture import capture
from gmcam.evaluate import bootstrap_means, bootstrap_weights, holm, interval
from gmcam.explaining import Result, compare
from gmcam.lab.networks import load
from gmcam.lab.scenes import Scene, dual_class_scenes
from gmcam.methods import METHODS as REGISTRY
from gmcam.methods.relevance import propagate
from gmcam.metrics import layers_from_logits, randomised
from gmcam.network import Network
from gmcam.registry import Query

# Ten methods, and two rivals that ignore the class, of which the second ignores the network.
METHODS: tuple[str, ...] = ("grad_cam", "grad_cam_squared", "guidance_map", "gmcam", "layer_cam", "eigen_cam")
METHODS += ("relevance_cam", "captum.guided_backprop", "captum.guided_grad_cam")
METHODS += ("captum.integrated_gradients", "feature_sum", "edges")
TITLES = {name: REGISTRY[name].title.removeprefix("Captum: ") for name in METHODS}
SLOW = "captum.integrated_gradients"  # explained at the end of a cascade only
STEPS, SEEDS, COPIES, NOISE, BINS = 10, 5, 5, 0.15, 100
STAGES = ("stage4", "stage3", "stage2", "stage1")
SMOOTHED = ("grad_cam", "guidance_map", "gmcam", "captum.guided_backprop")


def rank(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's ρ of two maps of one shape, NaN if one is flat."""
    if min(np.ptp(first), np.ptp(second)) == 0:
        return float("nan")
    rankdata = require("scipy.stats", "evaluate").rankdata
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def entropy(values: np.ndarray, bins: int = BINS) -> float:
    """The entropy, in nats, of a map's histogram of ``bins`` equal bins from its minimum to its maximum.

    0 for a flat map, log(bins) at most. The complexity of Hedström et al. (2024).
    """
    counts, _ = np.histogram(values, bins=bins)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def agreement(first: tuple[Any, int], second: tuple[Any, int]) -> dict[str, float]:
    """How alike two maps are, each the i-th of a result: ``rank`` of the finished maps, ``signed`` and
    ``absolute`` of the raw values, and the entropy of both raw maps."""
    (a, i), (b, j) = first, second
    raw, other = a.raw[i].cpu().double().numpy(), b.raw[j].cpu().double().numpy()
    return {
        "rank": rank(a.maps[i].cpu().numpy(), b.maps[j].cpu().numpy()),
        "signed": rank(raw, other),
        "absolute": rank(abs(raw), abs(other)),
        "entropy": entropy(raw),
        "other_entropy": entropy(other),
    }


def maps_of(network: Network, scenes: Sequence[Scene], methods: Sequence[str]) -> dict[str, Result]:
    """Each method's maps of the first label of every scene."""
    images, labels = [each.image for each in scenes], [each.labels[0] for each in scenes]
    options = {SLOW: {"steps": STEPS}} if SLOW in methods else {}
    results = compare(network, images, labels, methods=methods, options=options)
    return {result.method: result for result in results}


def smooth(network: Network, scenes: Sequence[Scene], seed: int = 0) -> dict[str, Tensor]:
    """The mean raw maps of ``COPIES`` noisy copies of each image, as the smooth check has it.

    The noise is Gaussian with ``NOISE`` times the range of the input as its standard deviation.
    """
    inputs = network.prepare([each.image for each in scenes])
    labels = [each.labels[0] for each in scenes]
    generator = torch.Generator().manual_seed(seed)
    spread = NOISE * (inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True))
    sums: dict[str, Tensor] = {}
    for _ in range(COPIES):
        noisy = inputs + spread * torch.randn(inputs.shape, generator=generator)
        for result in compare(network, noisy, labels, methods=SMOOTHED):
            sums[result.method] = sums.get(result.method, 0) + result.raw / COPIES
    return sums


def measured(
    network: Network, scenes: Sequence[Scene], seeds: Sequence[int], stages: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of agreement with the trained network, one per stage of the cascade, seed, method and scene.

    ``layer``: the last that was randomised; the order is from the logits down. At the cascade's end, ``SLOW``
    is there, and ``smooth``, the signed rank correlation of the smoothed maps. Without a layer: the trained
    network's maps of two images. ``stages``: as in ``randomised``.
    """
    names = list(layers_from_logits(network))
    before, calm = maps_of(network, scenes, METHODS), smooth(network, scenes)

    def rows(
        layer: str, seed: int, after: dict[str, Result], soft: dict[str, Tensor]
    ) -> Iterator[dict[str, Any]]:
        for name, maps in after.items():
            for i, each in enumerate(scenes):
                j = i if layer else i - 1
                row: dict[str, Any] = {
                    "layer": layer,
                    "seed": seed,
                    "method": name,
                    "scene": i,
                    "label": each.labels[0],
                }
                row |= {"other": each.labels[1]} | agreement((before[name], i), (maps, j))
                if name in soft:
                    row["smooth"] = rank(calm[name][i].numpy(), soft[name][j].numpy())
                yield row

    yield from rows("", -1, before, calm)
    for seed in tqdm(seeds, desc=network.name):
        for layer, copied in randomised(network, cascading=True, seed=seed, stages=stages):
            last = layer == names[-1]
            after = maps_of(copied, scenes, [name for name in METHODS if last or name != SLOW])
            yield from rows(layer, seed, after, smooth(copied, scenes) if last else {})


def kept(
    rows: pd.DataFrame, column: str = "rank", crossed: bool = False
) -> tuple[float, float, float, list[float]]:
    """A row of ``dots``: the mean of ``column``, its interval, and each seed's mean.

    Each scene counts with its mean over the seeds. The interval resamples the classes that are explained, or,
    ``crossed``, the classes of both objects. Missing values, of empty maps, are left out; NaN without any.
    """
    scenes = rows.dropna(subset=column).groupby("scene", observed=True)
    if not len(scenes):
        return float("nan"), float("nan"), float("nan"), []
    labels = scenes[["label", "other"] if crossed else ["label"]].first().to_numpy()
    weights = bootstrap_weights(clusters=labels.tolist())
    means = bootstrap_means(weights, scenes[column].mean().to_numpy(float)[:, None])
    (low,), (high,) = interval(means)
    seeds = rows.groupby("seed", observed=True)[column].mean()
    return float(means[0, 0]), float(low), float(high), seeds.tolist()


def by_method(
    rows: pd.DataFrame, column: str = "rank", crossed: bool = False
) -> dict[str, tuple[float, float, float, list[float]]]:
    """A panel of ``dots``: ``kept`` of every method, by its title."""
    return {TITLES[name]: kept(rows[rows["method"] == name], column, crossed) for name in METHODS}


def above_floor(rows: pd.DataFrame, floor: pd.DataFrame, column: str = "rank") -> list[str]:
    """The methods whose ``column`` is larger than in ``floor``, scene by scene, after Holm's correction.

    p is that of Student's t with seven degrees of freedom, one less than the classes, for the mean difference
    over its bootstrap's standard error, a 3.92th of the interval; the methods are one table.
    """
    below = floor.groupby(["method", "scene"], observed=True)[column].mean().rename("floor")
    joined = rows.join(below, on=["method", "scene"])
    gaps = by_method(joined.assign(gap=joined[column] - joined["floor"]), "gap")
    value, low, high = np.array([gap[:3] for gap in gaps.values()]).T
    error = np.maximum(high - low, 1e-9) / 3.92
    p = holm(2 * require("scipy.stats", "evaluate").t.sf(np.abs(value) / error, 7))
    return [name for name, gap, each in zip(METHODS, value, p, strict=True) if gap > 0 and each < 0.05]


def in_words(row: Sequence[Any], decimals: int = 2) -> str:
    """A value with its interval, as the page's sentences show it."""
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*row[:3], d=decimals).replace("-", "\N{MINUS SIGN}")


def convergence(network: Network, inputs: Tensor, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """How alike the relevance of two classes is at each layer: the mean cosine over all pairs of classes.

    ``inputs`` (1, 3, H, W). ``"z+"``: relevance that starts at one logit, as in Sixt et al. (2020), whose
    cosine is 1 where the rule forgets the class; ``"contrast"``: that of ``relevance_cam``, which starts with
    −1/N at the other logits; ``"product"``: gradient times feature map, for comparison. All three are
    compared over channels and cells.
    """
    classes = network.probabilities(inputs).shape[1]
    others = ~torch.eye(classes, dtype=torch.bool)
    start = torch.eye(classes, dtype=torch.float64) * (1 + 1 / classes) - 1 / classes
    for layer in layers:
        path, targets = network.layer_path(layer), torch.arange(classes)
        query = Query(network, inputs, targets, path, capture(network.module, inputs, targets, path))
        contrast = propagate(query).flatten(1).double()
        # The rule is linear in the relevance it starts with, so the contrasts give that of each logit.
        kinds = {"z+": torch.linalg.solve(start, contrast), "contrast": contrast}
        kinds["product"] = (query.M * query.C).flatten(1).double()
        for kind, values in kinds.items():
            unit = nn.functional.normalize(values, dim=1)
            yield {"layer": layer, "kind": kind, "cosine": float((unit @ unit.T)[others].mean())}


def store(out: Path, seeds: int = SEEDS) -> None:
    """Write ``random_weights.parquet`` and ``relevance_convergence.csv`` into ``out``.

    The cascade is measured layer by layer on ``collage-vgg``, and at its two ends on ``collage-resnet``.
    Raises ``ValueError`` for a missing folder.
    """
    if not out.is_dir():
        raise ValueError(f"expected an existing folder, got {out}: create it first")
    scenes, rows, cosines = dual_class_scenes(56, step=7), [], []
    for name in ("collage-vgg", "collage-resnet"):
        network = load(name)
        layers = list(layers_from_logits(network))
        stages = layers if name == "collage-vgg" else [layers[0], layers[-1]]
        for row in measured(network, scenes, range(seeds), stages):
            rows.append({"network": name} | row)
        for i, each in enumerate(tqdm(scenes, desc="convergence")):
            found = convergence(network, network.prepare(each.image), STAGES)
            cosines += [{"network": name, "scene": i, "label": each.labels[0]} | row for row in found]
    write(rows, out / "random_weights.parquet")
    pd.DataFrame(cosines).to_csv(out / "relevance_convergence.csv", index=False, float_format="%.4f")


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as a small parquet file: words as categories, numbers in float32."""
    table = pd.DataFrame(rows)
    kinds = {"object": "category", "str": "category", "float64": "float32"}
    table = table.astype({name: kinds.get(str(kind), kind) for name, kind in table.dtypes.items()})
    table.to_parquet(path, compression="zstd")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m gmcam.lab.randomisation", description="Compare maps after new weights, per seed."
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args(arguments)
    try:
        store(options.out, options.seeds)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
