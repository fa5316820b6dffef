"""Image processors of other libraries: where they put each pixel, measured rather than read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from gmcam.preprocessing import Preprocessing

Processor = Callable[[Image.Image], Tensor]
WIDTH, HEIGHT = 512, 256  # of the images for the measurement: whole numbers of pixels per colour level
TOLERANCE = 1 / 255  # mean difference in colour, because libraries round differently


@dataclass(frozen=True)
class Processed(Preprocessing):
    """The ``processor`` of another library, with the geometry that places masks and boxes to the pixel or so.

    ``squashes``: the processor resizes to ``resize`` × ``resize``, whatever the proportions, before it crops.
    A copy with another ``squash`` does without the processor.
    """

    processor: Any = field(default=None, repr=False)
    squashes: bool = False

    def __call__(self, image: Image.Image) -> Tensor:
        if self.processor is None or self.squash != self.squashes:
            return super().__call__(image)
        pixels: Tensor = self.processor(image)
        return pixels

    def _placement(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        if not (self.squash and self.squashes):
            return super()._placement(size)
        edge = (self.resize - self.crop) // 2
        return self.resize, self.resize, edge, edge

    def view(self, image: Image.Image) -> Image.Image:
        if not (self.squash and self.squashes):
            return super().view(image)
        left, upper = (round(side * (1 - self.crop / self.resize) / 2) for side in image.size)
        return image.crop((left, upper, image.width - left, image.height - upper))


def preprocessing_of(processor: Any) -> tuple[Processor | None, tuple[int, ...] | None]:
    """What turns an image into (3, H, W) for ``wrap``'s ``processor``, and its shape; None where unknown."""
    if processor is None:
        return None, None
    if hasattr(processor, "resize_size") and hasattr(processor, "crop_size"):  # torchvision's presets
        resize, crop, filtering = (
            processor.resize_size[0],
            processor.crop_size[0],
            processor.interpolation.name,
        )
        colours = tuple(processor.mean), tuple(processor.std)
        processor = Preprocessing(resize, crop, *colours, Resampling[filtering])
    if isinstance(processor, Preprocessing):
        return processor, (3, processor.crop, processor.crop)
    if comes_from(processor, "transformers"):
        processor = partial(pixel_values, getattr(processor, "image_processor", processor))
    return measured(processor)


def comes_from(thing: object, package: str) -> bool:
    """Whether the class of ``thing``, or one that it inherits from, is defined in ``package``."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(thing).__mro__)


def pixel_values(processor: Any, image: Image.Image) -> Tensor:
    """(3, H, W) from an image processor of Hugging Face."""
    values: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    return values


def measured(processor: Processor) -> tuple[Processor, tuple[int, ...] | None]:
    """``processor`` as a ``Processed`` if it resizes, crops and normalises, else itself; and its shape.

    Measured on four images: the shape is None where the processor fails on them.
    """
    shape = None
    with suppress(Exception):  # whatever another library raises
        black, white = (processor(Image.new("RGB", (WIDTH, HEIGHT), name)) for name in ("black", "white"))
        shape = tuple(black.shape)
        low, high = (pixels.double().flatten(1).mean(1) for pixels in (black, white))
        std = 1 / (high - low)
        colours = [tuple(round(value, 6) + 0.0 for value in v.tolist()) for v in (-low * std, std)]
        # In this image red rises by column and green by row: their slopes tell the size before the crop.
        rows, columns = np.indices((HEIGHT, WIDTH))
        ramp = np.stack([columns // 2, rows, np.zeros_like(rows)], 2).astype(np.uint8)
        red, green, _ = (processor(Image.fromarray(ramp)) - low[:, None, None]) * std[:, None, None]
        width, height = (256 / 255 / _slope(line) for line in (red.mean(0), green.mean(1)))
        squash = abs(width / height - 1) < 0.1
        # One with details, where every filter and every shift by a pixel makes a difference.
        noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((300, 450), Resampling.BICUBIC)
        pixels = processor(image)[None]
        errors: dict[float, Processed] = {}
        for interpolation in Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS:
            look: Any = (*colours, interpolation, squash, processor, squash)
            guess = Processed(round(height), len(red), *look)
            own = Preprocessing.__call__(guess, image)[None]
            errors[float((guess.restore(own) - guess.restore(pixels)).abs().mean())] = guess
        if min(errors) < TOLERANCE:
            return errors[min(errors)], shape
    return processor, shape


def _slope(line: Tensor) -> float:
    """The rise per pixel of a line, in its inner half: its ends may be padded."""
    quarter = len(line) // 4
    inner = line[quarter : len(line) - quarter].numpy()
    return float(np.polyfit(np.arange(len(inner)), inner, 1)[0])
