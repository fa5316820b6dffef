"""The chapters as files: stripped, short-celled, complete, every figure with words beside it."""

from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
NUMBERED = [part for part in TOC["parts"] if part.get("numbered")]
CHAPTERS = [ROOT / f"{entry['file']}.ipynb" for part in NUMBERED for entry in part["chapters"]]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
FIGURES = ("show(", "grid(", "pipeline(", "feature_sheet(", "intervals(", "lines(")


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
    assert {f"book/{path.stem}" for path in NOTEBOOKS} <= listed


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
    assert words.rstrip().endswith("```{footbibliography}\n```")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_has_a_hidden_solution(path):
    exercises = text(path).split("## Exercises")[1].split("## Summary")[0].count("\n**")
    hidden = [c for c in cells(path, "code") if "hide-cell" in c.metadata.get("tags", [])]
    assert len(hidden) >= exercises >= 2


def test_figure_names_differ_between_pages():
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) == len(set(names)) > 10
