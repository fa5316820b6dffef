"""Editions of the notebooks for a class: `python book/_tools/editions.py student|instructor FOLDER`.

The student edition has no solutions: cells with the tag ``hide-cell`` are left out, and what is to be
answered stays. The instructor edition has every solution under a heading of its own, with the slips that
the exercise's check knows by name. Both bring the files that the notebooks read.
"""

import argparse
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from gmcam.lab.exercises import all_exercises

BOOK = Path(__file__).parents[1]
SOLUTION = "hide-cell"


def is_solution(cell: NotebookNode) -> bool:
    """Whether it holds (part of) a solution."""
    return cell.cell_type == "code" and SOLUTION in cell.metadata.get("tags", [])


def student(notebook: NotebookNode) -> NotebookNode:
    """The notebook without its solutions."""
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell)]
    return notebook


def instructor(notebook: NotebookNode) -> NotebookNode:
    """The notebook with a heading above each solution, and the slips to watch for below it."""
    exercises = all_exercises()
    cells: list[NotebookNode] = []
    for number, cell in enumerate(notebook.cells):
        first = is_solution(cell) and not is_solution(notebook.cells[number - 1])
        if first:
            cells.append(nbformat.v4.new_markdown_cell("**Solution**", id=f"solution-{number}"))
        cells.append(cell)
        checked = re.search(r'^check\("([\w.]+)", ', cell.source, re.MULTILINE) if is_solution(cell) else None
        if checked:
            slips = "\n".join(f"- {slip}" for slip in exercises[checked[1]].answers().wrong)
            text = f"**Slips that the check names**\n\n{slips}"
            cells.append(nbformat.v4.new_markdown_cell(text, id=f"slips-{number}"))
    notebook.cells = cells
    return notebook


EDITIONS = {"student": student, "instructor": instructor}


def write(edition: str, folder: Path) -> list[Path]:
    """Write every notebook of the book in that edition, with what they read, into ``folder``.

    Raises ``ValueError`` for an edition that there is not, and for a folder with something in it.
    """
    if edition not in EDITIONS:
        raise ValueError(f"there is no {edition!r} edition; there are {', '.join(EDITIONS)}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already; name an empty folder or a new one")
    ignored = shutil.ignore_patterns("_*", "*.ipynb", "*.md", "*.bib", ".*")
    shutil.copytree(BOOK, folder, ignore=ignored, dirs_exist_ok=True)
    written = []
    for path in sorted(BOOK.glob("*.ipynb")):
        notebook = EDITIONS[edition](nbformat.read(path, as_version=4))
        written.append(folder / path.name)
        nbformat.write(notebook, written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write an edition of the notebooks for a class.")
    parser.add_argument("edition", choices=EDITIONS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(f"{len(write(options.edition, options.folder))} notebooks in {options.folder}")
