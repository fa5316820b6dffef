"""Read a reader's picture, whatever it is, as plain RGB."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 120_000_000
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, RuntimeError)  # what decoders say of a broken file
ImageSource = Image.Image | np.ndarray | str | os.PathLike[str] | bytes


def open_image(source: ImageSource) -> Image.Image:
    """A picture as 8-bit RGB, upright.

    ``source``: a path; the bytes of a picture file; a PIL picture; or an array (H, W), (H, W, 3) or
    (H, W, 4), uint8 or float in [0, 1]. EXIF rotation is applied; greyscale and palettes become colour;
    transparency is laid over white; 16-bit greyscale is scaled to 8; a file of floating-point numbers is
    read like an array of them; CMYK is converted; of an animation the first frame is taken.

    Raises ``ValueError`` for a path that is missing or a folder, for a file that is empty, not a picture,
    cut short or larger than ``MAX_PIXELS``, and for an array of another shape or type.

    >>> gmcam.open_image(np.zeros((2, 4))).getpixel((0, 0))
    (0, 0, 0)
    """
    picture = _opened(source)
    # Floating-point pixels, as a TIFF file may hold, are read or refused as an array's are.
    return _to_rgb(_from_array(np.asarray(picture))) if picture.mode == "F" else picture


def _opened(source: ImageSource) -> Image.Image:
    """Upright, and 8-bit RGB unless its pixels are floating-point numbers."""
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source)  # of a file that was opened, this reads the pixels
        except _BROKEN as error:
            raise ValueError(f"the picture cannot be read to its end ({error}); save it again") from None
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the file", len(source))
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a picture is a path, a PIL picture or an array, not a {type(source).__name__}")
    path = Path(source)
    if not os.path.exists(path):  # unlike Path.exists it is False for a name too long for the disk
        raise ValueError(f"there is no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a picture file in it")
    return _decode(path, str(path), path.stat().st_size)


def _decode(file: Path | IO[bytes], name: str, size: int) -> Image.Image:
    if size == 0:
        raise ValueError(f"{name} is empty (zero bytes); name a picture file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures before we can measure them; our own limit speaks below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return _to_rgb(picture)
    except Image.DecompressionBombError:
        raise ValueError(
            f"{name} unpacks to more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a picture that Pillow can read; try PNG or JPEG") from None
    except _BROKEN as error:
        raise ValueError(f"{name} cannot be read to its end ({error}); save it again") from None


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"an array picture is (H, W), (H, W, 3) or (H, W, 4), not {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"an array picture has at least one pixel; this one is {array.shape}")
    if array.dtype != np.uint8:
        inside = np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1
        if not inside:  # NaN fails both comparisons and ends here too
            extent = f" from {array.min()} to {array.max()}" if array.dtype.kind in "iuf" else ""
            raise ValueError(
                f"an array picture is uint8, or float in [0, 1]; this one is {array.dtype}{extent}"
            )
        array = (array * 255).round().astype(np.uint8)
    return Image.fromarray(array)


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # I;16 and its kin, or I as some 16-bit files are opened
        values = np.asarray(picture, dtype=np.float64)
        depth = 255 if picture.mode == "I" and values.max(initial=0) <= 255 else 65535
        return Image.fromarray((values / depth * 255).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture if picture.mode == "F" else picture.convert("RGB")
