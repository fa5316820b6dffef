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

# The example of nine cells in the chapter on Grad-CAM, (1, 2, 3, 3).
M_SMALL = torch.tensor([[[[0, 1, 2], [0, 3, 1], [0, 0, 0]], [[1, 0, 0], [2, 0, 0], [3, 1, 0]]]]).double()
C_SMALL = torch.tensor([[[[0, 0, 6], [0, 6, 3], [0, 0, 3]], [[-3, 0, 0], [-3, -3, 0], [0, 0, 0]]]]).double()


@exercise("nine_methods.1", tolerance=0.01)
def activity_weighted() -> Answers:
    """XGrad-CAM's two weights in the example of nine cells."""
    products, activity = (C_SMALL * M_SMALL).sum((2, 3))[0], M_SMALL.sum((2, 3))[0]
    slips = {
        "these are Grad-CAM's weights; weight gradients by activations here": C_SMALL.mean((2, 3))[0],
        "these are the sums of the products; divide by the sum of the feature map": products,
        "this divides by the number of cells; divide by the sum of the feature map": products / 9,
        "this divides by the sum of the gradient map; divide by that of the feature map": (
            products / C_SMALL.sum((2, 3))[0]
        ),
        "divide each channel by the sum of its own map, not of both": products / activity.sum(),
        "multiply cell by cell, then add up": C_SMALL.sum((2, 3))[0],
    }
    return Answers(products / activity, slips)


@exercise("nine_methods.2", tolerance=1e-3)
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


@exercise("nine_methods.3", tolerance=1e-3)
def lost_without_a_channel() -> Answers:
    """The loss of the cat's logit without each channel, (K,): λ_k Σ_ij M_k with global average pooling."""
    M, C = captured(name=RESNET)
    weights, activity = C.mean((2, 3))[0], M.sum((2, 3))[0]
    losses = weights * activity
    net = network(RESNET)
    logit = net.module(net.prepare(cat_and_cup().image))[0, net.class_index("cat")].detach()
    slips = {
        "these are Grad-CAM's weights, the change per unit of a single cell": weights,
        "λ_k is w_k / Z: multiply it by the sum of the channel, not by its mean": weights * M.mean((2, 3))[0],
        "w_k is Z λ_k: multiply it by the mean of the channel, not by its sum": losses * M[0, 0].numel(),
        "a loss can be negative: without such a channel the logit grows": losses.relu(),
        "the sign is reversed: a loss is the logit before minus the logit after": -losses,
        "the paper divides its weights by the logit; the question asks for the loss": losses / logit,
        "these are the remaining logits; subtract them from the logit": logit - losses,
        "this is the activity of the channel; multiply it by its weight for the cat": activity,
    }
    return Answers(losses, slips)


@exercise("nine_methods.4")
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


@exercise("nine_methods.5", tolerance=0.01)
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
