"""The live equation figure on a small page: mouse, touch, keys, no script, print, and what it shows."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browsing import Tab, resize, server
from deck import deck
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_book import build, small_book

import gmcam
from gmcam.palette import tint

ROOT = Path(__file__).parents[2]
WIDTHS = {360: 328, 390: 358, 768: 720, 1024: 744, 1440: 1000}  # of the window, and of the figure in it
SMALLEST = 12  # px of any letter
CELLS = [
    """import gmcam
scene = gmcam.lab.scene("cat", "cup", seed=15)
figure = gmcam.lab.equation_figure(gmcam.load("collage-vgg"), scene)
figure""",
    "figure.at(5)",
    "figure.at(3)",
    "figure.at(1)",
    'gmcam.lab.equation_figure(gmcam.load("collage-resnet"), scene, equation="cam")',
    """hero = gmcam.lab.scene("cat", "cup", seed=98, size=384)
classes = {"Egyptian cat": "cat", "espresso": "cup"}
gmcam.lab.equation_figure(gmcam.load("efficientnet-lite0"), hero, classes, short=True)""",
]
SIX, FIVE, THREE, ONE, CAM, SHORT = range(len(CELLS))

pytestmark = [pytest.mark.book, pytest.mark.slow]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The pages of a book of one notebook."""
    source = small_book(tmp_path_factory.mktemp("live") / "source", "live")
    cells = [new_code_cell(cell) for cell in CELLS]
    cells[SIX].metadata["mystnb"] = {"figure": {"caption": "**Three maps.** Cells.", "name": "fig-live"}}
    text = new_markdown_cell("# Live\n\n## A section")
    nbformat.write(new_notebook(cells=[text, *cells]), source / "book" / "live.ipynb")
    return build(source)


@pytest.fixture(scope="module")
def address(html):
    with server(html) as root:
        yield f"{root}/book/live.html"


@pytest.fixture(scope="module")
def shown():
    """What the first figures show, in Python."""
    scene = gmcam.lab.scene("cat", "cup", seed=15)
    return gmcam.lab.equation_figure(gmcam.load("collage-vgg"), scene).shown


class Live(Tab):
    """The page in a tab, with one of its figures at work."""

    def __init__(self, browser, address, number=SIX, **context):
        super().__init__(browser, address, **context)
        self.figure = self.page.locator(".gm-figure").nth(number)
        if context.get("java_script_enabled", True):
            self.live = self.figure.locator(".gm-live")
            self.stage = self.live.locator(".gm-stage")
            self.stage.scroll_into_view_if_needed()

    def part(self, selector):
        return self.live.locator(selector)

    @property
    def sentence(self):
        return self.part(".gm-read").inner_text()

    def at(self, row, column, count=16):
        """The middle of a cell, in pixels of the window."""
        box = self.stage.bounding_box()
        across, down = (column + 0.5) / count, (row + 0.5) / count
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def click(self, row, column):
        self.page.mouse.click(*self.at(row, column))

    def pixels(self, selector):
        """The colours (h, w, 3) of a canvas."""
        script = """canvas => [canvas.height, canvas.width, ...canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data]"""
        height, width, *values = self.part(selector).first.evaluate(script)
        return np.array(values).reshape(height, width, 4)[..., :3]


def cell_of(sentence):
    return tuple(map(int, re.match(r"Cell \((\d+), (\d+)\)", sentence).groups()))


def words(value):
    """A sum as the page writes it, in thousandths of a logit."""
    size = abs(1000 * value)
    text = f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"
    return "0" if float(text) == 0 else ("\N{MINUS SIGN}" if value < 0 else "+") + text


def test_a_page_has_the_arrays_of_figures_once_and_a_numbered_caption(html):
    page = (html / "book" / "live.html").read_text()
    assert page.count('<script type="application/json" id="gm-') == 3  # of two networks, and the short form
    assert page.count('class="gm-figure"') == len(CELLS)
    assert re.search(r'<figure[^>]*id="fig-live"', page)
    assert re.search(r"caption-number.{0,40}Fig.{0,200}<strong>Three maps", page, re.DOTALL)


