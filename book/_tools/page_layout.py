"""The layout of a page, made from sources that stay plain: MyST's own directives and cell tags.

- The objectives become one line of text: minutes, what is needed, what the reader will be able to do.
- Each exercise becomes a card: its question, the cell of the answer, and the solution folded in one.
- A folded cell has a name, and says how many lines it has. It stands below the figure that it draws.
- A figure is as wide as its file says; one that is wider than the text reaches into the margin. Dark pages
  invert it, and lay its photographs over it as they are, cut out of a second copy.
- The buttons above the page become one menu.

``_static/page.css`` and ``_static/page.js`` do the rest.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from PIL import ExifTags, Image, UnidentifiedImageError
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxTranslator

TEXT, WIDE = 720, "full-width"  # pixels of the text column; the theme's class for what is wider
LETTERS = 90  # of the objectives, that fit the text column
MEASURED, COUNT = "How it was measured", re.compile(r" · \d+ lines? of Python$")
ENTRIES = {  # the theme's buttons, by what is written on them
    "Binder": "Run on Binder",
    "Colab": "Run in Colab",
    ".ipynb": "Download the notebook",
    ".md": "Download the source",
    ".pdf": "Print, or save as PDF",
}


class Objectives(nodes.Admonition, nodes.Element):
    """The objectives of a chapter. An admonition, so that the page's description for links skips it."""


class Exercise(nodes.General, nodes.Element):
    """One exercise: ``number`` and, where a cell checks the answer, the ``name`` that the check uses."""


class ObjectivesLine(SphinxTransform):
    """Turns the box of objectives into a line: *25 minutes · needs CAM · do this; do that*."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for box in list(self.document.findall(nodes.admonition)):
            if isinstance(box[0], nodes.title) and box[0].astext() == "Objectives":
                goals = next(box.findall(nodes.bullet_list))
                box.replace_self(Objectives("", objectives_line(goals, box.children[-1])))


def objectives_line(goals: nodes.Element, last: nodes.Element) -> nodes.paragraph:
    """The line, from the list of goals and the paragraph "**Minutes:** 25. **You need:** …."."""
    _, minutes, _, *needs = written(last)
    line = nodes.paragraph("", f"{minutes.astext().strip(' .')} minutes · needs")
    line += without_stop(needs)
    for number, item in enumerate(goals.children):
        first, *rest = without_stop(written(item[0]))
        goal = first.astext().removeprefix("You can ")
        line += nodes.Text(("; " if number else " · ") + goal[0].lower() + goal[1:])
        line += rest
    return line


def written(paragraph: nodes.Element) -> list[nodes.Node]:
    """The nodes of a paragraph. MyST puts empty text before a first word in bold."""
    return [node for node in paragraph.children if node.astext()]


def without_stop(inline: list[nodes.Node]) -> list[nodes.Node]:
    """Nodes of a sentence without its full stop."""
    *before, end = inline
    return [*before, nodes.Text(end.astext().removesuffix("."))] if isinstance(end, nodes.Text) else inline


class ExerciseCards(SphinxTransform):
    """Wraps each exercise, from its number in bold to the next one or to the section's end."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for section in list(self.document.findall(nodes.section)):
            if section[0].astext() == "Exercises":
                card, children = None, []
                for child in section.children:
                    if number := exercise_number(child):
                        card = Exercise(number=number, ids=[f"exercise-{number}"])
                        children.append(card)
                    (children if card is None else card).append(child)
                section.children = []
                section.extend(children)
                for card in section.findall(Exercise):
                    card["name"] = checked_name(card)
                    join_solution(card)


def exercise_number(node: nodes.Node) -> str | None:
    """The number of the exercise that begins with this paragraph."""
    first = written(node)[0] if isinstance(node, nodes.paragraph) else None
    number = re.fullmatch(r"(\d+)\.", first.astext()) if isinstance(first, nodes.strong) else None
    return number and number[1]


