"""The book, built from clean as `make book` builds it, then opened in a browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS_PER_NOTEBOOK = 60
FLAGS = ["-W", "-n", "--keep-going"]

pytestmark = [pytest.mark.book, pytest.mark.slow]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The built pages and what the build printed."""
    out = tmp_path_factory.mktemp("book")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT)]
    run = subprocess.run(
        [*command, *FLAGS, "--path-output", str(out)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return out / "_build" / "html", run.stdout + run.stderr


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="install requirements-test.txt")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine: install Debian's package of that name")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


def pages(html: Path) -> list[Path]:
    return sorted((html / "book").glob("*.html"))


def test_make_book_uses_the_same_flags():
    assert f"jupyter-book build . {' '.join(FLAGS)}" in (ROOT / "Makefile").read_text()


def test_every_notebook_ran_within_its_time(built):
    seconds = dict(re.findall(r"book/(\w+)\S* *: Executed notebook in ([\d.]+) seconds", built[1]))
    assert len(seconds) == len(list((ROOT / "book").glob("*.ipynb"))), built[1][-2000:]
    assert {name: s for name, s in seconds.items() if float(s) > SECONDS_PER_NOTEBOOK} == {}


def test_every_picture_on_the_pages_has_alt_text(built):
    for page in pages(built[0]):
        for picture in re.findall(r"<img[^>]*>", page.read_text()):
            assert re.search(r'alt="[^"]{4,}"', picture), f"{page.name}: {picture}"


def test_no_equation_number_or_reference_is_left_open(built):
    for page in pages(built[0]):
        assert not re.search(r"\[\?\]|{(doc|footcite:p)}`", page.read_text()), page.name


@pytest.mark.parametrize("width", [375, 1280])
def test_pages_fit_their_window_and_show_every_picture(built, browser, width):
    for page in pages(built[0]):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.route(re.compile("^https?:"), lambda route: route.abort())  # nothing from outside
        tab.goto(page.as_uri(), wait_until="load")
        broken = tab.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        tab.close()
        assert broken == [], page.name
        assert overflow <= 1, f"{page.name} is {overflow} px too wide"


def test_dark_pages_leave_saliency_colours_alone(built, browser):
    tab = browser.new_page(color_scheme="dark")
    tab.route(re.compile("^https?:"), lambda route: route.abort())
    tab.goto((built[0] / "book" / "guidance_map.html").as_uri(), wait_until="load")
    filters = tab.evaluate(
        "[...document.querySelectorAll('.cell_output img')].map(i => getComputedStyle(i).filter)"
    )
    dark = tab.evaluate("document.documentElement.dataset.theme")
    tab.close()
    assert dark == "dark"
    assert filters and set(filters) == {"none"}
