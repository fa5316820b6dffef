"""The book, built from clean as `make book` builds it, then opened in a browser."""

import re
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import answers
import nbformat
import pytest
import slides
from browsing import OPEN, STILL, WIDTHS, Tab, resize, settle, violations
from PIL import Image

import gmcam
from gmcam.lab.exercises import all_exercises

ROOT = Path(__file__).parents[2]
EXERCISES = all_exercises()
SECONDS_PER_NOTEBOOK, MEBIBYTES_PER_NOTEBOOK = 60, 1200
MINUTES_PER_BUILD = 12
PAGE_BYTES = 1_200_000
TWO_LINES = "document.querySelector('.gmcam-objectives')?.clientHeight > 30"

pytestmark = [pytest.mark.book, pytest.mark.slow]


def pages(html: Path) -> list[Path]:
    return sorted((html / "book").glob("*.html"))


def test_the_build_and_every_notebook_stay_within_their_time(built):
    assert built.minutes < MINUTES_PER_BUILD * built.slowdown
    seconds = dict(re.findall(r"book/(\w+)\S* *: Executed notebook in ([\d.]+) seconds", built.log))
    assert len(seconds) == len(list((ROOT / "book").glob("*.ipynb"))), built.log[-2000:]
    limit = SECONDS_PER_NOTEBOOK * built.slowdown
    assert {name: s for name, s in seconds.items() if float(s) > limit} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory a kernel held")
def test_every_notebook_stays_within_its_memory(built):
    """With the libraries' pages, though the system may drop them: a build of torch for GPUs maps 400 MiB."""
    peaks = re.findall(r"book/(\w+): held at most (\d+) MiB, (\d+) of them libraries", built.log)
    assert len(peaks) == len(list((ROOT / "book").glob("*.ipynb")))
    assert {name: peak for name, peak, _ in peaks if int(peak) > MEBIBYTES_PER_NOTEBOOK} == {}
    page = (built.html / "book" / "versions.html").read_text()
    assert all(f">{peak}<" in page and f">{libraries}<" in page for _, peak, libraries in peaks)


def test_pages_are_light(built):
    weights = {page.name: page.stat().st_size for page in pages(built.html)}
    assert {name: weight for name, weight in weights.items() if weight > PAGE_BYTES} == {}


@pytest.mark.parametrize("chapter", sorted({name.split(".")[0] for name in EXERCISES}))
def test_every_solution_on_the_page_is_right(built, chapter):
    page = (built.html / "book" / f"{chapter}.html").read_text()
    exercises = sum(name.split(".")[0] == chapter for name in EXERCISES)
    assert page.count("Right.\n") == exercises == page.count("No answer yet")
    assert "Not right" not in page


def test_every_exercise_whose_answer_can_be_typed_has_a_field(built):
    text = "".join(page.read_text() for page in pages(built.html))
    fields = re.findall(r'<div class="gmcam-answer" data-exercise="([\w.]+)"', text)
    assert sorted(fields) == sorted(name for name in EXERCISES if answers.data(EXERCISES[name]))


def test_every_picture_on_the_pages_has_alt_text(built):
    for page in pages(built.html):
        text = page.read_text().replace('\\"', '"')  # widgets' pictures stand in JSON
        for picture in re.findall(r"<img[^>]*>", text):
            described = re.search(r'alt="[^"]{4,}"', picture) or 'role="presentation" alt=""' in picture
            assert described, f"{page.name}: {picture[:200]}"


def test_launch_and_download_buttons_lead_to_files_that_are_there(built):
    for page in pages(built.html):
        text = page.read_text()
        if not (ROOT / "book" / f"{page.stem}.ipynb").exists():
            continue
        launched = re.findall(r'href="https://(?:mybinder\.org|colab\.research)[^"]*?(book/[^"]+)"', text)
        assert len(launched) == 2, page.name
        assert all((ROOT / unquote(path)).exists() for path in launched)
        (download,) = re.findall(r'href="(\.\./_sources/[^"]+\.ipynb)"', text)
        assert (page.parent / download).exists()


