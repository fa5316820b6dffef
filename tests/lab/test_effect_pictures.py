"""Figures of effects: colours by sign, cells as cells, ledgers that add up."""

import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

import gmcam
from gmcam.lab.effect_pictures import effect_ledger, signed_cells
from gmcam.palette import colours
from gmcam.show import overlay

RESNET, SCENE = gmcam.load("collage-resnet"), gmcam.lab.scene("cat", "cup", seed=17)


def test_all_maps_are_on_one_scale_that_is_symmetric_about_zero():
    first, second = torch.tensor([[4.0, 0.0], [1.0, -2.0]]), torch.tensor([[-1.0]])
    figure = signed_cells(SCENE, [("one", SCENE.image, first), ("two", SCENE.image, second)], "cat")
    for ax, cells in zip(figure.axes, (first, second), strict=True):
        assert np.array_equal(ax.images[0].get_array(), overlay(SCENE.image, cells / 4))
    assert "±4 logits in a cell" in figure.get_supxlabel()


def test_on_a_phone_two_maps_are_side_by_side():
    figure = signed_cells(SCENE, [("", SCENE.image, torch.ones(1, 1))] * 4, "cat")
    spec = figure.stacked().axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == (2, 2)


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
    assert np.array_equal(figure.axes[0].images[0].get_array(), overlay(SCENE.image, np.zeros((1, 1))))


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
        for bar in ax.patches:
            assert same_color(bar.get_facecolor(), colours()["for" if bar.get_width() > 0 else "against"][0])
        assert [number(text.get_text()) for text in ax.texts[1::2]] == pytest.approx(expected, abs=0.006)
        assert number(logits["both"]) - number(logits[f"no {label}"]) == pytest.approx(expected[2], abs=0.011)


def test_a_ledger_of_three_objects_is_refused():
    with pytest.raises(ValueError, match="expected a scene of two objects, got 3"):
        effect_ledger(RESNET, gmcam.lab.scene("cat", "cup", "coin"), "cat")
