"""Fields in the pages that check an answer without a kernel, with the verdicts of ``check``.

After each cell ``check("chapter.1", answer)`` stands a field, if a number, a word, a set or a small array is
asked for. The right answer and those of the known slips are computed when the book is built, and are
written into the page in base64. The scripts in ``_static/answers`` compare; as one file, they also run in a
page that is opened from a disk.
"""

import base64
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from torch import Tensor

from gmcam.lab import exercises
from gmcam.lab.exercises import Exercise, all_exercises

MODULES = Path(__file__).parents[1] / "_static" / "answers"
ORDER = ("reading", "verdict", "progress", "page")  # each after those that it imports
LARGEST = 16  # values in an array that a reader can be asked to type
CHECKED = re.compile(r'^check\("([\w.]+)", answer\)$', re.MULTILINE)
FORM = re.compile(r"^answer = \.\.\.  # (.+)$", re.MULTILINE)


def data(exercise: Exercise) -> dict[str, Any] | None:
    """What the page needs to check an answer; None if it cannot be typed: a function, a large array.

    ``kind`` (word, set or numbers), ``right``, ``wrong`` (pairs of a slip and its answer) and ``tolerance``.
    """
    answers = exercise.answers()
    right = answers.right
    if isinstance(right, str):
        kind = "word"
    elif isinstance(right, set | frozenset):
        kind = "set"
    elif callable(right) or np.size(plain(right)) > LARGEST:
        return None
    else:
        kind = "numbers"
    wrong = [[slip, plain(value)] for slip, value in answers.wrong.items()]
    return {"kind": kind, "right": plain(right), "wrong": wrong, "tolerance": exercise.tolerance}


def plain(value: Any) -> Any:
    """An answer as JSON holds it: words, sorted lists of words, numbers or nested lists of numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64).tolist()


def chapters(pages: Iterable[str]) -> list[str]:
    """The chapters with exercises among some pages."""
    folder = Path(exercises.__file__).parent
    return sorted(name for page in pages if (folder / f"{(name := page.rpartition('/')[2])}.py").exists())


def compute(names: list[str]) -> dict[str, dict[str, Any]]:
    """The data of every exercise with a field in these chapters, computed by a process for each core.

    Raises ``ExtensionError`` if an exercise fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    cores = min(os.cpu_count() or 1, len(names))
    commands = [[sys.executable, __file__, *names[core::cores]] for core in range(cores)]
    with ThreadPoolExecutor() as pool:
        run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=False)
        ended = list(pool.map(run, commands))
    for done in ended:
        if done.returncode:
            raise ExtensionError(f"the exercises' answers could not be computed:\n{done.stderr[-2000:]}")
    return {name: value for done in ended for name, value in json.loads(done.stdout).items()}


def bundle() -> str:
    """The modules as one script."""
    texts = [(MODULES / f"{name}.js").read_text() for name in ORDER]
    parts = [re.sub(r"^(?:import .*;\n|export )", "", text, flags=re.MULTILINE) for text in texts]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def field(name: str, form: str, described: dict[str, Any]) -> str:
    """The element in which the script puts a field. ``form``: what the exercise asks for, in a few words."""
    packed = base64.b64encode(json.dumps(described, allow_nan=False).encode()).decode()
    attributes = {"exercise": name, "form": form, "key": packed}
    written = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in attributes.items())
    return f'<div class="gmcam-answer" {written}></div>'


PROGRESS = '<div class="gmcam-progress"></div>'


def collect(app: Sphinx, env: BuildEnvironment) -> None:
    """Compute the answers of the chapters whose answers this build does not have yet."""
    known: dict[str, Any] = getattr(env, "gmcam_answers", {})  # kept with what Sphinx has read
    read = chapters(env.found_docs) if app.builder.format == "html" else []
    if missing := [chapter for chapter in read if chapter not in known]:
        env.gmcam_answers = {**known, **dict.fromkeys(missing), **compute(missing)}  # type: ignore[attr-defined]


def insert(app: Sphinx, document: nodes.document, _page: str) -> None:
    """Put a field after each cell that checks an answer, and the progress at the section's start."""
    known = getattr(app.env, "gmcam_answers", {}) if app.builder.format == "html" else {}
    sections = []
    for cell in list(document.findall(nodes.container)):
        source = cell.next_node(nodes.literal_block)
        checked = CHECKED.search(source.astext()) if source and "cell" in cell["classes"] else None
        if source and checked and known.get(checked[1]):
            form = FORM.search(source.astext())
            text = field(checked[1], form[1] if form else "", known[checked[1]])
            cell.parent.insert(cell.parent.index(cell) + 1, nodes.raw("", text, format="html"))
            sections.append(section_of(cell))
    if sections:
        sections[0].insert(1, nodes.raw("", PROGRESS, format="html"))


def section_of(node: nodes.Node) -> nodes.Element:
    """The section that holds a node; its title comes first."""
    while not isinstance(node, nodes.section | nodes.document):
        node = node.parent
    return node


def prepare(app: Sphinx, config: Config) -> None:
    """Write the script before Sphinx reads the configuration."""
    folder = Path(app.srcdir, "_build", "answers")
    (folder / "answers").mkdir(parents=True, exist_ok=True)
    (folder / "answers" / "answers.js").write_text(bundle())
    config.html_static_path.append(str(folder))


def finish(app: Sphinx, _page: str, _template: str, context: dict[str, Any], *_: Any) -> None:
    """Add script and style sheet to the pages with a field."""
    if 'class="gmcam-answer"' in context.get("body", ""):
        app.add_css_file("answers/answers.css")
        app.add_js_file("answers/answers.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", prepare)
    app.connect("env-updated", collect)
    app.connect("doctree-resolved", insert)
    app.connect("html-page-context", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    wanted = sys.argv[1:]
    chosen = {name: each for name, each in all_exercises().items() if name.partition(".")[0] in wanted}
    computed = {name: data(each) for name, each in chosen.items()}
    print(json.dumps({name: value for name, value in computed.items() if value}))
