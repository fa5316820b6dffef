"""Books of a few pages, built with this book's settings, extensions and styles."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def small_book(source: Path, *pages: str) -> Path:
    """Prepare a book in the new folder ``source``; its first page is the root.

    Pages are this book's notebooks, by name; those it lacks are for the caller to write.
    """
    for name in ("_static", "_templates", "_tools"):
        shutil.copytree(ROOT / "book" / name, source / "book" / name)
    (source / "gmcam").mkdir()
    shutil.copy(ROOT / "gmcam" / "palette.css", source / "gmcam")
    for name in ("_config.yml", "requirements.txt"):
        shutil.copy(ROOT / name, source)
    for name in ("served", "own_photo_parts"):  # what earlier builds have fetched and exported
        if (ROOT / "_build" / name).exists():
            shutil.copytree(ROOT / "_build" / name, source / "_build" / name)
    for name in ("references.bib", *(f"{page}.ipynb" for page in pages)):
        if (ROOT / "book" / name).exists():
            shutil.copy(ROOT / "book" / name, source / "book")
    root, *others = ({"file": f"book/{page}"} for page in pages)
    contents = {"format": "jb-book", "root": root["file"], **({"chapters": others} if others else {})}
    (source / "_toc.yml").write_text(yaml.safe_dump(contents))
    return source


def build(source: Path, out: Path | None = None) -> Path:
    """Build the book into ``out``, by default its own folder, and return the folder of the pages."""
    out = out or source
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--path-output", str(out)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out / "_build" / "html"
