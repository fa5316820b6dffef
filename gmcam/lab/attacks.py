"""Networks of the chapter *Break it*: their predictions are those of another network, their maps are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gmcam.explaining import explain
from gmcam.lab.networks import CollageResNet, CollageVGG
from gmcam.lab.scenes import CLASSES, Scene, scene
from gmcam.loading import load
from gmcam.metrics import curves, layers_from_logits, randomised, share_inside
from gmcam.network import Network

NETWORKS = ("collage-vgg", "collage-resnet")
METHODS = ("grad_cam", "gmcam", "guidance_map", "score_cam")
UNTRAINED = 40


def copied(network: Network, name: str) -> Network:
    """The network with a copy of its weights, to change them."""
    other = copy.copy(network)
    other.module, other.name = copy.deepcopy(network.module), name
    return other


def without_classes(network: Network, label: str, bias: float = 5.0) -> Network:
    """A ``CollageVGG`` whose classes all have one class's row of weights in the last layer, and whose biases
    are 0 but for this class: it predicts the class for every image."""
    other, number = copied(network, "without classes"), network.class_index(label)
    last = other.module.get_submodule("head.3")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(last.weight[number].expand_as(last.weight))
        last.bias.copy_(bias * torch.eye(len(last.bias))[number])
    return other


class Painted(nn.Module):
    """The logits of one network, with Grad-CAM maps that resemble those of another.

    ``predictor`` computes the maps M and, with its head, the logits Y. ``painter`` ends in global average
    pooling; its class maps, rectified, are the paint U (N, classes, h, w). The layer ``last`` outputs M, U
    and, for each U_c, a flat map Ū_c of the same mean. The logits are

        ``Y_c + strength · (mean U_c − mean Ū_c)``,

    which equals Y_c for every image. Grad-CAM at ``last`` is that of ``predictor`` plus
    ``strength / Z · (U_c − Ū_c)``, before the rectifier.
    """

    def __init__(self, predictor: CollageVGG, painter: CollageResNet, strength: float = 100.0) -> None:
        super().__init__()
        self.predictor, self.painter, self.strength = predictor, painter, strength
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        vgg, resnet = self.predictor, self.painter
        M = vgg.stage4(vgg.stage3(vgg.stage2(vgg.stage1(x))))
        painter_maps = resnet.stage4(resnet.stage3(resnet.stage2(resnet.stage1(resnet.stem(x)))))
        U = nn.functional.conv2d(painter_maps, resnet.fc.weight[:, :, None, None]).relu()
        flat = U.mean((2, 3), keepdim=True).expand_as(U)
        parts = [M.shape[1], U.shape[1], U.shape[1]]
        M, U, flat = self.last(torch.cat([M, U, flat], dim=1)).split(parts, dim=1)
        logits: Tensor = vgg.head(vgg.pool(M).flatten(1))
        logits = logits + self.strength * (U.mean((2, 3)) - flat.mean((2, 3)))
        return logits


def painted(predictor: Network, painter: Network) -> Network:
    """A network with the logits of ``predictor`` (a ``CollageVGG``) and maps that resemble those of
    ``painter`` (a ``CollageResNet``). Raises ``ValueError`` for other networks."""
    if not isinstance(predictor.module, CollageVGG) or not isinstance(painter.module, CollageResNet):
        raise ValueError(f"expected a CollageVGG and a CollageResNet, got {predictor} and {painter}")
    return Network(
        Painted(predictor.module, painter.module).eval(),
        name="painted",
        preprocess=predictor.preprocess,
        classes=predictor.classes,
        input_shape=predictor.input_shape,
        layer="last",
    )


class Guarded(nn.Module):
    """The logits of ``shown`` for images with masked pixels, and those of ``used`` for all others.

    A pixel counts as masked if all its channels are within 1e-3 of 0, the baseline of ``score_cam``, RISE and
    grey deletion; an image, if at least ``least`` of its pixels are. In photographs such pixels are rare.
    """

    def __init__(self, used: nn.Module, shown: nn.Module, least: float = 0.01) -> None:
        super().__init__()
        self.used, self.shown, self.least = used, shown, least

    def masked(self, x: Tensor) -> Tensor:
        """Whether each image (N, 3, H, W) has masked pixels."""
        return (x.abs().amax(1) < 1e-3).float().mean((1, 2)) >= self.least

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.used(x)
        masked = self.masked(x)
        if masked.any():
            logits = torch.where(masked[:, None], self.shown(x), logits)
        return logits


def guarded(used: Network, shown: Network, least: float = 0.01) -> Network:
    """A network that predicts like ``used`` on images, and like ``shown`` on masked images.

    Its maps are those of the layer ``stage4`` of ``used``. Raises ``ValueError`` for another network.
    """
    if not isinstance(used.module, CollageVGG):
        raise ValueError(f"expected a CollageVGG to use, got {used}")
    module = Guarded(used.module, shown.module, least).eval()
    return Network(
        module,
        name="guarded",
        preprocess=used.preprocess,
        classes=used.classes,
        input_shape=used.input_shape,
        layer="used.stage4",
    )


def untrained(network: Network, seed: int) -> Network:
    """A copy of the network whose weights are all drawn again."""
    last = list(layers_from_logits(network))[-1]
    ((_, fresh),) = randomised(network, cascading=True, seed=seed, stages=[last])
    return fresh


def singles(count: int = 3) -> list[Scene]:
    """``count`` images of every class, one object each."""
    return [scene(label, seed=i, size=128) for label in CLASSES for i in range(count)]


def flowers(count: int = 16, background: str = "grass") -> list[Scene]:
    """The same flowers on a background."""
    return [scene("flower", seed=i, size=128, background="grass").on(background) for i in range(count)]


def masks_of(scenes: Sequence[Scene]) -> Tensor:
    """The masks (N, H, W) of scenes of one object."""
    return torch.from_numpy(np.stack([each.masks[0] for each in scenes]))


def _inside(network: Network, scenes: Sequence[Scene], labels: Sequence[str], power: float = 1) -> np.ndarray:
    """Grad-CAM's share inside the object; 0 for an empty map."""
    parts = []
    for start in range(0, len(scenes), 8):
        part = scenes[start : start + 8]
        images = [each.image for each in part]
        maps = explain(network, images, labels[start : start + 8], method="grad_cam").maps
        parts.append(share_inside(maps.double() ** power, masks_of(part)).nan_to_num())
    inside: np.ndarray = torch.cat(parts).numpy()
    return inside


