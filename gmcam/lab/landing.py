"""The small figures of the book's first page, as HTML that needs no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from gmcam.lab.embedding import data_address, to_width
from gmcam.lab.equation_data import OUTLINE, outline
from gmcam.palette import pale, tint

WIDTH = 288  # pixels of a photograph, which the page shows at 96 to 190


def tile(
    cells: Tensor | np.ndarray,
    words: str,
    image: Image.Image | None = None,
    *,
    masks: Sequence[Tensor | np.ndarray] = (),
    above: str = "for",
    reach: float | None = None,
) -> str:
    """A map (h, w) cell by cell, multiplied onto the pale ``image`` or on white: an ``<svg>``.

    ``words``: the alternative text. ``masks``: objects (H, W) to outline, the first solid and others dashed.
    ``above``: the ramp of positive values. ``reach``: the value of its last colour, by default the largest.
    """
    values = np.asarray(cells)
    shares = values / (reach or np.abs(values).max() or 1)
    place = f'width="{OUTLINE}" height="{OUTLINE}"'
    parts = []
    if image is not None:
        photo = Image.fromarray((pale(to_width(image, WIDTH))[..., 0] * 255).astype(np.uint8))
        parts.append(f'<image {place} href="{data_address(photo)}"/>')
    parts.append(
        f'<image {place} href="{_png(Image.fromarray(tint(shares, above)))}" preserveAspectRatio="none" '
        'style="image-rendering:pixelated;mix-blend-mode:multiply"/>'
    )
    for number, mask in enumerate(map(np.asarray, masks)):
        dashes = ' stroke-dasharray="4 3"' * (number > 0)
        line = f'fill="none" stroke="#1d2433" stroke-width="1.5" vector-effect="non-scaling-stroke"{dashes}'
        parts.append(f'<path d="{outline(mask)}" {line}/>')
    return (
        f'<svg class="gmcam-tile" role="img" aria-label="{escape(words)}" width="{OUTLINE}" '
        f'viewBox="0 0 {OUTLINE} {OUTLINE}" style="isolation:isolate;background:#fff">{"".join(parts)}</svg>'
    )


def rows(values: Mapping[str, tuple[float, float, float, Sequence[float]]], words: str) -> str:
    """Dots with intervals, one below the other, from 0 to the largest: name → share, low, high, and the
    shares of single clusters, drawn small.

    ``words``: the alternative text. Names that start with ``*`` are bold.
    """
    largest = max(max((high, *small)) for _, _, high, small in values.values())
    lines = ""
    for name, numbers in values.items():
        value, low, high, *small = (100 * number / largest for number in (*numbers[:3], *numbers[3]))
        clusters = "".join(f'<s style="left:{each:.1f}%"></s>' for each in small)
        bold = ' class="gmcam-bold"' * name.startswith("*")
        lines += (
            f"<span{bold}>{escape(name.removeprefix('*'))}</span>"
            f'<span class="gmcam-track"><i style="left:{low:.1f}%;right:{100 - high:.1f}%"></i>'
            f'{clusters}<b style="left:{value:.1f}%"></b></span>'
            f"<span{bold}>{100 * numbers[0]:.0f}\N{NO-BREAK SPACE}%</span>"
        )
    return f'<span class="gmcam-rows" role="img" aria-label="{escape(words)}">{lines}</span>'


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
