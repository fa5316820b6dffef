"""What is imported when: heavy libraries only where they are used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gmcam

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gmcam.__file__).parents[1])}
LIGHT = {"gmcam", "lazy_loader"}
REPEATS = 5  # the shortest of them is what the program takes; a longer one is the machine's other work
IMPORTED = """
import sys
before = set(sys.modules)
{}
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*packages - sys.stdlib_module_names)
"""
COMMAND = """
import runpy
sys.argv = {!r}
try:
    runpy.run_module("gmcam", run_name="__main__")
except SystemExit as end:
    assert not end.code
"""
HELP = 'subprocess.run([sys.executable, "-m", "gmcam", "--help"], stdout=subprocess.DEVNULL, check=True)'
SECONDS = """
import time, {}
start = time.perf_counter()
{}
print(time.perf_counter() - start)
"""


def run(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout


def imported(code):
    """The packages outside the standard library that ``code`` imports."""
    return set(run(IMPORTED.format(code)).splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["evaluate", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    assert imported(COMMAND.format(["gmcam", *arguments])) == LIGHT


def test_the_package_imports_nothing_heavy():
    assert imported("import gmcam") == LIGHT


def test_what_is_used_is_imported_and_no_more():
    """Networks without figures, figures without tables, nothing with what only a method or two need."""
    used = imported("import gmcam; gmcam.load, gmcam.explain, gmcam.lab.export_onnx")
    assert "torch" in used
    assert not used & {
        "onnx",
        "onnxscript",
        "onnxruntime",
        "matplotlib",
        "ipywidgets",
        "captum",
        "zennit",
        "pandas",
        "pyarrow",
        "skimage",
        "sklearn",
    }
    used = imported("import gmcam; gmcam.show")
    assert "matplotlib" in used
    assert not used & {"captum", "zennit", "pandas", "pyarrow", "skimage", "sklearn"}


def test_every_public_name_is_found():
    assert {"capture", "explain", "load", "scene", "show"} <= set(gmcam.__all__)
    for name in gmcam.__all__:
        assert getattr(gmcam, name) is not None
    with pytest.raises(AttributeError, match="saliency"):
        gmcam.saliency  # noqa: B018


def test_the_function_is_not_hidden_by_the_file_of_its_name():
    run("import gmcam.capture, gmcam; assert gmcam.capture.__name__ == 'capture' and gmcam.capture.__code__")


@pytest.mark.slow
def test_help_comes_at_once():
    assert min(float(run(SECONDS.format("subprocess, sys", HELP))) for _ in range(REPEATS)) < 0.3


@pytest.mark.slow
def test_importing_the_package_adds_little_to_torch():
    assert min(float(run(SECONDS.format("torch", "import gmcam"))) for _ in range(REPEATS)) < 0.2
