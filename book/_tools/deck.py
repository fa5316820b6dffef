"""The slides of a notebook.

A deck begins with the title and the objectives and ends with the summary. Between them a heading or a
display equation becomes a slide with the sentences that lead to it, a figure a slide with the first
sentence of its caption, and an exercise a slide without its solution. Code is not shown. The tag
``no-slide`` leaves a cell out, and ``slide`` puts a whole text cell on one slide.
"""

import re
from dataclasses import dataclass
from html import escape

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

DIRECTIVE = re.compile(r"^(`{3,}|:{3,})\{[\w-]+\}.*?^\1\s*$", re.MULTILINE | re.DOTALL)
ANCHOR = re.compile(r"^\([\w-]+\)=\n", re.MULTILINE)
ROLE = re.compile(r"(\s?)\{([\w:]+)\}`([^`<]*?)\s*(?:<([^`>]+)>)?`")
SHORT = 70  # characters; a shorter sentence is joined by a second one
SILENT = ("Exercises", "References")  # headings without a slide
LIVE = 'class="gm-figure"'  # in the output of gmcam.lab.equation_figure
# A sentence, which does not end at a full stop in a formula, in code or in an abbreviation.
SENTENCE = re.compile(
    r"(?>\$[^$]*\$|`[^`]*`|\b(?:Eqs?|Figs?|al|vs|e\.g|i\.e)\.|.)+?(?:[.!?][\"*)]*(?=\s|$)|\Z)", re.S
)


def math(content: str, display: dict[str, bool]) -> str:
    """A formula in MathJax's delimiters."""
    before, after = (r"\[", r"\]") if display["display_mode"] else (r"\(", r"\)")
    return before + escape(content.strip()) + after


MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
MARKDOWN.use(dollarmath_plugin, double_inline=True, renderer=math)
block, inline = MARKDOWN.render, MARKDOWN.renderInline


@dataclass(frozen=True)
class Slide:
    """A heading below a smaller one, and HTML. ``kind`` is the slide's class in the CSS."""

    kind: str
    heading: str
    above: str = ""
    body: str = ""


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph; none is cut within emphasis."""
    parts = [""]
    for match in SENTENCE.findall(paragraph):
        if parts[-1] and parts[-1].count("*") % 2 == 0:
            parts.append("")
        parts[-1] += match
    return [sentence.strip() for sentence in parts if sentence.strip()]


def plain(text: str, titles: dict[str, str]) -> str:
    """Markdown without the roles, anchors and directives of MyST."""

    def role(match: re.Match[str]) -> str:
        space, name, text, target = match.groups()
        if name == "footcite:p":
            return ""
        other = {"doc": titles.get(text, text), "footcite:t": titles.get(text, text), "numref": "the figure"}
        other["glue:text"] = titles.get(f"glue {text}", text)
        return space + (text if target else other.get(name, text))

    return ROLE.sub(role, ANCHOR.sub("", DIRECTIVE.sub("", text))).strip()


def sections(text: str, place: list[str]) -> list[Slide]:
    """Slides for a cell's headings and display equations; updates ``place``, the current headings.

    A heading is followed by the first sentence of its prose, and a second where that is short; an equation
    is preceded by the sentence that leads to it.
    """
    slides: list[Slide] = []
    prose: list[str] = []
    equations: list[str] = []
    headed = False
    kind = tag = ""

    def close() -> None:
        if (headed or equations) and place[0] not in SILENT:
            begin = prose[:1] if headed else []
            if not equations and begin and len(begin[0]) < SHORT:
                begin = prose[:2]
            lead = prose[-2 if prose and len(prose[-1]) < SHORT else -1 :] if equations else []
            shown = [*dict.fromkeys(begin + lead)]
            if not equations:
                shown = [re.sub(":$", ".", sentence) for sentence in shown]
            shown += [f"$$\n{equation}\n$$" for equation in equations]
            kind = "equation" if equations else "section" if shown else "divider"
            slides.append(Slide(kind, *headings(place), block("\n\n".join(shown))))
        prose.clear()
        equations.clear()

    for token in MARKDOWN.parse(text):
        if kind == "heading_open":
            close()
            place[0 if tag == "h2" else 1 :] = [token.content]
            headed = True
        elif kind == "paragraph_open" and token.level == 1:
            if equations:
                close()
                headed = False
            prose += sentences(token.content)
        elif token.type.startswith("math_block"):
            equations.append(token.content.strip())
        kind, tag = token.type, token.tag
    close()
    return slides


def headings(place: list[str]) -> tuple[str, str]:
    """The current heading, and the one above it."""
    return inline(place[-1]), inline("".join(place[:-1]))


def deck(notebook: NotebookNode, titles: dict[str, str]) -> list[Slide]:
    """The slides of a chapter; ``titles``: texts for a chapter's name, a citation's key, and "glue NAME"."""
    slides: list[Slide] = []
    last: list[Slide] = []
    place = [""]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "no-slide" in tags or "hide-cell" in tags:
            continue
        if cell.cell_type == "code":
            slides += figures(cell, inline(place[-1]), titles)
            continue
        text = plain(cell.source, titles)
        heading = re.match(r"(#+) (.*)\n*", text)
        rest = text[heading.end() :] if heading else text
        question = re.match(r"\*\*(\d+)\.\*\*\s*", text)
        if heading and heading[1] == "#":
            slides.append(Slide("title", inline(heading[2])))
            listed = re.search(r"\{admonition\} Objectives\n:class.*\n((?:- .*\n)+)", cell.source)
            if listed:
                slides.append(Slide("list", "Objectives", body=block(plain(listed[1], titles))))
        elif heading and heading[2] == "Summary":
            last.append(Slide("list", "Summary", body=block(rest)))
        elif "slide" in tags:
            place = [heading[2]] if heading else place
            slides.append(Slide("whole", *headings(place), block(rest)))
        elif place == ["Exercises"] and question:
            body = block(text[question.end() :])
            slides.append(Slide("exercise", f"Exercise {question[1]}", body=body))
        else:
            slides += sections(text, place)
    return slides + last


def figures(cell: NotebookNode, above: str, titles: dict[str, str]) -> list[Slide]:
    """A slide for each figure that a code cell has drawn; of a live one, the still without its script."""
    book = cell.metadata.get("mystnb", {})
    caption = book.get("figure", {}).get("caption", "").replace("**", "")
    caption = plain(caption, titles)
    whole = (sentences(caption) or [""])[0].rstrip(".")
    title = re.match(r".{12,}?(?=:\s|:?$)|.*", whole, re.DOTALL)[0]  # type: ignore[index]
    alt = escape(book.get("image", {}).get("alt", title))
    bodies = []
    for output in cell.outputs:
        data = output.get("data", {})
        html = "".join(data.get("text/html", ""))
        if "image/png" in data:
            png = "".join(data["image/png"].split())
            bodies.append(f'<img alt="{alt}" src="data:image/png;base64,{png}">')
        elif LIVE in html:
            bodies.append(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    return [Slide("figure", inline(title), above, body) for body in bodies]
