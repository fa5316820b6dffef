"""From what a layer returns to maps (N, K, h, w): for ``gmcam.Network(module, reshape=…)``.

Needed where the shape alone does not tell, such as tokens of an image that is not square. Each returns a
reshape, which takes a layer's output or its gradient, and raises ``ValueError`` for one that does not fit."""

import math
from collections.abc import Callable

from torch import Tensor

Reshape = Callable[[Tensor], Tensor]
MOST_PREFIX = 8  # a class token, a distillation token, registers


def tokens(prefix: int | None = None, grid: tuple[int, ...] | None = None) -> Reshape:
    """Tokens (N, prefix + h·w, K) as maps (N, K, h, w).

    ``prefix``: how many class tokens and registers come first, which are dropped; None for the smallest
    number from 0 to 8 that leaves a grid. ``grid``: (h, w), None for a square.

    >>> gmcam.reshape.tokens()(torch.rand(2, 197, 6)).shape
    torch.Size([2, 6, 14, 14])
    >>> gmcam.reshape.tokens(prefix=5, grid=(2, 3))(torch.rand(2, 11, 6)).shape
    torch.Size([2, 6, 2, 3])
    """

    def to_maps(output: Tensor) -> Tensor:
        if output.ndim != 3:
            raise ValueError(f"expected tokens (N, L, K), got {tuple(output.shape)}: name another layer")
        for first in range(MOST_PREFIX + 1) if prefix is None else [prefix]:
            cells = output.shape[1] - first
            side = math.isqrt(max(cells, 0))
            size = grid or (side, side)
            if cells > 0 and math.prod(size) == cells:
                maps = output[:, first:].transpose(1, 2)
                return maps.reshape(*maps.shape[:2], *size)
        form = "a square" if grid is None else "×".join(map(str, grid))
        fault = f"expected {'0 to 8' if prefix is None else prefix} tokens before {form} of tokens, got "
        fault += f"{output.shape[1]} in {tuple(output.shape)}: give gmcam.reshape.tokens the number of class"
        raise ValueError(f"{fault} tokens and registers as prefix, and grid=(h, w)")

    return to_maps


def channels_last() -> Reshape:
    """Outputs (N, …, K) as maps (N, K, …).

    >>> gmcam.reshape.channels_last()(torch.rand(2, 7, 7, 6)).shape
    torch.Size([2, 6, 7, 7])
    """

    def to_maps(output: Tensor) -> Tensor:
        if output.ndim < 3:
            raise ValueError(f"expected (N, …, K), got {tuple(output.shape)}: name a layer with cells")
        return output.movedim(-1, 1)

    return to_maps


def tokens_first(prefix: int | None = None, grid: tuple[int, ...] | None = None) -> Reshape:
    """Tokens (prefix + h·w, N, K), as in OpenAI's CLIP, as maps (N, K, h, w); arguments as in ``tokens``.

    >>> gmcam.reshape.tokens_first()(torch.rand(50, 2, 6)).shape
    torch.Size([2, 6, 7, 7])
    """

    def to_maps(output: Tensor) -> Tensor:
        if output.ndim != 3:
            raise ValueError(f"expected tokens (L, N, K), got {tuple(output.shape)}: name another layer")
        return batch_first(output.transpose(0, 1))

    batch_first = tokens(prefix, grid)
    return to_maps


class frames:  # noqa: N801  used as the functions above are
    """Maps of single frames (N·T, K, h, w) as maps of videos (N, K, T, h, w); ``count``: T.

    >>> gmcam.reshape.frames(4)(torch.rand(8, 6, 7, 7)).shape
    torch.Size([2, 6, 4, 7, 7])
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"expected at least one frame per video, got {count}: give the number")
        self.count = count

    def __call__(self, output: Tensor) -> Tensor:
        if output.ndim != 4 or len(output) % self.count:
            fault = f"expected maps (N·{self.count}, K, h, w), got {tuple(output.shape)}"
            raise ValueError(f"{fault}: name a layer that sees single frames, or change the number of frames")
        return output.reshape(len(output) // self.count, self.count, *output.shape[1:]).movedim(1, 2)
