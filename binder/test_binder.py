"""An environment made from these files runs every notebook in the memory that Binder gives: ``make binder``.

It stands apart from the other tests because it installs everything a second time and runs the book again.
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
# Bytes that a kernel may hold of memory that it can write to and shares with no other process: what Linux
# counts as data. What it maps without writing, such as its libraries, may be dropped and does not count.
MEMORY = 2_000_000_000
PIP_NAMES = {"pytorch-cpu": "torch"}
# How conda, mamba and micromamba say that they reach no channel, and pip that no index has a package.
UNREACHED = r"CONNECTION FAILED|Download error|Could ?n[o']t (?:resolve|connect)|\(from versions: none\)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux, which Binder runs, limits data")


def named_by_conda() -> list[str]:
    """The packages of ``environment.yml``, by pip's names and at the versions of ``requirements.txt``."""
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    wanted = yaml.safe_load((ROOT / "binder/environment.yml").read_text())["dependencies"]
    names = [re.match(r"[\w-]+", package)[0] for package in wanted]
    packages = [PIP_NAMES.get(name, name) for name in names if name not in ("python", "pip")]
    return [f"{package}=={pins[package]}" for package in packages]


def call(command, **options):
    """Run a command, and stop with what it printed where it fails; skip where it reaches no packages."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    said = done.stdout + done.stderr
    if done.returncode and re.search(UNREACHED, said):
        pytest.skip(f"neither conda nor pip reaches the packages of Binder's environment: {said[-300:]}")
    assert done.returncode == 0, said[-3000:]


def create(folder: Path) -> None:
    """The environment of ``environment.yml``: by conda, or by pip where that is missing or offline."""
    conda = next(filter(None, map(shutil.which, ("micromamba", "mamba", "conda"))), None)
    if conda:
        command = [conda, "env", "create", "--prefix", folder, "--file", ROOT / "binder/environment.yml"]
        yes = {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | yes, check=False)
        if done.returncode == 0:
            return
        assert re.search(UNREACHED, done.stdout + done.stderr), done.stdout + done.stderr
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
        # One thread, as a fraction of a core is what Binder gives; what more would set aside counts as data.
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
    done = execute(tmp_path / "large.ipynb")
    assert (done.returncode == 0) is fits, done.stderr
    assert fits or "can't allocate memory" in done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_in_binders_environment_and_memory(execute, path):
    done = execute(path.relative_to(ROOT))
    assert done.returncode == 0, done.stderr[-3000:]
