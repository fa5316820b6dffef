"""Frozen explorers, read as a page's front end reads them: from the saved state of the widgets alone."""

import base64
import io
import itertools
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from ipywidgets.embed import dependency_state
from PIL import Image, ImageChops

import gmcam
from gmcam.lab import coloured, freeze, frozen_explorer, greyed
from gmcam.show import InlineFigure, by_cell, grid, overlay

GREYS = {"dark": 0, "middle": 128, "light": 255}
CHOICES = {"grey": GREYS, "word": ["one", "two"]}


def draw(grey, word):
    return np.full((8, 8, 3), grey, np.uint8), f"<{word}> & {grey}"


class Page:
    """The widgets' state without a kernel, and the links that the front end follows."""

    def __init__(self, widget):
        self.models = dependency_state([widget], drop_defaults=False)
        self.root = widget.model_id
        links = [m["state"] for m in self.models.values() if m["model_name"] == "DirectionalLinkModel"]
        self.links = [[self.end(link["source"]), self.end(link["target"])] for link in links]
        self.controls = {self.models[source]["state"]["description"]: source for (source, _), _ in self.links}

    def end(self, pair):
        name, trait = pair
        return name.removeprefix("IPY_MODEL_"), trait

    def labels(self, control):
        return self.models[self.controls[control]]["state"]["_options_labels"]

    def choose(self, control, label):
        chosen = self.controls[control]
        self.models[chosen]["state"]["index"] = self.labels(control).index(label)
        for (source, trait), (target, other) in self.links:
            if source == chosen:
                assert trait == "index"  # a value would wait for the kernel
                self.models[target]["state"][other] = self.models[source]["state"][trait]

    def visible(self, name=None):
        """Every HTML that is shown, with the classes of the boxes around it."""
        model = self.models[name or self.root]
        kind, state = model["model_name"], model["state"]
        classes = state.get("_dom_classes", ())
        if "children" not in state:
            return [(state["value"], set(classes))] if kind == "HTMLModel" else []
        children = [child.removeprefix("IPY_MODEL_") for child in state["children"]]
        if kind == "StackModel":
            children = children[state["selected_index"] :][:1]
        return [(html, around | set(classes)) for child in children for html, around in self.visible(child)]

    def figure(self):
        """Image, alternative text, caption and classes of the only figure shown."""
        ((html, classes),) = [part for part in self.visible() if "<figure>" in part[0]]
        alt, source, caption = re.search(
            r'alt="([^"]*)" src="([^"]*)"><figcaption>(.*)</figcaption>', html
        ).groups()
        return decoded(source), unescape(alt), unescape(caption), classes


def decoded(source):
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))


def test_every_combination_shows_its_image_and_caption():
    page = Page(freeze(draw, CHOICES))
    for (label, grey), word in itertools.product(GREYS.items(), CHOICES["word"]):
        page.choose("grey", label)
        page.choose("word", word)
        image, alt, caption, _ = page.figure()
        assert alt == caption == f"<{word}> & {grey}"
        assert abs(np.asarray(image.convert("RGB")).astype(int) - grey).max() <= 2


def test_every_image_is_drawn_once():
    drawn = []
    freeze(lambda **chosen: drawn.append(tuple(chosen.values())) or draw(**chosen), CHOICES)
    assert sorted(drawn) == sorted(itertools.product(GREYS.values(), CHOICES["word"]))


def test_it_starts_at_the_labels_given_or_else_at_the_first():
    assert Page(freeze(draw, CHOICES)).figure()[1] == "<one> & 0"
    assert Page(freeze(draw, CHOICES, start={"grey": "light"})).figure()[1] == "<one> & 255"


def test_choices_with_an_order_get_a_slider_a_few_others_buttons_and_more_a_list():
    many = {"one": list("abcd"), "two": list("abcde")}
    page = Page(freeze(lambda **_: (np.zeros((4, 4)), "blank"), CHOICES | many, sliders=["grey"]))
    kinds = {name: page.models[model]["model_name"] for name, model in page.controls.items()}
    assert kinds == {"grey": "SelectionSliderModel", "word": "RadioButtonsModel"} | {
        "one": "RadioButtonsModel",
        "two": "DropdownModel",
    }


def test_figures_can_be_frozen():
    page = Page(freeze(lambda a: (grid([np.zeros((4, 4))], [a]), "a map"), {"a": ["x"]}))
    assert page.figure()[0].width > 100


