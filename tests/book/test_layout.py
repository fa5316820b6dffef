"""The layout of pages, on a small book of two pages that has one of everything."""

import io
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import yaml
from browsing import OPEN, STILL, WIDTHS, Tab, resize, server, settle, violations
from nbformat import v4, write
from page_layout import cut_out, photographs
from PIL import Image

from gmcam.lab.pictures import dots
from gmcam.show import grid

ROOT = Path(__file__).parents[2]
EXTENSIONS = ("served", "shared_pages", "page_layout")  # those that need no network and no measurement
LONG = "x = " + "a" * 84  # 88 columns

pytestmark = pytest.mark.book

START = """\
# A chapter with a title

:::{admonition} Objectives
:class: tip
- You can say *this*.
- You can do that.
- You know both.

**Minutes:** 25. **You need:** {doc}`other`, derivatives.
:::

Text before a note.

```{margin}
A note with some words, enough for several lines in the margin of a wide page.
```

Text after the note, with {source}`a test <tests/book/test_layout.py>`, and a long equation:

$$
a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10} + a_{11} + a_{12} + a_{13} + a_{14} + a_{15} = b
$$ (long)

## A section

| one column | another column | a third column | a fourth column |
|---|---|---|---|
| `something_unbreakable` | `something_unbreakable` | `something_unbreakable` | `something_unbreakable` |

### A part of it
"""
FIGURE = {
    "image": {"alt": "a flat panel"},
    "figure": {"caption": "**A finding.** Words.", "name": "fig-wide"},
}


def code(source, tags=(), output=None, **mystnb):
    outputs = [v4.new_output("display_data", data=output)] if output else []
    return v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags), "mystnb": mystnb})


def picture(width):
    """A PNG of that many pixels, 144 an inch."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, 90), "#808080").save(buffer, "png", dpi=(144, 144))
    return {"image/png": b64encode(buffer.getvalue()).decode()}


CELLS = [
    v4.new_markdown_cell(START),
    code(LONG),
    code("a = 1\nb = 2", ["hide-input"], picture(1320), **FIGURE),
    code("a = 1", ["hide-input"], picture(600), code_prompt_show="The numbers · 7 lines of Python"),
    v4.new_markdown_cell("## Exercises\n\nBefore the first."),
    v4.new_markdown_cell("**1.** Do it."),
    code('answer = ...  # a number\ncheck("chapter.1", answer)'),
    code("def f():\n    return 1", ["hide-cell"]),
    code(f'{LONG}\ncheck("chapter.1", f())', ["hide-cell"]),
    v4.new_markdown_cell("**2.** And that.\n\nIt has two paragraphs."),
    code('from gmcam.lab.exercises import check\n\nanswer = ...\ncheck("chapter.2", answer)'),
    code('check("chapter.2", 2)', ["hide-cell"], picture(1320)),
    v4.new_markdown_cell("## Summary\n\n" + "Words, and more of them. " * 300),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"] = {"execute_notebooks": "off"}
    config["logo"], config["html"]["favicon"] = "", ""
    config["bibtex_bibfiles"] = [str(ROOT / path) for path in config["bibtex_bibfiles"]]
    tools = config["sphinx"]["local_extensions"]
    config["sphinx"]["local_extensions"] = {name: str(ROOT / tools[name]) for name in EXTENSIONS}
    for option in ("html_static_path", "templates_path"):
        paths = config["sphinx"]["config"][option]
        config["sphinx"]["config"][option] = [str(ROOT / path) for path in paths]
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    (folder / "_toc.yml").write_text(
        yaml.safe_dump(
            {
                "format": "jb-book",
                "root": "other",
                "parts": [{"caption": "Part", "numbered": True, "chapters": [{"file": "chapter"}]}],
            }
        )
    )
    notebook = v4.new_notebook(cells=CELLS, metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    write(notebook, folder / "chapter.ipynb")
    (folder / "book" / "_static").mkdir(parents=True)
    shutil.copy(ROOT / "book/_static/logo.png", folder / "book/_static")  # for the page's card
    (folder / "other.md").write_text(f"# Another page\n\n```python\n{LONG}\n```\n")
    (ROOT / "_build" / "served").mkdir(parents=True, exist_ok=True)
    (folder / "_build").mkdir()
    (folder / "_build" / "served").symlink_to(ROOT / "_build" / "served")
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(folder),
        "-W",
        "-n",
        "--keep-going",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    with server(folder / "_build" / "html") as running:
        yield running


@pytest.fixture(scope="module")
def chapter(address, browser):
    """The chapter's page, which every test sizes anew."""
    with Tab(browser, f"{address}/chapter.html", viewport={"width": 1440, "height": 900}) as tab:
        settle(tab.page)
        tab.page.add_style_tag(content=STILL)
        yield tab
        assert tab.complaints == []


