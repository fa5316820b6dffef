"""Where maps lie on two-object scenes: the measurement that the chapters on single methods share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from gmcam.explaining import explain
from gmcam.lab.scenes import Scene
from gmcam.metrics.localisation import points_inside, share_inside
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
    """Explain the first object of each two-object scene, and measure where the map lies.

    One entry per scene: ``inside``, the share of the map in the target object; ``trace``, its share
    in the other object; ``points``, whether the maximum lies in the target's box. An empty map counts
    as 0 inside, 0 trace and a miss. Scenes are square and of one size. Raises ``ValueError`` for
    scenes that do not hold two objects.

    >>> from gmcam.lab import localise
    >>> found = localise(gmcam.load("collage-vgg"), gmcam.lab.dual_class_scenes(2, size=128), "gmcam")
    >>> {name: values.shape for name, values in found.items()}
    {'inside': (2,), 'trace': (2,), 'points': (2,)}
    """
    if any(len(scene.labels) != 2 for scene in scenes):
        raise ValueError("localise takes scenes of exactly two objects")
    inside, trace, points = [], [], []
    starts = range(0, len(scenes), BATCH)
    for start in tqdm(starts, desc=f"{method} on {network.name}", delay=2, leave=False):
        part = scenes[start : start + BATCH]
        names = [scene.labels[0] for scene in part]
        images = [scene.image for scene in part]
        maps = explain(network, images, names, method=method, layer=layer, sigma=sigma).maps.cpu()
        # Measured on the pixels of the scene, which are at least as fine as the network's input.
        size = part[0].masks.shape[1:]
        maps = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
        masks = torch.from_numpy(np.stack([scene.masks for scene in part]))
        inside.append(share_inside(maps, masks[:, 0]).nan_to_num())
        trace.append(share_inside(maps, masks[:, 1]).nan_to_num())
        points.append(points_inside(maps, torch.from_numpy(np.stack([s.boxes[0] for s in part]))).bool())
    columns = {"inside": inside, "trace": trace, "points": points}
    return {name: torch.cat(values).numpy() for name, values in columns.items()}