def test_sentences_hold_the_sums_of_the_equations(browser, address, shown):
    with Live(browser, address) as tab:
        for target in ("cat", "cup"):
            tab.part(f'button[data-target="{target}"]').click()
            maps = shown.maps(target)
            for row, column in ((5, 7), (0, 0), (9, 12), (15, 15), (7, 3)):
                tab.click(row, column)
                mean, local = (words(maps[name][row, column]) for name in ("grad_cam", "guidance_map"))
                said = tab.sentence
                assert cell_of(said) == (row, column)
                assert f"add up to {mean} thousandths of a logit, with the gradients here to {local}." in said
        assert tab.complaints == []


def test_a_mouse_looks_and_its_click_keeps(browser, address):
    with Live(browser, address) as tab:
        before = cell_of(tab.sentence)
        tab.page.mouse.move(*tab.at(2, 3))
        assert cell_of(tab.sentence) == (2, 3)
        tab.part(".gm-ask").hover()
        assert cell_of(tab.sentence) == before
        tab.click(4, 6)
        tab.page.mouse.move(*tab.at(10, 10))
        tab.part(".gm-ask").hover()
        assert cell_of(tab.sentence) == (4, 6)


def test_arrow_keys_move_the_kept_cell_from_one_tab_stop(browser, address):
    with Live(browser, address) as tab:
        tab.click(1, 1)
        assert tab.live.locator(".gm-stagebox [tabindex]").count() == 1
        tab.part('button[data-target="cup"]').focus()
        tab.page.keyboard.press("Tab")
        assert tab.stage.evaluate("stage => stage === document.activeElement")
        assert tab.stage.evaluate("stage => getComputedStyle(stage).outlineStyle") == "solid"
        top = tab.page.evaluate("scrollY")
        for keys, place in (
            ("ArrowRight", (1, 2)),
            ("ArrowDown", (2, 2)),
            ("ArrowLeft ArrowLeft ArrowLeft", (2, 0)),
            ("ArrowUp ArrowUp ArrowUp ArrowUp", (0, 0)),
        ):
            for key in keys.split():
                tab.page.keyboard.press(key)
            assert cell_of(tab.sentence) == place
        assert tab.page.evaluate("scrollY") == top
        tab.page.keyboard.press("Tab")
        assert tab.part('[data-place="apart"]').evaluate("chip => chip === document.activeElement")


PHONE = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}


def drag(tab, start, end, steps=8):
    devtools = tab.page.context.new_cdp_session(tab.page)
    for step in range(steps + 1):
        x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
        kind = "touchMove" if step else "touchStart"
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        tab.page.wait_for_timeout(20)
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    tab.page.wait_for_timeout(100)


def test_a_finger_taps_and_drags_sideways_and_still_scrolls_the_page(browser, address):
    with Live(browser, address, **PHONE) as tab:
        tab.page.touchscreen.tap(*tab.at(4, 6))
        assert cell_of(tab.sentence) == (4, 6)
        drag(tab, tab.at(4, 6), tab.at(4, 12))
        assert cell_of(tab.sentence) == (4, 12)
        before = tab.page.evaluate("scrollY")
        drag(tab, tab.at(12, 3), tab.at(2, 3))
        assert tab.page.evaluate("scrollY") > before + 50
        assert cell_of(tab.sentence) == (4, 12)
        assert tab.complaints == []


def test_places_lead_to_cells_worth_a_look(browser, address, shown):
    with Live(browser, address) as tab:
        for target in ("cat", "cup"):
            tab.part(f'button[data-target="{target}"]').click()
            maps = shown.maps(target)
            grad, guidance = maps["grad_cam"], maps["guidance_map"]
            expected = {
                "apart": np.where((grad > 0) & (guidance <= 0), grad, -np.inf).argmax(),
                "most": guidance.argmax(),
                "least": guidance.argmin(),
                "bare": np.where(shown.bare, guidance, -np.inf).argmax(),
            }
            for place, cell in expected.items():
                chip = tab.part(f'[data-place="{place}"]')
                chip.click()
                assert cell_of(tab.sentence) == np.unravel_index(cell, (16, 16)), place
                assert chip.get_attribute("aria-pressed") == "true"


def test_a_class_changes_the_score_the_outlines_and_the_ledger(browser, address):
    with Live(browser, address) as tab:
        before = cell_of(tab.sentence)
        tab.part('button[data-target="cup"]').click()
        assert cell_of(tab.sentence) == before
        assert tab.part(".gm-score").inner_text() == "probability 33\xa0%, logit +1.24"
        assert tab.part(".gm-ledger:visible").count() == 1
        assert "logits for “cup” add up" in tab.part(".gm-ledger:visible caption").inner_text()
        dashed = tab.part(".is-other").evaluate_all("lines => lines.map(line => line.dataset.object)")
        assert dashed == ["cat"]
        pressed = tab.part(".gm-choices button").evaluate_all("all => all.map(one => one.ariaPressed)")
        assert pressed == ["false", "true"]


