"""Input is never run, never unpacked without bound, and never inserted into HTML as markup.

``SECURITY.md`` tells readers so.
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

import gmcam
from gmcam import evaluate as evaluation
from gmcam.datasets.voc import read_mask
from gmcam.evaluate.tables import COLUMNS, as_latex, as_markdown
from gmcam.lab import explorer, frozen_explorer
from gmcam.lab.embedding import figure
from gmcam.loading import checkpoint

ROOT = Path(__file__).parents[1]
SCRIPT = '<script>alert("1")</script>'
SMALL = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1


# No code that runs what it reads.

BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pd.read_pickle", "pandas.read_pickle"}
# IPython turns lines that begin with "!" and cells that begin with "%%" into these.
CALLS |= {f"get_ipython().{name}" for name in ("system", "getoutput", "run_cell_magic")}
CODE = [*sorted((ROOT / "gmcam").rglob("*.py")), *sorted((ROOT / "book").rglob("*.py"))]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def forbidden(code):
    """The names of what ``code`` uses that this project does not allow."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            names += [name for name in imported if name.partition(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        names += [called] * (called in BUILTINS | CALLS)
        names += ["shell"] * (keywords.get("shell", "False") != "False")
        names += [called] * (called == "torch.load" and keywords.get("weights_only") != "True")
        names += ["allow_pickle"] * (keywords.get("allow_pickle", "False") != "False")
    return names


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
def test_forbidden_code_is_detected(code):
    assert forbidden(code)


def test_similar_code_is_allowed():
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
    """A pickle of this object creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_weights_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoint(SMALL).parent.mkdir(parents=True)
    torch.save({"features.0.weight": Payload(tmp_path / "ran")}, checkpoint(SMALL))
    with pytest.raises(ValueError, match=r"weights of squeezenet1_1 in .* cannot be loaded"):
        gmcam.load("squeezenet1_1")
    assert not (tmp_path / "ran").exists()
    torch.load(checkpoint(SMALL), weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


# Names that are markup stay text in every HTML.


@pytest.fixture
def network():
    network = gmcam.load("collage-vgg")
    network.classes = (SCRIPT, *network.classes[1:])
    return network


def html_of(widget):
    """The HTML that a widget and those inside it show."""
    html = widget.value if isinstance(widget, ipywidgets.HTML) else ""
    return html + "".join(map(html_of, getattr(widget, "children", ())))


def test_explorers_escape_the_names_of_classes(network):
    image = gmcam.lab.photo("chelsea")
    frozen = html_of(frozen_explorer(network, image, [SCRIPT], ["gmcam"]))
    assert "&lt;script&gt;" in frozen and "<script" not in frozen
    assert "<script" not in html_of(explorer(network, image, [SCRIPT]))


def test_a_figure_escapes_its_caption():
    html = figure(np.zeros((4, 4, 3), np.uint8), f'{SCRIPT}" onload="x')
    assert "<script" not in html and '" onload' not in html and html.count("&lt;script&gt;") == 2


def test_tables_escape_names():
    rows = pd.DataFrame(
        [(name, "drop", 0.5, 0.4, 0.6, 10, 10) for name in (SCRIPT, "a|b_c%&")],
        columns=COLUMNS,
    )
    wide = evaluation.table(rows)
    assert "<script" not in wide._repr_html_() and "&lt;script&gt;" in wide._repr_html_()
    markdown = as_markdown(wide)
    assert "<script" not in markdown and "&lt;script&gt;" in markdown and r"a\|b_c%&amp;" in markdown
    assert r"a|b\_c\%\&" in as_latex(wide)


def test_slides_escape_headings_prose_and_alternative_text():
    image = new_output("display_data", {"image/png": "QUJD"})
    about = {"mystnb": {"figure": {"caption": SCRIPT}, "image": {"alt": f'{SCRIPT}" onload="x'}}}
    cells = [
        new_markdown_cell(f"# {SCRIPT}"),
        new_markdown_cell(f"## Maps {SCRIPT}\n\nProse {SCRIPT}."),
        new_code_cell("1", metadata=about, outputs=[image]),
    ]
    for slide in deck(new_notebook(cells=cells), {}):
        html = slide.heading + slide.above + slide.body
        assert "<script" not in html and '" onload' not in html


# Images that unpack to far more than their file.


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


def test_a_decompression_bomb_is_refused_wherever_an_image_is_read(bomb, tmp_path):
    assert len(bomb) < 100_000
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    network = gmcam.load("collage-vgg")
    for use in (
        lambda: gmcam.open_image(bomb),
        lambda: network.prepare(path),
        lambda: gmcam.explain(network, path),
        lambda: explorer(network, bomb),
        lambda: figure(path, "an image"),
        lambda: gmcam.lab.mosaic([path], ["cat"]),
    ):
        with pytest.raises(ValueError, match="megapixels"):
            use()
    with pytest.raises(ValueError, match="decompression bomb"):
        read_mask(path, (4, 4))


# What is installed.


def test_requirements_are_pinned():
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (ROOT / name).read_text().splitlines():
            entry = line.partition("#")[0].strip()
            assert not entry or re.fullmatch(r"-e \.|-r requirements\.txt|[\w-]+==[\w.]+", entry), line