def test_every_page_can_be_shared(built):
    address = re.search(
        r"^  url: https://github.com/([\w-]+)/([\w-]+)$", (ROOT / "_config.yml").read_text(), re.M
    )
    root = "https://{}.github.io/{}/".format(*address.groups())
    for page in pages(built.html):
        tags = dict(re.findall(r'<meta property="og:(\S+)" content="([^"]*)"', page.read_text()))
        assert tags["title"] and tags["description"], page.name
        assert tags["url"] == f"{root}book/{page.name}"
        assert (built.html / tags["image"].removeprefix(root)).exists()


def test_the_archive_holds_the_book(built):
    """As `make archive` packs it; that pages work from files is tested below."""
    packs = re.search(r'-c "(import shutil; .*)"', (ROOT / "Makefile").read_text())[1]
    subprocess.run([sys.executable, "-c", packs], cwd=built.html.parents[1], check=True)
    with zipfile.ZipFile(built.html.with_name("gmcam-book.zip")) as archive:
        assert {"html/index.html", "html/book/own_photo.html", "html/searchindex.js"} <= set(
            archive.namelist()
        )


def test_no_equation_number_or_reference_is_left_open(built):
    for page in pages(built.html):
        assert not re.search(r"\[\?\]|{(doc|footcite:p)}`", page.read_text()), page.name


# axe-core's rules whose answer depends on the colour scheme.
OF_COLOURS = "runOnly: ['color-contrast', 'link-in-text-block'], "


@pytest.mark.parametrize(("scheme", "width", "rules"), [("light", 1280, ""), ("dark", 375, OF_COLOURS)])
def test_pages_ask_nothing_from_outside_fit_and_are_accessible(
    built, served, browser, axe, scheme, width, rules
):
    """No serious or critical violation of axe-core's rules, without exception."""
    faults = {}
    for page in pages(built.html):
        view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        with Tab(browser, f"{served}/book/{page.name}", **view) as tab:
            settle(tab.page)
            broken = tab.page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
            overflow = tab.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            wide = [f"{overflow} px too wide"] * (overflow > 1)
            # In the wide window, where the side bars stand open.
            tab.page.set_viewport_size({"width": 1280, "height": 900})
            tab.page.add_style_tag(content=STILL)  # no colour on its way to another
            tab.page.evaluate(axe)
            faulty = [*tab.complaints, *broken, *wide, *violations(tab.page, scheme, rules)]
            if scheme == "light":
                faulty += misfits(tab.page)
            if faulty:
                faults[page.name] = faulty
    assert faults == {}


def misfits(page):
    """By window's width: how much wider the page is, and how many blocks of code are cut, on wide ones; and
    objectives of more than a line in the widest."""
    page.evaluate(OPEN)
    found = [(width, *resize(page, width)) for width in WIDTHS]
    objectives = page.locator(".gmcam-objectives").all_inner_texts() if page.evaluate(TWO_LINES) else []
    return [each for each in found if each[1] > 0 or (each[2] and each[0] >= 1024)] + objectives


def test_search_finds_pages_with_nothing_from_outside(served, browser):
    with Tab(browser, f"{served}/search.html?q=guidance") as tab:
        tab.page.wait_for_selector("#search-results li a")
        assert tab.complaints == []


def test_search_finds_pages_without_a_server(built, browser):
    """The browser refuses the excerpts below the hits then, and says so in its console."""
    with Tab(browser, f"{built.html.as_uri()}/search.html?q=guidance") as tab:
        tab.page.wait_for_selector("#search-results li a")


def options(select):
    return select.locator("option").evaluate_all("all => all.map(option => option.value)")


def classes(page):
    """Name and button of each class of the first frozen explorer."""
    buttons = page.locator(".gmcam-controls").first.get_by_role("radio").all()
    return [(button.locator("xpath=..").inner_text(), button) for button in buttons]


def shown(page):
    """Address and alternative text of the one map that the first frozen explorer shows."""
    return page.evaluate(
        """() => {
            const images = [...document.querySelector(".gmcam-frozen").querySelectorAll("figure img")];
            const seen = images.filter(i => i.offsetParent);
            return seen.map(i => [i.src, i.alt, i.complete && i.naturalWidth > 0]);
        }"""
    )