@pytest.mark.parametrize("name", ["grad_cam", "guidance_map", "gmcam"])
def test_each_map_is_a_switch_in_the_palettes_colours(browser, address, shown, name):
    with Live(browser, address) as tab:
        card = tab.part(f'button[data-map="{name}"]')
        card.click()
        assert card.get_attribute("aria-pressed") == "true"
        assert tab.part('button.gm-map[aria-pressed="true"]').count() == 1
        values = shown.maps("cat")[name]
        for shares in (values.clip(0) / values.max(), values / np.abs(values).max()):
            for canvas in (".gm-heat", f'button[data-map="{name}"] canvas'):
                assert np.abs(tab.pixels(canvas) - tint(shares)).max() <= 1
            tab.part(".gm-relu input").check()
        inside = f"{100 * shown.share('cat', name):.0f}\xa0%"
        assert card.locator(".gm-on").text_content() == f"on the cat {inside}"


def test_the_table_holds_the_strongest_channels_and_the_sum(browser, address, shown):
    with Live(browser, address) as tab:
        tab.click(5, 7)
        M, C = shown.M[:, 5, 7], shown.questions["cat"].C
        mean, local = C.mean((1, 2)) * M, C[:, 5, 7] * M
        weight = np.abs(mean) / np.abs(mean).sum() + np.abs(local) / np.abs(local).sum()
        rows = tab.part(".gm-channels tbody tr").evaluate_all(
            "all => all.map(row => [row.querySelector('th').textContent, "
            "...[...row.querySelectorAll('.gm-bar b')].map(bar => bar.textContent)])"
        )
        strongest = weight.argsort()[::-1][:6]
        assert rows[:6] == [[str(k), words(mean[k]), words(local[k])] for k in strongest]
        rest = [part.sum() - part[strongest].sum() for part in (mean, local)]
        active = (M != 0).sum() - (M[strongest] != 0).sum()
        assert rows[6] == [f"the other 122 {active} active here", *map(words, rest)]
        assert rows[7] == ["sum", words(mean.sum()), words(local.sum())]


def test_the_last_step_is_spoken_after_half_a_second(browser, address):
    with Live(browser, address) as tab:
        spoken = tab.part('[aria-live="polite"]')
        tab.stage.focus()
        for _ in range(3):
            tab.page.keyboard.press("ArrowRight")
        assert spoken.text_content() == ""
        tab.page.wait_for_timeout(800)
        assert spoken.text_content() == tab.part(".gm-read").text_content()
        quiet = spoken.text_content()
        tab.page.mouse.move(*tab.at(2, 3))  # a look is not a step
        tab.page.wait_for_timeout(800)
        assert spoken.text_content() == quiet


def test_the_figure_grows_with_its_equation(browser, address):
    heads = {
        SIX: ["k", "Mk", "Ck", "λk·Mk", "Ck·Mk"],
        FIVE: ["k", "Mk", "Ck", "λk", "λk·Mk", "Ck·Mk"],
        THREE: ["k", "Mk", "Ck", "λk", "λk·Mk"],
        ONE: ["k", "Mk", "Mk"],
        CAM: ["k", "Mk", "wk", "wk·Mk"],
    }
    maps = {SIX: 3, FIVE: 2, THREE: 0, ONE: 0, CAM: 0}
    for number, head in heads.items():
        with Live(browser, address, number) as tab:
            assert [h.split()[0] for h in tab.part(".gm-channels thead th var").all_text_contents()] == head
            assert tab.part("button.gm-map").count() == maps[number]
            assert tab.part(".gm-ledger").count() == 2 * (number in (SIX, FIVE))
            assert tab.part(".gm-relu").count() == (number != ONE)
            assert tab.complaints == []


def test_equation_one_says_the_same_for_every_class(browser, address):
    with Live(browser, address, ONE) as tab:
        before = tab.sentence
        tab.part('button[data-target="cup"]').click()
        assert tab.sentence == before and "Every class gets the same sum" in before


