"""What the tests that open pages share: a browser, the checker of accessibility, and the built book."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from browsing import server
from pace import slowdown
from served import Package, fetch, npm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")  # its event loop is in the way of other files of tests
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="install requirements-test.txt")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine: install Debian's package of that name")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The script of axe-core, fetched like those that the pages use."""
    package = Package(
        "axe-core",
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "package/",
        ("axe.min.js",),
        "axe",
    )
    into = tmp_path_factory.mktemp("axe") / "axe"
    fetch(package, into, npm())
    return (into / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The book built from clean as `make book` builds it: its pages, its log, its minutes."""
    out = tmp_path_factory.mktemp("book")
    # Libraries come from a cold disk once, and the first notebook's time is not to count that.
    subprocess.run([sys.executable, "-c", "import captum.attr, zennit, gmcam.evaluate"], check=True)
    started, before = time.monotonic(), slowdown()
    flags = re.search(r"jupyter-book build \. (.*)", (ROOT / "Makefile").read_text())[1].split()
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), *flags]
    command += ["--path-output", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return SimpleNamespace(
        html=out / "_build" / "html",
        log=run.stdout + run.stderr,
        minutes=(time.monotonic() - started) / 60,
        slowdown=max(before, slowdown()),
    )


@pytest.fixture(scope="session")
def served(built):
    """The book's address on a server of this machine."""
    with server(built.html) as address:
        yield address
