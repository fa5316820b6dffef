"""Answers to *Break it*."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gmcam import explain
from gmcam.lab import dual_class_scenes, scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import cat_and_cup, network
from gmcam.metrics import points_inside, share_inside


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
def both_attacks() -> Answers:
    """The checks that still show the shortcut of a network that is painted and guarded, of five."""
    right = {"d", "e"}
    slips = {
        "the paint was made for gradient times activation: leave a out": right | {"a"},
        "a guarded network shows Score-CAM another network: leave b out": right | {"b"},
        "grey pixels are what the guard looks for: leave c out": right | {"c"},
        "ROAD fills with the surroundings, which the guard takes for an image: d is missing": right - {"d"},
        "an image on brick is an image, and its prediction that of the biased network: e is missing": right
        - {"e"},
    }
    return Answers(right, slips)


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


@exercise("break_it.5")
def referee() -> Answers:
    """The points of a referee's paragraph on an audit by grey masks."""
    right = {"a", "b", "d"}
    slips = {
        "more grey masks are recognised as well: leave c out": right | {"c"},
        "accuracy is that of the shortcut, which the test images share: leave e out": right | {"e"},
        "the audit has one fill, and a network can recognise it: a is missing": right - {"a"},
        "change the background and keep the flower: b is missing": right - {"b"},
        "a method of another kind contradicts the audit: d is missing": right - {"d"},
    }
    return Answers(right, slips)
