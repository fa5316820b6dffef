"""The example of nine cells, in two chapters, is worked out rightly."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from gmcam import equations
from gmcam.lab.exercises.grad_cam import C_SMALL, M_SMALL

BOOK = Path(__file__).parents[2] / "book"
WEIGHTS = equations.channel_weights(C_SMALL)
GUIDANCE = equations.guidance_map(M_SMALL, C_SMALL)
GIVEN = {f"M_{k + 1} &=": M_SMALL[:, k] for k in (0, 1)} | {f"C_{k + 1} =": C_SMALL[:, k] for k in (0, 1)}
GRAD_CAM = {
    "2 M_1 - M_2 &=": equations.class_map(M_SMALL, WEIGHTS),
    r"\text{Grad-CAM} &=": equations.grad_cam(M_SMALL, C_SMALL),
}
LATER = {
    "A = M_1 + M_2 =": equations.aggregated_map(M_SMALL),
    r"C_1 \odot M_1 + C_2 \odot M_2 &=": equations.hires_cam(M_SMALL, C_SMALL),
    r"GM &=": GUIDANCE,
    r"GM \odot M_1 &=": GUIDANCE * M_SMALL[:, 0],
    "S &=": equations.gmcam(M_SMALL, C_SMALL),
}


def by_hand(chapter):
    cells = nbformat.read(BOOK / f"{chapter}.ipynb", as_version=4).cells
    return next(cell.source for cell in cells if cell.source.startswith("## By hand"))


def matrix(name, text):
    """The matrix after ``name``."""
    body = re.search(re.escape(name) + r" \\begin\{bmatrix\}(.*?)\\end\{bmatrix\}", text)[1]
    return torch.tensor([[float(cell) for cell in row.split("&")] for row in body.split(r"\\")]).double()


@pytest.mark.parametrize(
    ("chapter", "expected"),
    [("grad_cam", GIVEN | GRAD_CAM), ("guided_aggregation", GIVEN | GRAD_CAM | LATER)],
)
def test_every_matrix_is_what_its_equation_gives(chapter, expected):
    text = by_hand(chapter)
    assert text.count(r"\begin{bmatrix}") == len(expected)
    assert {name: matrix(name, text).tolist() for name in expected} == {
        name: value[0].tolist() for name, value in expected.items()
    }


def test_weights_and_the_maps_that_vanish():
    assert WEIGHTS.tolist() == [[2, -1]] and not (GUIDANCE * M_SMALL[:, 1]).any()
    assert r"$\lambda_1 = 2$ and $\lambda_2 = -1$" in by_hand("guided_aggregation")
    assert re.search(r"\\lambda_1 = [^$]*= 2\$ and \$\\lambda_2 = [^$]*= -1\$", by_hand("grad_cam"))
