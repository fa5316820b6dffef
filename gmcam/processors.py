"""Image processors of other libraries: where they put each pixel, measured rather than read."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from gmcam.preprocessing import Preprocessing

Processor = Callable[[Image.Image], Tensor]
SIZE = (512, 256)  # of the images for the measurement: whole numbers of pixels per colour level
TOLERANCE = 1 / 255  # mean difference in colour, because libraries round differently


@dataclass(frozen=True)
class Processed(Preprocessing):
    """The ``processor`` of another library, with the geometry that places masks and boxes to the pixel or so.

    ``squashes``: its own ``squash``. A copy with another one does without the processor.
    """

    processor: Any = field(default=None, repr=False)
    squashes: bool | int = False

    def __call__(self, image: Image.Image) -> Tensor:
        if self.squash != self.squashes:
            return super().__call__(image)
        return cast(Tensor, self.processor(image))


def preprocessing_of(processor: Any) -> tuple[Processor | None, tuple[int, ...] | None]:
    """What turns an image into (3, H, W) for ``wrap``'s ``processor``, and its shape; None where unknown."""
    if processor is None:
        return None, None
    if hasattr(processor, "resize_size") and hasattr(processor, "crop_size"):  # torchvision's presets
        sizes = processor.resize_size[0], processor.crop_size[0]
        colours = tuple(processor.mean), tuple(processor.std)
        processor = Preprocessing(*sizes, *colours, Resampling[processor.interpolation.name])
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
    return cast(Tensor, processor(images=image, return_tensors="pt")["pixel_values"][0])


def measured(processor: Processor) -> tuple[Processor, tuple[int, ...] | None]:
    """``processor`` as a ``Processed`` if it resizes, crops and normalises, else itself; and its shape.

    Measured on four images: the shape is None where the processor fails on them.
    """
    shape = None
    with suppress(Exception):  # whatever another library raises
        black, white = (processor(Image.new("RGB", SIZE, name)) for name in ("black", "white"))
        shape = tuple(black.shape)
        low, high = (pixels.double().flatten(1).mean(1) for pixels in (black, white))
        std = 1 / (high - low)
        colours = [tuple(round(value, 6) + 0.0 for value in v.tolist()) for v in (-low * std, std)]
        # In this image red rises by column and green by row: their slopes tell the size before the crop.
        columns, rows = np.meshgrid(*map(np.arange, SIZE))
        ramp = np.stack([columns // 2, rows, np.zeros_like(rows)], 2).astype(np.uint8)
        red, green, _ = (processor(Image.fromarray(ramp)) - low[:, None, None]) * std[:, None, None]
        edge = len(red) // 4  # left out, because it may be padding
        lines = (line[edge : len(line) - edge].numpy() for line in (red.mean(0), green.mean(1)))
        slopes = (float(np.polyfit(np.arange(len(line)), line, 1)[0]) for line in lines)
        width, height = (256 / 255 / slope for slope in slopes)
        side, squashes = round(height), abs(width / height - 1) < 0.1
        # One with details, where every filter and every shift by a pixel makes a difference.
        noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((300, 450), Resampling.BICUBIC)
        pixels = processor(image)[None]
        errors: dict[float, Processed] = {}
        filters = Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS
        for resize, interpolation in product((side - 1, side, side + 1), filters):
            squash = squashes and (resize == len(red) or resize)
            look: Any = (*colours, interpolation, squash, processor, squash)
            guess = Processed(resize, len(red), *look)
            own = Preprocessing.__call__(guess, image)[None]
            errors[float((guess.restore(own) - guess.restore(pixels)).abs().mean())] = guess
        if min(errors) < TOLERANCE:
            return errors[min(errors)], shape
    return processor, shape
