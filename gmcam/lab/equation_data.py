"""The arrays behind ``equation_figure``: one layer's maps and gradients for a scene, packed for a page."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from gmcam import equations
from gmcam._extras import require
from gmcam._hooks import without_gradients
from gmcam.capture import Recording
from gmcam.lab.scenes import BACKGROUNDS, Scene
from gmcam.network import Network

LEVELS = 32767  # the largest int16
SKIP = 255  # as many zeros as a gap can name
OUTLINE = 256  # units on a side of the outlines

Packed = tuple[str, float, str]


def pack(maps: np.ndarray) -> Packed:
    """Maps (K, h, w) as int16 in base64: kind, scale and text, whichever kind is shortest.

    A value is its integer times the scale. "flat": one integer per channel, where every cell of it holds the
    same value; "dense": all; "sparse": for each non-zero its distance to the one before less one, in a byte,
    and its integer. A distance byte of 255 skips 255 zeros.
    """
    peak = float(np.abs(maps).max())
    scale = peak / LEVELS if peak else 1.0
    integers = np.rint(maps / scale).astype("<i2")
    if (integers == integers[:, :1, :1]).all():
        return "flat", scale, _text(integers[:, 0, 0].tobytes())
    places = np.flatnonzero(integers)
    gaps = np.diff(places, prepend=-1) - 1
    skips = gaps // SKIP
    entries = np.zeros(len(places) + skips.sum(), np.dtype([("gap", "u1"), ("value", "<i2")]))
    entries["gap"] = SKIP
    ends = np.arange(len(places)) + skips.cumsum()  # each value follows its skips
    entries["gap"][ends], entries["value"][ends] = gaps % SKIP, integers.flat[places]
    sparse, dense = entries.tobytes(), integers.tobytes()
    kind, shorter = ("sparse", sparse) if len(sparse) < len(dense) else ("dense", dense)
    return kind, scale, _text(shorter)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unpack(packed: Packed, shape: tuple[int, int, int]) -> np.ndarray:
    """The maps (K, h, w) float64 that a page decodes; the inverse of ``pack`` but for rounding."""
    kind, scale, text = packed
    data = base64.b64decode(text)
    if kind == "flat":
        return np.tile((np.frombuffer(data, "<i2") * scale)[:, None, None], (1, *shape[1:]))
    if kind == "dense":
        return np.frombuffer(data, "<i2").reshape(shape) * scale
    entries = np.frombuffer(data, np.dtype([("gap", "u1"), ("value", "<i2")]))
    skipping = entries["gap"] == SKIP
    places = np.cumsum(entries["gap"].astype(int) + ~skipping) - 1
    maps = np.zeros(shape)
    maps.flat[places[~skipping]] = entries["value"][~skipping] * scale
    return maps


@dataclass(frozen=True, eq=False)
class Question:
    """One class: its ``object`` in the scene, its gradients ``C`` (K, h, w), and ``removal``: by how much its
    logit falls without an object or, under "background", on the mean of other backgrounds."""

    object: str
    logit: float
    probability: float
    packed: Packed
    C: np.ndarray
    removal: dict[str, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """What a figure shows of a scene at one layer.

    ``view``: the image as the network sees it. ``cover``: for each object the share of each cell that it
    covers, (h, w). ``bare``: cells that see no object. ``seen``: height and width of what a cell sees, as
    shares of the image; None for all of it. ``exact``: the logits are piecewise affine functions of ``M``.
    """

    network: str
    layer: str
    last: bool
    background: str
    view: Image.Image
    masks: dict[str, np.ndarray]
    cover: dict[str, np.ndarray]
    bare: np.ndarray
    seen: tuple[float, float] | None
    packed: Packed
    M: np.ndarray
    questions: dict[str, Question]
    exact: bool

    def maps(self, target: str) -> dict[str, np.ndarray]:
        """Every map (h, w) of a class before its rectifier, by the name of its method."""
        M, C = (torch.from_numpy(maps)[None] for maps in (self.M, self.questions[target].C))
        weights = equations.channel_weights(C)
        grad_cam = equations.class_map(M, weights)
        maps = {
            "aggregated_map": equations.aggregated_map(M),
            "cam": grad_cam * M[0, 0].numel(),
            "grad_cam": grad_cam,
            "guidance_map": equations.hires_cam(M, C),
            "gmcam": equations.guidance_map(M, C) * grad_cam,
        }
        return {name: values[0].numpy() for name, values in maps.items()}

    def share(self, target: str, name: str) -> float:
        """The share of a class's rectified map that is on its object; 0 for an empty map."""
        positive = self.maps(target)[name].clip(0)
        total = positive.sum()
        return float((positive * self.cover[self.questions[target].object]).sum() / total) if total else 0.0

    def ledger(self, target: str) -> list[tuple[str, float, float, float | None]]:
        """Rows that add up to the logit: name, positive and negative part, and the effect of removal.

        The cells of Σ C ⊙ M before the rectifier, by what they lie on; a cell on a border counts in parts.
        """
        cells, question = self.maps(target)["guidance_map"], self.questions[target]
        rest, effect = 1 - np.sum(list(self.cover.values()), axis=0), question.removal
        parts: list[tuple[str, np.ndarray, float | None]] = [
            (f"on the {name}", cover, effect[name]) for name, cover in self.cover.items()
        ]
        if self.bare.any():
            parts.append(("near an object", rest * ~self.bare, effect["background"]))
            parts.append(("bare background", rest * self.bare, None))
        else:
            parts.append(("background", rest, effect["background"]))
        rows: list[tuple[str, float, float, float | None]] = [
            (name, float((cells.clip(0) * part).sum()), float((cells.clip(max=0) * part).sum()), change)
            for name, part, change in parts
        ]
        left = question.logit - float(cells.sum())
        rows.append(("biases" if self.exact else "not explained by cells", max(left, 0), min(left, 0), None))
        return rows


