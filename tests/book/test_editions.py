"""The editions for a class: no solution in the students', every one and its slips in the instructors'."""

import re

import nbformat
import pytest
from editions import BOOK, write
from nbclient import NotebookClient

from gmcam.lab.exercises import all_exercises

EXERCISES = all_exercises()


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """Every notebook of an edition by its name."""
    written = {}

    def read(name):
        if name not in written:
            paths = write(name, tmp_path_factory.mktemp("editions") / name)
            written[name] = {path.stem: nbformat.read(path, as_version=4) for path in paths}
        return written[name]

    return read


def code(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("name", ["student", "instructor"])
def test_every_notebook_is_in_it_valid_and_without_outputs(edition, name):
    notebooks = edition(name)
    assert sorted(notebooks) == sorted(path.stem for path in BOOK.glob("*.ipynb"))
    for notebook in notebooks.values():
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("name", ["work.txt", ".git/config"])
def test_a_folder_with_something_in_it_is_left_alone(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    for folder in (tmp_path, file):
        with pytest.raises(ValueError, match="expected an empty folder"):
            write("student", folder)
    assert file.read_text() == "mine"


def test_students_get_every_question_and_no_solution(edition):
    questions = set()
    for notebook in edition("student").values():
        assert not any("hide-cell" in cell.metadata.get("tags", []) for cell in notebook.cells)
        calls = re.findall(r'^check\("([\w.]+)", (.*)\)$', code(notebook), re.MULTILINE)
        assert {answer for _, answer in calls} <= {"answer"}
        questions |= {name for name, _ in calls}
    assert questions == set(EXERCISES)


def test_instructors_get_every_solution_and_the_slips_to_watch_for(edition):
    solved = set()
    for notebook in edition("instructor").values():
        for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
            if "**Slips that the check names**" in cell.source:
                name = re.search(r'^check\("([\w.]+)", (?!answer\))', before.source, re.MULTILINE)[1]
                assert all(slip in cell.source for slip in EXERCISES[name].answers().wrong)
                solved.add(name)
    assert solved == set(EXERCISES)


def test_the_files_that_notebooks_read_come_along(tmp_path):
    write("student", tmp_path / "student")
    assert (tmp_path / "student/published.csv").exists()
    assert (tmp_path / "student/runs/collage-vgg/run.json").exists()
    assert not list((tmp_path / "student").glob("_*"))


@pytest.mark.slow
def test_a_students_notebook_runs_and_waits_for_answers(edition):
    notebook = edition("student")["grad_cam"]
    NotebookClient(notebook, timeout=120).execute()
    outputs = str([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    assert outputs.count("No answer yet") == 4 and "Right." not in outputs


def test_another_edition_is_refused(tmp_path):
    with pytest.raises(ValueError, match="edition of student, instructor, got 'teacher'"):
        write("teacher", tmp_path)