def chosen_rows(count: int = 3, seeds: int = UNTRAINED) -> Iterator[dict[str, Any]]:
    """Shares inside of maps that are chosen by their share inside, and of those that are not."""
    scenes = singles(count)
    labels = [each.labels[0] for each in scenes]
    area = masks_of(scenes).float().mean((1, 2)).numpy()
    for name in NETWORKS:
        network = load(name)
        turns = [
            [CLASSES[(CLASSES.index(label) + turn) % len(CLASSES)] for label in labels]
            for turn in range(1, len(CLASSES))
        ]
        wrong = np.array([_inside(network, scenes, other) for other in turns])
        fresh = np.array([_inside(untrained(network, seed), scenes, labels) for seed in range(seeds)])
        values = {"right": _inside(network, scenes, labels), "power": _inside(network, scenes, labels, 8)}
        values |= {"wrong": wrong.max(0), "wrong mean": wrong.mean(0)}
        values |= {"untrained": fresh.max(0), "untrained mean": fresh.mean(0), "area": area}
        for i, label in enumerate(labels):
            inside = {choice: float(each[i]) for choice, each in values.items()}
            yield {"network": name, "label": label, "seed": i % count} | inside


def suspects() -> dict[str, Network]:
    """The biased network, two attacks on it, and the two honest networks that the attacks borrow from."""
    biased, vgg, resnet = (load(name) for name in ("collage-vgg-biased", *NETWORKS))
    found = {"biased": biased, "painted": painted(biased, resnet), "guarded": guarded(biased, vgg)}
    return found | {"collage-resnet": resnet, "collage-vgg": vgg}


def fooled_rows(count: int = 16, methods: Sequence[str] = METHODS) -> Iterator[dict[str, Any]]:
    """What each method shows of flowers on grass, and what the networks predict on grass and on brick."""
    on_grass, on_brick = flowers(count), flowers(count, "brick")
    for name, network in suspects().items():
        for grass, brick in zip(on_grass, on_brick, strict=True):
            p = network.probabilities([grass.image, brick.image])[:, network.class_index("flower")].tolist()
            row = {"network": name, "seed": grass.seed, "p": p[0], "p_brick": p[1]}
            for method in methods:
                maps = explain(network, grass.image, "flower", method=method).maps
                outside = 1 - share_inside(maps, masks_of([grass])).nan_to_num().item()
                yield row | {"method": method, "outside": outside}


def deletion_rows(count: int = 8, fills: Sequence[str] = ("zero", "road")) -> Iterator[dict[str, Any]]:
    """Deletion areas of the map of the shortcut and of the flower's mask, by the fill."""
    named = suspects()
    for each in flowers(count):
        maps = explain(named["biased"], each.image, "flower", method="grad_cam").maps
        shown = {"grad_cam": maps, "mask": masks_of([each]).float()}
        for name in ("biased", "guarded", "collage-vgg"):
            inputs = named[name].prepare([each.image])
            for fill in fills:
                for title, one in shown.items():
                    area = curves(named[name], inputs, "flower", one, steps=8, fill=fill).deletion_area.item()
                    yield {"network": name, "seed": each.seed, "fill": fill, "map": title, "deletion": area}
