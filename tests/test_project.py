"""The files around the package: workflows, citation, one address, one version."""

import re
import subprocess
import sys
import tomllib
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
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout


def test_workflows_call_what_make_has():
    heads = re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {name for head in heads for name in head.split()}
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for called in re.findall(r"\bmake ([a-z ]+)", file.read_text()):
            assert set(called.split()) <= targets, file.name


def test_the_files_that_mutants_change_and_their_tests_exist():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    for path in options["only_mutate"] + options["pytest_add_cli_args_test_selection"]:
        assert (ROOT / path).exists(), path


def test_the_citation_names_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gmcam.__version__
    assert f"## {gmcam.__version__}" in (ROOT / "book/changelog.md").read_text()


def tracked():
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).exists()]


def test_the_repositorys_address_appears_once():
    address = CONFIG["repository"]["url"].removeprefix("https://")
    holders = []
    for path in tracked():
        if path.suffix in (".py", ".md", ".yml", ".ipynb", ".toml", ".cff", ".txt", ".js", ".css"):
            holders += [path.name] * (address in path.read_text())
    assert holders == ["_config.yml"]
