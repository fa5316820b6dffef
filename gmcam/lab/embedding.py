"""Images inside HTML: WebP in a ``data:`` address, with a caption that is their alternative text."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from gmcam.reading import ImageSource, open_image

QUALITY = 75  # of WebP; a higher one doubles a page for no visible gain
CELLS = 64  # pixels: images that are smaller hold a cell in each, and are stored exactly


def figure(image: ImageSource, caption: str, quality: int = QUALITY) -> str:
    """A ``<figure>`` with ``caption``, escaped, as caption and alternative text."""
    text = escape(caption)
    return (
        f'<figure><img class="dark-light" alt="{text}" src="{data_address(image, quality)}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def data_address(image: ImageSource, quality: int = QUALITY) -> str:
    """The image as a ``data:`` address."""
    image, buffer = open_image(image), io.BytesIO()
    image.save(buffer, format="webp", quality=quality, lossless=max(image.size) <= CELLS)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_width(image: Image.Image, width: int) -> Image.Image:
    """The image scaled to ``width`` pixels with its proportions, at least one pixel high."""
    height = max(1, round(width * image.height / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)
