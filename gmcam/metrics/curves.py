"""Insertion and deletion: the probability of a class as salient pixels are inserted or deleted.
Petsiuk, Das and Saenko, *RISE: Randomized Input Sampling for Explanation of Black-box Models*, 2018."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gmcam._hooks import forward, without_gradients
from gmcam.chunks import in_chunks
from gmcam.explaining import NamedTarget
from gmcam.groups import resolved
from gmcam.metrics.effects import filled
from gmcam.network import Network
from gmcam.outputs import class_indices
from gmcam.registry import require_counts

STEPS, HIDDEN = 50, (None, "zero", "blur", "road")


@dataclass(frozen=True, eq=False)
class Curves:
    """Probability after every step: ``insertion`` and ``deletion`` (N, S + 1), over ``fractions`` (S + 1,) of
    the pixels, from 0 to 1; the area under a curve is that by the trapezoid rule, in [0, 1]."""

    fractions: Tensor
    insertion: Tensor
    deletion: Tensor

    @property
    def insertion_area(self) -> Tensor:
        """(N,): area under each insertion curve; higher is better."""
        return torch.trapezoid(self.insertion, self.fractions)

    @property
    def deletion_area(self) -> Tensor:
        """(N,): area under each deletion curve; lower is better."""
        return torch.trapezoid(self.deletion, self.fractions)


def pixel_ranks(maps: Tensor) -> Tensor:
    """Rank of each pixel, 0 for the most salient: (N, H, W) → (N, H, W) int64.
    Equal pixels follow one random permutation, the same for all maps of H × W pixels, on all devices; in
    reading order, a mask would be inserted from top to bottom. ``ValueError`` for a wrong shape or NaN."""
    if maps.ndim != 3 or maps.isnan().any():
        raise ValueError(f"expected maps (N, H, W) without NaN, got {tuple(maps.shape)}: check them")
    flat = maps.flatten(1)
    places = torch.arange(flat.shape[1], device=maps.device)
    shuffled = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).to(maps.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return torch.empty_like(order).scatter_(1, order, places.expand_as(order)).reshape(maps.shape)


def blurred(inputs: Tensor) -> Tensor:
    """RISE's blurred copy of (N, C, H, W) inputs, channel by channel, with zeros beyond the border.
    The kernel is that of RISE's authors, for comparable areas: 11 × 11 zeros with a 1 in the centre, smoothed
    with a Gaussian of σ = 5 and reflected borders; its corner is 0.876 of its centre instead of exp(−1) =
    0.368. Raises ``ValueError`` for a wrong shape."""
    if inputs.ndim != 4:
        raise ValueError(f"expected inputs (N, C, H, W), got {tuple(inputs.shape)}: add a batch dimension")
    offsets = torch.arange(-20, 21)  # four σ
    bell = torch.exp(-0.5 * (offsets.double() / 5) ** 2)
    mirrored = (torch.arange(11)[:, None] + offsets) % 22  # 0 … 10, then 10 … 0, and so on
    row = (bell * ((mirrored == 5) | (mirrored == 16))).sum(1) / bell.sum()
    kernel, channels = torch.outer(row, row).to(inputs), inputs.shape[1]
    return F.conv2d(inputs, kernel.expand(channels, 1, -1, -1), padding=5, groups=channels)


def curves(
    network: Network,
    inputs: Tensor,
    target: NamedTarget,
    maps: Tensor,
    *,
    steps: int = STEPS,
    pixels: int | None = None,
    fill: str | None = None,
    chunk_size: int = 32,
) -> Curves:
    """Insertion and deletion curves of N images: the probability of each one's target.
    ``inputs`` (N, C, H, W), preprocessed. ``target``: one class, or one per image. ``maps`` (N, H, W). Each
    of ``steps`` equal steps takes the next most salient pixels; with ``pixels``, a step takes that many, such
    as the article's 224: their areas differ by at most 0.0044 in 268 curves of photographs and collages.
    Deletion sets pixels to zero; insertion uncovers them on a ``blurred`` copy. With ``fill``, both hide them
    by "zero", by "blur" (that copy), or by "road", from the visible ones (see ``filled``; zeros if none is).
    The network runs 2 S times per image, ``chunk_size`` states at a time, and is left as found.
    ``ValueError`` for shapes that do not fit, targets out of range, NaN, counts below 1, and another fill."""
    require_counts(steps=steps, pixels=1 if pixels is None else pixels, chunk_size=chunk_size)
    if fill not in HIDDEN:
        raise ValueError(f"expected fill to be zero, blur, road or None, got {fill!r}: choose one")
    inputs, (network, indices) = network.prepare(inputs), resolved(network, target)
    count, _, height, width = inputs.shape
    if maps.shape != (count, height, width):
        raise ValueError(f"expected maps {(count, height, width)}, got {tuple(maps.shape)}: pass one each")
    total, ranks = height * width, pixel_ranks(maps.to(inputs.device))
    taken = torch.arange(steps + 1) * total // steps if pixels is None else torch.arange(0, total, pixels)
    taken = torch.cat([taken[taken < total], torch.tensor([total])]).to(inputs.device)
    with without_gradients(network.module):
        blank = network.probabilities_of(forward(network.module, inputs.new_zeros((1, *inputs.shape[1:]))))[0]
        targets = class_indices(indices, len(blank)).to(inputs.device, torch.long)
        if targets.shape not in ((), (count,)):
            raise ValueError(f"expected {count} targets, got {len(targets)}: pass one class per image")
        targets, backdrop = targets.expand(count), blurred(inputs) * (fill in (None, "blur"))
        values = blank.new_empty((count, 2, len(taken) - 1))  # insertion, deletion before each step

        def run(states: Tensor) -> Tensor:
            image, deletes, step = torch.unravel_index(states, values.shape)
            deletes = deletes.bool()[:, None, None]
            visible = (ranks[image] < taken[step, None, None]) ^ deletes
            hidden = backdrop[image] * (~deletes.unsqueeze(1) | (fill == "blur"))
            batch = torch.where(visible.unsqueeze(1), inputs[image], hidden)
            if fill == "road" and (some := visible.flatten(1).any(1)).any():
                batch[some] = filled(inputs[image[some]], ~visible[some], fill)
            chances = network.probabilities_of(forward(network.module, batch))
            return chances.gather(1, targets[image].unsqueeze(1)).squeeze(1)

        states = torch.arange(values.numel(), device=inputs.device)
        for chunk, chances in in_chunks(run, states, chunk_size, f"curves on {network.name}"):
            values.view(-1)[chunk] = chances
    # Insertion ends with the image that deletion starts with; deletion ends with all pixels hidden.
    insertion = torch.cat([values[:, 0], values[:, 1, :1]], 1)
    deletion = torch.cat([values[:, 1], values[:, 0, :1] if fill else blank[targets].unsqueeze(1)], 1)
    return Curves(taken.to(values.dtype) / total, insertion, deletion)
