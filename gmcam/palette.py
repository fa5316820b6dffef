"""The colours of figures, read from ``gmcam/palette.css``, which pages and scripts use too."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

STYLE_SHEET = Path(__file__).with_name("palette.css")


@cache
def colours(scheme: str = "light") -> dict[str, tuple[str, ...]]:
    """Role → its colours in a "light" or "dark" scheme: one, or the stops of a ramp from 0 to 1.

    Roles are those of ``palette.css`` without ``--gm-``. Raises ``ValueError`` for another scheme.

    >>> gmcam.palette.colours()["for"], gmcam.palette.colours("dark")["for"]
    (('#c94f00',), ('#ff8f45',))
    """
    if scheme not in ("light", "dark"):
        raise ValueError(f"expected scheme to be 'light' or 'dark', got {scheme!r}: choose one")
    light, dark = re.findall(r"\{\s*((?:--gm|/\*)[^{}]*)\}", STYLE_SHEET.read_text())[:2]
    text = light if scheme == "light" else light + dark
    declared = re.findall(r"--gm-([\w-]+):\s*([^;]+);", text)
    return {role: tuple(re.findall(r"#\w+", value)) for role, value in declared}


def tint(shares: np.ndarray, above: str = "for", below: str = "against") -> np.ndarray:
    """Shares of the maximum (h, w) in [−1, 1] in the colours of two ramps, white at 0: (h, w, 3) uint8.

    ``above``, ``below``: ramps of positive and negative shares. Shares beyond 1 have the last colour.
    """
    tinted = np.empty((*shares.shape, 3))
    for ramp, chosen in ((above, shares >= 0), (below, shares < 0)):
        stops = np.array([list(bytes.fromhex(stop[1:])) for stop in colours()[f"ramp-{ramp}"]])
        places = np.linspace(0, 1, len(stops))
        for channel in range(3):
            tinted[chosen, channel] = np.interp(np.abs(shares[chosen]), places, stops[:, channel])
    return (tinted + 0.5).astype(np.uint8)


def pale(image: Image.Image) -> np.ndarray:
    """The image under a map (H, W, 1) in [0, 1]: grey, at 62 % contrast and 142 % brightness."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
    paled: np.ndarray = ((0.5 + 0.62 * (grey - 0.5)) * 1.42).clip(0, 1)
    return paled
