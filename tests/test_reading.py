import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gmcam import open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(source):
    picture = open_image(source)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def saved(picture, path, **options):
    picture.save(path, **options)
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
    """The one sentence with which ``open_image`` refuses a source."""
    with pytest.raises(ValueError) as caught:
        open_image(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("as_given", [str, lambda path: path], ids=["str", "path"])
def test_a_file_is_read_by_its_path(as_given, tmp_path):
    path = saved(Image.fromarray(noise()), tmp_path / "noise.png")
    assert np.array_equal(pixels(as_given(path)), noise())


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


def test_exif_rotation_of_a_pil_picture_is_applied_to_a_copy():
    given = Image.fromarray(noise())
    given.getexif()[0x0112] = 3  # upside down
    assert np.array_equal(pixels(given), noise()[::-1, ::-1])
    assert np.array_equal(np.asarray(given), noise())


def test_greyscale_becomes_three_equal_bands():
    grey = noise(channels=1)
    assert np.array_equal(pixels(Image.fromarray(grey)), np.stack([grey] * 3, 2))


def test_one_bit_pictures_become_black_and_white():
    bits = np.array([[True, False], [False, True]])
    assert np.array_equal(pixels(Image.fromarray(bits))[..., 0], bits * 255)


def test_a_palette_is_looked_up(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    found = pixels(saved(palette, tmp_path / "palette.png"))
    assert found.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_a_transparent_palette_entry_shows_white(name, tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    found = pixels(saved(palette, tmp_path / name, transparency=0))
    assert found.tolist() == [[list(WHITE), [0, 255, 0]]]


@pytest.mark.parametrize("alpha", [0, 64, 128, 255])
def test_transparency_is_laid_over_white(alpha):
    # over white, a band of value v with alpha a shows v·a + 255·(1 − a)
    expected = [round((v * alpha + 255 * (255 - alpha)) / 255) for v in (200, 0, 60)]
    assert pixels(Image.new("RGBA", (1, 1), (200, 0, 60, alpha))).tolist() == [[expected]]


def test_grey_transparency_is_laid_over_white():
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


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
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
def test_arrays_are_pictures(array, expected):
    assert pixels(array).tolist() == [[expected]]


def test_the_result_is_the_callers_own():
    given = Image.new("RGB", (2, 2))
    open_image(given).putpixel((0, 0), RED)
    assert given.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("name", ["missing.png", "no/such/folder.png", "a" * 400 + ".png"])
def test_a_missing_file_is_named(name, tmp_path):
    assert complaint(tmp_path / name) == f"there is no file {tmp_path / name}"


def test_a_folder_is_no_picture(tmp_path):
    assert complaint(tmp_path) == f"{tmp_path} is a folder; name a picture file in it"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "is empty (zero bytes)"),
        ("text.png", b"not a picture", "is not a picture that Pillow can read; try PNG or JPEG"),
        ("bomb.png", png_that_claims(30_000, 30_000), "more than 120 megapixels; scale it down first"),
        ("large.png", png_that_claims(12_000, 11_000), "more than 120 megapixels; scale it down first"),
        ("hollow.png", png_that_claims(20, 20), "cannot be read to its end"),
        ("size.ppm", b"P6\n4\xb7 4\n255\n" + bytes(48), "cannot be read"),
    ],
    ids=["zero bytes", "text", "bomb for Pillow", "over our limit", "no pixels", "broken header"],
)
def test_a_file_that_cannot_be_used_is_named_with_what_would_be_right(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    sentence = complaint(path)
    assert sentence.startswith(str(path))
    assert message in sentence
    assert complaint(content) == sentence.replace(str(path), "the file")


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_cut_short_is_refused(kind, share, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(120, 160)).save(buffer, format=kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
    assert str(path) in complaint(path)


def test_a_format_that_pillow_knows_only_in_part_is_refused(tmp_path):
    path = saved(Image.new("RGB", (4, 4)), tmp_path / "texture.dds")
    content = bytearray(path.read_bytes())
    content[80:84] = bytes(4)  # the flags of a pixel format that does not exist
    path.write_bytes(content)
    assert str(path) in complaint(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.uint8), "is (H, W), (H, W, 3) or (H, W, 4), not (4,)"),
        (np.zeros((2, 2, 2), np.uint8), "not (2, 2, 2)"),
        (np.zeros((3, 8, 8), np.uint8), "not (3, 8, 8)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "not (1, 8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "has at least one pixel; this one is (0, 8, 3)"),
        (np.full((2, 2), 300, np.int64), "is uint8, or float in [0, 1]; this one is int64 from 300 to 300"),
        (np.full((2, 2), 1.5), "this one is float64 from 1.5 to 1.5"),
        (np.full((2, 2), -0.5), "this one is float64 from -0.5 to -0.5"),
        (np.array([[0.5, np.nan]]), "this one is float64 from nan to nan"),
        (np.array([[0.5, np.inf]]), "this one is float64 from 0.5 to inf"),
        (np.array([["a", "b"]]), "is uint8, or float in [0, 1]"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array, message):
    assert message in complaint(array)


@pytest.mark.parametrize("opened", [True, False])
def test_a_file_of_floating_point_numbers_is_read_like_an_array_of_them(tmp_path, opened):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    path = saved(Image.fromarray(values), tmp_path / "float.tiff")
    assert np.array_equal(pixels(Image.open(path) if opened else path), pixels(values))
    path = saved(Image.fromarray(values * 1000), tmp_path / "large.tiff")
    with pytest.raises(ValueError, match=r"float in \[0, 1\]; this one is float32 from 0.0 to 1000.0"):
        open_image(Image.open(path) if opened else path)