def checked_name(card: Exercise) -> str:
    """``"cam.1"`` where a cell ends in ``check("cam.1", answer)``; empty without such a cell."""
    code = "\n".join(block.astext() for block in card.findall(nodes.literal_block))
    name = re.search(r'^check\("([\w.]+)", answer\)', code, re.MULTILINE)
    return name[1] if name else ""


def join_solution(card: Exercise) -> None:
    """Move the cells of a solution into the first of them, so that one fold holds them all."""
    first, *others = [child for child in card.children if hidden(child) == "all"] or [None]
    for cell in others:
        card.remove(cell)
        first += cell.children


def hidden(node: nodes.Node) -> str | None:
    """What a cell hides by its tags: MyST-NB's ``"all"``, ``"input"``, …; None for anything else."""
    return node.get("hide_mode") if isinstance(node, nodes.container) else None


class FoldNames(SphinxPostTransform):
    """Names each folded cell."""

    default_priority = 190  # before MyST-NB folds, with 199
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for cell in self.document.findall(lambda node: bool(hidden(node))):
            settings = cell["cell_metadata"].get("mystnb", {})
            if hidden(cell) == "all":
                shown, opened = "Show the solution", "Hide the solution"
            else:
                lines = len(next(cell.findall(nodes.literal_block)).astext().splitlines())
                name = COUNT.sub("", settings.get("code_prompt_show", MEASURED))
                shown = f"{name} · {lines} line{'s' * (lines != 1)} of Python"
                opened = "Hide the code"
            cell["prompt_show"] = shown
            cell["prompt_hide"] = settings.get("code_prompt_hide", opened)


class FoldsBelow(SphinxPostTransform):
    """Puts a figure before the fold of the code that drew it."""

    default_priority = 200  # MyST-NB has folded
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for cell in self.document.findall(lambda node: hidden(node) == "input"):
            if any(isinstance(node, nodes.image | nodes.figure) for node in cell.findall()):
                cell.append(cell.pop(0))


class FigureLooks(SphinxPostTransform):
    """Shows the figures of cells at the size of their resolution, 96 pixels an inch, and prepares them for
    dark pages."""

    default_priority = 190
    formats = ("html",)

    def run(self, **_: Any) -> None:
        outputs = [
            node for node in self.document.findall(nodes.container) if "cell_output" in node["classes"]
        ]
        for image in [image for output in outputs for image in output.findall(nodes.image)]:
            path = Path(self.env.srcdir, image["uri"])
            width = own_width(path)
            if width and "width" not in image:
                image["width"] = f"{width}px"
                if width > TEXT and isinstance(image.parent, nodes.figure):
                    image.parent["classes"].append(WIDE)
            boxes = [photographs(Path(self.env.srcdir, file)) for file in (path, image.get("stacked", path))]
            if boxes[0] is not None:
                image["classes"].append("gmcam-chart")
            if boxes[0]:
                add_photographs(image, [cut_out(each or []) for each in boxes])


def add_photographs(image: nodes.image, shapes: list[str]) -> None:
    """Add a copy of the image, or of the ``picture`` around it, that dark pages cut to its photographs:
    ``shapes`` of the PNG and of the JPEG for narrow pages."""
    parent, at = image.parent, image.parent.index(image)
    around = "stacked" in image  # the tags of the picture
    shown = parent.children[at - around : at + 1 + around]
    copies = [node.deepcopy() for node in shown]
    copies[around]["classes"] = ["gmcam-photographs"]
    copies[around]["alt"] = ""
    style = "; ".join(f"--{name}: {shape}" for name, shape in zip(("wide", "narrow"), shapes, strict=True))
    opening, closing = f'<span class="gmcam-drawn" style="{style}">', "</span>"
    tags = [nodes.raw("", tag, format="html") for tag in (opening, closing)]
    parent[at - around : at + 1 + around] = [tags[0], *shown, *copies, tags[1]]


