"""The chapters as files: stripped, short-celled, complete, every figure with words beside it."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from gmcam.lab.exercises import all_exercises

ROOT = Path(__file__).parents[2]
EXERCISES = all_exercises()
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
NUMBERED = [part for part in TOC["parts"] if part.get("numbered")]
LISTED = [ROOT / f"{entry['file']}.ipynb" for part in NUMBERED for entry in part["chapters"]]
CHAPTERS = [path for path in LISTED if path.exists()]  # one is a page without cells
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
# The parts that meet the standard of words and open code; the others follow.
SHORT = [ROOT / f"{entry['file']}.ipynb" for part in NUMBERED[:3] for entry in part["chapters"]]
SHORT += [ROOT / f"book/{name}.ipynb" for name in ("planted_bias", "bias_verdict", "break_it")]
TAGS = {"hide-cell", "hide-input", "remove-cell", "slide", "no-slide"}
FIGURES = ("show(", "grid(", "pipeline(", "feature_sheet(", "intervals(", "lines(", "dots(")
FIGURES += ("signed_cells(", "effect_ledger(")


COLAB = """\
# In Colab: install the module. Elsewhere nothing happens.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet 'gmcam[lab]'"""


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def text(path: Path) -> str:
    return "\n".join(cell.source for cell in cells(path, "markdown"))


def draws(cell: nbformat.NotebookNode) -> bool:
    lines = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
    last = next(line for line in reversed(lines) if not line.startswith(")"))
    return any(last.removeprefix("gmcam.").startswith(call) for call in FIGURES)


def test_every_notebook_is_in_the_table_of_contents():
    listed = {TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])}
    pages = [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]
    assert {f"book/{path.stem}" for path in pages} == listed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_carries_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    for cell in cells(path, "code"):
        assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_have_at_most_fifteen_lines(path):
    assert [c.source for c in cells(path, "code") if len(c.source.splitlines()) > 15] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tags_are_those_that_the_book_and_its_slides_know(path):
    notebook = nbformat.read(path, as_version=4)
    assert {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])} <= TAGS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_have_alt_text_caption_and_a_name_of_their_own(path):
    names = []
    for cell in filter(draws, cells(path, "code")):
        described = cell.metadata["mystnb"]
        assert len(described["image"]["alt"]) > 20, cell.source
        assert len(described["figure"]["caption"]) > 20, cell.source
        names.append(described["figure"]["name"])
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_has_every_part(path):
    words = text(path)
    for part in ("{admonition} Objectives", "**Minutes:**", "**You need:**", "## Exercises", "## Summary"):
        assert part in words
    assert "```{margin}" in words
    assert words.rstrip().endswith("```{footbibliography}\n```")


def exercises(path: Path) -> dict[str, list]:
    """The cells of each exercise, by its number."""
    by_number: dict[str, list] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.source.startswith("## Summary"):
            break
        if question := re.match(r"\*\*(\d+)\.\*\* ", cell.source):
            by_number[question[1]] = []
        if by_number:
            by_number[list(by_number)[-1]].append(cell)
    return by_number


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_has_three_to_five_exercises_with_a_check_and_a_hidden_solution(path):
    by_number = exercises(path)
    assert list(by_number) == [str(number) for number in range(1, len(by_number) + 1)]
    assert 3 <= len(by_number) <= 5
    registered = [name for name in EXERCISES if name.split(".")[0] == path.stem]
    assert sorted(registered) == [f"{path.stem}.{number}" for number in by_number]
    for number, parts in by_number.items():
        code = [cell for cell in parts if cell.cell_type == "code"]
        questions = [cell for cell in code if re.search(r"^answer = \.\.\.", cell.source, re.MULTILINE)]
        assert len(questions) == 1
        assert questions[0].source.endswith(f'check("{path.stem}.{number}", answer)')
        solution = code[code.index(questions[0]) + 1 :]
        assert solution and all("hide-cell" in cell.metadata.get("tags", []) for cell in solution)
        assert re.search(rf'^check\("{path.stem}\.{number}", ', solution[-1].source, re.MULTILINE)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stated_minutes_are_those_of_the_text_the_code_and_the_exercises(path):
    """180 words a minute, 17 lines of code a minute, two minutes an exercise."""
    words = len(text(path).split())
    lines = sum(len(cell.source.splitlines()) for cell in cells(path, "code") if cell.source != COLAB)
    expected = words / 180 + lines * 0.06 + 2 * len(exercises(path))
    stated = int(re.search(r"\*\*Minutes:\*\* (\d+)", text(path))[1])
    assert abs(stated - expected) <= 1, f"{expected:.0f}"


