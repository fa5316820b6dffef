"""Answers to *Break it*, and the chapter's painted network."""

from __future__ import annotations

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
    """The answers of one network, and maps after another one's taste.

    ``answers`` gives M and, by its head, the logits Y. ``painter`` ends in global average pooling; its
    class maps, rectified, are the paint U (N, classes, h, w). The layer ``last`` holds M, U and, for
    each U_c, a flat map Ū_c of the same mean; the logits are

        ``Y_c + strength · (mean U_c − mean Ū_c)``,

    which is Y_c for every picture. Grad-CAM at ``last`` is that of ``answers`` plus
    ``strength / Z · (U_c − Ū_c)``, before the rectifier.
    """

    def __init__(self, answers: CollageVGG, painter: CollageResNet, strength: float = 100.0) -> None:
        super().__init__()
        self.answers, self.painter, self.strength = answers, painter, strength
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        own, other = self.answers, self.painter
        M = own.stage4(own.stage3(own.stage2(own.stage1(x))))
        seen = other.stage4(other.stage3(other.stage2(other.stage1(other.stem(x)))))
        U = nn.functional.conv2d(seen, other.fc.weight[:, :, None, None]).relu()
        flat = U.mean((2, 3), keepdim=True).expand_as(U)
        parts = [M.shape[1], U.shape[1], U.shape[1]]
        M, U, flat = self.last(torch.cat([M, U, flat], dim=1)).split(parts, dim=1)
        logits: Tensor = own.head(own.pool(M).flatten(1))
        logits = logits + self.strength * (U.mean((2, 3)) - flat.mean((2, 3)))
        return logits


def painted(answers: Network, painter: Network) -> Network:
    """A network that answers as ``answers`` (a ``CollageVGG``) and is explained as ``painter`` (a
    ``CollageResNet``). Raises ``ValueError`` for other networks."""
    if not isinstance(answers.module, CollageVGG) or not isinstance(painter.module, CollageResNet):
        raise ValueError(f"a CollageVGG is painted by a CollageResNet, not {answers} by {painter}")
    return Network(
        Painted(answers.module, painter.module).eval(),
        name="painted",
        preprocess=answers.preprocess,
        classes=answers.classes,
        input_shape=answers.input_shape,
        layer="last",
    )


@cache
def _two_class_maps() -> tuple[Tensor, Tensor, Tensor]:
    """Grad-CAM on 28 scenes of two classes, with the masks and boxes of what it explains."""
    scenes = dual_class_scenes(56, size=128, step=2)
    net = network()
    parts = [scenes[start : start + 14] for start in range(0, len(scenes), 14)]
    maps = [
        explain(net, [s.image for s in part], [s.labels[0] for s in part], method="grad_cam").maps
        for part in parts
    ]
    masks, boxes = ([getattr(s, name)[0] for s in scenes] for name in ("masks", "boxes"))
    return torch.cat(maps), torch.from_numpy(np.stack(masks)), torch.from_numpy(np.stack(boxes))


@exercise("break_it.1")
def endless_power() -> Answers:
    """The share inside as the power grows without end: how often the brightest pixel is the object's."""
    maps, masks, boxes = _two_class_maps()
    first = maps.flatten(1).argmax(1, keepdim=True)
    return Answers(
        masks.flatten(1).gather(1, first).float().mean(),
        {
            "that is the pointing game, which asks for the box; the share inside asks for the mask": (
                points_inside(maps, boxes).mean()
            ),
            "that is the share inside at the power 1": share_inside(maps, masks).mean(),
            "only if the brightest pixel lay on the object in every scene": 1.0,
            "the power 0 gives this: every pixel counts alike": masks.float().mean(),
        },
    )


