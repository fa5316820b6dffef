"""Cut-outs: the photographed objects of collage scenes, as RGBA images.

The outlines in ``cutouts.json`` are polygons in pixels of the photograph, filled by the even-odd rule. They
were drawn for this project, simplified and checked by eye: the motorbike's from the disparity map of its
stereo pair, the coins' with a watershed, the rocket's and the cat's by hand, the others with GrabCut. Of the
two extra ones, the motorbike's right view is the left outline moved by the disparity, with the front tyre
completed by hand; the cup without its saucer is by hand.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from gmcam.lab.photos import photo

ROTATIONS = {"train": ((0.0, 8.0), (14.0, 20.0)), "test": ((8.0, 14.0),)}


@lru_cache(maxsize=1)
def _outlines() -> dict[str, dict[str, Any]]:
    return dict(json.loads(Path(__file__).with_name("cutouts.json").read_text()))


def _belongs(name: str, outline: dict[str, Any], cutouts: str) -> bool:
    """Whether a cut-out is in a set; every fourth coin belongs to the test split alone."""
    if cutouts == "all":
        return True
    if name.startswith("coin"):
        return (int(name[4:]) % 4 == 3) == (cutouts == "test")
    return "extra" not in outline


def cutout_names(cutouts: str) -> dict[str, tuple[str, ...]]:
    """The names of each class's cut-outs: those of the split ``"train"`` or ``"test"``, or ``"all"``.

    Most classes are a single cut-out, which both splits share; only the coins differ. ``"all"`` holds the
    coins of both splits and two more cut-outs, the motorbike from the right camera of its stereo pair and the
    cup without its saucer. These show the same motorbike and the same cup again. The photographs contain one
    cat, one whole flower, one pagoda, two rockets and three persons, so there are no more of these. The
    embedded networks were trained on the cut-outs of ``"train"``: of those that ``"all"`` adds to the test
    split, they saw the coins and not the other two. Raises ``ValueError`` for another word.

    >>> {split: len(gmcam.lab.cutout_names(split)["coin"]) for split in ("train", "test", "all")}
    {'train': 18, 'test': 6, 'all': 24}
    """
    if cutouts not in ("train", "test", "all"):
        raise ValueError(f"expected cutouts 'train', 'test' or 'all', got {cutouts!r}: choose one of these")
    names: dict[str, list[str]] = {}
    for name, outline in _outlines().items():
        if _belongs(name, outline, cutouts):
            names.setdefault(outline["label"], []).append(name)
    return {label: tuple(each) for label, each in names.items()}


@lru_cache(maxsize=64)
def cut_out(name: str) -> Image.Image:
    """A cut-out as RGBA, cropped to its outline, with an anti-aliased edge."""
    outline = _outlines()[name]
    corners = np.concatenate(outline["rings"])
    left, upper = np.maximum(np.floor(corners.min(0)).astype(int) - 2, 0).tolist()
    right, lower = (np.ceil(corners.max(0)).astype(int) + 2).tolist()
    cutout = photo(outline["photo"])
    cutout = cutout.crop((left, upper, min(right, cutout.width), min(lower, cutout.height)))
    fine = 4
    alpha = Image.new("L", (cutout.width * fine, cutout.height * fine), 0)
    for ring in outline["rings"]:
        filled = Image.new("L", alpha.size, 0)
        points = [((x - left) * fine, (y - upper) * fine) for x, y in ring]
        ImageDraw.Draw(filled).polygon(points, fill=255)
        alpha = ImageChops.difference(alpha, filled)  # even-odd: an inner ring is a hole
    # Erode by one pixel to remove the seam of the old background: a mean of zeros and 255s is 255 only where
    # all of them are.
    alpha = alpha.filter(ImageFilter.BoxBlur(fine)).point(lambda value: 255 * (value == 255))
    alpha = alpha.resize(cutout.size, Image.Resampling.BOX)
    cutout.putalpha(alpha)
    return cutout.crop(alpha.getbbox())


def relight(
    image: Image.Image, rng: np.random.Generator, brightness: tuple[float, float], warmth: float
) -> Image.Image:
    """Scale red, green and blue by a random brightness and a random shift between warm and cold."""
    level, warm = rng.uniform(*brightness), rng.uniform(-warmth, warmth)
    bands = list(image.split())
    for index, gain in enumerate((level * (1 + warm), level, level * (1 - warm))):
        bands[index] = bands[index].point([min(255, round(value * gain)) for value in range(256)])
    return Image.merge(image.mode, bands)


def draw_object(
    names: tuple[str, ...],
    split: str,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float],
    limit: float,
) -> Image.Image:
    """One of the named cut-outs, scaled to at most ``limit``, mirrored, rotated and lit at random."""
    sprite = cut_out(names[int(rng.integers(len(names)))])
    longest, shortest = max(sprite.size), min(sprite.size)
    # Slender objects are drawn longer, so that a rocket does not shrink to a line.
    share = min(rng.uniform(*scale) * (longest / shortest) ** 0.3, limit)
    zoom = share * size / longest
    width, height = (max(1, round(side * zoom)) for side in sprite.size)
    sprite = sprite.resize((width, height), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bands = ROTATIONS[split]
    angle = rng.uniform(*bands[int(rng.integers(len(bands)))]) * rng.choice([-1.0, 1.0])
    sprite = sprite.rotate(float(angle), Image.Resampling.BICUBIC, expand=True)
    return relight(sprite, rng, brightness=(0.85, 1.15), warmth=0.04)


def place(sprite: Image.Image, stands: bool, rng: np.random.Generator, size: int) -> tuple[int, int]:
    """The upper left corner (x, y) of a random position, inside the image or standing on its lower border."""
    x = int(rng.integers(0, max(1, size - sprite.width + 1)))
    y = int(rng.integers(0, max(1, size - sprite.height + 1)))
    return x, size - round(0.9 * sprite.height) if stands else y


def solid(sprite: Image.Image, at: tuple[int, int], size: int) -> np.ndarray:
    """Where the object covers at least half a pixel: (size, size) bool."""
    alpha = Image.new("L", (size, size), 0)
    alpha.paste(sprite.getchannel("A"), at)
    return np.asarray(alpha) >= 128


def paste(canvas: Image.Image, sprite: Image.Image, at: tuple[int, int]) -> None:
    """Paste the object onto the canvas, with a soft shadow like that of paper on a table."""
    alpha = Image.new("L", canvas.size, 0)
    offset = max(1, round(0.012 * canvas.width))
    alpha.paste(sprite.getchannel("A"), (at[0] + offset, at[1] + 2 * offset))
    shadow = alpha.filter(ImageFilter.GaussianBlur(0.018 * canvas.width)).point(lambda value: value * 0.4)
    canvas.paste((12, 12, 18), (0, 0), shadow)
    canvas.paste(sprite.convert("RGB"), at, sprite.getchannel("A"))
