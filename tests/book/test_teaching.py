"""The pages for instructors and for print: sums, names and worked numbers are right."""

import re
import shlex
from fractions import Fraction
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import gmcam
from gmcam import equations
from gmcam.__main__ import _parser
from gmcam.lab.exercises import all_exercises
from gmcam.metrics import dice, drop, increase, iou, share_inside

ROOT = Path(__file__).parents[2]
TEACHING = (ROOT / "book/teaching.md").read_text()
CHEAT_SHEET = (ROOT / "book/cheat_sheet.md").read_text()
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
LISTED = {TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])}
SESSIONS = re.findall(
    r"^## ((?:Lecture|Lab) \d): [^\n]* \((\d+) minutes\)\n(.*?)(?=^## )", TEACHING, re.M | re.S
)
QUESTIONS = re.split(r"^### Question \d: ", TEACHING.split("## Eight exam questions")[1], flags=re.M)[1:]


def headings(chapter: str) -> set[str]:
    notebook = nbformat.read(ROOT / f"book/{chapter}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return set(re.findall(r"^#+ (.+)$", text, re.MULTILINE))


def test_there_are_two_lectures_and_three_labs():
    assert [name for name, _, _ in SESSIONS] == ["Lecture 1", "Lab 1", "Lecture 2", "Lab 2", "Lab 3"]


@pytest.mark.parametrize(("name", "minutes", "text"), SESSIONS, ids=[name for name, _, _ in SESSIONS])
def test_a_sessions_minutes_add_up(name, minutes, text):
    assert sum(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE))) == int(minutes)
    assert int(minutes) == 90 if name.startswith("Lecture") else 60 <= int(minutes) <= 90
    assert f"| {name.replace(' ', chr(0xA0))} | {minutes} |" in TEACHING
    assert "Afterwards, students can" in text and "**Watch for**" in text


@pytest.mark.parametrize(("name", "minutes", "text"), SESSIONS, ids=[name for name, _, _ in SESSIONS])
def test_the_overview_names_a_sessions_chapters(name, minutes, text):
    overview = next(
        line for line in TEACHING.splitlines() if line.startswith(f"| {name[:-2]}\xa0{name[-1]} |")
    )
    planned = re.findall(r"^\| \d+ \| \{doc\}`(\w+)`", text, re.MULTILINE)
    assert set(planned) - {"intro"} >= set(re.findall(r"\{doc\}`(\w+)`", overview))


@pytest.mark.parametrize("text", [TEACHING, CHEAT_SHEET], ids=["teaching", "cheat_sheet"])
def test_every_page_that_is_named_is_in_the_book(text):
    assert {f"book/{name}" for name in re.findall(r"\{doc\}`(\w+)`", text)} <= LISTED


def test_every_section_that_is_named_stands_in_its_chapter():
    named = re.findall(r"\{doc\}`(\w+)`((?:, \*[^*]+\*)+)", TEACHING)
    assert len(named) > 30
    for chapter, sections in named:
        assert set(re.findall(r"\*([^*]+)\*", sections)) <= headings(chapter), chapter


def test_every_exercise_that_is_named_is_asked():
    named = re.findall(r"\{doc\}`(\w+)`, exercises? (\d(?:(?:, | and )\d)*)", TEACHING)
    assert len(named) > 20
    assert {f"{chapter}.{n}" for chapter, numbers in named for n in re.findall(r"\d", numbers)} <= set(
        all_exercises()
    )


def test_every_frozen_explorer_that_is_named_is_there():
    table = TEACHING.split("(teaching-explorer)=")[1].split("## Lecture 1")[0]
    for chapter in re.findall(r"^\| \{doc\}`(\w+)`", table, re.MULTILINE):
        assert re.search(r"\b(frozen_explorer|freeze)\(", (ROOT / f"book/{chapter}.ipynb").read_text())


def test_every_exam_question_has_one_solution():
    assert len(QUESTIONS) == 8
    assert all(question.count("```{dropdown} Solution\n") == 1 for question in QUESTIONS)
    assert TEACHING.count("{dropdown}") == 8


