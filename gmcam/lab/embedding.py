"""Pictures inside HTML: as WebP in the address itself, with a sentence that tells what they show."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from PIL import Image, ImageOps

from gmcam.reading import ImageSource as Source
from gmcam.reading import open_image

# Of WebP; higher ones double a page for no visible gain.
QUALITY, ALPHA_QUALITY = 75, 70


def figure(picture: Source, words: str, quality: int = QUALITY) -> str:
    """A ``<figure>`` whose caption and alternative text are ``words``, escaped."""
    text = escape(words)
    return (
        f'<figure><img class="dark-light" alt="{text}" src="{data_address(picture, quality)}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def data_address(picture: Source, quality: int = QUALITY) -> str:
    """The picture as a ``data:`` address."""
    buffer = io.BytesIO()
    see_through(picture).save(buffer, format="webp", quality=quality, alpha_quality=ALPHA_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def see_through(picture: Source) -> Image.Image:
    """As ``open_image`` has it, but a PIL picture or a uint8 array (H, W, 4) keeps its transparency."""
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (4,):
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image) and picture.has_transparency_data:
        return ImageOps.exif_transpose(picture).convert("RGBA")
    return open_image(picture)


def to_width(picture: Image.Image, width: int) -> Image.Image:
    """The picture at that width, as high as its shape asks for and at least one pixel."""
    height = max(1, round(width * picture.height / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
