"""Answers to *Nine methods side by side*."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from gmcam import equations, explain
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.metrics import share_inside
from gmcam.postprocess import normalise, postprocess, upsample
from gmcam.preprocessing import Preprocessing

RESNET = "collage-resnet"

# The example of nine cells in the chapter on Grad-CAM, (1, 2, 3, 3).
M_SMALL = torch.tensor([[[[0, 1, 2], [0, 3, 1], [0, 0, 0]], [[1, 0, 0], [2, 0, 0], [3, 1, 0]]]]).double()
C_SMALL = torch.tensor([[[[0, 0, 6], [0, 6, 3], [0, 0, 3]], [[-3, 0, 0], [-3, -3, 0], [0, 0, 0]]]]).double()


@exercise("nine_methods.1", tolerance=0.01)
def activity_weighted() -> Answers:
    """XGrad-CAM's two weights in the example of nine cells."""
    products, active = (C_SMALL * M_SMALL).sum((2, 3))[0], M_SMALL.sum((2, 3))[0]
    return Answers(
        products / active,
        {
            "these are Grad-CAM's weights; here a cell counts as much as it is active": C_SMALL.mean((2, 3))[
                0
            ],
            "these are the sums of the products; divide by the sum of the feature map": products,
            "this divides by the number of cells; divide by the sum of the feature map": products / 9,
            "this divides by the sum of the gradient map": products / C_SMALL.sum((2, 3))[0],
            "each channel is divided by the sum of its own map, not of both": products / active.sum(),
            "the product is of sums; multiply cell by cell, then add": C_SMALL.sum((2, 3))[0],
        },
    )


@exercise("nine_methods.2", tolerance=1e-3)
def plus_plus() -> Answers:
    """Grad-CAM++ where the gradient is one number per channel: ReLU(Σ_k ReLU(C_k) M_k)."""

    def weighted(M: Tensor, weights: Tensor) -> Tensor:
        return equations.class_map(M, weights).relu()

    return Answers(
        lambda M, C: weighted(M, C.mean((2, 3)).relu()),
        {
            "this is Grad-CAM, with weights of both signs; the rectifier stands inside, around C": (
                equations.grad_cam
            ),
            "a negative weight becomes zero, not positive": lambda M, C: weighted(M, C.mean((2, 3)).abs()),
            "the shares of the cells add up to 1, so the weight is a mean, not a sum": (
                lambda M, C: weighted(M, C.sum((2, 3)).relu())
            ),
            "these are the channels that speak against the class": lambda M, C: weighted(
                M, (-C).mean((2, 3)).relu()
            ),
            "in this map every channel of positive weight counts alike": (
                lambda M, C: weighted(M, (C.mean((2, 3)) > 0).to(M.dtype))
            ),
            "this is GMCAM, which is Grad-CAM squared here": equations.gmcam,
        },
        tried_on=captured(name=RESNET),
    )


@exercise("nine_methods.3", tolerance=1e-3)
def lost_without_a_channel() -> Answers:
    """What the cat's logit loses without each channel, (K,): λ_k Σ_ij M_k under global average pooling."""
    M, C = captured(name=RESNET)
    weights, active = C.mean((2, 3))[0], M.sum((2, 3))[0]
    losses = weights * active
    net = network(RESNET)
    logit = net.module(net.prepare(cat_and_cup().image))[0, net.class_index("cat")].detach()
    return Answers(
        losses,
        {
            "these are Grad-CAM's weights, the change for one more in a single cell": weights,
            "λ_k is w_k / Z: times the mean of the channel, the number of cells is missing": weights
            * M.mean((2, 3))[0],
            "w_k is Z λ_k and belongs to the mean of the channel, not to its sum": losses * M[0, 0].numel(),
            "a loss can be negative: without such a channel the logit grows": losses.relu(),
            "the sign is turned: what is lost is the logit before minus the logit after": -losses,
            "the paper's weights are divided by the logit; the question is for the loss": losses / logit,
            "these are the logits that are left": logit - losses,
            "this is how active a channel is, whatever it means for the cat": active,
        },
    )


@exercise("nine_methods.4")
def rectified_relevance() -> Answers:
    """The share inside the cat of Relevance-CAM's map, rectified before the post-processing."""
    net, scene = network(RESNET), cat_and_cup()
    preprocess = net.preprocess
    assert isinstance(preprocess, Preprocessing)
    cat, cup = (preprocess.place_mask(mask)[None] for mask in scene.masks)
    signed = explain(net, scene.image, "cat", method="relevance_cam").raw

    def inside(raw: Tensor, mask: Tensor) -> Tensor:
        return share_inside(postprocess(raw, (128, 128))[0], mask)[0]

    return Answers(
        inside(signed.relu(), cat),
        {
            "this is the share of the signed map, in which zero relevance is grey and counts": inside(
                signed, cat
            ),
            "the absolute value counts what speaks against the class as if it spoke for it": inside(
                signed.abs(), cat
            ),
            "that is the trace, the share in the cup": inside(signed.relu(), cup),
            "the sign is turned: this is where the relevance is negative": inside((-signed).relu(), cat),
            "that is the share of the picture that the cat covers, which a flat map would have": (
                cat.float().mean()
            ),
        },
    )


@cache
def score_cam_weights() -> Tensor:
    """Score-CAM's weights of the cat on ``collage-resnet``: its probability seen through each channel."""
    M, _ = captured(name=RESNET)
    net = network(RESNET)
    inputs, cat = net.prepare(cat_and_cup().image), net.class_index("cat")
    masks, _ = normalise(upsample(M[0], (128, 128)))
    with torch.no_grad():
        seen = [net.module(inputs * part.unsqueeze(1)).softmax(1)[:, cat] for part in torch.split(masks, 16)]
    return torch.cat(seen)


@exercise("nine_methods.5", tolerance=0.01)
def from_channels_against() -> Answers:
    """The share of what Score-CAM's map is made of that comes from channels with λ_k < 0."""
    M, C = captured(name=RESNET)
    weights, active = score_cam_weights(), M.sum((2, 3))[0]
    against = C.mean((2, 3))[0] < 0

    def share(parts: Tensor) -> Tensor:
        return parts[against].sum() / parts.sum()

    return Answers(
        share(weights * active),
        {
            "a probability is never negative, so no channel is left out": 0.0,
            "this is the share of the channels, whatever they weigh": against.float().mean(),
            "this is the share of the weights; a channel's part is its weight times its activity": share(
                weights
            ),
            "this is the share of the activity; a channel's part is its weight times its activity": share(
                active
            ),
            "this is the share of the channels that raise the logit": 1 - share(weights * active),
        },
    )