def cut_out(boxes: list[list[float]]) -> str:
    """CSS's polygon around boxes: to the corner of each and around it, and back over all corners, so that
    what lies between the boxes has no area.

    >>> cut_out([[0, 10, 50, 100]])
    'polygon(0% 90%, 0% 0%, 50% 0%, 50% 90%, 0% 90%, 0% 90%)'
    """
    corners = [(left, 100 - bottom) for left, bottom, _, _ in boxes]
    around = [
        (x, 100 - y)
        for left, bottom, right, top in boxes
        for x, y in ((left, bottom), (left, top), (right, top), (right, bottom), (left, bottom))
    ]
    points = around + corners[::-1]
    return f"polygon({', '.join(f'{x:g}% {y:g}%' for x, y in points)})"


def own_width(path: Path) -> int | None:
    """The width of a bitmap in pixels of the page; None if the file says nothing about its resolution."""
    try:
        with Image.open(path) as image:
            return round(image.width * 96 / image.info["dpi"][0])
    except (OSError, UnidentifiedImageError, KeyError, ZeroDivisionError):
        return None


def photographs(path: Path) -> list[list[float]] | None:
    """Where ``gmcam.show.InlineFigure`` says that the file's photographs are; None for another file."""
    try:
        with Image.open(path) as image:
            note = image.getexif().get(ExifTags.Base.ImageDescription)
    except (OSError, UnidentifiedImageError):
        return None
    return (
        None if note is None else [[float(edge) for edge in box.split()] for box in note.split(", ") if box]
    )


def one_menu(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Put the buttons for running, downloading and the full screen into one menu."""
    buttons: list[dict[str, Any]] = []
    for button in context["header_buttons"]:
        buttons += button.get("buttons", [{**button, "text": "Full screen"}])
    for button in buttons:
        button["text"] = ENTRIES.get(button["text"], button["text"])
        button["tooltip"] = None  # it would say the same
        button.pop("classes", None)
    menu = {"type": "group", "tooltip": "Run, download, print", "label": "page-menu", "buttons": buttons}
    context["header_buttons"] = [{**menu, "icon": "fas fa-ellipsis-vertical"}] if buttons else []


def silent_copies(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Mark the copies of figures for dark pages as decoration, which docutils cannot say of an image."""
    copy = 'alt="" class="gmcam-photographs"'
    context["body"] = context.get("body", "").replace(copy, f'role="presentation" {copy}')


def visit_objectives(self: SphinxTranslator, node: Objectives) -> None:
    # The theme folds its list of contents while an element of this class is in view, here beside a long line.
    reaching = "tag_sidenote " * (len(node.astext()) > LETTERS)
    self.body.append(self.starttag(node, "div", CLASS=f"{reaching}gmcam-objectives"))


def visit_exercise(self: SphinxTranslator, node: Exercise) -> None:
    named = {"role": "group", "aria-label": f"Exercise {node['number']}", "data-exercise": node["name"]}
    self.body.append(self.starttag(node, "div", CLASS="gmcam-exercise", **named))


def close(self: SphinxTranslator, _node: nodes.Element) -> None:
    self.body.append("</div>\n")


def visit_fold(self: SphinxTranslator, node: HideCodeCellNode) -> None:
    shown, opened = self.encode(node["prompt_show"]), self.encode(node["prompt_hide"])
    self.body.append('<details class="gmcam-fold"><summary>')
    self.body.append(f'<span class="shut">{shown}</span><span class="opened">{opened}</span></summary>\n')


def close_fold(self: SphinxTranslator, _node: HideCodeCellNode) -> None:
    self.body.append("</details>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(Objectives, html=(visit_objectives, close))
    app.add_node(Exercise, html=(visit_exercise, close))
    app.add_node(HideCodeCellNode, override=True, html=(visit_fold, close_fold))
    for transform in (ObjectivesLine, ExerciseCards):
        app.add_transform(transform)
    for transform in (FoldNames, FoldsBelow, FigureLooks):
        app.add_post_transform(transform)
    app.connect("html-page-context", silent_copies)
    app.connect("html-page-context", one_menu, priority=900)  # after the theme has listed its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
