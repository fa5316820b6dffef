"""The fields below exercises, in a small book of the exercises of three chapters and in a browser."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import answers
import nbformat
import pytest
from browsing import Tab, server
from docutils import nodes
from sphinx.errors import ExtensionError

from gmcam.lab.exercises import all_exercises, check
from gmcam.lab.exercises.checking import Answers, Exercise

ROOT = Path(__file__).parents[2]
CHAPTERS = ("own_photo", "guidance_map", "bug_or_theorem")  # they need no network for long
CONF = """
extensions = ["myst_nb", "answers"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static", "palette.css"]
html_css_files = ["palette.css", "gmcam.css"]
html_context = {"default_mode": "auto"}
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst", "mystnb"]
mathjax_path = "unused.js"
"""
NO_ANSWER = check("own_photo.1", ...).words

pytestmark = pytest.mark.slow


def of_exercises(chapter):
    """The questions of a chapter and the cells that check the answers, with what they print."""
    notebook = nbformat.read(ROOT / "book" / f"{chapter}.ipynb", as_version=4)
    starts = [cell.source.startswith("## Exercises") for cell in notebook.cells].index(True)
    title = nbformat.v4.new_markdown_cell(f"# {chapter}", id="title")
    kept = [cell for cell in notebook.cells[starts:] if "hide-cell" not in cell.metadata.get("tags", [])]
    for cell in kept:
        cell.source = re.sub(r"\{\w+\}`(\w+)[^`]*`", r"\1", cell.source)
        if cell.cell_type == "code":
            data = {"text/plain": NO_ANSWER}
            cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
    notebook.cells = [title, *kept]
    return notebook


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The pages of the small book."""
    source = tmp_path_factory.mktemp("fields") / "source"
    shutil.copytree(ROOT / "book" / "_static", source / "_static")
    shutil.copy(ROOT / "gmcam" / "palette.css", source)
    (source / "conf.py").write_text(CONF)
    pages = "\n".join(CHAPTERS)
    (source / "index.md").write_text(f"# Exercises\n\n```{{toctree}}\n{pages}\n```\n")
    for chapter in CHAPTERS:
        nbformat.write(of_exercises(chapter), source / f"{chapter}.ipynb")
    command = [sys.executable, "-m", "sphinx", "-q", str(source), str(source / "html")]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "book" / "_tools")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return source / "html"


@pytest.fixture(scope="module")
def address(html):
    with server(html) as root:
        yield root


class Page(Tab):
    """A chapter's page, with its fields by the names of their exercises."""

    def field(self, name):
        return self.page.locator(f'.gmcam-answer[data-exercise="{name}"]')

    def box(self, name):
        return self.field(name).get_by_role("textbox", name="Your answer")

    def submit(self, name, text):
        """The verdict on an answer."""
        self.box(name).fill(text)
        self.field(name).get_by_role("button", name="Check").click()
        return self.verdict(name)

    def verdict(self, name):
        return self.field(name).get_by_role("status").inner_text()

    def progress(self):
        return self.page.locator(".gmcam-progress").inner_text()


@pytest.fixture
def photo(browser, address):
    with Page(browser, f"{address}/own_photo.html") as page:
        yield page
        assert page.complaints == []


def test_answers_stand_below_their_cells_and_not_in_the_text(html):
    exercises = all_exercises()
    for chapter in CHAPTERS:
        page = (html / f"{chapter}.html").read_text()
        places = re.findall(r'<div class="gmcam-answer" data-exercise="([\w.]+)"', page)
        named = [name for name in exercises if name.startswith(f"{chapter}.")]
        assert places == [name for name in named if not callable(exercises[name].answers().right)]
        assert page.count('<div class="gmcam-progress"></div>') == 1
        slips = [slip for name in named for slip in exercises[name].answers().wrong]
        assert slips and not any(slip in page for slip in slips)
    assert "answers.js" not in (html / "index.html").read_text()


