"""What the readers of images and weights guarantee for any bytes, and valid files to damage.

``test_readers.py`` damages them at random; ``fuzz_readers.py`` searches with atheris.
"""

import hashlib
import io
import json
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from gmcam import reading
from gmcam.lab.networks import load_weights

PIXELS = 1_000_000  # a lower limit than the library's, so that no case takes much memory or time
SECONDS = 60  # longer is a hang, not a busy machine


def image(data: bytes) -> bool:
    """Whether ``data`` is an image: RGB of a valid size, or a ``ValueError`` of one sentence."""
    started = time.monotonic()
    try:
        with patch.object(reading, "MAX_PIXELS", PIXELS):
            opened = reading.open_image(data)
    except ValueError as error:
        assert_one_sentence(error)
        return False
    finally:
        assert time.monotonic() - started < SECONDS
    assert opened.mode == "RGB"
    assert 1 <= opened.width * opened.height <= PIXELS
    assert len(opened.tobytes()) == 3 * opened.width * opened.height
    return True


def weights(data: bytes) -> bool:
    """Whether ``data`` is a weights file: tensors by name, or a ``ValueError`` of one sentence.

    The card next to it has the hash of these bytes, so that they reach the parser.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mine.safetensors").write_bytes(data)
        card = {"sha256": hashlib.sha256(data).hexdigest()}
        Path(folder, "mine.json").write_text(json.dumps(card))
        try:
            tensors = load_weights("mine", Path(folder))
        except ValueError as error:
            assert_one_sentence(error)
            return False
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert sum(tensor.numel() for tensor in tensors.values()) <= 8 * len(data)
    return True


def assert_one_sentence(error: ValueError) -> None:
    assert str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 500


def images() -> dict[str, bytes]:
    """A valid file of every common format, and of rarer features that take separate code paths."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    colour, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    grey, deep = colour.convert("L"), Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    film = {"save_all": True, "append_images": [colour.rotate(180)]}
    files = {
        "png": (colour, {}),
        "png palette": (colour.convert("P"), {"transparency": 3}),
        "png deep": (deep, {}),
        "png alpha": (alpha, {"exif": turned}),
        "png film": (colour, film),
        "jpeg": (colour, {"exif": turned}),
        "jpeg progressive": (colour, {"progressive": True}),
        "jpeg press": (colour.convert("CMYK"), {}),
        "gif": (colour, {}),
        "gif film": (colour.convert("P"), film),
        "webp": (colour, {}),
        "webp alpha": (alpha, {"lossless": True, "exif": turned}),
        "bmp": (colour, {}),
        "bmp palette": (grey, {}),
        "tiff": (colour, {}),
        "tiff lzw": (colour, {"compression": "tiff_lzw"}),
        "tiff deep": (deep, {}),
        "ppm": (colour, {}),
        "tga": (alpha, {"rle": True}),
        "ico": (alpha, {}),
        "dds": (alpha, {}),
        "pcx": (colour, {}),
    }
    return {name: _saved(image, name.split()[0], options) for name, (image, options) in files.items()}


def _saved(image: Image.Image, kind: str, options: dict) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def weights_files() -> dict[str, bytes]:
    tensors = {"conv.weight": torch.ones(2, 3, 1, 1).half(), "steps": torch.tensor(7)}
    return {"weights": save(tensors), "with metadata": save(tensors, {"seed": "0"}), "empty": save({})}
