"""Figures have a second version for narrow pages, which the browser chooses."""

import base64
import re
from io import StringIO

import nbformat
import numpy as np
import pytest
import stacked_figures
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image
from sphinx.application import Sphinx

from gmcam.show import InlineFigure, grid

PANEL = np.zeros((8, 8, 3), np.uint8)


def written(folder, figure):
    """The page of a notebook that shows ``figure``, and the images that the build copies."""
    drawn = {"image/png": figure._repr_png_(), "image/jpeg": figure._repr_jpeg_()}
    data = {kind: base64.b64encode(content).decode() for kind, content in drawn.items() if content}
    alt = {"mystnb": {"image": {"alt": "four squares"}}}
    cell = new_code_cell("draw()", metadata=alt, outputs=[new_output("display_data", data)])
    (folder / "source" / "book").mkdir(parents=True)
    nbformat.write(new_notebook(cells=[cell]), folder / "source" / "book" / "page.ipynb")
    (folder / "source" / "index.rst").write_text("Title\n=====\n\n.. toctree::\n\n   book/page\n")
    out = folder / "out"
    app = Sphinx(
        folder / "source",
        None,
        out,
        folder / "trees",
        "html",
        {"extensions": ["myst_nb", stacked_figures.__name__], "nb_execution_mode": "off"},
        status=StringIO(),
        warning=StringIO(),
    )
    app.build()
    return (out / "book" / "page.html").read_text(), {path.name: path for path in (out / "_images").iterdir()}


@pytest.mark.parametrize(("columns", "kind", "narrow"), [(4, "", 767), (8, " gmcam-wide", 1239)])
def test_a_narrow_window_gets_the_stacked_figure(columns, kind, narrow, tmp_path):
    page, images = written(tmp_path, grid([PANEL] * columns, columns=columns))
    picture = re.search(r'<picture class="gmcam-stacked(.*?)">(.*?)</picture>', page, re.DOTALL)
    assert picture[1] == kind and f'media="(max-width: {narrow}px)"' in picture[2]
    assert 'alt="four squares"' in picture[2]
    for name, form in (("srcset", "JPEG"), (" src", "PNG")):
        address = re.search(rf'{name}="\.\./_images/([^"]+)"', picture[2])[1]
        with Image.open(images[address]) as image:
            assert image.format == form


def test_a_figure_without_a_second_version_is_an_image(tmp_path):
    figure = InlineFigure(figsize=(2, 2))
    page, images = written(tmp_path, figure)
    assert "<picture" not in page and "<img" in page and len(images) == 1
