"""Insertion and deletion: what a network says while the pixels that a map calls salient come or go.

Petsiuk, Das and Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam.capture import forward, without_gradients
from gmcam.chunks import in_chunks
from gmcam.network import Network


@dataclass(frozen=True)
class Curves:
    """Probability of each picture's class after every step: ``insertion`` and ``deletion`` (N, S + 1).

    ``fractions`` (S + 1,): the share of the pixels that have been uncovered or removed, from 0 to 1.
    """

    fractions: Tensor
    insertion: Tensor
    deletion: Tensor

    @property
    def insertion_area(self) -> Tensor:
        """(N,): area under each insertion curve by the trapezoid rule, in [0, 1]; higher is better."""
        return torch.trapezoid(self.insertion, self.fractions)

    @property
    def deletion_area(self) -> Tensor:
        """(N,): area under each deletion curve by the trapezoid rule, in [0, 1]; lower is better."""
        return torch.trapezoid(self.deletion, self.fractions)


def pixel_ranks(maps: Tensor) -> Tensor:
    """How many pixels come before each one: 0 for the most salient. (N, H, W) → (N, H, W) int64.

    Equal pixels go row by row, so that the order depends on nothing but the values. Raises
    ``ValueError`` for a wrong shape or NaN.
    """
    if maps.ndim != 3:
        raise ValueError(f"saliency maps have shape (N, H, W), not {tuple(maps.shape)}")
    if maps.isnan().any():
        raise ValueError("the maps hold NaN, which has no rank")
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).reshape(maps.shape)


def blurred(inputs: Tensor) -> Tensor:
    """RISE's blurred copy of (N, C, H, W) inputs, each channel by itself, zeros beyond the border.

    The kernel is what RISE's authors use: a single 1 in the middle of 11 × 11 zeros, smoothed with a
    Gaussian of σ = 5 whose borders are reflected. That is called a Gaussian and is nearly a box: its
    corner is 0.876 of its centre, where a Gaussian of σ = 5 has exp(−1) = 0.368. It is kept so that
    areas can be compared with those of others. Zeros are the mean colour where the inputs are
    normalised. Raises ``ValueError`` for a wrong shape.
    """
    if inputs.ndim != 4:
        raise ValueError(f"inputs have shape (N, C, H, W), not {tuple(inputs.shape)}")
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]  # heavy, and used here alone

    spike = np.zeros((11, 11))
    spike[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(spike, sigma=5, mode="reflect")).to(inputs)
    channels = inputs.shape[1]
    return F.conv2d(inputs, kernel.expand(channels, 1, -1, -1), padding=5, groups=channels)


def curves(
    network: Network,
    inputs: Tensor,
    targets: Tensor | Sequence[str | int],
    maps: Tensor,
    pixels: int = 224,
    chunk_size: int = 32,
) -> Curves:
    """Insertion and deletion curves of N pictures: the softmax probability of each one's class.

    ``inputs`` (N, C, H, W), preprocessed; ``targets``, N class indices or a list of indices and names;
    ``maps`` (N, H, W). Each of S steps takes the next ``pixels`` pixels, the most salient first, and the
    last step what is left. Deletion sets them to zero in the picture; insertion uncovers them on a
    ``blurred`` copy. What both share is run once: the whole picture, and the picture of zeros for all
    N. The other states of all pictures run ``chunk_size`` at a time, and no more of them are held.

    The network is left as it was found. Raises ``ValueError`` for shapes that do not fit, targets out
    of range, NaN in the maps, or counts below one.
    """
    if pixels < 1 or chunk_size < 1:
        raise ValueError(f"pixels and chunk_size count from 1 on, not {pixels} and {chunk_size}")
    inputs = network.prepare(inputs)
    count, height, width = len(inputs), *inputs.shape[2:]
    if maps.shape != (count, height, width):
        raise ValueError(f"maps for these inputs are {(count, height, width)}, not {tuple(maps.shape)}")
    if not isinstance(targets, Tensor):
        targets = torch.tensor([network.class_index(target) for target in targets], dtype=torch.long)
    classes = targets.to(inputs.device)
    if classes.shape != (count,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"targets are class indices, one for each of {count} pictures, not {targets}")
    ranks = pixel_ranks(maps.to(inputs.device))
    # How many pixels have been taken after each step; after the last one all have.
    taken = torch.arange(0, height * width + pixels, pixels, device=inputs.device).clamp(max=height * width)
    steps = len(taken) - 1

    with without_gradients(network.module):
        blank = _probabilities(network, inputs.new_zeros((1, *inputs.shape[1:])))[0]
        for target in classes.tolist():
            if not 0 <= target < len(blank):
                raise ValueError(f"class {target} is out of range: the classes are 0 to {len(blank) - 1}")
        backdrop = blurred(inputs)
        found = blank.new_empty((count, 2, steps))  # insertion and deletion, without their last steps

        def run(states: Tensor) -> Tensor:
            picture, deletes, step = torch.unravel_index(states, found.shape)
            deletes = deletes.bool()[:, None, None]
            shown = (ranks[picture] < taken[step, None, None]) ^ deletes
            hidden = backdrop[picture] * ~deletes.unsqueeze(1)
            batch = torch.where(shown.unsqueeze(1), inputs[picture], hidden)
            return _probabilities(network, batch).gather(1, classes[picture].long().unsqueeze(1)).squeeze(1)

        states = torch.arange(found.numel(), device=inputs.device)
        for chunk, probabilities in in_chunks(run, states, chunk_size, f"curves on {network.name}"):
            found.view(-1)[chunk] = probabilities
    # Insertion ends with the picture that deletion starts with; deletion ends with zeros.
    whole, nothing = found[:, 1, :1], blank[classes.long()].unsqueeze(1)
    return Curves(
        fractions=taken.to(found.dtype) / (height * width),
        insertion=torch.cat([found[:, 0], whole], 1),
        deletion=torch.cat([found[:, 1], nothing], 1),
    )


def _probabilities(network: Network, inputs: Tensor) -> Tensor:
    """Softmax of the logits, (B, classes), in float32 at least."""
    logits = forward(network.module, inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise ValueError(f"the network's output has shape {tuple(logits.shape)}, not (N, classes)")
    return (logits.float() if logits.dtype.itemsize < 4 else logits).softmax(1)
