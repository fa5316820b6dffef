"""Collage scenes: photographed objects on photographed backgrounds, with exact masks and boxes.

A scene is a function of its labels, options and seed; its only files are the photographs in ``PHOTOS``. It is
laid out once and can then be drawn again without an object or on another background.

The two splits share no background, no coin and no rotation: ``train`` rotates objects by less than 8° or by
14° to 20°, ``test`` by 8° to 14°. All other cut-outs are in both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps
from tqdm import tqdm

from gmcam.lab.photos import photo
from gmcam.lab.sprites import cutout_names, draw_object, paste, place, relight, solid

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
# Range of the objects' longest side as a share of the image's side, by the number of objects.
_SCALES = {1: (0.42, 0.70), 2: (0.36, 0.52), 3: (0.30, 0.42)}
_LONGEST = 0.92  # the longest side of any object, unless scale is given
_TRIES = 100  # layouts before a given scale is refused


@dataclass(frozen=True, eq=False)
class _Layout:
    """Cut-outs with their upper left corners in drawing order, the background without them, and the random
    generator's state before the background was drawn."""

    objects: tuple[tuple[Image.Image, tuple[int, int]], ...]
    bare: Image.Image
    state: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its ground truth, which can be drawn again without an object or on another background.

    ``masks`` (n, H, W) bool and ``boxes`` (n, 4) int (left, upper, right, lower; right and lower exclusive)
    cover the visible part of each object, in the order of ``labels``, in which the objects were pasted.
    An object's number is its index in ``labels``.

    >>> scene = gmcam.lab.scene("cat", "cup", "coin", seed=3)
    >>> scene.without("cup").labels, scene.on("moon").background
    (('cat', 'coin'), 'moon')
    >>> bool((scene.footprint("cup") & scene.mask("cup")).any())  # and its shadow
    True
    """

    image: Image.Image
    labels: tuple[str, ...]
    masks: np.ndarray
    boxes: np.ndarray
    background: str
    seed: int
    split: str
    _layout: _Layout = field(repr=False)

    def mask(self, label: str) -> np.ndarray:
        """The union (H, W) bool of all masks of one class; all False if the class is absent."""
        chosen = [mask for mask, name in zip(self.masks, self.labels, strict=True) if name == label]
        return np.logical_or.reduce(chosen) if chosen else np.zeros(self.masks.shape[1:], bool)

    def without(self, which: str | int) -> Scene:
        """The scene without all objects of a class, or without the object of a number, and their shadows.

        Nothing else moves or changes its light; what they covered becomes visible, also in ``masks`` and
        ``boxes``. The other objects are numbered by the new scene's ``labels``. Without its last object, a
        scene is its background: ``labels`` are (), ``masks`` (0, H, W) and ``boxes`` (0, 4). Raises
        ``ValueError`` for a label or number that the scene does not have.
        """
        rest = [n for n, label in enumerate(self.labels) if which not in (n, label)]
        if len(rest) == len(self.labels):
            present = ", ".join(f"{n} {label}" for n, label in enumerate(self.labels)) or "none left"
            raise ValueError(f"expected an object of the scene ({present}), got {which!r}: see its labels")
        layout = replace(self._layout, objects=tuple(self._layout.objects[n] for n in rest))
        labels = tuple(self.labels[n] for n in rest)
        return _render(layout, labels, self.background, self.seed, self.split)

    def on(self, background: str) -> Scene:
        """The same objects at the same places on another background, in its original colours.

        ``background``: a name of ``BACKGROUNDS``, of either split. In the test split, the scene equals
        ``scene(..., background=background)``, which moves the objects in the train split. Raises
        ``ValueError`` for an unknown background.
        """
        _check_background(background)
        rng = np.random.default_rng()
        rng.bit_generator.state = self._layout.state
        bare = _draw_background(background, False, rng, self.image.width)
        layout = replace(self._layout, bare=bare)
        return _render(layout, self.labels, background, self.seed, self.split)

    def footprint(self, which: str | int) -> np.ndarray:
        """The pixels (H, W) bool that change ``without`` the object: its visible part and its shadow."""
        changed: np.ndarray = (np.asarray(self.image) != np.asarray(self.without(which).image)).any(2)
        return changed


def _check_background(name: str) -> None:
    if name not in _SOURCES:
        raise ValueError(
            f"expected a background among {', '.join(_SOURCES)}, got {name!r}: choose one of them"
        )


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
    return relight(background, rng, brightness=(0.75, 1.1), warmth=0.06)


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


def _visible(objects: tuple[tuple[Image.Image, tuple[int, int]], ...], size: int) -> np.ndarray:
    """Each object's pixels that no later one covers: (n, size, size) bool."""
    covers = np.array([solid(*each, size) for each in objects], bool).reshape(-1, size, size)
    covered = np.cumsum(covers[::-1], axis=0)[::-1] - covers  # by objects pasted later
    visible: np.ndarray = covers & (covered == 0)
    return visible


