"""What the project does not do with what it is given: run it, unpack it without bound, or put it into HTML.

``SECURITY.md`` says it for readers.
"""

import ast
import re
import zlib
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from deck import deck
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import gmcam
from gmcam import evaluate as evaluation
from gmcam import lab as views
from gmcam.datasets.opening import _voc_mask
from gmcam.evaluate.tables import COLUMNS, as_latex, as_markdown
from gmcam.lab.embedding import figure
from gmcam.lab.explorer import explorer
from gmcam.loading import checkpoint

ROOT = Path(__file__).parents[1]
SCRIPT = '<script>alert("1")</script>'
SMALL = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1


# Nothing that runs what it reads.

BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pd.read_pickle", "pandas.read_pickle"}
# What IPython makes of lines that begin with "!" and of cells that begin with "%%".
CALLS |= {f"get_ipython().{name}" for name in ("system", "getoutput", "run_cell_magic")}
CODE = [*sorted((ROOT / "gmcam").rglob("*.py")), *sorted((ROOT / "book").rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def forbidden(code):
    """What of it this project does not use, by name."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.partition(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        found += [called] * (called in BUILTINS | CALLS)
        found += ["shell"] * (given.get("shell", "False") != "False")
        found += [called] * (called == "torch.load" and given.get("weights_only") != "True")
        found += ["allow_pickle"] * (given.get("allow_pickle", "False") != "False")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "exec(text)",
        "import pickle",
        "from pickle import loads",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        TransformerManager().transform_cell("!ls"),
        TransformerManager().transform_cell("%%bash\nls"),
    ],
)
def test_what_is_forbidden_is_found(code):
    assert forbidden(code)


def test_what_only_looks_like_it_is_not():
    assert not forbidden("module.eval(); re.compile('a'); torch.compile(module)")
    assert not forbidden("torch.load(path, weights_only=True); yaml.safe_load(text); subprocess.run(['ls'])")


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_evaluates_unpickles_or_calls_a_shell(path):
    assert forbidden(path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_evaluates_unpickles_or_calls_a_shell(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert forbidden(TransformerManager().transform_cell(cell.source)) == [], cell.source


class Payload:
    """What a pickle runs when it is read: here, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_weights_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoint(SMALL).parent.mkdir(parents=True)
    torch.save({"features.0.weight": Payload(tmp_path / "ran")}, checkpoint(SMALL))
    with pytest.raises(ValueError, match="cannot be loaded as weights of squeezenet1_1"):
        gmcam.load("squeezenet1_1")
    assert not (tmp_path / "ran").exists()
    torch.load(checkpoint(SMALL), weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


# Names that are markup stay text in every HTML.


@pytest.fixture
def network():
    own = gmcam.load("collage-vgg")
    own.classes = (SCRIPT, *own.classes[1:])
    return own


def html_of(widget):
    """All that a widget and those inside it show as HTML."""
    own = widget.value if isinstance(widget, ipywidgets.HTML) else ""
    return own + "".join(map(html_of, getattr(widget, "children", ())))


def test_explorers_escape_the_names_of_classes(network):
    picture = gmcam.lab.photo("chelsea")
    frozen = html_of(views.frozen_explorer(network, picture, [SCRIPT], ["gmcam"]))
    assert "&lt;script&gt;" in frozen and "<script" not in frozen
    assert "<script" not in html_of(explorer(network, picture, (SCRIPT,)))


def test_a_figure_escapes_its_words():
    html = figure(np.zeros((4, 4, 3), np.uint8), f'{SCRIPT}" onload="x')
    assert "<script" not in html and '" onload' not in html and html.count("&lt;script&gt;") == 2


def test_tables_escape_names():
    rows = pd.DataFrame(
        [(SCRIPT, "drop", 0.5, 0.4, 0.6, 10), ("a|b_c%&", "drop", 0.5, 0.4, 0.6, 10)],
        columns=COLUMNS,
    )
    wide = evaluation.table(rows)
    assert "<script" not in wide._repr_html_() and "&lt;script&gt;" in wide._repr_html_()
    markdown = as_markdown(wide)
    assert "<script" not in markdown and "&lt;script&gt;" in markdown and r"a\|b_c%&amp;" in markdown
    assert r"a|b\_c\%\&" in as_latex(wide)


def test_slides_escape_headings_prose_and_alternative_text():
    picture = new_output("display_data", {"image/png": "QUJD"})
    about = {"mystnb": {"figure": {"caption": SCRIPT}, "image": {"alt": f'{SCRIPT}" onload="x'}}}
    cells = [
        new_markdown_cell(f"# {SCRIPT}"),
        new_markdown_cell(f"## Maps {SCRIPT}\n\nProse {SCRIPT}."),
        new_code_cell("1", metadata=about, outputs=[picture]),
    ]
    for slide in deck(new_notebook(cells=cells), {}):
        html = slide.heading + slide.above + slide.body
        assert "<script" not in html and '" onload' not in html


# Pictures that unpack to more than they seem.


def chunk(kind, data):
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


@pytest.fixture(scope="module")
def bomb():
    """A PNG of 400 white megapixels in less than 100 kB."""
    size = 20_000
    header = size.to_bytes(4) * 2 + bytes((1, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\xff" * (size // 8)) * size, 9)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_refused_wherever_a_picture_comes_in(bomb, tmp_path):
    assert len(bomb) < 100_000
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    network = gmcam.load("collage-vgg")
    for use in (
        lambda: gmcam.open_image(bomb),
        lambda: network.prepare(path),
        lambda: gmcam.explain(network, path),
        lambda: explorer(network, bomb),
        lambda: figure(path, "a picture"),
        lambda: gmcam.lab.mosaic([path], ["cat"]),
    ):
        with pytest.raises(ValueError, match="megapixels; scale it down first"):
            use()
    with pytest.raises(ValueError, match="cannot be read as a mask"):
        _voc_mask(path, Image.new("RGB", (4, 4)))


# What is installed.


def test_requirements_are_pinned():
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (ROOT / name).read_text().splitlines():
            asked = line.partition("#")[0].strip()
            assert not asked or re.fullmatch(r"-e \.|-r requirements\.txt|[\w-]+==[\w.]+", asked), line
