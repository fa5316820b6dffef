"""Lecture slides from the executed notebooks, one deck per chapter: `make slides`.

reveal.js shows them. It is fetched with MathJax when the slides are written, so they need no internet
afterwards. Their content is described in ``deck``.
"""

import argparse
import json
import re
from ast import literal_eval
from pathlib import Path

import nbformat
import yaml
from deck import deck
from jinja2 import Environment, FileSystemLoader
from pybtex.database import parse_file
from served import PACKAGES, Package, fetch, npm

BOOK = Path(__file__).parents[1]
BUILT = BOOK.parent / "_build"
REVEAL = Package(
    "reveal.js",
    "6.0.2",
    "JYIg5D9aoxoaLeb84O+OvAwsKWdIavVgEDScxtYEXFCT6t6TQrhNtSgogcjdCpdLsWglhJn3zyE3fUOwiH5KEg==",
    "package/dist/",
    ("reset.css", "reveal.css", "reveal.js"),
    "reveal",
)
SERVED = (REVEAL, *(package for package in PACKAGES if package.folder == "mathjax"))


def shown_names(notebooks: Path) -> dict[str, str]:
    """Chapters' titles by file name, and authors with years by citation key."""
    shown = {}
    for path in sorted(BOOK.glob("*.md")):
        shown[path.stem] = re.search(r"^# (.*)", path.read_text(), re.MULTILINE)[1]  # type: ignore[index]
    for path in sorted(notebooks.glob("*.ipynb")):
        shown[path.stem] = (
            nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
        )
    for key, entry in parse_file(BOOK / "references.bib").entries.items():
        authors = [" ".join(person.last_names) for person in entry.persons.get("author", [])]
        names = " and ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
        shown[key] = f"{names or key} ({entry.fields.get('year', 'no year')})"
    return shown


def glued(path: Path) -> dict[str, str]:
    """The numbers that a notebook has glued, which MyST-NB keeps beside it, as "glue NAME" → text."""
    outputs = json.loads(path.read_text()) if path.exists() else {}
    texts = {name: output["data"].get("text/plain", "") for name, output in outputs.items()}
    return {f"glue {name}": literal_eval(text) for name, text in texts.items() if text[:1] in ("'", '"')}


def write(notebooks: Path, folder: Path) -> list[Path]:
    """Write a deck for every numbered chapter with cells, an index, and their scripts, to ``folder``.

    Raises ``FileNotFoundError`` if a chapter has not been executed.
    """
    contents = yaml.safe_load((BOOK.parent / "_toc.yml").read_text())
    parts = {
        part["caption"]: [
            path.stem
            for path in (BOOK.parent / f"{chapter['file']}.ipynb" for chapter in part["chapters"])
            if path.exists()
        ]
        for part in contents["parts"]
        if part.get("numbered")
    }
    missing = [
        name for names in parts.values() for name in names if not (notebooks / f"{name}.ipynb").exists()
    ]
    if missing:
        raise FileNotFoundError(
            f"expected executed notebooks in {notebooks}, got none for {', '.join(missing)}: run `make book`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {package.folder: f"{package.folder}-{package.version}" for package in SERVED}
    for package in SERVED:
        if not (folder / scripts[package.folder]).exists():
            fetch(package, folder / scripts[package.folder], npm())
    titles = shown_names(notebooks)
    book = yaml.safe_load((BOOK.parent / "_config.yml").read_text())["title"]
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=False).get_template
    written = []
    for part, names in parts.items():
        for name in names:
            notebook = nbformat.read(notebooks / f"{name}.ipynb", as_version=4)
            slides = deck(notebook, titles | glued(notebooks / f"{name}.glue.json"))
            page = template("deck.html").render(
                slides=slides, title=titles[name], part=part, book=book, **scripts
            )
            written.append(folder / f"{name}.html")
            written[-1].write_text(page, encoding="utf-8")
    index = template("index.html").render(parts=parts, titles=titles, book=book)
    (folder / "index.html").write_text(index, encoding="utf-8")
    (folder / "slides.css").write_text(Path(__file__).with_name("slides.css").read_text(), encoding="utf-8")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write lecture slides from the executed notebooks.")
    parser.add_argument("notebooks", type=Path, nargs="?", default=BUILT / "jupyter_execute" / "book")
    parser.add_argument("folder", type=Path, nargs="?", default=BUILT / "slides")
    options = parser.parse_args()
    try:
        print(f"{len(write(options.notebooks, options.folder))} decks: {options.folder / 'index.html'}")
    except FileNotFoundError as error:
        parser.exit(1, f"{error}\n")