def _render(layout: _Layout, labels: tuple[str, ...], background: str, seed: int, split: str) -> Scene:
    canvas = layout.bare.copy()
    for sprite, at in layout.objects:
        paste(canvas, sprite, at)
    masks = _visible(layout.objects, canvas.width)
    boxes = [Image.fromarray(mask.astype(np.uint8)).getbbox() for mask in masks]
    return Scene(canvas, labels, masks, np.array(boxes, int).reshape(-1, 4), background, seed, split, layout)


def scene(
    *labels: str,
    seed: int = 0,
    split: str = "test",
    size: int = 256,
    background: str | None = None,
    scale: tuple[float, float] | None = None,
    cutouts: str | None = None,
) -> Scene:
    """Draw a collage of the given objects on a photographed background.

    ``labels``: one to six names of ``CLASSES``; a repeated name adds another object of that class. ``seed``:
    the same arguments and seed give the same image, bit for bit. ``split``: ``"train"`` or ``"test"``.
    ``size``: side of the square image in pixels. ``background``: a name of ``BACKGROUNDS``, of either split
    and in its original colours; by default a random one of the split, mostly recoloured in the train split.
    ``scale``: range of the objects' longest side before rotation, as a share of ``size``. By default it
    depends on the number of objects, slender objects may exceed it, and objects shrink until they fit.
    ``cutouts``: the objects to choose from, those of the split ``"train"`` or ``"test"``, or ``"all"`` (see
    ``cutout_names``); the scene's split by default. The embedded networks were trained on ``"train"``.

    At least 80 % of every object stays visible. Raises ``ValueError`` for an unknown class, split, background
    or set of cut-outs, for too many objects, a size under 32, or a ``scale`` at which the objects do not fit.

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
    if background is not None:
        _check_background(background)
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
    names = cutout_names(split if cutouts is None else cutouts)
    for _ in itertools.count() if scale is None else range(_TRIES):
        state = dict(rng.bit_generator.state)
        bare = _draw_background(background, recoloured, rng, size)
        sprites = [draw_object(names[label], split, rng, size, sizes, limit) for label in labels]
        places = [place(s, low, rng, size) for s, low in zip(sprites, stands, strict=True)]
        objects = tuple(zip(sprites, places, strict=True))
        # The areas of the whole objects, including what the image's border cuts off.
        areas = np.array([(np.asarray(s.getchannel("A")) >= 128).sum() for s in sprites])
        if np.all(_visible(objects, size).sum((1, 2)) >= 0.8 * areas):
            break
        if scale is None:  # crowded: draw smaller objects
            sizes = (sizes[0] * 0.98, sizes[1] * 0.98)
    else:
        raise ValueError(
            f"expected scale at which {', '.join(labels)} fit into {size} × {size} pixels, got {scale}: "
            "choose another range, fewer objects or a larger size"
        )
    return _render(_Layout(objects, bare, state), labels, background, seed, split)


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
