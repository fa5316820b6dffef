"""Images inside HTML: WebP in a ``data:`` address, with a caption that is their alternative text."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from PIL import Image, ImageOps

from gmcam.reading import ImageSource, open_image

QUALITY, ALPHA_QUALITY = 75, 70  # of WebP; higher ones double a page for no visible gain


def figure(image: ImageSource, caption: str, quality: int = QUALITY) -> str:
    """A ``<figure>`` with ``caption``, escaped, as caption and alternative text."""
    text = escape(caption)
    return (
        f'<figure><img class="dark-light" alt="{text}" src="{data_address(image, quality)}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def data_address(image: ImageSource, quality: int = QUALITY) -> str:
    """The image as a ``data:`` address."""
    buffer = io.BytesIO()
    with_alpha(image).save(buffer, format="webp", quality=quality, alpha_quality=ALPHA_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def with_alpha(image: ImageSource) -> Image.Image:
    """Open an image like ``open_image``, but keep the transparency of a PIL image or uint8 (H, W, 4)."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (4,):
        image = Image.fromarray(image)
    if isinstance(image, Image.Image) and image.has_transparency_data:
        return ImageOps.exif_transpose(image).convert("RGBA")
    return open_image(image)


def to_width(image: Image.Image, width: int) -> Image.Image:
    """The image scaled to ``width`` pixels with its proportions, at least one pixel high."""
    height = max(1, round(width * image.height / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)
