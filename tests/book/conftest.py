"""What the tests that open pages share: a browser, and the checker of accessibility."""

import shutil

import pytest
from served import Package, fetch, npm


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
