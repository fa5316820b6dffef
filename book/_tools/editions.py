"""Editions of the notebooks for a class: `python book/_tools/editions.py student|instructor FOLDER`.

The student edition has the exercises without their solutions, the cells with the tag ``hide-cell``. The
instructor edition has a heading above each solution, and below it the slips that the exercise's check
recognises. Both come with the files that the notebooks read.
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
    """Whether the cell is part of a solution."""
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
    """Write every notebook of the book in that edition, with the files it reads, into ``folder``.

    Raises ``ValueError`` for an unknown edition, and for a folder that is not empty.
    """
    if edition not in EDITIONS:
        raise ValueError(f"expected an edition of {', '.join(EDITIONS)}, got {edition!r}: choose one")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"expected an empty folder, got {folder} with files in it: name another")
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
