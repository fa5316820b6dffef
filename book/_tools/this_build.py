"""The versions used by a build, and the time and memory of each notebook: ``versions``, ``executions``.

MyST-NB records how long a notebook ran. The peak memory of its kernel is read from the system after every
cell (on Linux; the column is empty elsewhere). Two notebooks run side by side, on half of the cores each:
small networks gain little from a second core.
"""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from docutils import nodes
from myst_nb.sphinx_ import NbMetadataCollector
from nbclient import NotebookClient
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)
KEY = "peak_memory"
SIDE_BY_SIDE = 2


class VersionsDirective(SphinxDirective):
    """The table of Python, gmcam and every package that ``requirements.txt`` names."""

    def run(self) -> list[nodes.Node]:
        listed = (Path(self.env.srcdir) / "requirements.txt").read_text()
        packages = ["gmcam", *re.findall(r"^([\w-]+)==", listed, re.MULTILINE)]
        rows = [
            ["Built on", f"{datetime.now(UTC):%Y-%m-%d}"],
            ["Machine", f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores"],
            ["Python", platform.python_version()],
            *([name, version(name)] for name in packages),
        ]
        return [table(["What", "Which"], rows)]


class Executions(nodes.General, nodes.Element):
    """A placeholder for the table, until all notebooks have run."""


class ExecutionsDirective(SphinxDirective):
    """The table of all notebooks."""

    def run(self) -> list[nodes.Node]:
        return [Executions()]


class ExecutionsTable(SphinxPostTransform):
    """Replaces the placeholder by the table."""

    default_priority = 8  # before references are resolved

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(Executions)):
            data = NbMetadataCollector.get_doc_data(self.env)
            rows = []
            for name in sorted(data):
                if "exec_data" in data[name]:
                    seconds = f"{data[name]['exec_data']['runtime']:.1f}"
                    sizes = [f"{part:.0f}" if part else "" for part in data[name].get(KEY, (0, 0))]
                    rows.append([self.env.titles[name].astext(), seconds, *sizes])
            node.replace_self(table(["Notebook", "Seconds", "Memory (MiB)", "of it libraries"], rows))


def table(head: list[str], rows: list[list[str]]) -> nodes.table:
    """A table of plain text."""

    def row(texts: list[str]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))

    columns = [nodes.colspec(colwidth=1) for _ in head]
    body = nodes.tbody("", *map(row, rows))
    group = nodes.tgroup("", *columns, nodes.thead("", row(head)), body, cols=len(head))
    return nodes.table("", group, classes=["colwidths-auto"])


def memory(process: psutil.Process) -> tuple[float, float]:
    """Peak memory of a process in mebibytes, and the share of mapped files, which are mainly libraries.

    The system can drop mapped files and read them again. Zeros on a system without /proc.
    """
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    peak, files = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmHWM", "RssFile"))
    # The system's kB are 1024 bytes.
    return (int(peak[1]) / 1024, int(files[1]) / 1024) if peak and files else (0.0, 0.0)


def watch(app: Sphinx) -> None:
    """From now on, record the memory of a notebook's kernel after each of its cells.

    Finished kernels are killed, because their shutdown takes a second or two. Their temporary files are in
    a folder that is removed after the build.
    """

    def note(**_: Any) -> None:
        sizes = max(map(memory, psutil.Process().children()), default=(0.0, 0.0))
        NbMetadataCollector.set_doc_data(app.env, app.env.docname, KEY, sizes)

    traits = NotebookClient.class_traits()
    traits["on_cell_executed"].default_value = note
    traits["shutdown_kernel"].default_value = "immediate"
    left = TemporaryDirectory(ignore_cleanup_errors=True)  # a killed kernel may still be running
    before = dict(os.environ)
    os.environ["TMPDIR"] = left.name
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // SIDE_BY_SIDE)))

    def leave(*_: Any) -> None:
        for name in ("TMPDIR", "OMP_NUM_THREADS"):
            os.environ.pop(name) if name not in before else os.environ.update({name: before[name]})
        left.cleanup()

    app.connect("build-finished", leave)


def allow(app: Sphinx, _config: Any) -> None:
    """Read documents side by side, which Jupyter Book's command line cannot ask for."""
    app.parallel = SIDE_BY_SIDE
    # Neither says whether it is safe: the one acts after all documents are read, the other on LaTeX alone.
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        app.extensions[name].parallel_read_safe = True


def deal(app: Sphinx, _env: Any, names: list[str]) -> None:
    """Order the documents so that Sphinx, which cuts the list in three, gives each process half of the work.

    The notebooks come first, the larger ones dealt out evenly, for they tend to run longer.
    """

    def size(name: str) -> int:
        path = Path(app.env.doc2path(name))
        return path.stat().st_size if path.suffix == ".ipynb" else 0

    notebooks = sorted(filter(size, names), key=size)
    names[:] = [*notebooks[::2], *notebooks[1::2], *(name for name in names if not size(name))]


def report(app: Sphinx, _env: Any) -> None:
    """Log the memory of each notebook; MyST-NB logs its seconds."""
    for name, data in sorted(NbMetadataCollector.get_doc_data(app.env).items()):
        if KEY in data:
            LOGGER.info("%s: held at most %.0f MiB, %.0f of them libraries", name, *data[KEY])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Executions)
    app.add_directive("versions", VersionsDirective)
    app.add_directive("executions", ExecutionsDirective)
    app.add_post_transform(ExecutionsTable)
    app.connect("builder-inited", watch)
    app.connect("env-before-read-docs", deal)
    app.connect("env-updated", report)
    app.connect("config-inited", allow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
