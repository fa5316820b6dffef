"""Open an image, whatever its source and format, as plain RGB."""

import io
import os
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 120_000_000
ImageSource = Image.Image | np.ndarray | str | os.PathLike[str] | bytes


def open_image(source: ImageSource) -> Image.Image:
    """Open an image as upright 8-bit RGB.

    ``source``: a path; the bytes of an image file; a PIL image; or an array (H, W), (H, W, 3) or (H, W, 4) of
    uint8 or of floats in [0, 1]. EXIF rotation is applied. Greyscale, palettes and CMYK become RGB, 16 bits
    8, transparency white, floats are read like an array, and an animation yields its first frame. Raises
    ``ValueError`` for files missing, broken or over ``MAX_PIXELS``, and arrays of other shape, type or range.

    >>> gmcam.open_image(np.zeros((2, 4))).getpixel((0, 0))
    (0, 0, 0)
    """
    if isinstance(source, Image.Image | bytes | str | os.PathLike):
        image = _decoded(source)
        if image.mode != "F":
            return image
        source = np.asarray(image)  # the pixels of a TIFF file may be floats, checked like those of an array
    if not isinstance(source, np.ndarray):
        raise ValueError(f"expected a path, bytes, image or array, got {type(source).__name__}: convert it")
    return _to_rgb(_from_array(source))


def _decoded(source: Image.Image | bytes | str | os.PathLike[str]) -> Image.Image:
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, Image.Image):
            name = "the image"
            return _to_rgb(source)
        bombs = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
        with bombs, Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:  # the limit here
                raise Image.DecompressionBombError
            return _to_rgb(image)
    except Image.DecompressionBombError:
        limit = f"{MAX_PIXELS // 1_000_000} megapixels"
        raise ValueError(f"expected at most {limit}, got more in {name}: scale it down first") from None
    except UnidentifiedImageError:
        raise ValueError(f"expected an image file, got {name}: convert it to PNG or JPEG") from None
    except (OSError, SyntaxError, EOFError, ValueError, RuntimeError) as error:
        fault = f"{name} ({getattr(error, 'strerror', None) or error})"
        raise ValueError(f"expected a complete image, got {fault}: check it or save it again") from None


def _from_array(array: np.ndarray) -> Image.Image:
    shape, dtype = array.shape, array.dtype
    if len(shape) < 2 or shape[2:] not in ((), (3,), (4,)) or 0 in shape:
        raise ValueError(f"expected (H, W), (H, W, 3) or (H, W, 4), got {shape}: move the channels last")
    if dtype == np.uint8:
        return Image.fromarray(array)
    if not (np.issubdtype(dtype, np.floating) and array.min() >= 0 and array.max() <= 1):  # NaN fails both
        extent = f" from {array.min()} to {array.max()}" if dtype.kind in "iuf" else ""
        raise ValueError(f"expected uint8 or floats in [0, 1], got {dtype}{extent}: rescale the array")
    return Image.fromarray((array * 255).round().astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    """An upright copy in mode RGB, or in mode F if the pixels are floats."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which some formats open as 32
        values = np.asarray(image, dtype=np.float64)
        depth = 255 if image.mode == "I" and values.max(initial=0) <= 255 else 65535
        return Image.fromarray((values / depth * 255).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "F" else image.convert("RGB")