def test_a_wrong_answer_names_the_slip_and_a_right_one_is_right(photo):
    assert photo.progress() == "0 of 5 solved here"
    assert photo.submit("own_photo.1", "64") == check("own_photo.1", 64).words
    assert photo.submit("own_photo.1", "many").startswith("Expected a number, got 'many'. Write a number")
    assert photo.progress() == "0 of 5 solved here"
    assert photo.submit("own_photo.1", "16 × 16") == "Right."
    assert photo.progress() == "1 of 5 solved here · clear"
    row, column = all_exercises()["own_photo.2"].answers().right
    swapped = check("own_photo.2", [column, row]).words
    assert photo.submit("own_photo.2", f"({column}, {row})") == swapped
    assert photo.submit("own_photo.2", f"{row} {column}") == "Right."
    words = ", ".join(all_exercises()["own_photo.3"].answers().right)
    assert photo.submit("own_photo.3", words.upper()) == "Right."
    assert photo.progress() == "3 of 5 solved here · clear"


def test_a_verdict_goes_when_the_answer_is_changed(photo):
    photo.submit("own_photo.1", "256")
    photo.box("own_photo.1").press("End")
    photo.box("own_photo.1").press("0")
    assert photo.verdict("own_photo.1") == ""
    assert photo.progress() == "1 of 5 solved here · clear"


def test_progress_outlives_a_reload_until_it_is_cleared(photo):
    photo.submit("own_photo.1", "256")
    photo.submit("own_photo.4", "1")
    photo.page.reload()
    assert photo.box("own_photo.1").input_value() == "256" and photo.verdict("own_photo.1") == "Right."
    assert photo.box("own_photo.4").input_value() == "" and photo.verdict("own_photo.4") == ""
    assert photo.progress() == "1 of 5 solved here · clear"
    photo.page.get_by_role("button", name="clear", exact=True).click()
    assert photo.progress() == "0 of 5 solved here"
    assert photo.box("own_photo.1").input_value() == "" and photo.verdict("own_photo.1") == ""
    photo.page.reload()
    assert photo.progress() == "0 of 5 solved here"


def test_it_works_by_keyboard_alone(photo):
    keyboard = photo.page.keyboard
    photo.page.locator(".gmcam-progress").focus()
    for answer in ("64", "256"):
        for _ in range(30):
            keyboard.press("Tab")
            if photo.box("own_photo.1").evaluate("one => one === document.activeElement"):
                break
        keyboard.press("Control+a")
        keyboard.type(answer)
        keyboard.press("Enter")
        assert photo.verdict("own_photo.1") == check("own_photo.1", int(answer)).words
        photo.page.locator(".gmcam-progress").focus()
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert photo.progress() == "0 of 5 solved here"


def test_rows_are_typed_on_lines(browser, address):
    right = all_exercises()["bug_or_theorem.1"].answers().right
    with Page(browser, f"{address}/bug_or_theorem.html") as page:
        lines = "\n".join(" ".join(f"{value:g}" for value in row) for row in right.tolist())
        assert page.submit("bug_or_theorem.1", lines) == "Right."
        assert page.submit("bug_or_theorem.1", lines.replace("16", "15")).endswith("1 of 9 values.")
        page.page.reload()
        assert page.box("bug_or_theorem.1").input_value() == lines


def test_with_a_field_the_printed_line_is_hidden_and_without_one_it_stays(browser, address):
    with Page(browser, f"{address}/guidance_map.html") as page:
        printed = page.page.get_by_text(NO_ANSWER)
        seen = [one.is_visible() for one in printed.all()]
        assert seen == [True, False, False, False]  # the first one wants a function


def test_without_a_script_nothing_is_added(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/own_photo.html")
    assert page.get_by_text(NO_ANSWER).count() == 5 and page.get_by_text(NO_ANSWER).first.is_visible()
    assert not any(one.is_visible() for one in page.locator(".gmcam-answer, .gmcam-progress").all())
    context.close()


BLOCKED = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('SecurityError') }})"


def test_where_storage_is_blocked_progress_lasts_as_long_as_the_page(browser, address):
    context = browser.new_context()
    context.add_init_script(BLOCKED)
    with Page(context, f"{address}/own_photo.html") as page:
        assert page.submit("own_photo.1", "256") == "Right."
        assert page.progress() == "1 of 5 solved here · until you leave this page · clear"
    context.close()


