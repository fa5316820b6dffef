import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmcam import open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(source):
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def noise(height=24, width=32, channels=3):
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values.squeeze(-1) if channels == 1 else values


def png_that_claims(width, height):
    """A small file whose header promises ``width`` × ``height`` grey pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def complaint(source):
    """The one sentence with which ``open_image`` rejects a source."""
    with pytest.raises(ValueError) as caught:
        open_image(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("source", [str, Path, Path.read_bytes], ids=["str", "path", "bytes"])
def test_a_file_is_read_by_its_path_or_its_bytes(source, tmp_path):
    path = saved(Image.fromarray(noise()), tmp_path / "noise.png")
    assert np.array_equal(pixels(source(path)), noise())


@pytest.mark.parametrize("name", ["turned.png", "turned.jpg", "turned.webp"])
def test_exif_rotation_is_applied(name, tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left side is the top
    upright = pixels(saved(Image.fromarray(stored), tmp_path / name, exif=exif))
    assert upright.shape == (32, 16, 3)
    assert np.allclose(upright[:14], RED, atol=12)
    assert np.allclose(upright[18:], 0, atol=12)


def test_exif_rotation_of_a_pil_image_is_applied_to_a_copy():
    image = Image.fromarray(noise())
    image.getexif()[0x0112] = 3  # upside down
    assert np.array_equal(pixels(image), noise()[::-1, ::-1])
    assert np.array_equal(np.asarray(image), noise())


def test_greyscale_becomes_three_equal_bands():
    grey = noise(channels=1)
    assert np.array_equal(pixels(Image.fromarray(grey)), np.stack([grey] * 3, 2))


def test_one_bit_images_become_black_and_white():
    bits = np.array([[True, False], [False, True]])
    assert np.array_equal(pixels(Image.fromarray(bits))[..., 0], bits * 255)


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = pixels(saved(palette, tmp_path / "palette.png"))
    assert colours.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_a_transparent_palette_entry_becomes_white(name, tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    colours = pixels(saved(palette, tmp_path / name, transparency=0))
    assert colours.tolist() == [[list(WHITE), [0, 255, 0]]]


@pytest.mark.parametrize("alpha", [0, 64, 128, 255])
def test_transparency_is_composited_onto_white(alpha):
    # on white, a channel of value v with opacity a becomes v·a + 255·(1 − a)
    expected = [round((v * alpha + 255 * (255 - alpha)) / 255) for v in (200, 0, 60)]
    assert pixels(Image.new("RGBA", (1, 1), (200, 0, 60, alpha))).tolist() == [[expected]]


def test_grey_transparency_is_composited_onto_white():
    assert pixels(Image.new("LA", (1, 1), (0, 128))).tolist() == [[[127, 127, 127]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 257, 32768, 65407], [0, 1, 128, 255]), ([0, 100, 200, 255], [0, 0, 1, 1])],
    ids=["full range", "dark"],
)
@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_of_grey_are_scaled_to_eight(name, values, expected, tmp_path):
    deep = Image.fromarray(np.array([values], np.uint16))
    assert pixels(saved(deep, tmp_path / name))[0, :, 0].tolist() == expected


def test_cmyk_is_converted(tmp_path):
    path = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "press.jpg")
    assert np.allclose(pixels(path), RED, atol=3)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    path = saved(frames[0], tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert pixels(path)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[[1, 2, 3]]], np.uint8), [1, 2, 3]),
        (np.array([[[0.0, 0.5, 1.0]]]), [0, 128, 255]),
        (np.array([[[0.2, 0.2, 0.2]]], np.float16), [51, 51, 51]),
        (np.array([[0.6]], np.float32), [153, 153, 153]),
        (np.array([[7]], np.uint8), [7, 7, 7]),
        (np.array([[[9, 9, 9, 0]]], np.uint8), [255, 255, 255]),
        (np.array([[[0.0, 0.0, 1.0, 0.2]]]), [204, 204, 255]),
    ],
    ids=["uint8", "float64", "float16", "grey float", "grey uint8", "RGBA", "float RGBA"],
)
def test_arrays_are_images(array, expected):
    assert pixels(array).tolist() == [[expected]]


def test_the_result_is_a_copy():
    image = Image.new("RGB", (2, 2))
    open_image(image).putpixel((0, 0), RED)
    assert image.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "No such file"),
        ("no/such/folder.png", "No such file"),
        ("a" * 400 + ".png", "name too long"),
        ("a\0b", "null byte"),
    ],
    ids=["file", "folder", "long name", "null byte"],
)
def test_a_missing_file_is_named(name, reason, tmp_path):
    sentence = complaint(tmp_path / name)
    assert sentence.startswith(f"expected a complete image, got {tmp_path / name} (")
    assert reason in sentence and "check it or save it again" in sentence


def test_a_folder_is_not_an_image(tmp_path):
    assert f"got {tmp_path} (Is a directory)" in complaint(tmp_path)


def test_another_type_is_refused_by_its_name():
    assert complaint(3) == "expected a path, bytes, image or array, got int: convert it"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "expected an image file, got FILE: convert it to PNG or JPEG"),
        ("text.png", b"not an image", "expected an image file, got FILE: convert it to PNG or JPEG"),
        (
            "bomb.png",
            png_that_claims(30_000, 30_000),
            "at most 120 megapixels, got more in FILE: scale it down",
        ),
        (
            "large.png",
            png_that_claims(12_000, 11_000),
            "at most 120 megapixels, got more in FILE: scale it down",
        ),
        ("hollow.png", png_that_claims(20, 20), "expected a complete image, got FILE ("),
        ("size.ppm", b"P6\n4\xb7 4\n255\n" + bytes(48), "expected a complete image, got FILE ("),
    ],
    ids=["zero bytes", "text", "bomb for Pillow", "over the limit", "no pixels", "broken header"],
)
def test_an_unusable_file_is_refused_with_the_remedy(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    sentence = complaint(path)
    assert message.replace("FILE", str(path)) in sentence
    assert complaint(content) == sentence.replace(str(path), f"{len(content)} bytes")


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind, share, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(120, 160)).save(buffer, format=kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
    assert str(path) in complaint(path)


def test_a_format_that_pillow_supports_only_in_part_is_refused(tmp_path):
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "texture.dds")
    content = bytearray(path.read_bytes())
    content[80:84] = bytes(4)  # the flags of a pixel format that does not exist
    path.write_bytes(content)
    assert str(path) in complaint(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.uint8), "expected (H, W), (H, W, 3) or (H, W, 4), got (4,): move the channels last"),
        (np.zeros((2, 2, 2), np.uint8), "got (2, 2, 2)"),
        (np.zeros((3, 8, 8), np.uint8), "got (3, 8, 8)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "got (1, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "got (0, 8, 3)"),
        (np.full((2, 2), 300, np.int64), "expected uint8 or floats in [0, 1], got int64 from 300 to 300"),
        (np.full((2, 2), 1.5), "got float64 from 1.5 to 1.5"),
        (np.full((2, 2), -0.5), "got float64 from -0.5 to -0.5"),
        (np.array([[0.5, np.nan]]), "got float64 from nan to nan"),
        (np.array([[0.5, np.inf]]), "got float64 from 0.5 to inf"),
        (np.array([["a", "b"]]), "expected uint8 or floats in [0, 1], got <U1"),
    ],
)
def test_an_array_that_is_not_an_image_is_refused(array, message):
    assert message in complaint(array)


@pytest.mark.parametrize("opened", [True, False])
def test_a_file_of_floating_point_numbers_is_read_like_an_array_of_them(tmp_path, opened):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    path = saved(Image.fromarray(values), tmp_path / "float.tiff")
    assert np.array_equal(pixels(Image.open(path) if opened else path), pixels(values))
    path = saved(Image.fromarray(values * 1000), tmp_path / "large.tiff")
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got float32 from 0.0 to 1000.0"):
        open_image(Image.open(path) if opened else path)