@pytest.mark.parametrize(("width", "stacked"), [(480, True), (700, False)])
def test_a_narrow_frame_gets_the_figure_that_phones_get(width, stacked):
    image = np.zeros((4, 4, 3), np.uint8)
    page = Page(freeze(lambda a: (grid([image] * 4), "four"), {"a": ["x"]}, width=width))
    drawn = page.figure()[0]
    assert (drawn.height > 0.8 * drawn.width) == stacked  # two rows of two


def test_a_figure_that_is_returned_again_shows_what_it_holds_then():
    same = InlineFigure(figsize=(2, 2))
    same.subplots().imshow(np.ones((4, 4)))
    page = Page(freeze(lambda a: (same, a), {"a": ["x", "y"]}))
    first = np.asarray(page.figure()[0])
    page.choose("a", "y")
    assert page.figure()[1] == "y" and np.array_equal(np.asarray(page.figure()[0]), first)
    assert np.ptp(first) > 100  # not an empty sheet

    def again(a):
        same.clear()
        same.subplots().set_title(a * 9)
        return same, a

    page = Page(freeze(again, {"a": ["x", "W"]}))
    first = np.asarray(page.figure()[0])
    page.choose("a", "W")
    assert not np.array_equal(np.asarray(page.figure()[0]), first)


SHADE = np.full((4, 4, 3), 255, np.uint8)
SHADE[:, 2:] = (200, 100, 0)


def test_cells_over_a_background_are_stored_exactly_and_multiplied_in_its_proportions():
    page = Page(freeze(lambda a: (SHADE, a), {"a": ["x"]}, background=np.zeros((20, 40)), width=40))
    image, _, _, classes = page.figure()
    assert np.array_equal(np.asarray(image.convert("RGB")), SHADE)
    assert {"gmcam-over", "gmcam-frozen", "gmcam-40-by-20"} <= classes
    (rules,) = [html for html, _ in page.visible() if "<style>" in html]
    assert ".gmcam-over {position: relative; mix-blend-mode: multiply}" in rules
    assert ".gmcam-40-by-20 img {aspect-ratio: 40 / 20}" in rules


def test_images_are_turned_upright_and_floats_read_as_arrays_are():
    turned = Image.fromarray(np.array([[0, 255], [0, 255], [0, 255]], np.uint8))
    turned.getexif()[0x0112] = 6  # a quarter to the right
    bright = Image.fromarray(np.full((2, 2), 1.0, np.float32))
    page = Page(freeze(lambda a: ({"x": turned, "y": bright}[a], a), {"a": ["x", "y"]}))
    upright = np.asarray(page.figure()[0].convert("L")).astype(int)
    assert upright.shape == (2, 3) and upright[0].max() < 30 and upright[1].min() > 225
    page.choose("a", "y")
    assert np.asarray(page.figure()[0]).min() > 250


def test_markup_in_labels_and_captions_stays_text():
    widget = freeze(lambda a: (np.zeros((4, 4, 3), np.uint8), f'{a}" onload="x'), {"a": ["<script>"]})
    html = next(text for text, _ in Page(widget).visible() if "<figure>" in text)
    assert "<script>" not in html and '" onload' not in html


@pytest.mark.parametrize(
    ("choices", "more", "message"),
    [
        ({}, {}, "at least one control"),
        ({"a": []}, {}, "at least one choice"),
        (CHOICES, {"sliders": ["gray"]}, "one of the controls grey, word, got 'gray'"),
        (CHOICES, {"start": {"gray": "dark"}}, "got 'gray'"),
        (CHOICES, {"start": {"grey": "black"}}, "start at one of dark, middle, light, got 'black'"),
        ({"a": [1, 2]}, {"start": {"a": 9}}, "one of 1, 2, got 9"),
    ],
)
def test_controls_that_do_not_fit_are_refused(choices, more, message):
    with pytest.raises(ValueError, match=message):
        freeze(draw, choices, **more)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), None], ids=["array", "figure"])
def test_before_ipywidgets_8_the_first_image_is_shown_with_a_note(image, monkeypatch):
    monkeypatch.delattr("ipywidgets.Stack")
    image = grid([np.zeros((4, 4))]) if image is None else image
    shown = freeze(lambda a, b: (image, f"{a}, {b}"), {"a": ["x", "y"], "b": {"z": 1}}, start={"a": "y"})
    first, advice = (part.value for part in shown.children)
    assert 'alt="y, 1"' in first and "ipywidgets 8" in advice


