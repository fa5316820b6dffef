"""Run every notebook in an environment built from these files, with Binder's memory: ``make binder``.

Not part of ``make test``, because it installs every package a second time and runs the whole book again.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
# Limit in bytes on what Linux counts as data: memory that the kernel of a notebook can write to and does not
# share. Files that are mapped read-only, such as its libraries, can be dropped and do not count.
MEMORY = 2_000_000_000
PIP_NAMES = {"pytorch-cpu": "torch"}
# How conda, mamba and micromamba report an unreachable channel, and pip an unreachable index.
UNREACHED = r"CONNECTION FAILED|Download error|Could ?n[o']t (?:resolve|connect)|\(from versions: none\)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux, which Binder uses, limits data")


def named_by_conda() -> list[str]:
    """The packages of ``environment.yml``, by pip's names and at the versions of ``requirements.txt``."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    dependencies = yaml.safe_load((ROOT / "binder/environment.yml").read_text())["dependencies"]
    names = [re.match(r"[\w-]+", dependency)[0] for dependency in dependencies]
    packages = [PIP_NAMES.get(name, name) for name in names if name not in ("python", "pip")]
    return [f"{package}=={pins[package]}" for package in packages]


def call(command, **options):
    """Run a command; fail with its output if it fails, skip if it cannot reach a package index."""
    completed = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    output = completed.stdout + completed.stderr
    if completed.returncode and re.search(UNREACHED, output):
        pytest.skip(f"neither conda nor pip reaches the packages of Binder's environment: {output[-300:]}")
    assert completed.returncode == 0, output[-3000:]


def create(folder: Path) -> None:
    """Create the environment of ``environment.yml`` with conda; with pip if conda is missing or offline."""
    conda = next(filter(None, map(shutil.which, ("micromamba", "mamba", "conda"))), None)
    if conda:
        command = [conda, "env", "create", "--prefix", folder, "--file", ROOT / "binder/environment.yml"]
        yes = {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true"}
        completed = subprocess.run(command, capture_output=True, text=True, env=os.environ | yes, check=False)
        if completed.returncode == 0:
            return
        output = completed.stdout + completed.stderr
        assert re.search(UNREACHED, output), output
    venv.create(folder, with_pip=True, symlinks=True)
    call([folder / "bin/python", "-m", "pip", "install", *named_by_conda()])


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """A function that runs a notebook in Binder's environment, from a copy of the repository's files."""
    folder = tmp_path_factory.mktemp("binder")
    copy, environment = folder / "copy", folder / "environment"
    copy.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    call(["xargs", "-0", "cp", "--parents", "--target-directory", copy], cwd=ROOT, input=listed.decode())
    try:
        create(environment)
        path = f"{environment / 'bin'}:{os.environ['PATH']}"
        # One thread, because Binder gives a fraction of a core; the stacks of further threads count as data.
        threads = {"OMP_NUM_THREADS": "1"}
        variables = os.environ | {"PATH": path, "JUPYTER_PREFER_ENV_PATH": "1"} | threads
        call([copy / "binder/postBuild"], cwd=copy, env=variables)

        def run(path: Path) -> subprocess.CompletedProcess:
            command = ["prlimit", f"--data={MEMORY}", "jupyter", "execute", "--timeout=300", copy / path]
            return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)

        yield run
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(("gigabytes", "fits"), [(1, True), (2, False)])
def test_memory_ends_at_the_limit(execute, tmp_path, gigabytes, fits):
    code = f"import torch\ntorch.ones({gigabytes} * 10**9, dtype=torch.uint8)"
    nbformat.write(new_notebook(cells=[new_code_cell(code)]), tmp_path / "large.ipynb")
    completed = execute(tmp_path / "large.ipynb")
    assert (completed.returncode == 0) is fits, completed.stderr
    assert fits or "can't allocate memory" in completed.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_in_binders_environment_and_memory(execute, path):
    completed = execute(path.relative_to(ROOT))
    assert completed.returncode == 0, completed.stderr[-3000:]
