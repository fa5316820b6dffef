"""Answers to *What a classifier sees*."""

from functools import cache

import torch
from torch import Tensor, nn

from gmcam.capture import capture
from gmcam.lab import scene
from gmcam.lab.exercises.checking import Answers, exercise
from gmcam.lab.exercises.common import network
from gmcam.postprocess import postprocess, upsample

LAYERS = ("stage1", "stage2", "stage3", "stage4")


@cache
def _cat_alone() -> tuple[dict[str, Tensor], Tensor]:
    """Feature maps of the chapter's one-object scene by layer, and the cat's mask (H, W)."""
    net, single = network(), scene("cat", seed=5)
    maps = capture(net.module, net.prepare(single.image), layer=LAYERS, gradients=False).maps
    return maps, torch.from_numpy(single.mask("cat")).float()


def _share(maps: Tensor) -> Tensor:
    """The share of each map (N, h, w) inside the cat, with every cell drawn as a square."""
    mask = _cat_alone()[1]
    full = nn.functional.interpolate(maps[None], mask.shape)[0]
    return (full * mask).sum((1, 2)) / full.sum((1, 2))


def _smooth_share(maps: Tensor) -> Tensor:
    """The same after ``postprocess`` to the network's input size."""
    return _share(postprocess(maps, (128, 128))[0])


@exercise("feature_maps.1")
def each_on_its_own_scale() -> Answers:
    """The share of the sum inside the cat, when each map is first divided by its maximum."""
    M = _cat_alone()[0]["stage4"]

    def normalised(scale: Tensor) -> Tensor:
        return (M / scale.clamp(min=1e-12)).sum(1)

    by_peak = normalised(M.amax((2, 3), keepdim=True))
    slips = {
        "this is the share of the original A; dividing all channels by one number changes nothing, so "
        "divide each by its own maximum": _share(M.sum(1))[0],
        "this is the maximum over the channels of a cell; take it over the cells of a channel": (
            _share(normalised(M.amax(1, keepdim=True)))[0]
        ),
        "each map was divided by its sum; divide by its maximum": (
            _share(normalised(M.sum((2, 3), keepdim=True)))[0]
        ),
        "this sum was smoothed and enlarged; take the share of its cells": _smooth_share(by_peak)[0],
        "this is the share of the image that the cat covers": _cat_alone()[1].mean(),
    }
    return Answers(_share(by_peak)[0], slips)


@exercise("feature_maps.2")
def layer_by_layer() -> Answers:
    """The share of A inside the cat at each of the four layers, shallow to deep."""
    sums = [M.sum(1) for M in _cat_alone()[0].values()]
    shares = torch.cat([_share(A) for A in sums])
    slips = {
        "these sums were smoothed and enlarged; take the share of their cells": (
            torch.cat([_smooth_share(A) for A in sums])
        ),
        "the order is from shallow to deep": shares.flip(0),
        "this is the deepest layer's share, four times; capture all four layers": shares[3].expand(4),
    }
    return Answers(shares, slips)


@exercise("feature_maps.3")
def cat_channels() -> Answers:
    """The two active channels with the largest share of their activation inside the cat."""
    M = _cat_alone()[0]["stage4"][0]
    peaks = M.amax((1, 2))
    shares, mask = _share(M).nan_to_num(), _cat_alone()[1]
    active = (peaks > 0.1 * peaks.max()).nonzero().flatten()
    on_cat = (upsample(M, (mask.shape[0], mask.shape[1])) * mask).sum((1, 2))

    def top_two(values: Tensor) -> Tensor:
        return values.argsort(descending=True)[:2]

    slips = {
        "one of these is almost zero; skip channels whose maximum is below a tenth of the largest": (
            _names(top_two(shares))
        ),
        "these are positions among the active channels; give channel numbers": (
            _names(top_two(shares[active]))
        ),
        "these have the most activation inside the cat; divide by the channel's sum": _names(top_two(on_cat)),
        "these have the largest mean, inside the cat or not": _names(top_two(M.mean((1, 2)))),
    }
    return Answers(_names(active[top_two(shares[active])]), slips)


def _names(channels: Tensor) -> set[str]:
    return {str(k) for k in channels.tolist()}


@exercise("feature_maps.4", tolerance=1e-3)
def seen_by_a_cell() -> Answers:
    """The side of the receptive field of a cell of the last map, in pixels."""
    walk = []
    for stage in LAYERS:
        for module in network().module.get_submodule(stage).modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                kernel = module.kernel_size
                size = kernel if isinstance(kernel, int) else kernel[0]
                walk.append((size, 2 if isinstance(module, nn.MaxPool2d) else 1))
    side, unpooled, unstepped, step = 1, 1, 1, 1
    for size, stride in walk:
        side += (size - 1) * step
        unpooled += (size - 1) * step * (stride == 1)
        unstepped += size - 1
        step *= stride
    slips = {
        "this is the distance between neighbouring cells; their receptive fields overlap": step,
        "a pooling layer has a kernel too: it adds (2 − 1) times the step": unpooled,
        "the step is missing: after pooling, a step of the kernel is two pixels or more": unstepped,
        "this is the kernel of the last convolution, in cells of the map before it": walk[-1][0],
    }
    return Answers(side, slips)
