"""The live equation figure as Python writes it: arrays, ledger, the still, sizes, and refusals."""

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from torch import nn

import gmcam
from gmcam import equations
from gmcam.lab import equation_figure
from gmcam.lab.equation_data import field_of_view, is_affine, outline, pack, unpack
from gmcam.lab.equation_figure import FORMS, SHORT, EquationFigure

CLASSES = {"Egyptian cat": "cat", "espresso": "cup"}
SCENE = gmcam.lab.scene("cat", "cup", seed=15)
DATA_BYTES = {"vgg": 110_000, "resnet": 110_000, "hero": 200_000}


@pytest.fixture(scope="module")
def figures():
    """The embedded networks' figures, and that of the landing page."""
    hero = gmcam.lab.scene("cat", "cup", seed=98, size=384)
    return {
        "vgg": equation_figure(gmcam.load("collage-vgg"), SCENE),
        "resnet": equation_figure(gmcam.load("collage-resnet"), SCENE),
        "hero": equation_figure(gmcam.load("efficientnet-lite0"), hero, CLASSES),
    }


@pytest.fixture(scope="module")
def page(figures):
    return figures["vgg"]._repr_html_()


def text(html):
    """What can be read in HTML."""
    html = re.sub(r"<(style|script).*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"[ \n]+", " ", unescape(re.sub(r"<.*?>", " ", html, flags=re.DOTALL)))


def number(words):
    return float(words.replace("\N{MINUS SIGN}", "-"))


# Arrays


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 1020])
def test_gaps_of_any_length_are_kept(gap):
    maps = np.zeros((3, 32, 32))
    maps.flat[[0, gap + 1]] = 1, -2
    packed = pack(maps)
    assert packed[0] == "sparse"
    assert np.allclose(unpack(packed, maps.shape), maps, rtol=0, atol=1e-4)


def test_values_at_both_ends_are_kept():
    maps = np.zeros((2, 20, 20))
    maps.flat[-1] = 3
    assert unpack(pack(maps), maps.shape).flat[-1] == pytest.approx(3)


@pytest.mark.parametrize("kind", ["flat", "dense", "sparse"])
def test_each_kind_is_exact_to_half_a_step(kind):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(5, 6, 7))
    if kind == "flat":
        maps[:] = maps[:, :1, :1]
    elif kind == "sparse":
        maps *= rng.random(maps.shape) < 0.1
    packed = pack(maps)
    assert packed[0] == kind
    assert np.abs(unpack(packed, maps.shape) - maps).max() <= np.abs(maps).max() / 32767 / 2 * 1.001


def test_maps_of_zeros_stay_zeros():
    assert (unpack(pack(np.zeros((2, 3, 3))), (2, 3, 3)) == 0).all()


@pytest.mark.parametrize(("name", "tolerance"), [("vgg", 1e-4), ("resnet", 1e-4), ("hero", 1e-3)])
def test_maps_are_those_of_the_equations(figures, name, tolerance):
    shown = figures[name].shown
    network = gmcam.load(shown.network)
    scene = SCENE if name != "hero" else gmcam.lab.scene("cat", "cup", seed=98, size=384)
    indices = [network.class_index(each) for each in shown.questions]
    captured = gmcam.capture(network.module, network.prepare(scene.image), indices, layer=shown.layer)
    M, C = captured.maps[shown.layer], captured.gradients[shown.layer]
    for method, function in (
        ("grad_cam", equations.grad_cam),
        ("guidance_map", equations.guidance_map),
        ("gmcam", equations.gmcam),
        ("aggregated_map", lambda M, _: equations.aggregated_map(M)),
    ):
        for each, expected in zip(shown.questions, function(M, C).numpy(), strict=True):
            found = shown.maps(each)[method].clip(0)
            assert np.abs(found - expected).max() <= tolerance * expected.max(), (each, method)
    if name != "vgg":  # CAM from the layer's own weights
        layer = network.module.fc
        cams = equations.class_map(M, layer.weight.detach()[indices]).numpy()
        for each, expected in zip(shown.questions, cams, strict=True):
            gap = np.abs(shown.maps(each)["cam"] - expected).max()
            assert gap <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", ["vgg", "resnet", "hero"])
