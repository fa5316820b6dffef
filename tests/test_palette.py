"""Colours: read from the style sheet that pages use, and the same in every figure."""

import re

import numpy as np
import pytest
from PIL import Image

from gmcam.palette import STYLE_SHEET, colours, pale, tint

ROLES = ("for", "against", "page", "ink", "soft", "line", "panel", "link")


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_have_contrast(scheme):
    found = colours(scheme)
    assert set(ROLES) <= set(found) and all(len(found[role]) == 1 for role in ROLES)
    page = luminance(found["page"][0])
    for role in ("for", "against", "ink", "soft", "link"):
        light, dark = sorted([luminance(found[role][0]), page], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, role


def test_dark_pages_and_print_declare_every_colour():
    blocks = re.findall(r"\{\s*((?:--gm|/\*)[^{}]*)\}", STYLE_SHEET.read_text())
    names = [set(re.findall(r"--gm-([\w-]+):", block)) for block in blocks]
    assert len(blocks) == 3 and names[1] == names[2] == set(ROLES)
    printed = dict(re.findall(r"--gm-([\w-]+): (#\w+);", blocks[2]))
    assert printed == {role: colours()[role][0] for role in ROLES}


def test_another_scheme_is_refused():
    with pytest.raises(ValueError, match="expected scheme to be 'light' or 'dark', got 'sepia': choose"):
        colours("sepia")


def test_a_tint_is_white_at_zero_and_the_ramps_colour_at_each_stop():
    for name, sign in (("for", 1), ("against", -1)):
        stops = [tuple(bytes.fromhex(stop[1:])) for stop in colours()[f"ramp-{name}"]]
        tinted = tint(sign * np.linspace(0, 1, len(stops))[None])
        assert [tuple(colour) for colour in tinted[0].tolist()] == stops
        assert stops[0] == (255, 255, 255)
    assert tint(np.array([[2.0]])).tolist() == tint(np.array([[1.0]])).tolist()
    between = tint(np.array([[0.125]]))[0, 0]
    assert between.tolist() == [255, 239, 220]  # half way from white to #FFDEB8


@pytest.mark.parametrize("ramp", ["for", "against", "activity"])
def test_a_larger_share_is_darker(ramp):
    tints = tint(np.linspace(0, 1, 65)[None], ramp)[0].tolist()
    assert (np.diff([luminance("#" + bytes(tinted).hex()) for tinted in tints]) < 0).all()


def test_a_pale_image_is_lighter_and_flatter():
    grey = Image.fromarray(np.array([[0, 128, 255]], np.uint8))
    dark, middle, light = pale(grey)[0, :, 0]
    assert dark == pytest.approx(0.19 * 1.42) and light == 1
    assert middle == pytest.approx((0.5 + 0.62 * (128 / 255 - 0.5)) * 1.42)
