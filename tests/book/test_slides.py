"""Lecture slides: what of a notebook stands on them, and what does not."""

import json
import re

import nbformat
import pytest
import slides
from deck import deck, plain, sections, sentences
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TITLES = {"cam": "CAM: the weights", "fahim2022": "Fahim et al. (2022)"}
FIRST = """# Maps & more

:::{admonition} Objectives
:class: tip
- You can add maps with {ref}`Equation 1 <equation-1>`.

**Minutes:** 2. **You need:** {doc}`cam`.
:::"""
SECTION = r"""## Add *them* up

The simplest way adds all maps of a layer, whatever they are <b>worth</b> {footcite:p}`fahim2022`. Not shown.

It reads:

(equation-1)=
$$
A = \sum_k M_k < 1 \tag{1}
$$

```{margin}
Never shown.
```"""


def figure(*tags):
    drawn = new_output("execute_result", {"image/png": "QUJD\n", "text/plain": "<Figure>"})
    book = {"figure": {"caption": "A beside M: both. Left: not shown."}, "image": {"alt": 'The "sum" A'}}
    return new_code_cell("hidden_code()", outputs=[drawn], metadata={"mystnb": book, "tags": list(tags)})


def shown(*cells):
    return deck(new_notebook(cells=list(cells)), TITLES)


def tagged(text, *tags):
    return new_markdown_cell(text, metadata={"tags": list(tags)})


def test_a_deck_begins_with_title_and_objectives_and_ends_with_the_summary():
    deck_slides = shown(
        new_markdown_cell(FIRST),
        new_markdown_cell(SECTION),
        new_markdown_cell("## Summary\n\n- Maps add."),
        new_markdown_cell("Afterthoughts.\n\n## Later\n\nOne more."),
        new_markdown_cell("## References\n\n```{footbibliography}\n```"),
    )
    headings = ["Maps &amp; more", "Objectives", "Add <em>them</em> up", "Later", "Summary"]
    assert [slide.heading for slide in deck_slides] == headings
    assert deck_slides[1].body == "<ul>\n<li>You can add maps with Equation 1.</li>\n</ul>\n"
    assert "Maps add." in deck_slides[-1].body


def test_glued_numbers_are_those_that_the_notebook_computed(tmp_path):
    stored = {
        "share": {"data": {"text/plain": r"'84\xa0%'"}},
        "figure": {"data": {"text/plain": "<IPython.core.display.HTML object>"}},
    }
    (tmp_path / "cam.glue.json").write_text(json.dumps(stored))
    texts = slides.glued(tmp_path / "cam.glue.json")
    assert texts == {"glue share": "84\xa0%"} and slides.glued(tmp_path / "none.glue.json") == {}
    assert plain("Of it, {glue:text}`share` is inside.", TITLES | texts) == "Of it, 84\xa0% is inside."


def test_a_section_shows_its_first_sentence_and_its_equation_and_escapes_the_rest():
    (slide,) = shown(new_markdown_cell(SECTION))
    assert "whatever they are &lt;b&gt;worth&lt;/b&gt;.</p>" in slide.body
    assert r"\[A = \sum_k M_k &lt; 1 \tag{1}\]" in slide.body
    assert "It reads:" in slide.body
    assert "Never" not in slide.body and "fahim" not in slide.body and "equation-1" not in slide.body


def test_each_equation_has_a_slide_with_the_sentence_that_leads_to_it():
    text = "## Two\n\nThe first of the two equations of this section stands here:\n\n$$\na\n$$\n\n"
    text += "and from it follows, after a little thought and some patience, the second:\n\n$$\nb\n$$"
    first, second = sections(text, [""])
    assert r"\[a\]" in first.body and r"\[b\]" not in first.body
    assert "patience" in second.body and "stands here" not in second.body
    assert first.heading == second.heading == "Two"