@pytest.fixture
def page(chapter):
    chapter.page.evaluate(OPEN)
    return chapter.page


def style(page, selector, name):
    return page.evaluate(f"getComputedStyle(document.querySelector({selector!r}))[{name!r}]")


def box(page, selector):
    return page.locator(selector).first.bounding_box()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways_and_code_is_cut_on_phones_only(page, width):
    assert resize(page, width) == (0, 2 if width < 720 else 0)  # the two lines of 88 columns


@pytest.mark.parametrize(("width", "text"), [(1440, 720), (1280, 720), (1024, 720), (390, 358)])
def test_text_has_its_width_and_size(page, width, text):
    resize(page, width)
    assert box(page, ".bd-article h1 + * + p")["width"] == text
    assert style(page, ".bd-article h1 + * + p", "fontSize") == ("17px" if width > 390 else "16px")
    sizes = [style(page, f".bd-article {level}", "fontSize") for level in ("h1", "h2", "h3")]
    assert sizes == (["34px", "24px", "18px"] if width > 390 else ["28px", "20px", "17px"])
    assert style(page, ".bd-article h1", "fontWeight") == "650"
    assert style(page, ".bd-article pre", "fontSize") == "12.5px"
    assert style(page, ".bd-article pre", "padding") == "12px"


def test_headings_have_no_numbers_but_the_side_bar_has(page):
    resize(page, 1440)
    assert page.locator(".bd-article h1").inner_text().startswith("A chapter")
    assert page.locator(".bd-sidebar-primary .current > a").inner_text() == "1. A chapter with a title"


def test_wide_figures_reach_into_the_margin_and_shrink_with_the_page(page):
    widths = []
    for width in (1440, 1024, 390):
        resize(page, width)
        widths.append(box(page, "#fig-wide img")["width"])
    assert widths == [880, 744, 358]  # 1320 pixels at 144 an inch
    resize(page, 1440)
    assert box(page, ".cell_output > img")["width"] == 400
    figure, text = box(page, "#fig-wide"), box(page, ".bd-article h2")
    assert (figure["x"], figure["width"]) == (text["x"], 1000)
    assert box(page, ".gmcam-exercise img")["width"] < 720


@pytest.mark.parametrize("width", WIDTHS)
def test_notes_stand_in_the_margin_of_wide_pages_only(page, width):
    resize(page, width)
    note, text = box(page, "aside.margin"), box(page, ".bd-article h2")
    assert style(page, "aside.margin", "fontSize") == "14px"
    if width >= 1200:
        assert note["width"] == 240 and note["x"] >= text["x"] + text["width"] + 16
    else:
        assert (note["x"], note["width"]) == (text["x"], text["width"])


def test_a_file_of_the_repository_is_linked(page):
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    href = page.locator(".bd-article a", has_text="a test").get_attribute("href")
    assert href == f"{repository['url']}/blob/{repository['branch']}/tests/book/test_layout.py"


def test_objectives_are_one_line_of_text(page):
    resize(page, 1440)
    line = page.locator(".gmcam-objectives")
    words = "25 minutes · needs Another page, derivatives · say this; do that; you know both"
    assert line.inner_text() == words and line.locator("a").get_attribute("href") == "other.html"
    assert line.bounding_box()["height"] < 30
    assert page.locator(".admonition").count() == 0


def test_each_exercise_is_a_card_with_its_name(page):
    cards = page.locator(".gmcam-exercise")
    assert cards.evaluate_all("all => all.map(one => one.dataset.exercise)") == ["chapter.1", "chapter.2"]
    assert [card.locator("p").all_inner_texts() for card in cards.all()] == [
        ["1. Do it."],
        ["2. And that.", "It has two paragraphs."],
    ]
    assert [card.locator("details").count() for card in cards.all()] == [1, 1]  # a solution is one fold
    assert [card.locator("pre").count() for card in cards.all()] == [3, 2]