def before_exercises(path: Path) -> list:
    """All cells of a chapter but its exercises."""
    asked = {cell.id for parts in exercises(path).values() for cell in parts}
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.id not in asked]


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.stem)
def test_chapter_is_short(path):
    """1,300 words, 25 minutes, six open cells of at most eight lines; exercises are not counted."""
    kept = before_exercises(path)
    words = sum(len(cell.source.split()) for cell in kept if cell.cell_type == "markdown")
    assert words <= 1300
    assert int(re.search(r"\*\*Minutes:\*\* (\d+)", text(path))[1]) <= 25
    folded = {"hide-input", "hide-cell", "remove-cell"}
    code = [cell for cell in kept if cell.cell_type == "code"]
    seen = [cell for cell in code if not folded & {*cell.metadata.get("tags", [])}]
    lines = [len(cell.source.splitlines()) for cell in seen]
    assert len(lines) <= 6 and sum(lines) <= 40 and max(lines, default=0) <= 8
    assert [cell.source for cell in seen if re.search(r"^def ", cell.source, re.MULTILINE)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_captions_begin_with_the_finding_in_bold(path):
    described = [cell.metadata.get("mystnb", {}).get("figure") for cell in cells(path, "code")]
    captions = [figure["caption"] for figure in described if figure and "caption" in figure]
    assert [caption for caption in captions if not re.match(r"\*\*[^*]+[.?]\*\*", caption)] == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_cell_prints_a_table(path):
    """Numbers to compare are a figure. The solutions of exercises may print."""
    aligned = r"print\(.*\{[^{}]*:[<>^]?\d+(\.\d+)?[%defs]?\}"
    kept = [cell.source for cell in before_exercises(path) if cell.cell_type == "code"]
    assert [source for source in kept if re.search(aligned, source)] == []


NO_PROSE = (r"```.*?```", r"`[^`\n]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)", r"https?://\S+")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_results_stand_in_outputs_and_not_in_prose(path):
    """A decimal number or a percentage in prose, caption or alternative text is a result typed in.

    Definitions and arithmetic are written as formulas, which are left out here, as code is.
    """
    described = [cell.metadata.get("mystnb", {}) for cell in cells(path, "code")]
    captions = [d["figure"]["caption"] + d["image"]["alt"] for d in described if "figure" in d]
    prose = "\n".join([text(path), *captions])
    for pattern in NO_PROSE:
        prose = re.sub(pattern, " ", prose, flags=re.DOTALL)
    assert re.findall(r".{0,30}(?:\d\.\d|\d ?%).{0,20}", prose) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_margins_hold_no_results_either(path):
    for margin in re.findall(r"```\{margin\}(.*?)```", text(path), re.DOTALL):
        for pattern in NO_PROSE[1:]:
            margin = re.sub(pattern, " ", margin, flags=re.DOTALL)
        assert not re.search(r"\d\.\d|\d ?%", margin), margin


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_code_cell_installs_the_module_in_colab_and_is_not_on_the_page(path):
    first = cells(path, "code")[0]
    assert first.metadata.tags == ["remove-cell"]
    assert first.source == COLAB


def test_linked_files_of_the_repository_exist():
    pages = [text(path) for path in NOTEBOOKS] + [path.read_text() for path in (ROOT / "book").glob("*.md")]
    linked = re.findall(r"\{source\}`[^`<]+<([^>`]+)>`", "\n".join(pages))
    assert linked and [path for path in linked if not (ROOT / path).exists()] == []


def test_figure_names_differ_between_pages():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names)) > 10
