"""Collage scenes: photographed objects on photographed grounds, with exact masks and boxes.

A scene is drawn from its labels and a seed, so it needs no files beyond the photographs in
``PHOTOS`` and can be drawn again anywhere. The outlines in ``cutouts.json`` (polygons in pixels of
the photograph, even-odd fill) were drawn once for this project: the motorbike's from the disparity
map that comes with its stereo pair, the coins' by a watershed, the rocket's and the cat's by hand,
the others by GrabCut from a hand-drawn start; then simplified and looked at.

The two splits share no ground, no coin and no rotation: ``train`` turns objects by less than 8° or
by 14° to 20°, ``test`` by 8° to 14°.
"""

from __future__ import annotations

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

# Ground: the photo, a window of it that shows the ground alone (left, upper, right, lower), and the
# colour that a grey texture or a pale sky is tinted with.
_GROUNDS: dict[str, tuple[str, tuple[int, int, int, int], tuple[int, int, int] | None]] = {
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
# Longest side of an object as a share of the picture's, by the number of objects in it.
_SIZES = {1: (0.42, 0.70), 2: (0.36, 0.52), 3: (0.30, 0.42)}


@dataclass(frozen=True)
class Scene:
    """A picture with its ground truth.

    ``masks`` (n, H, W) bool and ``boxes`` (n, 4) int (left, upper, right, lower; right and lower
    exclusive) hold one entry per object in the order of ``labels``, for the visible part of it.
    """

    image: Image.Image
    labels: tuple[str, ...]
    masks: np.ndarray
    boxes: np.ndarray
    ground: str
    seed: int
    split: str

    def mask(self, label: str) -> np.ndarray:
        """All objects of one class as one mask (H, W) bool; nothing but False for an absent one."""
        chosen = [mask for mask, name in zip(self.masks, self.labels, strict=True) if name == label]
        return np.logical_or.reduce(chosen) if chosen else np.zeros(self.masks.shape[1:], bool)


@lru_cache(maxsize=1)
def _outlines() -> dict[str, dict[str, Any]]:
    outlines: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("cutouts.json").read_text())
    return outlines


@lru_cache(maxsize=2)
def _sprites_by_class(split: str) -> dict[str, tuple[str, ...]]:
    """Which cut-outs each class has; every fourth coin belongs to the test split alone."""
    sprites: dict[str, list[str]] = {name: [] for name in CLASSES}
    for name, outline in _outlines().items():
        held_out = name.startswith("coin") and int(name[4:]) % 4 == 3
        if not name.startswith("coin") or held_out == (split == "test"):
            sprites[outline["label"]].append(name)
    return {label: tuple(names) for label, names in sprites.items()}


@lru_cache(maxsize=64)
def _sprite(name: str) -> Image.Image:
    """A cut-out as RGBA, cropped to its outline, with an anti-aliased edge."""
    outline = _outlines()[name]
    corners = np.concatenate(outline["rings"])
    left, upper = np.maximum(np.floor(corners.min(0)).astype(int) - 2, 0).tolist()
    right, lower = (np.ceil(corners.max(0)).astype(int) + 2).tolist()
    picture = photo(outline["photo"])
    picture = picture.crop((left, upper, min(right, picture.width), min(lower, picture.height)))
    fine = 4
    alpha = Image.new("L", (picture.width * fine, picture.height * fine), 0)
    for ring in outline["rings"]:
        filled = Image.new("L", alpha.size, 0)
        points = [((x - left) * fine, (y - upper) * fine) for x, y in ring]
        ImageDraw.Draw(filled).polygon(points, fill=255)
        alpha = ImageChops.difference(alpha, filled)  # even-odd: an inner ring is a hole
    # One pixel is taken off all round, so that no seam of the old background comes along: an erosion,
    # since a mean of zeros and 255s is 255 only where all of them are.
    alpha = alpha.filter(ImageFilter.BoxBlur(fine)).point(lambda value: 255 * (value == 255))
    alpha = alpha.resize(picture.size, Image.Resampling.BOX)
    picture.putalpha(alpha)
    return picture.crop(alpha.getbbox())


@lru_cache(maxsize=16)
def _ground_photo(name: str) -> Image.Image:
    source, window, tint = _GROUNDS[name]
    ground = photo(source).crop(window)
    if tint is not None:
        colour = Image.new("RGB", ground.size, tint)
        ground = ImageEnhance.Brightness(ImageChops.multiply(ground, colour)).enhance(1.5)
    return ground