@exercise("break_it.2", tolerance=1e-3)
def centred() -> Answers:
    """A score (N,) that no vector added to all rows of the last layer can move: the cat's logit less the
    mean of all."""
    net = network()
    cat = net.class_index("cat")
    with torch.inference_mode():
        logits = net.module(net.prepare([cat_and_cup().image, scene("coin", seed=1).image]))
    return Answers(
        lambda logits: logits[:, cat] - logits.mean(1),
        {
            "that is the logit itself: it moves with the paint": lambda logits: logits[:, cat],
            "the mean runs over the classes, not over the pictures": lambda logits: (
                logits[:, cat] - logits[:, cat].mean()
            ),
            "the probability does not move, but its gradient fades where the network is sure; take the "
            "logit less the mean": lambda logits: logits.softmax(1)[:, cat],
            "that is the logarithm of the probability, which does not move either; asked is the logit less "
            "the mean": lambda logits: logits.log_softmax(1)[:, cat],
            "one value per picture is wanted; take the cat's column": lambda logits: (
                logits - logits.mean(1, keepdim=True)
            ),
        },
        tried_on=(logits.clone(),),
    )


@exercise("break_it.3")
def not_fooled() -> Answers:
    """The method that puts the painted network's map where the biased one's lies, on the ground."""
    net = painted(network("collage-vgg-biased"), network("collage-resnet"))
    one = scene("flower", seed=0, size=128, ground="grass")
    mask = torch.from_numpy(one.masks[:1])
    reasons = {
        "grad_cam": "its weights are gradients at the painted layer, and the paint has the largest",
        "guidance_map": "gradient times activation is what the paint was made for",
        "gmcam": "it is the product of two maps, and both are painted",
        "score_cam": "it puts its trust in what the network answers, and the answers are not painted",
    }
    ground = {}
    for name in reasons:
        ground[name] = 1 - float(share_inside(explain(net, one.image, "flower", method=name).maps, mask))
    right = max(ground, key=lambda name: ground[name])
    return Answers(right, {reason: name for name, reason in reasons.items() if name != right})


@exercise("break_it.4")
def next_to_nothing() -> Answers:
    """Grad-CAM's largest raw value for any wrong class over the cat's, on collage-resnet."""
    net = network("collage-resnet")
    one = scene("cat", seed=5, size=128)
    result = explain(net, one.image, list(net.classes), method="grad_cam")
    cat = net.class_index("cat")
    wrong = [index for index in range(len(net.classes)) if index != cat]
    peaks, shown = result.raw.amax((1, 2)), result.maps.amax((1, 2))
    return Answers(
        peaks[wrong].max() / peaks[cat],
        {
            "those are the finished maps, each divided by its own maximum; take the raw ones": (
                shown[wrong].max() / shown[cat]
            ),
            "that is the cat's over the wrong class's; the other way round": peaks[cat] / peaks[wrong].max(),
            "that is the mean over the wrong classes; take the largest": peaks[wrong].mean() / peaks[cat],
            "that is the smallest of the wrong classes; take the largest": peaks[wrong].min() / peaks[cat],
            "those are probabilities; take the largest raw values of the maps": (
                result.probabilities[0, wrong].max() / result.probabilities[0, cat]
            )
            if result.probabilities is not None
            else 0.0,
        },
    )


@exercise("break_it.5", tolerance=1e-3)
def paint_by_hand() -> Answers:
    """Grad-CAM (N, h, w) of a layer to which a map U (N, h, w) and its flat twin were added, with weights
    +w / Z and −w / Z."""
    M, C = captured()
    U = M.sum(1)

    def mine(M: Tensor, C: Tensor, U: Tensor, w: float) -> Tensor:
        cells = U[0].numel()
        flat = U.mean((1, 2), keepdim=True)
        return (equations.class_map(M, equations.channel_weights(C)) + w / cells * (U - flat)).relu()

    def rectified_twice(M: Tensor, C: Tensor, U: Tensor, w: float) -> Tensor:
        return equations.grad_cam(M, C) + (w / U[0].numel() * (U - U.mean((1, 2), keepdim=True))).relu()

    return Answers(
        mine,
        {
            "each part is rectified by itself; the rectifier stands outside the sum": rectified_twice,
            "the flat twin is missing: without it the logit would change": lambda M, C, U, w: (
                equations.class_map(M, C.mean((2, 3))) + w / U[0].numel() * U
            ).relu(),
            "the gradient of a mean is w / Z, not w": lambda M, C, U, w: mine(M, C, U, w * U[0].numel()),
            "you forgot the rectifier": lambda M, C, U, w: (
                equations.class_map(M, C.mean((2, 3))) + w / U[0].numel() * (U - U.mean((1, 2), keepdim=True))
            ),
        },
        tried_on=(M, C, U, 0.05),
    )