def subject(network: Network, scene: Scene, target: Mapping[str, str], layer: str) -> Subject:
    """Run the network for each class of ``target`` (class → its object) at ``layer``, a dotted path.

    Effects: one forward pass for the scene, without each object, and on each other background.
    """
    indices = [network.class_index(name) for name in target]
    inputs = network.prepare(scene.image)
    recording = Recording(network.module, inputs, layer, read=network.logits_of, arrange=network.as_maps)
    captured = recording.capture(torch.tensor(indices))
    M, gradients = (part[layer].double().cpu().numpy() for part in (captured.maps, captured.gradients))
    labels = dict.fromkeys(scene.labels)
    others = [name for names in BACKGROUNDS.values() for name in names if name != scene.background]
    changed = [scene.image, *(scene.without(label).image for label in labels)]
    changed += [scene.on(name).image for name in others]
    runs = (Recording(network.module, network.prepare(one), layer, gradients=False) for one in changed)
    logits = torch.cat([network.logits_of(run.output)[:, indices].double() for run in runs])
    without, elsewhere = logits[1 : 1 + len(labels)], logits[1 + len(labels) :].mean(0, keepdim=True)
    effects = (logits[:1] - torch.cat([without, elsewhere])).T.tolist()
    chances = network.probabilities(inputs)[0, indices].tolist()
    questions = {}
    for n, (name, label) in enumerate(target.items()):
        packed, removal = pack(gradients[n]), dict(zip([*labels, "background"], effects[n], strict=True))
        C = unpack(packed, M.shape[1:])
        questions[name] = Question(label, float(captured.scores[n]), chances[n], packed, C, removal)
    masks, packed = {label: _seen(network, scene.mask(label)) for label in labels}, pack(M[0])
    seen, cells = field_of_view(network, inputs, layer), M.shape[2:]
    return Subject(
        network.name,
        layer,
        layer == network.layer_path(),
        scene.background,
        network.view(scene.image),
        masks,
        {label: _cover(mask, cells) for label, mask in masks.items()},
        _bare(np.logical_or.reduce(list(masks.values())), cells, seen),
        seen,
        packed,
        unpack(packed, M.shape[1:]),
        questions,
        is_affine(network, inputs, layer),
    )


def _seen(network: Network, mask: np.ndarray) -> np.ndarray:
    """The part of a mask that the network sees."""
    viewed = network.view(Image.fromarray(mask.astype(np.uint8) * 255))
    return np.asarray(viewed.convert("L")) > 127


