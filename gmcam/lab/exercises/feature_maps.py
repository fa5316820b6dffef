"""Answers to *What a classifier sees*."""

from __future__ import annotations

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
    maps = capture(net.module, net.prepare(single.image), layers=LAYERS, gradients=False).maps
    return maps, torch.from_numpy(single.mask("cat")).float()


def _share(maps: Tensor) -> Tensor:
    """The share of each map (N, h, w) that lies in the cat, every cell drawn as a square."""
    mask = _cat_alone()[1]
    full = nn.functional.interpolate(maps[None], mask.shape)[0]
    return (full * mask).sum((1, 2)) / full.sum((1, 2))


def _smooth_share(maps: Tensor) -> Tensor:
    """The same after ``postprocess`` to the network's input size."""
    return _share(postprocess(maps, (128, 128))[0])


@exercise("feature_maps.1")
def each_on_its_own_scale() -> Answers:
    """The share of the sum in the cat, when each map is divided by its own maximum first."""
    M = _cat_alone()[0]["stage4"]
    peaks, tops, sums = (
        M.amax((2, 3), keepdim=True).clamp(min=1e-12),
        M.amax(1, keepdim=True).clamp(min=1e-12),
        M.sum((2, 3), keepdim=True).clamp(min=1e-12),
    )
    return Answers(
        _smooth_share((M / peaks).sum(1))[0],
        {
            "that is the share of A as it was; dividing by one number for all channels changes nothing, "
            "each needs its own maximum": _smooth_share(M.sum(1))[0],
            "the maximum was taken over the channels of a cell; it is over the cells of a channel": (
                _smooth_share((M / tops).sum(1))[0]
            ),
            "each map was divided by its sum, not by its maximum": _smooth_share((M / sums).sum(1))[0],
            "these are the raw cells; post-process the sum as the chapter did with A": (
                _share((M / peaks).sum(1))[0]
            ),
            "that is the share of the picture that the cat covers": _cat_alone()[1].mean(),
        },
    )


@exercise("feature_maps.2")
def layer_by_layer() -> Answers:
    """The share of A in the cat at each of the four layers, shallow to deep."""
    sums = [M.sum(1) for M in _cat_alone()[0].values()]
    shares = torch.cat([_smooth_share(A) for A in sums])
    return Answers(
        shares,
        {
            "these are the raw sums; post-process each as the chapter did with A": torch.cat(
                [_share(A) for A in sums]
            ),
            "that is the order from deep to shallow": shares.flip(0),
            "that is the deepest layer's share at every place; capture all four layers": shares[3].expand(4),
        },
    )


@exercise("feature_maps.3")
def cat_channels() -> Answers:
    """The two active channels with the largest share of their own activation in the cat."""
    M = _cat_alone()[0]["stage4"][0]
    peaks = M.amax((1, 2))
    shares, mask = _share(M).nan_to_num(), _cat_alone()[1]
    active = (peaks > 0.1 * peaks.max()).nonzero().flatten()
    best = shares[active].argsort(descending=True)[:2]
    on_cat = (upsample(M, (mask.shape[0], mask.shape[1])) * mask).sum((1, 2))
    return Answers(
        _names(active[best]),
        {
            "one of these is all but silent; leave out channels whose peak is under a tenth of the largest": (
                _names(shares.argsort(descending=True)[:2])
            ),
            "these are places in the list of active channels; give the channels' own numbers": _names(best),
            "these have the most activation in the cat; a share divides by the channel's own sum": _names(
                on_cat.argsort(descending=True)[:2]
            ),
            "these are the channels with the largest mean, wherever it lies": _names(
                M.mean((1, 2)).argsort(descending=True)[:2]
            ),
        },
    )


def _names(channels: Tensor) -> set[str]:
    return {str(k) for k in channels.tolist()}


@exercise("feature_maps.4", tolerance=1e-3)
def seen_by_a_cell() -> Answers:
    """The side of the square of pixels on which one cell of the last map draws."""
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
    return Answers(
        side,
        {
            "that is the distance from one cell to the next; their neighbourhoods overlap": step,
            "a pooling has a kernel too: it adds (2 − 1) times the step": unpooled,
            "the step is missing: behind a pooling, one place of the kernel is two pixels or more": unstepped,
            "that is the kernel of the last convolution, in cells of the map before it": walk[-1][0],
        },
    )