def test_the_readmes_pictures_are_taken_of_the_book(built, browser, tmp_path):
    """In a process of its own: one driver of a browser runs here already."""
    subprocess.run([sys.executable, ROOT / "screenshots/take.py", built.html, tmp_path], check=True)
    named = re.findall(r"!\[.{20,}\]\(screenshots/(.+)\)", (ROOT / "README.md").read_text())
    assert sorted(named) == sorted(path.name for path in tmp_path.iterdir()) and len(named) == 2
    for name in named:
        with Image.open(tmp_path / name) as taken, Image.open(ROOT / "screenshots" / name) as stored:
            assert taken.size == stored.size and taken.convert("L").getextrema()[1] > 200
            assert len(taken.convert("RGB").getcolors(2**24)) > 5000  # the maps


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_frozen_explorer_shows_every_combination_without_a_kernel(built, served, browser, scheme):
    layers = list(gmcam.load("collage-vgg").layers)
    root = served if scheme == "http" else built.html.as_uri()
    with Tab(browser, f"{root}/book/own_photo.html") as tab:
        page = tab.page
        page.wait_for_selector(".jupyter-widgets", timeout=20_000)
        method = page.get_by_label("method", exact=True).first
        layer = page.get_by_role("slider", name="layer").first
        seen = set()
        for name, button in classes(page):
            button.check()
            for title in options(method):
                method.select_option(title)
                layer.press("Home")
                for step, cells in enumerate(layers):
                    if step:
                        layer.press("ArrowRight")
                    ((source, alt, drawn),) = shown(page)
                    assert drawn and alt.startswith(f"{title} for {name}, ") and f" at {cells} cells" in alt
                    seen.add(source)
        # 96 states, of which 16 are HiResCAM's: rectified, it is drawn as the guidance map.
        assert len(seen) >= 80
        # From a file, the browser refuses the modules of the page's other tool, which has a version for that.
        assert scheme == "file" or tab.complaints == []


def test_the_frozen_explorer_works_by_touch(served, browser):
    """On a telephone: a finger opens a menu (keys stand for the system's list) or taps beside a line."""
    layers = list(gmcam.load("collage-vgg").layers)
    phone = {"has_touch": True, "is_mobile": True, "viewport": {"width": 375, "height": 812}}
    with Tab(browser, f"{served}/book/own_photo.html", **phone) as tab:
        page = tab.page
        settle(page)
        method = page.get_by_label("method", exact=True).first
        line = page.locator(".widget-hslider .noUi-base").first
        line.scroll_into_view_if_needed()
        seen = {}
        for name, button in classes(page)[1:3]:
            button.tap()
            for title in options(method)[:2]:
                pick(method, title)
                for step in (3, 0, 2, 1):
                    box = line.bounding_box()
                    x = box["x"] + box["width"] * step / (len(layers) - 1)
                    page.wait_for_timeout(400)  # two taps at once are another gesture
                    page.touchscreen.tap(x, box["y"] + box["height"] / 2 + 6)
                    alt = f"^{re.escape(title)} for {name}, .* at {layers[step]} cells"
                    picture = page.locator(".gmcam-frozen").first.get_by_alt_text(re.compile(alt))
                    picture.wait_for(timeout=5000)
                    ((seen[alt], _, drawn),) = shown(page)
                    assert drawn, alt
        assert len(set(seen.values())) == len(seen) == 16
        assert tab.complaints == []


def pick(menu, choice):
    """Choose from a menu that a finger opens."""
    offered = options(menu)
    steps = offered.index(choice) - offered.index(menu.input_value())
    menu.tap()
    menu.page.wait_for_timeout(300)  # for the list to open
    for _ in range(abs(steps)):
        menu.page.keyboard.press("ArrowDown" if steps > 0 else "ArrowUp")
    menu.page.keyboard.press("Enter")