def _draw_ground(name: str, recoloured: bool, rng: np.random.Generator, size: int) -> Image.Image:
    """A random window of the ground, mirrored at random, with random light."""
    ground = _window(name, rng, size)
    if recoloured:
        ground = _recolour(ground, rng, size)
    return _relight(ground, rng, brightness=(0.75, 1.1), warmth=0.06)


def _window(name: str, rng: np.random.Generator, size: int) -> Image.Image:
    source = _ground_photo(name)
    side = int(rng.uniform(0.55, 1.0) * min(source.size))
    left = int(rng.integers(0, source.width - side + 1))
    upper = int(rng.integers(0, source.height - side + 1))
    box = (left, upper, left + side, upper + side)
    ground = source.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return ground.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else ground


def _recolour(ground: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """Two of three times, blend a training ground with another one and print it in two inks.

    With six grounds as they are, a network learns six grounds: everything on brown wood was a cat to
    one trained so, everything on grey gravel a coin.
    """
    if rng.random() < 1 / 3:
        return ground
    other = _window(str(rng.choice(BACKGROUNDS["train"])), rng, size)
    grey = ImageOps.autocontrast(Image.blend(ground, other, rng.uniform(0, 0.7)).convert("L"), cutoff=2)
    dark, light = rng.integers(0, 256, (2, 3))
    dark = dark * rng.random()  # night skies as well as noon
    return ImageOps.colorize(grey, tuple(int(v) for v in dark), tuple(int(v) for v in light))


def _relight(
    picture: Image.Image,
    rng: np.random.Generator,
    brightness: tuple[float, float],
    warmth: float,
) -> Image.Image:
    """Scale red, green and blue: one random brightness, and a random shift between warm and cold."""
    level, warm = rng.uniform(*brightness), rng.uniform(-warmth, warmth)
    gains = (level * (1 + warm), level, level * (1 - warm))
    bands = list(picture.split())
    for index, gain in enumerate(gains):
        bands[index] = bands[index].point([min(255, round(value * gain)) for value in range(256)])
    return Image.merge(picture.mode, bands)


def _draw_object(
    label: str, split: str, rng: np.random.Generator, size: int, scale: tuple[float, float]
) -> Image.Image:
    """One object of a class as RGBA, scaled, mirrored, turned and lit at random."""
    sprites = _sprites_by_class(split)[label]
    sprite = _sprite(sprites[int(rng.integers(len(sprites)))])
    longest, shortest = max(sprite.size), min(sprite.size)
    # A slender thing is drawn longer, so that a rocket does not shrink to a line.
    share = min(rng.uniform(*scale) * (longest / shortest) ** 0.3, 0.92)
    zoom = share * size / longest
    sprite = sprite.resize(
        (max(1, round(sprite.width * zoom)), max(1, round(sprite.height * zoom))),
        Image.Resampling.LANCZOS,
    )
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bands = _ROTATIONS[split]
    angle = rng.uniform(*bands[int(rng.integers(len(bands)))]) * rng.choice([-1.0, 1.0])
    sprite = sprite.rotate(float(angle), Image.Resampling.BICUBIC, expand=True)
    return _relight(sprite, rng, brightness=(0.85, 1.15), warmth=0.04)


def _place(sprite: Image.Image, stands: bool, rng: np.random.Generator, size: int) -> tuple[int, int]:
    """A random position inside the picture, or standing on its lower border."""
    x = int(rng.integers(0, max(1, size - sprite.width + 1)))
    y = int(rng.integers(0, max(1, size - sprite.height + 1)))
    return x, size - round(0.9 * sprite.height) if stands else y


def _solid(sprite: Image.Image, at: tuple[int, int], size: int) -> np.ndarray:
    """Where the object covers at least half a pixel: (size, size) bool."""
    alpha = Image.new("L", (size, size), 0)
    alpha.paste(sprite.getchannel("A"), at)
    return np.asarray(alpha) >= 128


def _paste(canvas: Image.Image, sprite: Image.Image, at: tuple[int, int]) -> None:
    """Put the object on the canvas with a soft shadow beneath it, as paper on a table throws one."""
    size = canvas.width
    alpha = Image.new("L", canvas.size, 0)
    offset = max(1, round(0.012 * size))
    alpha.paste(sprite.getchannel("A"), (at[0] + offset, at[1] + 2 * offset))
    shadow = alpha.filter(ImageFilter.GaussianBlur(0.018 * size)).point(lambda value: value * 0.4)
    canvas.paste((12, 12, 18), (0, 0), shadow)
    canvas.paste(sprite.convert("RGB"), at, sprite.getchannel("A"))


def scene(
    *labels: str,
    seed: int = 0,
    split: str = "test",
    size: int = 256,
    ground: str | None = None,
    scale: tuple[float, float] | None = None,
) -> Scene:
    """Draw a collage of the given objects on a photographed ground.

    ``labels``: one to six names of ``CLASSES``; a name given twice puts two objects of that class.
    ``seed``: same labels, seed, split and size, same picture, bit for bit. ``split``: ``"train"``
    or ``"test"``. ``size``: side of the square picture in pixels. ``ground``: a name of
    ``BACKGROUNDS``, of either split and in its own colours, instead of a random one of the split (which
    in the train split is mostly recoloured). ``scale``: range of the
    objects' longest side as a share of the picture's, instead of the usual one.

    At least 80 % of every object stays visible. Raises ``ValueError`` for an unknown class, split
    or ground, for too many objects, or for a size under 32.

    >>> scene = gmcam.lab.scene("cat", "cup", seed=3)
    >>> scene.labels, scene.image.size
    (('cat', 'cup'), (256, 256))
    >>> scene.masks.shape, scene.boxes.shape
    ((2, 256, 256), (2, 4))
    """
    if not 1 <= len(labels) <= 6:
        raise ValueError(f"a scene holds one to six objects, not {len(labels)}")
    for label in labels:
        if label not in CLASSES:
            raise ValueError(f"no class is called {label!r}; there are {', '.join(CLASSES)}")
    if split not in BACKGROUNDS:
        raise ValueError(f"split is 'train' or 'test', not {split!r}")
    if ground is not None and ground not in _GROUNDS:
        raise ValueError(f"no ground is called {ground!r}; there are {', '.join(_GROUNDS)}")
    if size < 32:
        raise ValueError(f"a scene is at least 32 pixels wide, not {size}")
    if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is a range of shares of the picture, such as (0.3, 0.5), not {scale}")
    if seed < 0:
        raise ValueError(f"a seed is zero or above, not {seed}")

    key = [seed, list(BACKGROUNDS).index(split), *(CLASSES.index(label) for label in labels)]
    rng = np.random.default_rng(key)
    grounds = BACKGROUNDS[split]
    drawn = grounds[int(rng.integers(len(grounds)))]
    recoloured = split == "train" and ground is None
    ground = ground or drawn
    sizes = scale or _SIZES[min(len(labels), 3)]
    # A portrait, which its photo cuts off below, stands on the lower border; three would crowd it.
    stands = [label == "person" and labels.count("person") < 3 for label in labels]
    while True:
        canvas = _draw_ground(ground, recoloured, rng, size)
        sprites = [_draw_object(label, split, rng, size, sizes) for label in labels]
        places = [_place(s, low, rng, size) for s, low in zip(sprites, stands, strict=True)]
        solid = np.stack([_solid(s, at, size) for s, at in zip(sprites, places, strict=True)])
        # The whole object, with what the picture's border cuts off.
        whole = np.array([(np.asarray(s.getchannel("A")) >= 128).sum() for s in sprites])
        covered = np.cumsum(solid[::-1], axis=0)[::-1] - solid  # by objects pasted later
        masks = solid & (covered == 0)
        if np.all(masks.sum((1, 2)) >= 0.8 * whole):
            break
        # Crowded: the next try draws the objects a little smaller.
        sizes = (sizes[0] * 0.98, sizes[1] * 0.98)
    for sprite, at in zip(sprites, places, strict=True):
        _paste(canvas, sprite, at)
    return Scene(canvas, labels, masks, _boxes(masks), ground, seed, split)


def _boxes(masks: np.ndarray) -> np.ndarray:
    """The tightest box around each mask: (n, 4) int."""
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, dtype=int)


def dual_class_scenes(count: int, size: int = 256, step: int = 1) -> Sequence[Scene]:
    """``count`` scenes of the test split with two classes each, every ordered pair in turn.

    ``step``: only every ``step``-th of them is drawn and given, from the first on. Raises ``ValueError``
    for a count below 0 or a step below 1.

    >>> from gmcam.lab import dual_class_scenes
    >>> [scene.labels for scene in dual_class_scenes(2, size=64)]
    [('cat', 'cup'), ('cat', 'flower')]
    """
    if count < 0 or step < 1:
        raise ValueError(f"count is 0 or above and step 1 or above, not {count} and {step}")
    pairs = [(a, b) for a in CLASSES for b in CLASSES if a != b]
    numbers = tqdm(range(0, count, step), desc="drawing scenes", delay=2, leave=False)
    return [scene(*pairs[i % len(pairs)], seed=i, size=size) for i in numbers]
