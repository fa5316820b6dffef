"""Collage scenes: photographed objects on photographed backgrounds, with exact masks and boxes.

A scene is a function of its labels, options and seed; its only files are the photographs in ``PHOTOS``.
The outlines in ``cutouts.json`` are polygons in pixels of the photograph, filled by the even-odd rule. They
were drawn for this project, simplified and checked by eye: the motorbike's from the disparity map of its
stereo pair, the coins' with a watershed, the rocket's and the cat's by hand, the others with GrabCut.

The two splits share no background, no coin and no rotation: ``train`` rotates objects by less than 8° or by
14° to 20°, ``test`` by 8° to 14°.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from tqdm import tqdm

from gmcam.lab.photos import photo

CLASSES = ("cat", "cup", "flower", "pagoda", "rocket", "motorbike", "person", "coin")

# Per background: its photo, a window without objects (left, upper, right, lower), and the colour that tints a
# grey texture or a pale sky.
_SOURCES: dict[str, tuple[str, tuple[int, int, int, int], tuple[int, int, int] | None]] = {
    "grass": ("grass", (0, 0, 512, 512), (116, 150, 74)),
    "brick": ("brick", (0, 0, 512, 512), (196, 120, 92)),
    "moon": ("moon", (0, 0, 512, 512), (150, 148, 142)),
    "dusk": ("rocket", (335, 0, 440, 145), None),
    "leaves": ("flower", (0, 0, 150, 427), None),
    "sky": ("china", (330, 0, 640, 120), (112, 138, 164)),
    "gravel": ("gravel", (0, 0, 512, 512), (168, 158, 146)),
    "wood": ("coffee", (490, 60, 600, 400), None),
    "stars": ("hubble_deep_field", (0, 0, 1000, 872), None),
}
BACKGROUNDS = {
    "train": ("grass", "brick", "moon", "dusk", "leaves", "sky"),
    "test": ("gravel", "wood", "stars"),
}
_ROTATIONS = {"train": ((0.0, 8.0), (14.0, 20.0)), "test": ((8.0, 14.0),)}
# Range of the objects' longest side as a share of the image's side, by the number of objects.
_SCALES = {1: (0.42, 0.70), 2: (0.36, 0.52), 3: (0.30, 0.42)}
_LONGEST = 0.92  # the longest side of any object, unless scale is given
_TRIES = 100  # layouts before a given scale is refused


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its ground truth.

    ``masks`` (n, H, W) bool and ``boxes`` (n, 4) int (left, upper, right, lower; right and lower exclusive)
    cover the visible part of each object, in the order of ``labels``.
    """

    image: Image.Image
    labels: tuple[str, ...]
    masks: np.ndarray
    boxes: np.ndarray
    background: str
    seed: int
    split: str

    def mask(self, label: str) -> np.ndarray:
        """The union (H, W) bool of all masks of one class; all False if the class is absent."""
        chosen = [mask for mask, name in zip(self.masks, self.labels, strict=True) if name == label]
        return np.logical_or.reduce(chosen) if chosen else np.zeros(self.masks.shape[1:], bool)


@lru_cache(maxsize=1)
def _outlines() -> dict[str, dict[str, Any]]:
    return dict(json.loads(Path(__file__).with_name("cutouts.json").read_text()))


@lru_cache(maxsize=2)
def _sprites_by_class(split: str) -> dict[str, tuple[str, ...]]:
    """The cut-outs of each class; every fourth coin belongs to the test split alone."""
    sprites: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name, outline in _outlines().items():
        test_coin = name.startswith("coin") and int(name[4:]) % 4 == 3
        if not name.startswith("coin") or test_coin == (split == "test"):
            sprites[outline["label"]].append(name)
    return {label: tuple(names) for label, names in sprites.items()}


@lru_cache(maxsize=64)
def _sprite(name: str) -> Image.Image:
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


@lru_cache(maxsize=16)
def _background_photo(name: str) -> Image.Image:
    source, window, tint = _SOURCES[name]
    background = photo(source).crop(window)
    if tint is not None:
        colour = Image.new("RGB", background.size, tint)
        background = ImageEnhance.Brightness(ImageChops.multiply(background, colour)).enhance(1.5)
    return background


def _draw_background(name: str, recoloured: bool, rng: np.random.Generator, size: int) -> Image.Image:
    """A random window of the background, mirrored and lit at random."""
    window = _window(name, rng, size)
    background = _recolour(window, rng, size) if recoloured else window
    return _relight(background, rng, brightness=(0.75, 1.1), warmth=0.06)


