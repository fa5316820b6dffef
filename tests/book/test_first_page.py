"""The first page of the built book: what a visitor sees before scrolling, and how soon."""

import re
from pathlib import Path

import pytest
import yaml
from browsing import STILL, Tab, settle, violations
from pace import patient

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
SECONDS_TO_PAINT = 1

pytestmark = [pytest.mark.book, pytest.mark.slow]


@pytest.fixture(scope="module")
def html(built):
    return built.html


@pytest.fixture(scope="module")
def address(served):
    return f"{served}/book/intro.html"


def bottom(page, selector):
    box = page.locator(selector).first.bounding_box()
    return box["y"] + box["height"]


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1280, 860), (1024, 768)])
def test_the_first_screen_holds_question_figure_and_buttons(browser, address, width, height):
    with Tab(browser, address, viewport={"width": width, "height": height}) as tab:
        page = tab.page
        page.wait_for_selector(".gm-figure.is-live")
        assert page.locator(".bd-article h1").inner_text().endswith("?")
        assert page.locator(".gm-ledger:visible tbody tr").count() == 5
        assert max(bottom(page, part) for part in (".gmcam-hero", ".gmcam-go")) <= height
        assert not page.locator(".bd-sidebar-primary").is_visible()
        page.locator(".primary-toggle").click()
        page.locator(".bd-sidebar-primary").wait_for()
        page.wait_for_timeout(300)  # the side bar slides in
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_phone_shows_the_question_and_where_the_figure_begins(browser, address):
    with Tab(browser, address, viewport={"width": 390, "height": 844}) as tab:
        page = tab.page
        page.wait_for_selector(".gm-figure.is-live")
        figure = page.locator(".gm-figure .gm-stage:visible").bounding_box()
        assert bottom(page, ".bd-article h1") < bottom(page, ".gmcam-say") < figure["y"] < 422
        assert bottom(page, ".gm-figure") < page.locator(".gmcam-buttons").bounding_box()["y"]


def test_buttons_and_links_lead_to_pages_that_are_there(browser, html, address):
    with Tab(browser, address) as tab:
        targets = "all => all.map(one => one.getAttribute('href'))"
        buttons = tab.page.locator(".gmcam-buttons a").evaluate_all(targets)
        assert buttons == ["feature_maps.html", "own_photo.html"]
        chapters = [Path(chapter["file"]).name for chapter in TOC["parts"][0]["chapters"]]
        equations = tab.page.locator(".gmcam-six a").evaluate_all(targets)
        assert equations == [f"{name}.html" for name in chapters]
        for link in tab.page.locator(".bd-article a[href$='.html']").evaluate_all(targets):
            assert (html / "book" / link).exists(), link
        for card in tab.page.locator("section:has(> .gmcam-shown), .gmcam-six li").all():
            box = card.bounding_box()
            card.scroll_into_view_if_needed()
            card.click(position={"x": box["width"] / 2, "y": 40}, trial=True)  # on the map, too
            assert card.locator("a:visible").count() == 1


def test_it_shows_no_code_no_table_but_the_ledger_and_words_for_every_map(html):
    page = (html / "book" / "intro.html").read_text()
    article = re.search(r"<article.*</article>", page, re.DOTALL)[0]
    text = re.sub(r"<(style|script)\b.*?</\1>", "", article, flags=re.DOTALL)
    assert not re.search(r"<(pre|code)\b", text)
    assert "<table" not in re.sub(r'<table class="gm-table.*?</table>', "", text, flags=re.DOTALL)
    named = re.findall(r'role="img" aria-label="([^"]{20,})"', text)
    assert len(named) == text.count('role="img"') == 11


def test_its_first_paint_comes_within_a_second(browser, address):
    paint = """() => new Promise(done => new PerformanceObserver(list => {
        const paint = list.getEntriesByName("first-contentful-paint")[0];
        if (paint) done(paint.startTime);
    }).observe({type: "paint", buffered: true}))"""

    def measure():
        with Tab(browser, address, viewport={"width": 1440, "height": 900}) as tab:
            assert tab.complaints == []
            return tab.page.evaluate(paint) / 1000

    patient(measure, SECONDS_TO_PAINT)


def test_without_a_script_everything_is_there(browser, address):
    view = {"viewport": {"width": 1280, "height": 900}, "java_script_enabled": False}
    with Tab(browser, address, **view) as tab:
        for part in (".gm-still", ".gm-ledger", ".gmcam-buttons", ".gmcam-rows", ".bd-sidebar-primary"):
            assert tab.page.locator(part).first.is_visible(), part
        assert tab.page.locator(".gmcam-tile:visible").count() == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible_and_fits(browser, address, axe, scheme, width):
    view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with Tab(browser, address, **view) as tab:
        settle(tab.page)
        tab.page.add_style_tag(content=STILL)
        tab.page.evaluate(axe)
        assert violations(tab.page, scheme) == [] == tab.complaints
        for narrow in (360, 390, 700, 900, width):
            tab.page.set_viewport_size({"width": narrow, "height": 900})
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= narrow
