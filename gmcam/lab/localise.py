"""Measure where maps are on two-object scenes; shared by the chapters on single methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from gmcam.evaluate.measuring import Case, Choices, measure
from gmcam.lab.scenes import Scene
from gmcam.network import Network
from gmcam.postprocess import DEFAULT_SIGMA

BATCH = 4


def localise(
    network: Network,
    scenes: Sequence[Scene],
    method: str,
    layer: str | None = None,
    sigma: float = DEFAULT_SIGMA,
) -> dict[str, np.ndarray]:
    """Explain the first object of each two-object scene, and measure the map on the scene's pixels.

    One entry per scene: ``inside``, the share of the map in the target object; ``trace``, its share in the
    other object; ``points``, whether the maximum is in the target's box. The shares of an empty map are NaN,
    and it is a miss. Scenes are square and of one size. Raises ``ValueError`` for scenes that do not have two
    objects.

    >>> from gmcam.lab import localise
    >>> measured = localise(gmcam.load("collage-vgg"), gmcam.lab.dual_class_scenes(2, size=128), "gmcam")
    >>> {name: values.shape for name, values in measured.items()}
    {'inside': (2,), 'trace': (2,), 'points': (2,)}
    """
    if any(len(scene.labels) != 2 for scene in scenes):
        raise ValueError("expected scenes of two objects, got others: draw them with dual_class_scenes")
    choices = Choices((method,), layer=layer, sigma=sigma, zone=None, steps=0)
    rows = []
    starts = range(0, len(scenes), BATCH)
    for start in tqdm(starts, desc=f"{method} on {network.name}", delay=2, leave=False):
        part = scenes[start : start + BATCH]
        inputs = network.prepare([scene.image for scene in part])
        cases = [_case(network, scene, image) for scene, image in zip(part, inputs, strict=True)]
        rows += measure(network, cases, choices)
    inside, trace, points = (
        np.array([row[m] for row in rows], np.float32) for m in ("inside", "trace", "pointing")
    )
    return {"inside": inside, "trace": trace, "points": points == 1}


def _case(network: Network, scene: Scene, inputs: torch.Tensor) -> Case:
    target, other = torch.from_numpy(scene.masks)
    index = (network.class_index(scene.labels[0]),)
    boxes = torch.from_numpy(scene.boxes[:1])
    return Case("", scene.labels[0], index, inputs, target, other, torch.ones_like(target), boxes)