def test_before_ipywidgets_8_the_background_is_multiplied(monkeypatch):
    monkeypatch.delattr("ipywidgets.Stack")
    grey = np.full((4, 4, 3), 128, np.uint8)
    shown = freeze(lambda a: (SHADE, a), {"a": ["x"]}, background=grey, width=40)
    image = decoded(re.search(r'src="([^"]*)"', shown.children[0].value)[1]).convert("RGB")
    assert image.size == (40, 40)
    assert np.abs(np.asarray(image)[:, 2].astype(int) - 128).max() <= 3
    assert np.abs(np.asarray(image)[:, -3].astype(int) - (100, 50, 0)).max() <= 3


@pytest.fixture(scope="module")
def network():
    return gmcam.load("collage-vgg")


@pytest.fixture(scope="module")
def scene():
    return gmcam.lab.scene("cat", "cup", seed=3)


def test_a_frozen_explorer_shows_what_explain_computes(network, scene):
    methods, layers = ["grad_cam", "gmcam"], ["32x32", "16x16"]
    page = Page(frozen_explorer(network, scene.image, ["cat", "cup"], methods, layers, width=256))
    ((html, _),) = [part for part in page.visible() if "<figure>" not in part[0] and "<img" in part[0]]
    grey = decoded(re.search(r'src="([^"]*)"', html)[1]).convert("RGB")
    view = network.view(scene.image)
    assert abs(np.asarray(grey).astype(int) - np.asarray(greyed(view))).mean() < 3
    for name, method, layer in itertools.product(["cat", "cup"], methods, layers):
        page.choose("class", name)
        page.choose("layer", layer)
        page.choose("method", gmcam.METHODS[method].title)
        image, alt, _, _ = page.figure()
        result = gmcam.explain(network, scene.image, name, method=method, layer=layer)
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(coloured(by_cell(result))))
        laid = ImageChops.multiply(grey, image.convert("RGB").resize(grey.size, Image.Resampling.NEAREST))
        assert abs(np.asarray(laid).astype(int) - overlay(view, by_cell(result))).mean() < 3
        assert f"for {name}, logit {result.score[0]:.2f}, at {layer} cells" in alt


@pytest.mark.parametrize("nothing", ["target", "method", "layer"])
def test_a_frozen_explorer_of_nothing_is_refused(nothing, network, scene):
    arguments = {"target": ["cat"], "method": ["gmcam"], "layer": ["16x16"]} | {nothing: []}
    with pytest.raises(ValueError, match="at least one class, method and layer"):
        frozen_explorer(network, scene.image, **arguments)


def test_a_layer_may_be_a_path_or_a_module_and_a_method_spelt_otherwise(network, scene):
    path = network.layer_path("32x32")
    for layer in (path, network.module.get_submodule(path)):
        page = Page(frozen_explorer(network, scene.image, ["cat"], ["GradCAM"], [layer]))
        assert "at 32x32 cells" in page.figure()[1]
        assert page.labels("layer") == (path,) and page.labels("method") == ("Grad-CAM",)


def test_ninety_maps_fit_a_page(network, scene):
    widget = frozen_explorer(network, scene.image, ["cat", "cup", "flower", "coin"])
    state = dependency_state([widget])
    leaves = [m for m in state.values() if "<figure>" in str(m["state"].get("value", ""))]
    assert len(leaves) >= 90
    assert sum(len(str(model)) for model in state.values()) < 500_000


@pytest.mark.parametrize(
    ("size", "cell", "expected"),
    [
        ((9, 9), (0, 0), "strongest at the top left"),
        ((9, 9), (4, 4), "strongest in the middle"),
        ((9, 9), (8, 4), "strongest at the bottom."),
        ((9, 9), (4, 8), "strongest at the right"),
        ((1, 1), (0, 0), "strongest in the middle"),
        ((1, 4), (0, 3), "strongest at the right"),
        ((2, 2), (1, 1), "strongest at the bottom right"),
        ((7, 7), (1, 3), "strongest at the top."),
        ((7, 7), (2, 4), "strongest in the middle"),  # as far from the middle as its mirror, row 4
    ],
)
def test_the_caption_names_the_strongest_place(size, cell, expected, network, scene, monkeypatch):
    result = gmcam.explain(network, scene.image, "cat")
    raw = torch.zeros(1, *size)
    raw[0][cell] = 1
    monkeypatch.setattr("gmcam.lab.frozen.compare", lambda *_, **__: [replace(result, raw=raw)])
    assert expected in Page(frozen_explorer(network, scene.image, ["cat"], ["gmcam"], ["16x16"])).figure()[1]
