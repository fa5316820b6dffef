"""What is imported when: heavy packages only where they are used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pace import patient

import gmcam

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gmcam.__file__).parents[1])}
LIGHT = {"gmcam", "lazy_loader"}
# Import names of everything outside the core, and torchvision, which only a name like "resnet50" needs.
OPTIONAL = {
    "torchvision", "matplotlib", "ipywidgets", "captum", "zennit", "pandas", "pyarrow", "scipy",
    "pycocotools", "skimage", "sklearn", "onnx", "onnxscript", "onnxruntime",
}  # fmt: skip
COMPUTING = sorted({*gmcam.__all__} - {"show"})
LAB = ["scene", "dual_class_scenes", "photo", "mosaic", "collage", "load_card", "localise", "grid_pointing"]
LAB += ["export_onnx", "exercises"]
EXPLAIN = """
import torch, gmcam
layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
result = gmcam.explain(torch.nn.Sequential(*layers), torch.rand(2, 3, 8, 8), [0, 4], layer="1")
assert result.maps.shape == (2, 8, 8)
"""
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


def test_explaining_a_bare_module_imports_no_optional_package():
    packages = imported(EXPLAIN)
    assert "torch" in packages
    assert packages & OPTIONAL == set()


def test_what_computes_imports_no_optional_package():
    """Optional packages are imported by functions that need them, not by the modules that define these."""
    names = [f"gmcam.{name}" for name in COMPUTING] + [f"gmcam.lab.{name}" for name in LAB]
    assert imported(f"import gmcam.lab; {', '.join(names)}") & OPTIONAL == set()


def test_what_draws_imports_matplotlib_and_no_more():
    assert imported("import gmcam; gmcam.show, gmcam.lab.pipeline") & OPTIONAL == {"matplotlib"}
    assert imported("import gmcam; gmcam.lab.explorer") & OPTIONAL == {"matplotlib", "ipywidgets"}


def test_an_image_is_preprocessed_without_torchvision():
    code = "from PIL import Image; import gmcam; gmcam.Preprocessing(8, 8)(Image.new('RGB', (9, 12)))"
    assert imported(code) & OPTIONAL == set()


def test_every_public_name_is_found():
    assert {"capture", "compare", "explain", "explain_layers", "load", "show", "wrap"} <= set(gmcam.__all__)
    for name in gmcam.__all__:
        assert getattr(gmcam, name) is not None
    with pytest.raises(AttributeError, match="saliency"):
        gmcam.saliency  # noqa: B018


def test_the_function_is_not_hidden_by_the_module_of_its_name():
    run("import gmcam.capture, gmcam; assert gmcam.capture.__name__ == 'capture' and gmcam.capture.__code__")


@pytest.mark.slow
def test_help_appears_at_once():
    patient(lambda: float(run(SECONDS.format("subprocess, sys", HELP))), 0.3, tries=5)


@pytest.mark.slow
def test_importing_the_package_adds_little_to_torch():
    patient(lambda: float(run(SECONDS.format("torch", "import gmcam"))), 0.2, tries=5)
