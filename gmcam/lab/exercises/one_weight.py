"""Answers to *One weight per map is not enough*."""

import torch
from torch import Tensor

from gmcam import explain
from gmcam.capture import capture
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import captured, cat_and_cup, network
from gmcam.postprocess import upsample

PLACES = ("stage3", "stage4.relu1", "stage4.conv2", "stage4.bn2", "stage4.relu2", "stage4")


@exercise("one_weight.1")
def smaller_traces() -> Answers:
    """Two networks differ in more than in what averaging costs them."""
    slips = {
        "the networks also differ in depth, resolution and training; to measure the cost of averaging, "
        "change only that": "yes",
    }
    return Answers("no", slips)


@exercise("one_weight.2", tolerance=1e-4)
def share_over_area() -> Answers:
    """Share inside, divided by the masked share of the image; (N, H, W) twice → (N,)."""
    both, net = cat_and_cup(), network()
    maps = upsample(explain(net, both.image, both.labels, method="grad_cam").maps, both.masks.shape[1:])
    masks = torch.from_numpy(both.masks).float()

    def inside(maps: Tensor, masks: Tensor) -> Tensor:
        return (maps * masks).sum((1, 2)) / maps.sum((1, 2))

    def odds(share: Tensor) -> Tensor:
        return share / (1 - share)

    slips = {
        "this is the share inside; divide it by the masked share of the image": inside,
        "divide by the masked share, not by the number of masked pixels": lambda maps, masks: (
            inside(maps, masks) / masks.sum((1, 2))
        ),
        "this is the inverse": lambda maps, masks: masks.mean((1, 2)) / inside(maps, masks),
        "this compares inside with outside; compare inside with the whole image": lambda maps, masks: (
            odds(inside(maps, masks)) / odds(masks.mean((1, 2)))
        ),
        "this is one value for all images; each needs its own": lambda maps, masks: (
            (maps * masks).sum() / maps.sum() / masks.mean()
        ).expand(len(maps)),
    }
    return Answers(
        lambda maps, masks: inside(maps, masks) / masks.mean((1, 2)), slips, tried_on=(maps, masks)
    )


@exercise("one_weight.3")
def what_survives() -> Answers:
    """Σ_k |Σ_ij C_k(i, j)| / Σ_k Σ_ij |C_k(i, j)|: what cancellation within channels leaves."""
    _, C = captured()
    remaining, whole = C.sum((2, 3)).abs(), C.abs().sum((2, 3))
    right = remaining.sum() / whole.sum()
    slips = {
        "take the absolute value after the sum over the cells; before it, nothing cancels": 1.0,
        "this is the share that is lost; give the share that remains": 1 - right,
        "here channels cancel each other; sum the cells of each channel, then take the absolute value": (
            C.sum().abs() / C.abs().sum()
        ),
        "this sums over the channels of each cell; Equation 3 averages over the cells of each channel": (
            C.sum(1).abs().sum() / C.abs().sum()
        ),
        "this is the mean of the channels' ratios; sum over the channels before dividing": (
            (remaining / whole.clamp(min=1e-20)).mean()
        ),
        "this is the share of cells with a gradient other than zero": (C != 0).float().mean(),
    }
    return Answers(right, slips)


@exercise("one_weight.4")
def flat_gradients() -> Answers:
    """The layers of ``collage-resnet`` at which every gradient map is flat."""
    net = network("collage-resnet")
    inputs, cat = net.prepare(cat_and_cup().image), net.class_index("cat")
    gradients = capture(net.module, inputs, cat, PLACES).gradients
    flat = {
        name
        for name, C in gradients.items()
        if float(C.std((2, 3), correction=0).max()) < 1e-5 * float(C.abs().max())
    }
    slips = {
        "stage4.relu2 is the block's last module, so its output is the output of stage4": {"stage4"},
        "after stage4.bn2 come the shortcut and a rectifier, with zero gradients": flat | {"stage4.bn2"},
        "a convolution and rectifiers follow stage3 before the pooling; only the last map is next to it": flat
        | {"stage3"},
        "inside the block of stage4, other layers follow before the pooling": set(PLACES) - {"stage3"},
        "the gradient is flat at some layer: consider the input of the pooling": set(),
    }
    return Answers(flat, slips)
