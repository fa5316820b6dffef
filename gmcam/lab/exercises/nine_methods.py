"""Answers to *Nine methods side by side*."""

from functools import cache

import torch
from torch import Tensor

from gmcam import equations, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.metrics import share_inside
from gmcam.postprocess import min_max, postprocess, upsample
from gmcam.preprocessing import Preprocessing

RESNET = "collage-resnet"


@exercise("nine_methods.1", tolerance=1e-3)
def plus_plus() -> Answers:
    """Grad-CAM++ where the gradient is one number per channel: ReLU(Σ_k ReLU(C_k) M_k)."""

    def weighted(M: Tensor, weights: Tensor) -> Tensor:
        return equations.class_map(M, weights).relu()

    slips = {
        "this is Grad-CAM, with weights of both signs; Grad-CAM++ rectifies C": equations.grad_cam,
        "a negative weight becomes zero, not positive": lambda M, C: weighted(M, C.mean((2, 3)).abs()),
        "the shares of the cells add up to 1, so the weight is a mean, not a sum": lambda M, C: weighted(
            M, C.sum((2, 3)).relu()
        ),
        "these channels are evidence against the class": lambda M, C: weighted(M, (-C).mean((2, 3)).relu()),
        "this gives every channel of positive weight the same weight": lambda M, C: weighted(
            M, (C.mean((2, 3)) > 0).to(M.dtype)
        ),
        "this is GMCAM, which is Grad-CAM squared here": equations.gmcam,
    }
    return Answers(lambda M, C: weighted(M, C.mean((2, 3)).relu()), slips, tried_on=captured(name=RESNET))


@exercise("nine_methods.2")
def rectified_relevance() -> Answers:
    """The share inside the cat of Relevance-CAM's map, rectified before it is normalised."""
    net, scene = network(RESNET), cat_and_cup()
    assert isinstance(net.preprocess, Preprocessing)
    cat, cup = (net.preprocess.place_mask(mask)[None] for mask in scene.masks)
    signed = explain(net, scene.image, "cat", method="relevance_cam").raw

    def inside(raw: Tensor, mask: Tensor, normalise: str = "rectified") -> Tensor:
        return share_inside(postprocess(raw, (128, 128), normalise=normalise)[0], mask)[0]

    slips = {
        "this is the min–max map, in which zero relevance is grey and counts": inside(signed, cat, "minmax"),
        "the absolute value counts evidence against the class as evidence for it": inside(signed.abs(), cat),
        "this is the trace, the share inside the cup": inside(signed, cup),
        "the sign is reversed: this map shows negative relevance": inside(-signed, cat),
        "this is the cat's share of the image, the share inside of a flat map": cat.float().mean(),
    }
    return Answers(inside(signed, cat), slips)


@cache
def score_cam_weights() -> Tensor:
    """Score-CAM's weights of the cat on ``collage-resnet``: its probability with the image masked by each
    channel."""
    M, _ = captured(name=RESNET)
    net = network(RESNET)
    inputs, cat = net.prepare(cat_and_cup().image), net.class_index("cat")
    masks, _ = min_max(upsample(M[0], (128, 128)))
    parts = torch.split(masks.unsqueeze(1), 16)
    with torch.no_grad():
        return torch.cat([net.module(inputs * part).softmax(1)[:, cat] for part in parts])


@exercise("nine_methods.3", tolerance=0.01)
def from_channels_against() -> Answers:
    """The share of Score-CAM's map that comes from channels with λ_k < 0."""
    M, C = captured(name=RESNET)
    weights, activity = score_cam_weights(), M.sum((2, 3))[0]
    against = C.mean((2, 3))[0] < 0

    def share(parts: Tensor) -> Tensor:
        return parts[against].sum() / parts.sum()

    right = share(weights * activity)
    slips = {
        "a probability is never negative, so no channel is left out": 0.0,
        "this is the share of the channels; multiply each by its weight and activity": against.float().mean(),
        "this is the share of the weights; multiply each weight by its channel's activity": share(weights),
        "this is the share of the activity; multiply each channel by its weight": share(activity),
        "this is the share of the channels that raise the logit": 1 - right,
    }
    return Answers(right, slips)


@exercise("nine_methods.4")
def referee() -> Answers:
    """What a review of a lead in share inside at a pooled network's last map must say."""
    right = {"a", "c", "e"}
    slips = {
        "b: more scenes of one cat and one cup narrow an interval that is not about classes": right | {"b"},
        "d: both have the same strongest cells; smoothing alone makes their hits differ": right | {"d"},
        "a: average pooling follows this map, so the lead is that of squaring": right - {"a"},
        "c: the claim is about classes, and two cut-outs are two classes": right - {"c"},
        "e: say which share a good map has; an object's effect is partly outside it": right - {"e"},
    }
    return Answers(right, slips)
