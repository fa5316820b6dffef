"""Pictures inside HTML: as WebP in the address itself, with a sentence that tells what they show."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from gmcam.images.reading import Picture as Source
from gmcam.images.reading import open_picture

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
    """The picture as a ``data:`` address; one with transparency keeps it."""
    if not isinstance(picture, Image.Image):
        picture = open_picture(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", quality=quality, alpha_quality=ALPHA_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