def _window(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    source = _background_photo(name)
    side = int(rng.uniform(0.55, 1.0) * min(source.size))
    left = int(rng.integers(0, source.width - side + 1))
    upper = int(rng.integers(0, source.height - side + 1))
    box = (left, upper, left + side, upper + side)
    window = source.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else window


def _recolour(background: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """In two of three cases, blend a training background with another one and print it in two inks.

    With six unchanged backgrounds, a network learns those six: it took everything on brown wood for a cat,
    and everything on grey gravel for a coin.
    """
    if rng.random() < 1 / 3:
        return background
    other = _window(str(rng.choice(BACKGROUNDS["train"])), rng, size)
    grey = ImageOps.autocontrast(Image.blend(background, other, rng.uniform(0, 0.7)).convert("L"), cutoff=2)
    dark, light = rng.integers(0, 256, (2, 3))
    dark = dark * rng.random()  # night skies as well as noon
    return ImageOps.colorize(grey, tuple(int(v) for v in dark), tuple(int(v) for v in light))


def _relight(
    image: Image.Image, rng: np.random.Generator, brightness: tuple[float, float], warmth: float
) -> Image.Image:
    """Scale red, green and blue by a random brightness and a random shift between warm and cold."""
    level, warm = rng.uniform(*brightness), rng.uniform(-warmth, warmth)
    bands = list(image.split())
    for index, gain in enumerate((level * (1 + warm), level, level * (1 - warm))):
        bands[index] = bands[index].point([min(255, round(value * gain)) for value in range(256)])
    return Image.merge(image.mode, bands)


def _draw_object(
    label: str, split: str, rng: np.random.Generator, size: int, scale: tuple[float, float], limit: float
) -> Image.Image:
    """One object of a class as RGBA, scaled to at most ``limit``, mirrored, rotated and lit at random."""
    sprites = _sprites_by_class(split)[label]
    sprite = _sprite(sprites[int(rng.integers(len(sprites)))])
    longest, shortest = max(sprite.size), min(sprite.size)
    # Slender objects are drawn longer, so that a rocket does not shrink to a line.
    share = min(rng.uniform(*scale) * (longest / shortest) ** 0.3, limit)
    zoom = share * size / longest
    width, height = (max(1, round(side * zoom)) for side in sprite.size)
    sprite = sprite.resize((width, height), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bands = _ROTATIONS[split]
    angle = rng.uniform(*bands[int(rng.integers(len(bands)))]) * rng.choice([-1.0, 1.0])
    sprite = sprite.rotate(float(angle), Image.Resampling.BICUBIC, expand=True)
    return _relight(sprite, rng, brightness=(0.85, 1.15), warmth=0.04)


def _place(sprite: Image.Image, stands: bool, rng: np.random.Generator, size: int) -> tuple[int, int]:
    """A random position inside the image, or standing on its lower border."""
    x = int(rng.integers(0, max(1, size - sprite.width + 1)))
    y = int(rng.integers(0, max(1, size - sprite.height + 1)))
    return x, size - round(0.9 * sprite.height) if stands else y


def _solid(sprite: Image.Image, at: tuple[int, int], size: int) -> np.ndarray:
    """Where the object covers at least half a pixel: (size, size) bool."""
    alpha = Image.new("L", (size, size), 0)
    alpha.paste(sprite.getchannel("A"), at)
    return np.asarray(alpha) >= 128


def _paste(canvas: Image.Image, sprite: Image.Image, at: tuple[int, int]) -> None:
    """Paste the object onto the canvas, with a soft shadow like that of paper on a table."""
    alpha = Image.new("L", canvas.size, 0)
    offset = max(1, round(0.012 * canvas.width))
    alpha.paste(sprite.getchannel("A"), (at[0] + offset, at[1] + 2 * offset))
    shadow = alpha.filter(ImageFilter.GaussianBlur(0.018 * canvas.width)).point(lambda value: value * 0.4)
    canvas.paste((12, 12, 18), (0, 0), shadow)
    canvas.paste(sprite.convert("RGB"), at, sprite.getchannel("A"))


def scene(
    *labels: str,
    seed: int = 0,
    split: str = "test",
    size: int = 256,
    background: str | None = None,
    scale: tuple[float, float] | None = None,
) -> Scene:
    """Draw a collage of the given objects on a photographed background.

    ``labels``: one to six names of ``CLASSES``; a repeated name adds another object of that class. ``seed``:
    the same arguments and seed give the same image, bit for bit. ``split``: ``"train"`` or ``"test"``.
    ``size``: side of the square image in pixels. ``background``: a name of ``BACKGROUNDS``, of either split
    and in its original colours; by default a random one of the split, mostly recoloured in the train split.
    ``scale``: range of the objects' longest side before rotation, as a share of ``size``. By default it
    depends on the number of objects, slender objects may exceed it, and objects shrink until they fit.

    At least 80 % of every object stays visible. Raises ``ValueError`` for an unknown class, split or
    background, for too many objects, a size under 32, or a ``scale`` at which the objects do not fit.

    >>> scene = gmcam.lab.scene("cat", "cup", seed=3)
    >>> scene.labels, scene.image.size
    (('cat', 'cup'), (256, 256))
    >>> scene.masks.shape, scene.boxes.shape
    ((2, 256, 256), (2, 4))
    """
    if not 1 <= len(labels) <= 6:
        raise ValueError(f"expected one to six labels, got {len(labels)}")
    if unknown := [label for label in labels if label not in CLASSES]:
        raise ValueError(f"expected labels among {', '.join(CLASSES)}, got {unknown[0]!r}")
    if split not in BACKGROUNDS:
        raise ValueError(f"expected split 'train' or 'test', got {split!r}")
    if background is not None and background not in _SOURCES:
        raise ValueError(f"expected a background among {', '.join(_SOURCES)}, got {background!r}")
    if size < 32:
        raise ValueError(f"expected a size of at least 32 pixels, got {size}")
    if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"expected scale as a range of shares such as (0.3, 0.5), got {scale}")
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")

    rng = np.random.default_rng([seed, list(BACKGROUNDS).index(split), *map(CLASSES.index, labels)])
    random_name = BACKGROUNDS[split][int(rng.integers(len(BACKGROUNDS[split])))]
    recoloured = split == "train" and background is None
    background = background or random_name
    sizes, limit = (_SCALES[min(len(labels), 3)], _LONGEST) if scale is None else (scale, scale[1])
    # A portrait, which its photo cuts off below, stands on the lower border; three would crowd it.
    stands = [label == "person" and labels.count("person") < 3 for label in labels]
    for _ in itertools.count() if scale is None else range(_TRIES):
        canvas = _draw_background(background, recoloured, rng, size)
        sprites = [_draw_object(label, split, rng, size, sizes, limit) for label in labels]
        places = [_place(s, low, rng, size) for s, low in zip(sprites, stands, strict=True)]
        solid = np.stack([_solid(s, at, size) for s, at in zip(sprites, places, strict=True)])
        # The areas of the whole objects, including what the image's border cuts off.
        areas = np.array([(np.asarray(s.getchannel("A")) >= 128).sum() for s in sprites])
        covered = np.cumsum(solid[::-1], axis=0)[::-1] - solid  # by objects pasted later
        masks = solid & (covered == 0)
        if np.all(masks.sum((1, 2)) >= 0.8 * areas):
            break
        if scale is None:  # crowded: draw smaller objects
            sizes = (sizes[0] * 0.98, sizes[1] * 0.98)
    else:
        raise ValueError(
            f"expected scale at which {', '.join(labels)} fit into {size} × {size} pixels, got {scale}: "
            "choose another range, fewer objects or a larger size"
        )
    for sprite, at in zip(sprites, places, strict=True):
        _paste(canvas, sprite, at)
    boxes = np.array([Image.fromarray(mask.astype(np.uint8)).getbbox() for mask in masks], dtype=int)
    return Scene(canvas, labels, masks, boxes, background, seed, split)


def dual_class_scenes(count: int, size: int = 256, step: int = 1) -> Sequence[Scene]:
    """Draw ``count`` scenes of the test split with two classes each, cycling through all ordered pairs.

    ``step``: draw only every ``step``-th of them, starting with the first. Raises ``ValueError`` for a count
    below 0 or a step below 1.

    >>> from gmcam.lab import dual_class_scenes
    >>> [scene.labels for scene in dual_class_scenes(2, size=64)]
    [('cat', 'cup'), ('cat', 'flower')]
    """
    if count < 0 or step < 1:
        raise ValueError(f"expected count of at least 0 and step of at least 1, got {count} and {step}")
    pairs = [(a, b) for a in CLASSES for b in CLASSES if a != b]
    numbers = tqdm(range(0, count, step), desc="drawing scenes", delay=2, leave=False)
    return [scene(*pairs[i % len(pairs)], seed=i, size=size) for i in numbers]
