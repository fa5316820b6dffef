"""Damaged files of every format are read as images or weights, or refused in one sentence."""

import pytest
import readers
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.fuzz

IMAGES, WEIGHTS = readers.images(), readers.weights_files()


@st.composite
def damaged(draw, files):
    """A valid file with bits flipped, bytes overwritten, cut out, doubled or put in, or its end missing."""
    data = bytearray(draw(st.sampled_from(list(files.values()))))
    place = st.integers(0, 200) | st.integers(0, len(data))  # headers have the most to break
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(place), draw(st.integers(1, 8))
        change = draw(st.sampled_from(["flip", "overwrite", "cut", "double", "insert", "end"]))
        part = data[start : start + length]
        if change == "flip":
            part = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in part[:1]) + part[1:]
        elif change == "overwrite":
            extreme = draw(st.sampled_from([b"\x00", b"\xff", b"\x7f", b"\x80"])) * len(part)
            part = draw(st.just(extreme) | st.binary(min_size=len(part), max_size=len(part)))
        elif change == "cut":
            part = b""
        elif change == "double":
            part = part * 2
        elif change == "insert":
            part = draw(st.binary(max_size=8)) + part
        elif change == "end":
            data = data[:start]
        data[start : start + length] = part
    return bytes(data)


@pytest.mark.parametrize("name", IMAGES)
def test_a_valid_image_is_read(name):
    assert readers.image(IMAGES[name])


@pytest.mark.parametrize("name", WEIGHTS)
def test_valid_weights_are_read(name):
    assert readers.weights(WEIGHTS[name])


@given(damaged(IMAGES) | st.binary())
def test_any_bytes_are_an_image_or_refused(data):
    readers.image(data)


@given(damaged(WEIGHTS) | st.binary())
def test_arbitrary_bytes_are_weights_or_refused(data):
    readers.weights(data)
