"""The structure of the package: who imports whom, and how long the files are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gmcam"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
LIBRARY = [path for path in MODULES if not path.is_relative_to(PACKAGE / "lab")]
FILE_LINES, LIBRARY_LINES = 300, 5960


def table():
    """The first column of the README's map: one list of the package's files and folders per row."""
    rows = re.findall(r"^\| (`gmcam/.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [re.findall(r"`(gmcam/[^`]+)`", row) for row in rows]


def row_of(path):
    """The index of the row that names ``path`` or its folder; all rows of the lab count as the last."""
    name = path.relative_to(ROOT).as_posix()
    covers = [any(e == name or (e[-1] == "/" and name.startswith(e)) for e in row) for row in table()]
    rows = [index for index, covered in enumerate(covers) if covered]
    assert rows, f"{name} is not in the README's map"
    return max(rows) if name.startswith("gmcam/lab/") else rows[0]


def file_of(name):
    """The file of a module by its dotted name, or None."""
    path = ROOT / name.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def top_level():
    """Name at the top of the package → the module that defines it, from the stub."""
    nodes = ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: f"gmcam.{node.module}" for node in imports for alias in node.names}


def imported(code):
    """Dotted names of the modules of this package that ``code`` imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "gmcam"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "gmcam":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                origin = top_level().get(alias.name) if node.module == "gmcam" else None
                names.add(full if file_of(full) else origin or node.module)
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError("relative imports are not used here")
    return names


def mentions_of_the_lab(code):
    """Imports, attributes and strings of ``code`` that lead to ``gmcam.lab``. Docstrings may show it."""
    tree = ast.parse(code)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    names = [name for name in imported(code) if (name + ".").startswith("gmcam.lab.")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("gmcam.lab"):
            names.append(ast.unparse(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            names += re.findall(r"gmcam[./]lab\b", node.value)
    return names


@pytest.mark.parametrize(
    "code",
    [
        "import gmcam.lab",
        "import gmcam.lab.scenes as scenes",
        "from gmcam import lab",
        "from gmcam.lab import scene",
        "from gmcam.lab.scenes import scene",
        "def f():\n    from gmcam import lab",
        "import gmcam\ngmcam.lab.scene",
        "importlib.import_module('gmcam.lab')",
    ],
)
def test_a_mention_of_the_lab_is_detected(code):
    assert mentions_of_the_lab(code)


@pytest.mark.parametrize("code", ["from gmcam import labels", "'''gmcam.lab'''", "import gmcam\ngmcam.load"])
def test_other_code_is_not(code):
    assert not mentions_of_the_lab(code)


def test_imports_are_resolved_to_modules():
    code = "from gmcam import METHODS, metrics\nfrom gmcam.chunks import in_chunks\nimport torch, gmcam.show"
    assert imported(code) == {"gmcam.methods", "gmcam.metrics", "gmcam.chunks", "gmcam.show"}


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_mentions_the_lab(path):
    assert mentions_of_the_lab(path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_row_of_the_readme_and_those_above(path):
    names = imported(path.read_text())
    if path.name == "__main__.py":
        names.discard("gmcam")  # the command line uses the whole library
    below = [name for name in names if row_of(file_of(name)) > row_of(path)]
    assert below == []


def test_the_readmes_map_is_in_order():
    names = (
        "equations.py",
        "capture.py",
        "network.py",
        "methods/captum.py",
        "explaining.py",
        "lab/scenes.py",
    )
    rows = [row_of(PACKAGE / name) for name in names]
    assert rows == sorted(set(rows))


def test_every_entry_of_the_readmes_map_exists():
    for name in [name for row in table() for name in row]:
        assert (ROOT / name).exists(), name


def lines(path):
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_of_the_library_has_at_most_300_lines(path):
    assert lines(path) <= FILE_LINES


def test_the_library_stays_within_its_budget():
    assert sum(map(lines, LIBRARY)) <= LIBRARY_LINES