def _cover(mask: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """The covered share of each cell, to four digits."""
    shares = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].double(), cells)[0]
    return shares.numpy().round(4)


def _bare(mask: np.ndarray, cells: tuple[int, int], seen: tuple[float, float] | None) -> np.ndarray:
    """The cells (h, w) whose whole field of view holds no pixel of ``mask``."""
    if seen is None:
        return np.zeros(cells, bool)

    def spans(count: int, share: float, side: int) -> list[slice]:
        centres, half = (np.arange(count) + 0.5) * side / count, share * side / 2
        return [slice(max(0, round(c - half)), round(c + half)) for c in centres]

    rows, columns = (spans(*each) for each in zip(cells, seen, mask.shape, strict=True))
    return np.array([[not mask[row, column].any() for column in columns] for row in rows])


def field_of_view(network: Network, inputs: Tensor, layer: str) -> tuple[float, float] | None:
    """Height and width of what a middle cell of ``layer`` sees, as shares of the input; None if it sees all.

    The pixels with a gradient in a copy whose non-zero weights are equal and whose poolings average.
    """
    module = copy.deepcopy(network.module).double().eval()
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.MaxPool2d):
                part.add_module(name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.BatchNorm2d):
                child.reset_parameters()
            elif isinstance(child, nn.Conv2d):
                weight = (child.weight.detach() != 0).double()
                child.weight.data = weight / weight[0].sum()
                child.bias = None
    image, recorded = torch.full_like(inputs[:1], 0.01, dtype=torch.double).requires_grad_(), list[Tensor]()
    hook = module.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: recorded.append(network.as_maps(output, layer))
    )
    module(image)
    hook.remove()
    rows, columns = recorded[0].shape[2:]
    [gradient] = torch.autograd.grad(recorded[0][0, :, rows // 2, columns // 2].sum(), image)
    touched = gradient[0].abs().sum(0).nonzero()
    spans = (touched.amax(0) - touched.amin(0) + 1).tolist()
    height, width = (span / side for span, side in zip(spans, image.shape[2:], strict=True))
    return None if min(height, width) >= 1 else (height, width)


def is_affine(network: Network, inputs: Tensor, layer: str) -> bool:
    """Whether the logits are an affine function of the layer's output near it: their second difference
    along it vanishes, computed in float64."""
    module, shares, step = copy.deepcopy(network.module).double().eval(), list[float](), 1e-5
    hook = module.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: output * shares[-1]
    )
    logits = []
    with without_gradients(module):
        for share in (1 - step, 1, 1 + step):
            shares.append(share)
            logits.append(network.logits_of(module(inputs.double())))
    hook.remove()
    bend = (logits[0] - 2 * logits[1] + logits[2]).abs().max()
    return bool(bend <= 1e-13 * max(1.0, float(logits[1].abs().max())))


def outline(mask: np.ndarray) -> str:
    """The borders of a mask (H, W) as one smooth SVG path in a square of ``OUTLINE`` units."""
    filters, measure = (require(f"skimage.{part}", "lab") for part in ("filters", "measure"))
    smooth = filters.gaussian(np.pad(mask, 2).astype(float), mask.shape[0] / OUTLINE)
    path = ""
    for border in measure.find_contours(smooth, 0.5):
        points = measure.approximate_polygon(border - 1.5, tolerance=0.001 * mask.shape[0])
        scaled = points[:, ::-1] / mask.shape[::-1] * OUTLINE
        path += "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in scaled[:-1]) + "Z"
    return path


def arrays(shown: Subject) -> dict[str, Any]:
    """What the page's script reads, for JSON."""
    return {
        "cells": shown.M.shape[1:],
        "channels": len(shown.M),
        "M": shown.packed,
        "cover": {name: cover.flatten().tolist() for name, cover in shown.cover.items()},
        "bare": np.flatnonzero(shown.bare).tolist(),
        "seen": shown.seen,
        "questions": {
            name: {"object": q.object, "logit": q.logit, "probability": q.probability, "C": q.packed}
            for name, q in shown.questions.items()
        },
    }