def test_headings_stand_above_their_subsections_and_alone_without_prose():
    part, sub = shown(new_markdown_cell("## Part"), new_markdown_cell("### `sub`\n\nMore:"))
    assert (part.kind, part.body) == ("divider", "")
    assert (sub.heading, sub.above, sub.body) == ("<code>sub</code>", "Part", "<p>More.</p>\n")


def test_a_figure_has_a_short_title_and_its_alternative_text_and_no_code():
    deck_slides = shown(new_markdown_cell("## Maps"), figure())
    assert [slide.kind for slide in deck_slides] == ["divider", "figure"]
    assert (deck_slides[1].heading, deck_slides[1].above) == ("A beside M: both", "Maps")
    assert deck_slides[1].body == '<img alt="The &quot;sum&quot; A" src="data:image/png;base64,QUJD">'


def test_exercises_are_asked_and_not_solved():
    deck_slides = shown(
        new_markdown_cell("## Exercises"),
        new_markdown_cell("**3.** Which share? See {doc}`cam`."),
        new_code_cell('answer = ...\ncheck("maps.3", answer)'),
        figure("hide-cell"),
        new_code_cell('check("maps.3", 0.5)', metadata={"tags": ["hide-cell"]}),
    )
    assert [(slide.heading, slide.body) for slide in deck_slides] == [
        ("Exercise 3", "<p>Which share? See CAM: the weights.</p>\n")
    ]


def test_tags_leave_a_cell_out_or_show_all_of_it():
    table = "| a | b |\n|---|---|\n| 1 | $x$ |"
    deck_slides = shown(
        tagged("## Gone\n\nNothing.", "no-slide"),
        figure("no-slide"),
        tagged(f"## All of it\n\nOne. Two. Three. Four.\n\n{table}", "slide"),
        tagged("Below the same heading.", "slide"),
    )
    assert [slide.heading for slide in deck_slides] == ["All of it", "All of it"]
    assert (
        "Three. Four." in deck_slides[0].body
        and '<td><span class="math inline">\\(x\\)' in deck_slides[0].body
    )
    assert deck_slides[1].body == "<p>Below the same heading.</p>\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See {doc}`cam`.", "See CAM: the weights."),
        ("See {doc}`the cards <cam>`.", "See the cards."),
        ("Equations {ref}`2 <equation-2>` and {ref}`3 <e>`", "Equations 2 and 3"),
        ("As {footcite:t}`fahim2022` say {footcite:p}`a,b`.", "As Fahim et al. (2022) say."),
        ("In {numref}`fig-sheet`:", "In the figure:"),
        ("(there)=\n## Head", "## Head"),
    ],
)
def test_roles_of_myst_become_text(text, expected):
    assert plain(text, TITLES) == expected


def test_sentences_are_not_cut_in_numbers_formulas_emphasis_or_abbreviations():
    text = "With $\\sigma = 0.5. x$ (see Eq. 2) it holds. *Does it? Yes.* It `a. b` ends"
    assert sentences(text) == [
        "With $\\sigma = 0.5. x$ (see Eq. 2) it holds.",
        "*Does it? Yes.*",
        "It `a. b` ends",
    ]


def test_without_executed_notebooks_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got none for feature_maps, .*: run `make book`"):
        slides.write(tmp_path, tmp_path / "slides")


def test_every_chapter_has_a_deck_that_shows_its_sections():
    """From the notebooks as they are; with their figures, when the book is built: test_build.py."""
    titles = slides.shown_names(slides.BOOK)
    for path in sorted(slides.BOOK.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        deck_slides = deck(notebook, titles)
        written = "".join(slide.heading + slide.above + slide.body for slide in deck_slides)
        assert not re.search(r"\{(doc|ref|numref|footcite:.)\}|\*\*|<h\d|check\(", written), path.name
        assert deck_slides[0].kind == "title" and deck_slides[0].heading
        # Exercises stand on slides, where a bare label would be shown as it is.
        questions = [cell.source for cell in notebook.cells if re.match(r"\*\*\d+\.\*\*", cell.source)]
        assert not re.search(r"\{ref\}`[^<`]*`", "".join(questions)), path.name
