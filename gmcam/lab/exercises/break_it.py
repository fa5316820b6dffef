"""Answers to *Break it*, and the chapter's painted network."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from gmcam import Network, equations, explain
from gmcam.lab import dual_class_scenes, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.lab.networks import CollageResNet, CollageVGG
from gmcam.metrics import points_inside, share_inside


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


@cache
def _two_class_maps() -> tuple[Tensor, Tensor, Tensor]:
    """Grad-CAM on 28 two-class scenes, with masks and boxes of the explained objects."""
    scenes = dual_class_scenes(56, size=128, step=2)
    parts = [scenes[start : start + 14] for start in range(0, len(scenes), 14)]
    maps = [
        explain(network(), [s.image for s in part], [s.labels[0] for s in part], method="grad_cam").maps
        for part in parts
    ]
    masks, boxes = ([getattr(s, name)[0] for s in scenes] for name in ("masks", "boxes"))
    return torch.cat(maps), torch.from_numpy(np.stack(masks)), torch.from_numpy(np.stack(boxes))


@exercise("break_it.1")
def endless_power() -> Answers:
    """The limit of the share inside for a growing power: how often the brightest pixel is on the object."""
    maps, masks, boxes = _two_class_maps()
    brightest = maps.flatten(1).argmax(1, keepdim=True)
    slips = {
        "this is the pointing game, which uses the box; the share inside uses the mask": (
            points_inside(maps, boxes).mean()
        ),
        "this is the share inside at power 1": share_inside(maps, masks).mean(),
        "this would require the brightest pixel to be on the object in every scene": 1.0,
        "this is the share inside at power 0, where every pixel counts the same": masks.float().mean(),
    }
    return Answers(masks.flatten(1).gather(1, brightest).float().mean(), slips)


@exercise("break_it.2", tolerance=1e-3)
def centred() -> Answers:
    """A score (N,) that is invariant to a vector added to all rows of the last layer: the cat's logit minus
    the mean logit."""
    net = network()
    cat = net.class_index("cat")
    with torch.inference_mode():
        logits = net.module(net.prepare([cat_and_cup().image, scene("coin", seed=1).image]))
    slips = {
        "this is the logit itself, which changes with the paint": lambda logits: logits[:, cat],
        "take the mean over classes, not images": lambda logits: logits[:, cat] - logits[:, cat].mean(),
        "the probability does not change, but its gradient vanishes where the network is confident; "
        "use the logit minus the mean": lambda logits: logits.softmax(1)[:, cat],
        "the log probability does not change either, but the question asks for the logit minus the "
        "mean": lambda logits: logits.log_softmax(1)[:, cat],
        "return one value per image: the cat's": lambda logits: logits - logits.mean(1, keepdim=True),
    }
    return Answers(lambda logits: logits[:, cat] - logits.mean(1), slips, tried_on=(logits.clone(),))


@exercise("break_it.3")
def not_fooled() -> Answers:
    """The method whose map of the painted network is on the background, like that of the biased one."""
    net = painted(network("collage-vgg-biased"), network("collage-resnet"))
    flower = scene("flower", seed=0, size=128, background="grass")
    mask = torch.from_numpy(flower.masks[:1])
    reasons = {
        "grad_cam": "its weights are gradients at the painted layer, and those of the paint are the largest",
        "guidance_map": "the paint was designed for gradient times activation",
        "gmcam": "it is the product of two maps, and both are painted",
        "score_cam": "it relies on the network's probabilities, which the paint does not change",
    }
    outside = {
        name: 1 - float(share_inside(explain(net, flower.image, "flower", method=name).maps, mask))
        for name in reasons
    }
    right = max(outside, key=lambda name: outside[name])
    return Answers(right, {reason: name for name, reason in reasons.items() if name != right})


@exercise("break_it.4")
def next_to_nothing() -> Answers:
    """Grad-CAM's largest raw value for any wrong class over the cat's, on collage-resnet."""
    net, image = network("collage-resnet"), scene("cat", seed=5, size=128).image
    result = explain(net, image, list(net.classes), method="grad_cam")
    cat = net.class_index("cat")
    wrong = [index for index in range(len(net.classes)) if index != cat]
    peaks, finished = result.raw.amax((1, 2)), result.maps.amax((1, 2))
    probability = net.probabilities(image)[0]
    slips = {
        "these are the finished maps, each divided by its own maximum; use the raw maps": (
            finished[wrong].max() / finished[cat]
        ),
        "this is the inverse; divide the wrong class's value by the cat's": (peaks[cat] / peaks[wrong].max()),
        "this is the mean over the wrong classes; take the largest": peaks[wrong].mean() / peaks[cat],
        "this is the smallest of the wrong classes; take the largest": peaks[wrong].min() / peaks[cat],
        "these are probabilities; use the maps' raw values": probability[wrong].max() / probability[cat],
    }
    return Answers(peaks[wrong].max() / peaks[cat], slips)


@exercise("break_it.5", tolerance=1e-3)
def paint_by_hand() -> Answers:
    """Grad-CAM (N, h, w) of a layer extended by a map U (N, h, w) and its flat twin, whose weights are
    +w / Z and −w / Z."""
    M, C = captured()

    def paint(U: Tensor, w: float) -> Tensor:
        return w / U[0].numel() * (U - U.mean((1, 2), keepdim=True))

    def unrectified(M: Tensor, C: Tensor, U: Tensor, w: float) -> Tensor:
        return equations.class_map(M, equations.channel_weights(C)) + paint(U, w)

    slips = {
        "each part is rectified separately; rectify the sum": lambda M, C, U, w: (
            equations.grad_cam(M, C) + paint(U, w).relu()
        ),
        "the flat twin is missing, and without it the logit would change": lambda M, C, U, w: (
            equations.class_map(M, C.mean((2, 3))) + w / U[0].numel() * U
        ).relu(),
        "w times a mean has gradient w / Z": lambda M, C, U, w: unrectified(M, C, U, w * U[0].numel()).relu(),
        "the rectifier is missing": unrectified,
    }
    return Answers(lambda M, C, U, w: unrectified(M, C, U, w).relu(), slips, tried_on=(M, C, M.sum(1), 0.05))
