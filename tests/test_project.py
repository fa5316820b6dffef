"""The files around the project: workflows, citation, one address, one version."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import gmcam

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", sorted((ROOT / ".github/workflows").glob("*.yml"))),
        ("custom.github-workflows-require-timeout", sorted((ROOT / ".github/workflows").glob("*.yml"))),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_fit_their_schema(schema, files):
    assert files
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_call_what_make_has():
    heads = re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {name for head in heads for name in head.split()}
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for called in re.findall(r"\bmake ([a-z ]+)", file.read_text()):
            assert set(called.split()) <= targets, file.name


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gmcam.__version__
    assert f"## {gmcam.__version__}" in (ROOT / "book/changelog.md").read_text()


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_the_repositorys_address_stands_in_one_place():
    address = CONFIG["repository"]["url"].removeprefix("https://")
    holders = []
    for path in tracked():
        if path.suffix in (".py", ".md", ".yml", ".ipynb", ".toml", ".cff", ".txt", ".js", ".css"):
            holders += [path.name] * (address in path.read_text())
    assert holders == ["_config.yml"]


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_module(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "gmcam", tmp_path / "gmcam", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "."]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert "gmcam/py.typed" in held  # type checkers of other projects look for it
    assert {str(path.relative_to(ROOT)) for path in tracked() if path.is_relative_to(ROOT / "gmcam")} <= held