def test_data_stay_within_their_budget(figures, name):
    html = figures[name]._repr_html_()
    [arrays] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html)
    photos = sum(map(len, re.findall(r'src="data:[^"]*"', html)))
    assert len(arrays) + photos <= DATA_BYTES[name]


# The ledger


def rows(figure, target):
    return {name: (plus + minus, effect) for name, plus, minus, effect in figure.shown.ledger(target)}


@pytest.mark.parametrize("name", ["vgg", "resnet", "hero"])
def test_the_ledger_and_the_biases_add_up_to_the_logit(figures, name):
    network = gmcam.load(figures[name].shown.network)
    scene = SCENE if name != "hero" else gmcam.lab.scene("cat", "cup", seed=98, size=384)
    for target in figures[name].shown.questions:
        logit = gmcam.explain(network, scene.image, target, method="grad_cam").score.item()
        total = sum(value for value, _ in rows(figures[name], target).values())
        assert total == pytest.approx(logit, abs=1e-5)


def test_rows_are_sums_over_the_masks(figures):
    """Pixel by pixel: each cell of 8 × 8 pixels of the input is 16 × 16 pixels of the scene."""
    result = gmcam.explain(gmcam.load("collage-vgg"), SCENE.image, ["cat", "cup"], method="hires_cam")
    for target, cells in zip(("cat", "cup"), result.raw.double().numpy(), strict=True):
        fine = np.kron(cells, np.ones((16, 16))) / 256
        found = rows(figures["vgg"], target)
        for label in ("cat", "cup"):
            assert found[f"on the {label}"][0] == pytest.approx(fine[SCENE.mask(label)].sum(), abs=2e-4)
        background = found["near an object"][0] + found["bare background"][0]
        assert background == pytest.approx(fine[~SCENE.masks.any(0)].sum(), abs=2e-4)


def test_biases_are_those_of_the_head(figures):
    """Without the biases of its layers, the pooled network's cells are its logit."""
    network = gmcam.load("collage-resnet")
    for target in ("cat", "cup"):
        bias = network.module.fc.bias[network.class_index(target)].item()
        assert rows(figures["resnet"], target)["biases"][0] == pytest.approx(bias, abs=5e-5)  # of 2.7


def test_the_landing_pages_ledger(figures):
    found = rows(figures["hero"], "Egyptian cat")
    values = {name: round(value, 1) for name, (value, _) in found.items()}
    assert values == {"on the cat": 6.2, "on the cup": -0.7, "background": 2.2, "biases": 0.0}


def test_removal_effects_stand_beside_the_rows(figures):
    network = gmcam.load("collage-vgg")
    for target in ("cat", "cup"):
        found = rows(figures["vgg"], target)
        for label in ("cat", "cup"):
            effects = gmcam.lab.effects(network, SCENE, label, target)
            assert found[f"on the {label}"][1] == pytest.approx(effects.removal.item(), abs=1e-5)
            assert found["near an object"][1] == pytest.approx(effects.background.item(), abs=1e-5)
        assert found["bare background"][1] is found["biases"][1] is None


def test_no_text_makes_the_ledger_a_cause(page):
    assert "arithmetic, not causes" in text(page)
    assert not re.search(r"\b(because|decide|explains why|due to|leads to)", text(page))


def test_at_an_earlier_layer_there_are_maps_alone():
    network = gmcam.load("efficientnet-lite0")
    scene = gmcam.lab.scene("cat", "cup", seed=98, size=384)
    figure = equation_figure(network, scene, CLASSES, "14x14")
    html = figure._repr_html_()
    assert 'class="gm-ledger"' not in html and "add up" not in text(html)
    unexplained = rows(figure, "Egyptian cat")["not explained by cells"][0]
    assert round(unexplained, 1) == 15.2
    assert len(re.search(r"application/json[^>]*>(.*?)<", html)[1]) <= 200_000