def test_the_rubrics_points_add_up():
    table = TEACHING.split("(teaching-rubric)=")[1]
    assert sum(map(int, re.findall(r"^\| [\w -]+ \| (\d+) \|", table, re.MULTILINE))) == 20
    assert "Twenty points." in table


def matrix(name: str, text: str) -> torch.Tensor:
    """The matrix that stands behind ``name`` in a question."""
    body = re.search(re.escape(name) + r"[^\\]*\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", text)[1]
    rows = [[float(cell) for cell in row.split("&")] for row in body.split(r"\\")]
    return torch.tensor(rows, dtype=torch.float64)


def test_question_1_is_worked_out_rightly():
    question, solved = QUESTIONS[0].split("```{dropdown}")
    M = torch.stack([matrix(f"M_{k} =", question) for k in (1, 2)])[None]
    C = torch.stack([matrix(f"C_{k} =", question) for k in (1, 2)])[None]
    assert equations.channel_weights(C)[0].tolist() == [2, -1]
    assert r"= 2$" in solved and r"= -1$" in solved
    for name, value in (
        ("A =", equations.aggregated_map(M)),
        ("$2 M_1 - M_2 =", equations.class_map(M, equations.channel_weights(C))),
        ("so Grad-CAM is $", equations.grad_cam(M, C)),
        (r"$C_1 \odot M_1 + C_2 \odot M_2 =", equations.hires_cam(M, C)),
        ("so $GM =", equations.guidance_map(M, C)),
        (r"\text{Grad-CAM} =", equations.gmcam(M, C)),
    ):
        assert torch.equal(matrix(name, solved), value[0]), name


def test_question_3_is_worked_out_rightly():
    question, solved = QUESTIONS[2].split("```{dropdown}")
    S = matrix(r"$S = \tfrac14", question.replace(r"\tfrac14 \begin", r"\tfrac14\begin"))[None]
    assert torch.equal(matrix(r"\tfrac1{16}", solved)[None], S**2)
    mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    mask[..., 0] = True
    for heat, expected in ((S / 4, ("1/2", "1/3", "5/8")), (S**2 / 16, ("2/3", "1/2", "17/22"))):
        values = [metric(heat.float(), mask).item() for metric in (dice, iou, share_inside)]
        assert values == pytest.approx([float(Fraction(value)) for value in expected])
        for value in expected:
            top, bottom = value.split("/")
            assert f"\\frac{top}{bottom}" in solved or f"\\frac{{{top}}}{{{bottom}}}" in solved


def test_question_4_is_worked_out_rightly():
    whole, zone = torch.tensor([4 / 5, 1 / 2, 1 / 10]), torch.tensor([3 / 5, 3 / 4, 1 / 20])
    assert drop(whole, zone).tolist() == pytest.approx([1 / 4, 0, 1 / 2])
    assert drop(whole, zone).mean().item() == pytest.approx(1 / 4)
    assert increase(whole, zone).float().mean().item() == pytest.approx(1 / 3)


def test_neither_page_has_results_typed_in():
    for text in (TEACHING, CHEAT_SHEET):
        prose = re.sub(r"```(?!\{dropdown).*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "", text, flags=re.DOTALL)
        assert not re.search(r"\d\.\d|\d ?%", prose)


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", CHEAT_SHEET, re.DOTALL))


def test_the_cheat_sheets_code_runs():
    names = {}
    exec(blocks("python"), names)
    assert names["result"].maps.shape == (2, 128, 128)
    line = re.search(r"^`result`: .*$", CHEAT_SHEET, re.MULTILINE)[0]
    _, *parts = re.split(r"`(\w+)`: ", line)  # name, its attributes, name, …
    assert len(parts) == 4
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        attributes = re.findall(r"`\.(\w+)`", text)
        assert attributes and all(hasattr(names[name], attribute) for attribute in attributes), name


def test_the_cheat_sheets_methods_and_commands_exist():
    table = CHEAT_SHEET.split("## Which method")[1].split("## ")[0]
    methods = re.findall(r"`(\w+)`", table)
    assert len(methods) >= 7 and set(methods) <= set(gmcam.METHODS)
    commands = blocks("bash").replace("\\\n", " ").splitlines()
    for command in commands:
        _parser().parse_args(shlex.split(command)[3:])
    assert len(commands) == 5