def test_folded_cells_have_names(page):
    shut = page.locator(".gmcam-fold .shut").all_text_contents()
    measured = ["How it was measured · 2 lines of Python", "The numbers · 1 line of Python"]
    assert shut == [*measured, "Show the solution", "Show the solution"]
    assert (
        page.locator(".bd-article summary").all_inner_texts()
        == ["Hide the code"] * 2 + ["Hide the solution"] * 2
    )


def test_a_figure_stands_before_the_code_that_draws_it(page):
    drawn = page.locator("div.cell:has(> .cell_output img):has(> .gmcam-fold)")
    assert drawn.count() == 2
    assert drawn.evaluate_all("all => all.map(one => one.lastElementChild.className)") == ["gmcam-fold"] * 2


def test_code_fades_at_the_edge_until_it_is_scrolled_to_its_end(page):
    resize(page, 390)
    block = page.locator("pre").first
    fades = "one => [one.classList.contains('gmcam-more'), getComputedStyle(one).maskImage !== 'none']"
    assert block.evaluate(fades) == [True, True]
    block.evaluate("one => one.scrollTo(one.scrollWidth, 0)")
    page.wait_for_timeout(100)
    assert block.evaluate(fades) == [False, False]
    resize(page, 1024)
    assert page.locator("pre.gmcam-more").count() == 0


def test_the_bar_shows_the_title_and_how_much_is_read(page):
    resize(page, 1440)
    title, read = page.locator(".gmcam-title"), "+getComputedStyle(one).getPropertyValue('--read')"
    for at, visible, share in (("0", False, 0), ("document.body.scrollHeight", True, 1)):
        page.evaluate(f"scrollTo(0, {at})")
        title.wait_for(state="visible" if visible else "hidden")
        page.wait_for_function(f"(one => {read} === {share})(document.querySelector('.gmcam-read'))")
    assert title.inner_text() == "A chapter with a title"
    page.evaluate("scrollTo(0, 0)")


def test_one_menu_runs_downloads_and_prints_by_keyboard(page):
    resize(page, 390)
    page.get_by_role("button", name="Run, download, print").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.innerText.trim()") == "Run on Binder"
    entries = [text.strip() for text in page.locator(".dropdown-page-menu li").all_inner_texts()]
    assert entries[1:] == ["Run in Colab", "Download the notebook", "Print, or save as PDF", "Full screen"]
    page.keyboard.press("Escape")
    page.locator(".dropdown-page-menu ul").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_have_their_colours(page, axe, scheme):
    resize(page, 1280)
    page.evaluate(axe)
    assert violations(page, scheme) == []
    grounds = [style(page, selector, "backgroundColor") for selector in ("body", "div.highlight")]
    dark = ["rgb(18, 21, 27)", "rgb(27, 32, 42)"]
    assert grounds == (dark if scheme == "dark" else ["rgb(255, 255, 255)", "rgb(245, 246, 248)"])
    assert style(page, ".cell_output img", "padding") == "0px"


def test_dark_pages_know_where_a_figures_photographs_are(tmp_path):
    photograph = np.full((8, 8, 3), 9, np.uint8)
    shown = {"chart": dots({"share": {"a": (1, 0, 2, ())}}), "both": grid([photograph, None, photograph])}
    for name, figure in shown.items():
        (tmp_path / name).write_bytes(figure._repr_png_())
    (tmp_path / "stacked").write_bytes(shown["both"]._repr_jpeg_())
    (tmp_path / "other").write_bytes(b"no image")
    assert photographs(tmp_path / "other") is None and photographs(tmp_path / "chart") == []
    for name in ("both", "stacked"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("L"))
        marked = np.zeros_like(pixels, bool)
        for box in photographs(tmp_path / name):
            left, bottom, right, top = np.asarray(box) / 100 * [*pixels.shape[::-1], *pixels.shape[::-1]]
            rows = slice(round(len(pixels) - top), round(len(pixels) - bottom))
            marked[rows, round(left) : round(right)] = True
        wrong = (pixels < 128) != marked
        assert marked.mean() > 0.1 and wrong.sum() <= 2 * sum(pixels.shape)  # a pixel's width of the edges


def test_the_cut_out_covers_each_box_and_nothing_between():
    shape = cut_out([[0, 50, 50, 100], [60, 0, 100, 40], [80, 80, 90, 90]])
    corners = [tuple(map(float, point.replace("%", "").split())) for point in shape[8:-1].split(", ")]
    area = sum(x * v - u * y for (x, y), (u, v) in zip(corners, [*corners[1:], corners[0]], strict=True)) / 2
    assert area == 50 * 50 + 40 * 40 + 10 * 10
