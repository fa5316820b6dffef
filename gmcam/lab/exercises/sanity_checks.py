"""Answers to *Sanity checks*."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from gmcam import explain
from gmcam._extras import require
from gmcam.lab import Scene, dual_class_scenes
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.metrics import Stage, sanity_check


@cache
def _scenes() -> Sequence[Scene]:
    """The chapter's eight scenes: every seventh of the ordered pairs of classes."""
    return dual_class_scenes(56, step=7)


@cache
def _stage(name: str, stage: str, layer: str | None, seed: int) -> Stage:
    """A method's maps on ``collage-vgg``, compared with those after randomising down to ``stage``."""
    images, labels = [s.image for s in _scenes()], [s.labels[0] for s in _scenes()]
    return sanity_check(network(), images, labels, name, layer, seed=seed, stages=[stage])[0]


def _mean(
    name: str, stage: str, number: str = "rank_correlation", layer: str | None = None, seed: int = 0
) -> float:
    return float(np.nanmean(getattr(_stage(name, stage, layer, seed), number)))


@exercise("sanity_checks.1", tolerance=0.05)
def spread_of_seeds() -> Answers:
    """The range of four seeds' mean rank correlations, after new weights for the logits' layer."""
    means = [_mean("grad_cam", "head.3", seed=seed) for seed in range(4)]
    similar = [_mean("grad_cam", "head.3", "similarity", seed=seed) for seed in range(4)]
    slips = {
        "all four use seed 0: pass `seed=seed` to `sanity_check`": 0.0,
        "this is SSIM; use `rank_correlation`": max(similar) - min(similar),
        "this is the mean of the four": float(np.mean(means)),
        "this is their standard deviation": float(np.std(means)),
        "this is the largest of the four; subtract the smallest": max(means),
    }
    return Answers(max(means) - min(means), slips)


@exercise("sanity_checks.2")
def one_line_for_two() -> Answers:
    """The two methods that are equal on a pooled network, for any weights."""
    images, labels = [s.image for s in _scenes()], [s.labels[0] for s in _scenes()]
    names = ("grad_cam", "gmcam", "guidance_map", "eigen_cam")
    maps = {name: explain(network("collage-resnet"), images, labels, method=name).maps for name in names}
    same = {name for name in names if (maps[name] - maps["grad_cam"]).abs().max() < 1e-3}
    slips = {
        "GMCAM is the square: the order of cells is the same, but smoothing and up-sampling act on squares": {
            "grad_cam",
            "gmcam",
        },
        "GMCAM is the guidance map times Grad-CAM, and so its square": {"gmcam", "guidance_map"},
        "the three are related there, but GMCAM is the square of the other two": same | {"gmcam"},
        "both stay at 1 at first, but Eigen-CAM only until its layer is randomised": {"edges", "eigen_cam"},
    }
    return Answers(same, slips)


@exercise("sanity_checks.3", tolerance=0.05)
def another_class() -> Answers:
    """Mean rank correlation of guided backpropagation's maps for the two labels of each scene."""
    images = [s.image for s in _scenes()]
    spearmanr = require("scipy.stats", "evaluate").spearmanr
    structural_similarity = require("skimage.metrics", "lab").structural_similarity

    def between(name: str) -> tuple[float, float]:
        first, second = (
            explain(network(), images, [s.labels[i] for s in _scenes()], method=name).maps.numpy()
            for i in (0, 1)
        )
        pairs = list(zip(first, second, strict=True))
        ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs if np.ptp(a) and np.ptp(b)]
        similar = [structural_similarity(a, b, data_range=1.0) for a, b in pairs]
        return float(np.mean(ranks)), float(np.mean(similar))

    guided, ssim = between("captum.guided_backprop")
    slips = {
        "this is Grad-CAM's": between("grad_cam")[0],
        "this is SSIM; use the rank correlation": ssim,
        "this compares a map with itself: explain `labels[1]` as well": 1.0,
    }
    return Answers(guided, slips)


@exercise("sanity_checks.4", tolerance=0.05)
def early_layer() -> Answers:
    """Mean rank correlation of Grad-CAM at an early layer, after new weights for the logits' layer."""
    slips = {
        'this is the last layer; use `layer="64x64"`': _mean("grad_cam", "head.3"),
        "this is SSIM; use `rank_correlation`": _mean("grad_cam", "head.3", "similarity", "64x64"),
        "the cascade reached `stage4.3`; stop at the logits": _mean("grad_cam", "stage4.3", layer="64x64"),
        "this is GMCAM's": _mean("gmcam", "head.3", layer="64x64"),
    }
    return Answers(_mean("grad_cam", "head.3", layer="64x64"), slips)