@pytest.mark.parametrize(
    ("activation", "affine"), [(nn.ReLU(), True), (nn.ReLU6(), True), (nn.SiLU(), False)]
)
def test_a_head_that_is_not_affine_leaves_a_part_unexplained(figures, activation, affine):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 9)]
    module = nn.Sequential(*layers, activation, nn.Linear(9, 3)).eval()
    network = gmcam.Network(module, input_shape=(3, 8, 8))
    assert is_affine(network, torch.randn(1, 3, 8, 8), "1") is affine
    if not affine:
        figure = replace(figures["vgg"], shown=replace(figures["vgg"].shown, exact=False))
        assert "not explained by cells" in text(figure._repr_html_())
        assert "not affine, so the cells leave a part unexplained" in text(figure._repr_html_())


# What a cell sees


def test_a_cells_view_is_the_receptive_field(figures):
    """Of stage4: convolutions add their kernel less one, poolings one, times the step (Exercise 1.4)."""
    side, step = 1, 1
    for pooled, convolutions in ((False, 1), (True, 1), (True, 2), (True, 2)):
        side, step = side + step * pooled, step * (2 if pooled else 1)
        side += 2 * step * convolutions
    assert figures["vgg"].shown.seen == (side / 128, side / 128)
    assert figures["hero"].shown.seen is None  # the whole image


