"""Answers to *Sanity checks*."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from gmcam import explain
from gmcam.lab import Scene, dual_class_scenes
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.lab.random_labels import small_network, training_scenes
from gmcam.lab.randomisation import rank
from gmcam.metrics import randomised


@cache
def _scenes() -> Sequence[Scene]:
    """The chapter's eight scenes: every seventh of the ordered pairs of classes."""
    return dual_class_scenes(56, step=7)


def _mean_rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.nanmean([rank(a, b) for a, b in zip(first, second, strict=True)]))


@exercise("sanity_checks.1", tolerance=0.05)
def another_class() -> Answers:
    """Mean rank correlation of guided backpropagation's maps for the two labels of each scene."""
    images = [s.image for s in _scenes()]

    def between(name: str) -> float:
        both = [explain(network(), images, [s.labels[i] for s in _scenes()], method=name) for i in (0, 1)]
        return _mean_rank(*(each.maps.numpy() for each in both))

    slips = {
        "this is Grad-CAM's": between("grad_cam"),
        "this compares a map with itself: explain `labels[1]` as well": 1.0,
    }
    return Answers(between("captum.guided_backprop"), slips)


@exercise("sanity_checks.2")
def same_answer() -> Answers:
    """The share of scenes whose top class stays when one skip connection is randomised."""
    resnet = network("collage-resnet")
    inputs = resnet.prepare([s.image for s in _scenes()])
    before = resnet.probabilities(inputs).argmax(1)
    asked = torch.as_tensor(resnet.target_indices([s.labels[0] for s in _scenes()]))

    def after(stage: str, cascading: bool = False, own: bool = False) -> float:
        ((_, copied),) = randomised(resnet, cascading=cascading, stages=[stage])
        top = copied.probabilities(inputs).argmax(1)
        return float(torch.eq(top, asked if own else before).float().mean())

    slips = {
        "all layers behind it are new, too: pass `cascading=False`": after("stage3.shortcut.0", True),
        "this is `stage4.conv1`": after("stage4.conv1"),
        "compare with the trained network's top class, not with the explained one": after(
            "stage3.shortcut.0", own=True
        ),
        "this is the trained network against itself: run the copy": 1.0,
    }
    right = after("stage3.shortcut.0")
    return Answers(right, {slip: value for slip, value in slips.items() if abs(value - right) > 0.05})


@exercise("sanity_checks.3", tolerance=0.05)
def own_predictions() -> Answers:
    """Mean rank correlation of two small networks' Grad-CAM maps, each of its own top class."""
    scenes = training_scenes()[:16]
    images, labels = [s.image for s in scenes], [s.labels[0] for s in scenes]
    true, random = (small_network(kind) for kind in ("true", "random"))

    def between(method: str, target: list[str] | None) -> float:
        pairs = [explain(net, images, target, method=method).maps.numpy() for net in (true, random)]
        return _mean_rank(*pairs)

    slips = {
        "this is the object's class for both; pass no target": between("grad_cam", labels),
        "these are the maps of GMCAM; pass `method='grad_cam'`": between("gmcam", None),
        "this compares a network with itself": 1.0,
    }
    return Answers(between("grad_cam", None), slips)


@exercise("sanity_checks.4")
def referee() -> Answers:
    """The three points of a report on a claim that ranks methods by the check."""
    slips = {
        "all layers are new already; one draw of the weights is too few": {"a", "b", "e"},
        "another measure of similarity ranks methods no better; ask for seeds and an interval": (
            {"a", "d", "e"}
        ),
        "a low similarity does not rank methods at all, whatever the layers": {"b", "c", "e"},
        "the similarity of unrelated maps is missing: without it no value can be read": {"a", "b", "c"},
        "tick three points; more layers and SSIM do not help": {"a", "b", "c", "d", "e"},
    }
    return Answers({"a", "c", "e"}, slips)