def test_dark_pages_leave_saliency_colours_alone(built, browser):
    tab = browser.new_page(color_scheme="dark")
    tab.route(re.compile("^https?:"), lambda route: route.abort())
    tab.goto((built.html / "book" / "guidance_map.html").as_uri(), wait_until="load")
    filters = tab.evaluate(
        "[...document.querySelectorAll('.cell_output img:not(.gmcam-chart)')]"
        ".map(i => getComputedStyle(i).filter)"
    )
    dark = tab.evaluate("document.documentElement.dataset.theme")
    tab.close()
    assert dark == "dark"
    assert filters and set(filters) == {"none"}


def test_slides_show_every_section_and_none_overflows(built, browser, tmp_path):
    faults = {}
    for path in slides.write(built.html.parent / "jupyter_execute" / "book", tmp_path / "slides"):
        page = (built.html / "book" / f"{path.stem}.html").read_text()
        sections = {words(name) for name in re.findall(r'<h2>(.*?)<a class="headerlink"', page)}
        shown = {words(name) for name in re.findall(r"<h2>(.*?)</h2>", path.read_text())}
        missing = sections - shown - left_out(path.stem)
        with Tab(browser, path.as_uri(), viewport={"width": 1280, "height": 720}) as tab:
            tab.page.wait_for_selector("body[data-ready]")
            if faulty := [*missing, *tab.page.evaluate(FAULTY_SLIDES), *tab.complaints]:
                faults[path.stem] = faulty
    assert faults == {}


def left_out(chapter):
    """The headings that no slide shows: of questions and references, and of cells with that tag."""
    cells = nbformat.read(ROOT / f"book/{chapter}.ipynb", as_version=4).cells
    tagged = [cell.source for cell in cells if "no-slide" in cell.metadata.get("tags", [])]
    return {"Exercises", "References", *map(words, re.findall(r"^## (.*)", "\n".join(tagged), re.MULTILINE))}


def words(heading):
    """The letters of a heading, without its number and its marks."""
    return re.sub(r"[\W\d_]+", "", unescape(re.sub("<.*?>", "", heading)))


# What lies beyond its slide, text that is too small to read from afar, and pictures that do not show.
FAULTY_SLIDES = """() => Array.from({length: Reveal.getTotalSlides()}, (_, number) => {
    Reveal.slide(number);
    const slide = Reveal.getCurrentSlide(), box = slide.getBoundingClientRect();
    const all = [...slide.querySelectorAll("*")].filter(e => !e.closest("mjx-assistive-mml"));
    const faulty = all.filter(e => {
        const {left, right, top, bottom, width, height} = e.getBoundingClientRect();
        const beyond = left < box.left - 1 || right > box.right + 1
            || top < box.top - 1 || bottom > box.bottom + 1;
        const small = ["P", "LI", "TD"].includes(e.tagName) && parseFloat(getComputedStyle(e).fontSize) < 24;
        const named = e.alt?.length >= 5 || e.getAttribute("role") === "presentation";
        const broken = e.tagName === "IMG" && (!e.naturalWidth || !named);
        return width && height && beyond || small || broken;
    });
    if (box.width !== 1280 || box.height !== 720) faulty.push(slide);
    return faulty.map(e => `${number}: ${e.outerHTML.slice(0, 99)}`);
}).flat()"""


def test_the_cheat_sheet_prints_on_one_page(built, browser):
    """One sheet of A4, with nothing cut off at the side and some room left for other fonts."""
    with Tab(browser, (built.html / "book" / "cheat_sheet.html").as_uri()) as tab:
        settle(tab.page)
        printed = tab.page.pdf(format="A4")
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
        tab.page.set_viewport_size({"width": 794, "height": 1123})  # A4 in pixels
        tab.page.emulate_media(media="print")
        cut = "[...document.querySelectorAll('#on-one-page :is(div, pre, table)')]"
        cut += ".filter(one => one.scrollWidth > one.clientWidth + 2).map(one => one.className)"
        assert tab.page.evaluate(cut) == []
        used = tab.page.evaluate("document.querySelector('#on-one-page').getBoundingClientRect().height")
        assert 0.7 * 1123 < used < 0.97 * 1123