def test_views_of_small_networks():
    module = nn.Sequential(
        nn.Conv2d(3, 2, (3, 5), padding=(1, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(800, 2)
    )
    network = gmcam.Network(module.eval(), input_shape=(3, 20, 20))
    assert field_of_view(network, torch.zeros(1, 3, 20, 20), "1") == (3 / 20, 5 / 20)


def test_bare_cells_see_no_object(figures):
    shown, mask = figures["vgg"].shown, SCENE.masks.any(0)
    half = 31 * 2  # pixels of the scene
    for row, column in np.ndindex(16, 16):
        top, left = (16 * place + 8 for place in (row, column))
        around = mask[max(0, top - half) : top + half, max(0, left - half) : left + half]
        assert shown.bare[row, column] == (not around.any())
    assert not figures["hero"].shown.bare.any()


def test_an_outline_is_closed_and_lies_on_the_border():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 8:40] = True
    path = outline(mask)
    points = np.array([list(map(float, pair.split())) for pair in path[1:-1].split("L")])
    assert path.startswith("M") and path.endswith("Z") and path.count("M") == 1
    assert np.abs(points.min(0) - (32, 64)).max() < 1 and np.abs(points.max(0) - (160, 192)).max() < 1


# The still


def test_the_still_holds_the_numbers(figures, page):
    shown, words = figures["vgg"].shown, text(page)
    assert "Why “cat”?" in words and "probability 40\xa0% , logit +1.41" in words
    for method, title in (("grad_cam", "Grad-CAM"), ("guidance_map", "the guidance map"), ("gmcam", "GMCAM")):
        assert f"{100 * shown.share('cat', method):.0f}\xa0% of {title}" in words
    ledgers = re.findall(r'<div class="gm-ledger" data-target="(\w+)"( hidden)?>(.*?)</div>', page, re.DOTALL)
    assert [(target, hidden) for target, hidden, _ in ledgers] == [("cat", ""), ("cup", " hidden")]
    for target, _, table in ledgers:
        lines = re.findall(
            r'<tr><th scope="row">(.*?)</th>.*?</span></td>\s*<td>(.*?)</td>', table, re.DOTALL
        )
        found = {name: number(re.sub("<.*?>", "", value)) for name, value in lines}
        assert found == pytest.approx(
            {name: value for name, (value, _) in rows(figures["vgg"], target).items()}, abs=0.006
        )


def test_every_image_of_the_still_has_words(page):
    for image in re.findall(r"<img[^>]*>", page):
        assert re.search(r'alt="[^"]{20,}"', image) or 'role="presentation" alt=""' in image
    assert re.search(r'alt="A cat and a cup on wood. The image shows GMCAM for “cat”', page)


def test_objects_are_outlined_and_named(page):
    paths = re.findall(r'<path class="([^"]*)" data-object="(\w+)" d="M', page)
    assert paths == [("gm-outline", "cat"), ("gm-outline is-other", "cup")]
    assert re.findall(r'<span class="gm-name"[^>]*>(\w+)<', page) == ["cat", "cup"]


def test_a_page_has_the_arrays_once(figures):
    first, second = figures["vgg"], figures["vgg"].at(5)
    html = first._repr_html_() + second._repr_html_()
    [name] = re.findall(r'<script type="application/json" id="([\w-]+)"', html)
    assert re.findall(r'data-arrays="([\w-]+)"', html) == [name, name]
    assert second.form == FORMS[5]


def test_nothing_is_requested_and_scripts_cannot_break_out(page):
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("</script>") == page.count("<script") == 2
    arrays = json.loads(re.search(r"application/json[^>]*>(.*?)</script>", page)[1])
    assert list(arrays["questions"]) == ["cat", "cup"] and arrays["channels"] == 128


def test_the_figure_grows_from_equation_to_equation(figures):
    shown = figures["resnet"].shown
    seen = {equation: EquationFigure(shown, form) for equation, form in FORMS.items()}
    for equation, figure in seen.items():
        html = figure._repr_html_()
        assert f'data-columns="{" ".join(FORMS[equation].columns)}"' in html
        assert ('class="gm-ledger"' in html) is (equation in (5, 6))
    assert FORMS[1].columns == ("M", "m") and "w" in FORMS["cam"].columns
    assert FORMS[4].columns == ("M", "C", "lambda", "Ml") and FORMS[3].columns == ("M", "C", "mean", "Ml")
    assert FORMS[6].maps == ("grad_cam", "guidance_map", "gmcam")
    assert "for “cat”" not in text(seen[1]._repr_html_()).split("image shows")[1][:60]  # no class in A


def test_the_short_form_has_the_signed_map_and_the_ledger(figures):
    hero = figures["hero"]
    html = replace(hero, form=SHORT)._repr_html_()
    assert "data-short" in html and 'data-columns=""' in html and 'class="gm-ledger"' in html
    assert "takes from it (blue)" in text(html) and "biases add up to it" in text(html)


def test_numbers_for_a_caption(figures):
    assert figures["vgg"].share("cat", "grad_cam") == "30\xa0%"
    assert figures["vgg"].row("cat", "on the cup") == "\N{MINUS SIGN}1.36"


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scene": SCENE.image}, "expected a scene with objects, got Image: draw one with gmcam.lab.scene"),
        ({"scene": SCENE.without(1).without(0)}, "got one without objects"),
        ({"target": []}, "expected one to 6 classes, got 0: name some in target"),
        ({"target": "flower"}, r"object of the scene \(cat, cup\), got 'flower' for 'flower': pass target="),
        ({"target": {"cat": "dog"}}, r"got 'dog' for 'cat': pass target=\{'cat': 'cat'\}"),
        ({"target": {"dog": "cat"}}, "expected a class of collage-vgg, got 'dog'"),
        ({"equation": 7}, "expected equation to be one of 1, 'cam', 2, 3, 4, 5, 6, got 7: choose one"),
        ({"equation": "cam"}, "where CAM is defined, got stage4 of collage-vgg: choose another network"),
        ({"layer": "9x9"}, "9x9"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        equation_figure(**{"network": gmcam.load("collage-vgg"), "scene": SCENE} | arguments)


def test_another_equation_is_refused_for_a_figure_that_is_there(figures):
    with pytest.raises(ValueError, match="got 'eq5': choose one"):
        figures["vgg"].at("eq5")
    with pytest.raises(ValueError, match="where CAM is defined"):
        figures["vgg"].at("cam")
