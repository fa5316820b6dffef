"""Figures of effects: colours by sign, cells as cells, ledgers that add up."""

import numpy as np
import pytest
import torch
from PIL import Image

import gmcam
from gmcam.lab.effect_pictures import SIGNED, effect_ledger, pale, signed_cells

RESNET, SCENE = gmcam.load("collage-resnet"), gmcam.lab.scene("cat", "cup", seed=17)


def test_orange_is_for_blue_is_against_and_white_is_nothing():
    against, nothing, positive = (np.array(SIGNED(value)[:3]) for value in (0.2, 0.5, 0.8))
    assert nothing == pytest.approx([1, 1, 1], abs=0.01)
    assert against[2] > against[0] and positive[0] > positive[2]


def test_a_map_multiplies_the_pale_image_cell_by_cell_on_a_scale_symmetric_about_zero():
    cells = torch.zeros(2, 2)
    cells[0, 0], cells[1, 1] = 4, -2
    figure = signed_cells(SCENE, [("map", SCENE.image, cells)], "cat")
    drawn, image = figure.axes[0].images[0].get_array(), pale(SCENE.image)
    tints = {(0, 0): 1.0, (0, 1): 0.5, (1, 1): 0.25}  # of the scale from −4 to 4
    for (row, column), share in tints.items():
        part = np.s_[128 * row : 128 * row + 128, 128 * column : 128 * column + 128]
        assert np.allclose(drawn[part], image[part] * np.array(SIGNED(share)[:3]), atol=0.01)
    assert figure.axes[1].get_xlim() == (-4, 4)  # the colour bar


def test_objects_are_outlined_and_named_in_every_panel():
    blank = torch.ones(1, 1)
    panels = [("one", SCENE.image, blank), ("two", SCENE.without("cup").image, blank)]
    figure = signed_cells(SCENE, panels, "cup", columns=2)
    for ax, (title, _, _) in zip(figure.axes, panels, strict=False):
        assert ax.get_title() == title
        assert [text.get_text() for text in ax.texts] == ["cat", "cup"]
        dashes = [outline.get_linestyle()[0][1] for outline in ax.collections]
        assert dashes[0] is not None and dashes[1] is None  # the target's is solid


def test_a_map_that_is_zero_leaves_the_pale_image():
    figure = signed_cells(SCENE, [("", SCENE.image, torch.zeros(4, 4))], "cat")
    assert np.allclose(figure.axes[0].images[0].get_array(), pale(SCENE.image), atol=0.01)
    assert pale(Image.new("L", (1, 1), 0)).item() == pytest.approx(0.19 * 1.42)


@pytest.mark.parametrize("columns", [0, 1])
def test_no_panel_or_no_column_is_refused(columns):
    panels = [("", SCENE.image, torch.ones(1, 1))] * (1 - columns)
    with pytest.raises(ValueError, match="expected a panel and a column"):
        signed_cells(SCENE, panels, "cat", columns)


def number(text):
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_a_ledger_shows_four_logits_and_adds_up_to_the_removal_effect():
    figure = effect_ledger(RESNET, SCENE, "cat")
    images, ledgers = figure.axes[:4], figure.axes[4:]
    logits = dict(ax.get_title().split(": ") for ax in images)
    assert list(logits) == ["both", "no cup", "no cat", "neither"]
    for ax, label in zip(ledgers, ("cat", "cup"), strict=True):
        rest = SCENE.without(label)
        alone, empty = SCENE.without(rest.labels[0]).image, rest.without(0).image
        pair = (SCENE.image, rest.image)
        effects = gmcam.metrics.effects(RESNET, *pair, "cat", alone=alone, empty=empty)
        expected = [effects.addition.item(), effects.interaction.item(), effects.removal.item()]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(expected, abs=1e-4)
        assert [number(text.get_text()) for text in ax.texts[1::2]] == pytest.approx(expected, abs=0.006)
        assert number(logits["both"]) - number(logits[f"no {label}"]) == pytest.approx(expected[2], abs=0.011)


def test_a_ledger_of_three_objects_is_refused():
    with pytest.raises(ValueError, match="expected a scene of two objects, got 3"):
        effect_ledger(RESNET, gmcam.lab.scene("cat", "cup", "coin"), "cat")
