"""Answers to *Sanity checks*."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from skimage.metrics import structural_similarity

from gmcam import explain
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
    """A method's maps on ``collage-vgg`` against those after the cascade has come to ``stage``."""
    images, labels = [s.image for s in _scenes()], [s.labels[0] for s in _scenes()]
    return sanity_check(network(), images, labels, name, layer, seed=seed, stages=[stage])[0]


def _mean(
    name: str, stage: str, number: str = "rank_correlation", layer: str | None = None, seed: int = 0
) -> float:
    return float(np.nanmean(getattr(_stage(name, stage, layer, seed), number)))


@exercise("sanity_checks.1", tolerance=0.05)
def spread_of_seeds() -> Answers:
    """Largest less smallest of four draws' mean rank correlations, after new weights for the logits."""
    means = [_mean("grad_cam", "head.3", seed=seed) for seed in range(4)]
    similar = [_mean("grad_cam", "head.3", "similarity", seed=seed) for seed in range(4)]
    return Answers(
        max(means) - min(means),
        {
            "all four are seed 0: hand `seed=seed` to `sanity_check`": 0.0,
            "that is SSIM; take `rank_correlation`": max(similar) - min(similar),
            "that is the mean of the four": float(np.mean(means)),
            "that is their standard deviation": float(np.std(means)),
            "that is the largest of the four; take the smallest from it": max(means),
        },
    )


@exercise("sanity_checks.2")
def one_line_for_two() -> Answers:
    """The two methods that are one on a pooled network, whatever its weights."""
    images, labels = [s.image for s in _scenes()], [s.labels[0] for s in _scenes()]
    asked = ("grad_cam", "gmcam", "guidance_map", "eigen_cam")
    maps = {
        name: explain(network("collage-resnet"), images, labels, method=name).maps.numpy() for name in asked
    }
    same = {name for name in asked if np.abs(maps[name] - maps["grad_cam"]).max() < 1e-3}
    return Answers(
        same,
        {
            "GMCAM is the square: the same order of cells, but smoothing and up-sampling act on squares": (
                {"grad_cam", "gmcam"}
            ),
            "GMCAM is the guidance map times Grad-CAM, and so its square": {"gmcam", "guidance_map"},
            "all three hang together there, but GMCAM is the square of the other two": same | {"gmcam"},
            "both stay at 1 for a while, but Eigen-CAM only until its own layer is new": {
                "edges",
                "eigen_cam",
            },
        },
    )


@exercise("sanity_checks.3", tolerance=0.05)
def another_class() -> Answers:
    """Mean rank correlation of guided backpropagation's maps for the two labels of each scene."""
    images = [s.image for s in _scenes()]

    def between(name: str) -> tuple[float, float]:
        one, other = (
            explain(network(), images, [s.labels[i] for s in _scenes()], method=name).maps.numpy()
            for i in (0, 1)
        )
        pairs = list(zip(one, other, strict=True))
        ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs if np.ptp(a) and np.ptp(b)]
        similar = [structural_similarity(a, b, data_range=1.0) for a, b in pairs]  # type: ignore[no-untyped-call]
        return float(np.mean(ranks)), float(np.mean(similar))

    guided, ssim = between("captum.guided_backprop")
    return Answers(
        guided,
        {
            "that is Grad-CAM's": between("grad_cam")[0],
            "that is SSIM; take the rank correlation": ssim,
            "that is a map with itself: ask for `labels[1]` too": 1.0,
        },
    )


@exercise("sanity_checks.4", tolerance=0.05)
def early_layer() -> Answers:
    """Mean rank correlation of Grad-CAM at an early layer after new weights for the logits."""
    return Answers(
        _mean("grad_cam", "head.3", layer="64x64"),
        {
            'that is the last layer\'s; ask for `layer="64x64"`': _mean("grad_cam", "head.3"),
            "that is SSIM; take `rank_correlation`": _mean("grad_cam", "head.3", "similarity", "64x64"),
            "the cascade went on to `stage4.3`; only the logits' layer was to be new": (
                _mean("grad_cam", "stage4.3", layer="64x64")
            ),
            "that is GMCAM's": _mean("gmcam", "head.3", layer="64x64"),
        },
    )