def test_it_works_in_a_page_opened_from_a_disk(html, browser):
    with Page(browser, (html / "own_photo.html").as_uri()) as page:
        assert page.submit("own_photo.1", "256") == "Right."
        page.page.reload()
        assert page.verdict("own_photo.1") == "Right."


# What is wider than its box, apart from a text that scrolls in its field.
WIDER = """[...document.querySelectorAll(".gmcam-answer :is(form, label, div, button, p)")]
    .filter(one => one.scrollWidth > one.clientWidth)
    .map(one => one.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_fields_fit_and_are_accessible(browser, address, axe, scheme, width):
    view = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "has_touch": width < 600}
    for chapter in CHAPTERS:
        with Page(browser, f"{address}/{chapter}.html", **view) as page:
            places = page.page.locator(".gmcam-answer").all()
            for number, place in enumerate(places):
                place.get_by_role("textbox").fill(["a long answer " * 9, "256"][number % 2])
                place.get_by_role("button").click()
            boxes = [place.bounding_box() for place in places]
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
            assert page.page.evaluate(WIDER) == []
            controls = page.page.locator(":is(.gmcam-answer, .gmcam-progress) :is(input, textarea, button)")
            heights = [one.bounding_box()["height"] for one in controls.all()]
            assert min(heights) >= (40 if width < 600 else 24)
            page.page.evaluate(axe)
            audit = page.page.evaluate("axe.run('.gmcam-answer, .gmcam-progress')")
            assert [(v["id"], v["nodes"][0]["html"]) for v in audit["violations"]] == []


def exercise(right, wrong=None):
    return Exercise("test.1", lambda: Answers(right, wrong or {}), tolerance=0.02)


def test_functions_and_large_arrays_have_no_field():
    assert answers.data(exercise(sum)) is None
    assert answers.data(exercise([0.5] * (answers.LARGEST + 1))) is None
    assert answers.data(exercise([0.5] * answers.LARGEST))["kind"] == "numbers"


def test_what_is_written_is_what_check_compares():
    described = answers.data(exercise({"b", "a"}, {"slip": set()}))
    assert described == {"kind": "set", "right": ["a", "b"], "wrong": [["slip", []]], "tolerance": 0.02}
    assert answers.data(exercise("no", {"slip": "yes"}))["wrong"] == [["slip", "yes"]]
    with pytest.raises(ValueError, match="not JSON compliant"):
        answers.field("test.1", "", answers.data(exercise(float("nan"))))


def test_a_failing_exercise_stops_the_build(monkeypatch):
    failed = SimpleNamespace(returncode=1, stdout="", stderr="ValueError: no such network")
    monkeypatch.setattr(answers.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ExtensionError, match="no such network"):
        answers.compute(["cam"])


def test_answers_are_computed_once_for_each_chapter(monkeypatch):
    asked = []

    def compute(names):
        asked.append(names)
        return {f"{name}.1": {"kind": "word"} for name in names}

    monkeypatch.setattr(answers, "compute", compute)
    app = SimpleNamespace(builder=SimpleNamespace(format="html"))
    env = SimpleNamespace(found_docs={"book/cam", "book/intro"})
    answers.collect(app, env)
    env.found_docs |= {"book/own_photo"}
    answers.collect(app, env)
    answers.collect(app, env)
    assert asked == [["cam"], ["own_photo"]]
    assert [env.gmcam_answers[name]["kind"] for name in ("cam.1", "own_photo.1")] == ["word", "word"]


def test_other_builders_get_nothing():
    cell = nodes.container("", nodes.literal_block(text='check("cam.1", answer)'), classes=["cell"])
    document = nodes.document(None, None, "", nodes.section("", nodes.title(), cell))
    env = SimpleNamespace(gmcam_answers={"cam.1": {"kind": "word"}})
    for kind, fields in (("latex", 0), ("html", 2)):
        answers.insert(SimpleNamespace(builder=SimpleNamespace(format=kind), env=env), document, "cam")
        assert len(list(document.findall(nodes.raw))) == fields


def test_names_in_the_modules_do_not_clash():
    names = re.findall(r"^(?:async )?(?:function|const|class) (\w+)", answers.bundle(), re.MULTILINE)
    assert len(names) == len(set(names)) > 20
    assert not re.search(r"^(?:import|export) ", answers.bundle(), re.MULTILINE)
