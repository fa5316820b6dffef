"""The small figures of the first page: what is drawn where, and words for those who cannot see it."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from gmcam.lab.landing import rows, tile
from gmcam.palette import tint

CELLS = torch.tensor([[0.0, 1.0], [2.0, -4.0]])


def images(svg):
    """The images of a tile, from back to front."""
    addresses = re.findall(r'href="data:image/\w+;base64,([^"]+)"', svg)
    return [Image.open(io.BytesIO(base64.b64decode(address))) for address in addresses]


def test_a_tile_has_a_pixel_a_cell_in_the_palettes_colours():
    (cells,) = images(tile(CELLS, "words"))
    assert np.array_equal(np.asarray(cells), tint(CELLS.numpy() / 4))
    (cells,) = images(tile(CELLS.clamp(min=0), "words", above="activity", reach=8.0))
    assert np.array_equal(np.asarray(cells), tint(CELLS.clamp(min=0).numpy() / 8, "activity"))


def test_a_map_of_zeros_is_white():
    (cells,) = images(tile(torch.zeros(2, 2), "words"))
    assert np.asarray(cells).min() == 255


def test_a_tile_lies_on_the_pale_image_and_outlines_objects():
    mask = np.zeros((64, 64), bool)
    mask[10:30, 20:40] = True
    svg = tile(CELLS, 'a "word" & <more>', Image.new("RGB", (64, 64), "black"), masks=[mask, ~mask])
    photo, _ = images(svg)
    assert photo.size == (288, 288)
    assert np.asarray(photo.convert("L")).mean() == pytest.approx(255 * 1.42 * 0.19, abs=2)
    root = ElementTree.fromstring(svg)  # well-formed, too
    assert root.attrib["aria-label"] == 'a "word" & <more>'
    dashes = [path.attrib.get("stroke-dasharray") for path in root.iter("path")]
    assert dashes == [None, "4 3"]


def test_rows_end_at_the_largest_end_or_cluster_and_write_their_value():
    shares = {"first": (0.2, 0.1, 0.3, ()), "*second & last": (0.3, 0.25, 0.35, (0.1, 0.4))}
    root = ElementTree.fromstring(rows(shares, "words"))
    assert root.attrib["aria-label"] == "words"
    written = [part.text for part in root if part.text]
    assert written == ["first", "20\xa0%", "second & last", "30\xa0%"]
    places = [
        tuple(part.attrib["style"] for part in track) for track in root.findall("*[@class='gmcam-track']")
    ]
    assert places == [
        ("left:25.0%;right:25.0%", "left:50.0%"),
        ("left:62.5%;right:12.5%", "left:25.0%", "left:100.0%", "left:75.0%"),
    ]
    bold = [part.text for part in root if part.attrib.get("class") == "gmcam-bold"]
    assert bold == ["second & last", "30\xa0%"]