def test_the_short_form_says_what_a_cell_adds(browser, address):
    with Live(browser, address, SHORT) as tab:
        assert re.fullmatch(
            r"Cell \(2, 3\), on the cat, adds \+0.88 to the logit of “Egyptian cat”.", tab.sentence
        )
        tab.part('[data-place="least"]').click()
        assert re.search(r"on the cup, adds \N{MINUS SIGN}0\.\d\d to the logit", tab.sentence)
        assert tab.part(".gm-channels, .gm-strip, .gm-relu").count() == 0
        assert tab.part('[data-place="bare"], [data-place="apart"]').locator("visible=true").count() == 0
        assert tab.part(".gm-ledger:visible tbody tr").count() == 5


def test_without_a_script_the_still_is_complete(browser, address):
    with Live(browser, address, java_script_enabled=False) as tab:
        still = tab.figure.locator(".gm-still")
        assert still.is_visible() and tab.figure.locator("button, input, canvas").count() == 0
        assert "On the cat are 30\xa0% of Grad-CAM" in still.inner_text()
        assert still.locator(".gm-heat").is_visible() and still.locator("path").count() == 2
        assert "+1.37" in still.locator(".gm-ledger:visible").inner_text()
        assert not any(complaint.startswith("from outside") for complaint in tab.complaints)


def test_print_has_the_state_without_a_script(browser, address):
    with Live(browser, address) as tab:
        tab.part('button[data-target="cup"]').click()
        tab.page.emulate_media(media="print")
        assert tab.figure.locator(".gm-still").is_visible() and not tab.live.is_visible()
        assert "Why “cat”?" in tab.figure.inner_text()


def test_slides_have_the_state_without_a_script(html):
    notebook = nbformat.read(html.parent / "jupyter_execute" / "book" / "live.ipynb", as_version=4)
    first, *others = [slide.body for slide in deck(notebook, {}) if slide.kind == "figure"]
    assert len(others) == len(CELLS) - 1
    assert "<script" not in first and 'class="gm-still"' in first and 'class="gm-ledger"' in first


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_every_figure_is_accessible(browser, address, axe, scheme, width):
    """No violation of any of axe-core's rules."""
    with Live(browser, address, color_scheme=scheme, viewport={"width": width, "height": 900}) as tab:
        tab.page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        tab.page.evaluate(axe)
        found = tab.page.evaluate("axe.run('.gm-figure', {resultTypes: ['violations']})")["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
        assert tab.complaints == []


# Figures and letters that are too wide or too small, by their first letters.
FAULTS = """smallest => [...document.querySelectorAll(".gm-live, .gm-live *")].filter(part => {
    const box = part.getBoundingClientRect(), figure = part.closest(".gm-figure").getBoundingClientRect();
    const scrolls = part.closest(".gm-chips, svg");
    const wide = box.width && !scrolls && (box.right > figure.right + 4 || box.left < figure.left - 4);
    const written = [...part.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    return wide || written && parseFloat(getComputedStyle(part).fontSize) < smallest;
}).map(part => `${part.className}: ${part.textContent.slice(0, 40)}`)"""


def test_figures_fit_and_their_letters_can_be_read(browser, address):
    with Live(browser, address) as tab:
        for width, wide in WIDTHS.items():
            assert resize(tab.page, width)[0] == 0
            assert tab.page.evaluate(FAULTS, SMALLEST) == [], width
            assert round(tab.figure.bounding_box()["width"]) == wide, width
        assert tab.page.locator(".output.gmcam-more:has(.gm-figure)").count() == 0


def test_dark_pages_leave_the_image_alone_and_turn_the_little_maps(browser, address):
    with Live(browser, address, color_scheme="dark") as tab:
        tab.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        images = tab.part("img").evaluate_all(
            "all => all.map(getComputedStyle).map(s => [s.filter, s.padding, s.backgroundColor])"
        )
        assert {tuple(look) for look in images} == {("none", "0px", "rgba(0, 0, 0, 0)")}
        dark = tab.pixels('canvas[data-map="M"]')
        tab.page.evaluate("document.documentElement.dataset.theme = 'light'")
        tab.page.wait_for_timeout(100)
        light = tab.pixels('canvas[data-map="M"]')
        assert dark.min() < 40 and light.max() == 255 and not np.array_equal(dark, light)


def test_motion_is_not_needed(browser, address):
    with Live(browser, address, reduced_motion="reduce") as tab:
        moving = "all => all.filter(part => parseFloat(getComputedStyle(part).transitionDuration) > 0).length"
        assert tab.part("*").evaluate_all(moving) == 0
