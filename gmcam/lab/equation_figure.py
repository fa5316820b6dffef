"""The live equation figure: a scene's cells, the channels behind each, and the ledger of the logit.

Python writes a still with the same numbers as the script, which replaces it by the live figure. Everything is
in the notebook's output: nothing is requested, and no kernel is needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from gmcam.capture import Layer
from gmcam.lab.embedding import data_address, to_width
from gmcam.lab.equation_data import OUTLINE, Subject, arrays, outline, subject
from gmcam.lab.scenes import Scene
from gmcam.network import Network
from gmcam.palette import STYLE_SHEET, pale, tint

FOLDER = Path(__file__).parent / "static" / "equation_figure"
# Each after those that it imports.
MODULES = ("arrays", "sums", "words", "paint", "channels", "controls", "pointing", "figure")
MOST_CLASSES = 6
PHOTO_WIDTH, PHOTO_QUALITY = 256, 75
TITLES = {
    "aggregated_map": "the aggregated map A",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "guidance_map": "the guidance map",
    "gmcam": "GMCAM",
}


@dataclass(frozen=True)
class Form:
    """What the figure shows at an equation: columns of the table, maps, and whether the ledger."""

    columns: tuple[str, ...]
    maps: tuple[str, ...]
    ledger: bool = False


FORMS: dict[int | str, Form] = {
    1: Form(("M", "m"), ("aggregated_map",)),
    "cam": Form(("M", "w", "Mw"), ("cam",)),
    2: Form(("M", "C", "lambda", "Ml"), ("grad_cam",)),
    3: Form(("M", "C", "mean", "Ml"), ("grad_cam",)),
    4: Form(("M", "C", "lambda", "Ml"), ("grad_cam",)),
    5: Form(("M", "C", "mean", "Ml", "MC"), ("grad_cam", "guidance_map"), True),
    6: Form(("M", "C", "Ml", "MC"), ("grad_cam", "guidance_map", "gmcam"), True),
}
SHORT = Form((), ("guidance_map",), True)


@dataclass(frozen=True, eq=False)
class EquationFigure:
    """A live figure that displays itself in a notebook. ``shown``: its numbers."""

    shown: Subject
    form: Form
    with_arrays: bool = True

    def __post_init__(self) -> None:
        kinds = {question.packed[0] for question in self.shown.questions.values()}
        if "cam" in self.form.maps and kinds != {"flat"}:
            raise ValueError(
                "expected a layer before average pooling and a linear layer, where CAM is defined, got "
                f"{self.shown.layer} of {self.shown.network}: choose another network or layer, or equation=4"
            )

    def at(self, equation: int | str) -> EquationFigure:
        """The figure at another equation, further down on the page: it uses the arrays of this one.

        Raises ``ValueError`` as ``equation_figure`` does.
        """
        return replace(self, form=_form(equation), with_arrays=False)

    def share(self, target: str, method: str) -> str:
        """The share of a class's rectified map on its object, in words: "30 %"."""
        return _percent(self.shown.share(target, method))

    def row(self, target: str, name: str) -> str:
        """A row of a class's ledger in logits, in words: "+1.37"."""
        return _signed(next(plus + minus for row, plus, minus, _ in self.shown.ledger(target) if row == name))

    def effect(self, target: str, label: str) -> str:
        """By how much the logit of a class falls without an object, in words: "−2.82"."""
        return _signed(self.shown.questions[target].removal[label])

    def _repr_html_(self) -> str:
        data = json.dumps(arrays(self.shown), separators=(",", ":")).replace("<", r"\u003c")
        name = f"gm-{hashlib.sha256(data.encode()).hexdigest()[:12]}"
        form, target = self.form, next(iter(self.shown.questions))
        about = {
            "columns": " ".join(form.columns),
            "maps": " ".join(form.maps),
            "target": target,
            "arrays": name,
        }
        attributes = "".join(f' data-{key}="{escape(value)}"' for key, value in about.items())
        attributes += " data-short" * (not form.columns)
        parts = [f'<div class="gm-figure"{attributes}><style>{_style()}</style>', self._still(target)]
        if self.with_arrays:
            parts.append(f'<script type="application/json" id="{name}">{data}</script>')
        figure = "\n".join([*parts, f"<script>{_script()}</script></div>"])
        return figure if not form.columns else f'<div class="full-width">{figure}</div>'  # text and margin

    def _still(self, target: str) -> str:
        """The figure without a script: map, outlines, a sentence and the ledger."""
        shown, form = self.shown, self.form
        question, sentence = shown.questions[target], self._sentence(target)
        values = shown.maps(target)[form.maps[-1]]
        values = values if not form.columns else values.clip(0)
        above = "activity" if form.maps == ("aggregated_map",) else "for"
        heat = Image.fromarray(tint(values / (np.abs(values).max() or 1), above))
        photo = Image.fromarray((pale(to_width(shown.view, PHOTO_WIDTH))[..., 0] * 255).astype(np.uint8))
        lines = "".join(
            f'<path class="gm-outline{"" if name == question.object else " is-other"}" '
            f'data-object="{name}" d="{outline(mask)}"/>'
            for name, mask in shown.masks.items()
        )
        names = "".join(map(_name, shown.masks, shown.masks.values()))
        words = escape(f"A {' and a '.join(shown.masks)} on {shown.background}. {sentence}")
        ledgers = [_ledger(shown, each, each != target) for each in shown.questions] * self._has_ledger
        return f"""<div class="gm-still"><div class="gm-head"><p class="gm-ask">Why “{escape(target)}”?</p>
<p class="gm-score">probability <b>{_percent(question.probability)}</b>,
logit <b>{_signed(question.logit)}</b></p></div>
<div class="gm-body"><div class="gm-left"><div class="gm-stagebox"><div class="gm-stage">
<img class="gm-photo dark-light" alt="{words}" src="{data_address(photo, PHOTO_QUALITY)}">
<img class="gm-heat dark-light" role="presentation" alt="" src="{_png(heat)}">
<svg viewBox="0 0 {OUTLINE} {OUTLINE}" aria-hidden="true">{lines}</svg>{names}</div></div>
{"".join(ledgers)}</div>
<div class="gm-right"><div class="gm-readbox"><p class="gm-read">{escape(sentence)}
<span class="gm-offer">With JavaScript, you can pick a cell and see what it adds up.</span></p></div></div>
</div></div>"""

    @property
    def _has_ledger(self) -> bool:
        """At earlier layers most of the logit may be explained by no cell, so there are maps alone."""
        return self.form.ledger and self.shown.last

    def _sentence(self, target: str) -> str:
        form, question = self.form, self.shown.questions[target]
        if not form.columns:
            sums = " The cells and the biases add up to it." * (self._has_ledger and self.shown.exact)
            return f"Each cell adds to the logit of “{target}” (orange) or takes from it (blue).{sums}"
        shares = [f"{self.share(target, name)} of {TITLES[name]}" for name in form.maps]
        listed = " and ".join([", ".join(shares[:-1]), shares[-1]][len(shares) == 1 :])
        asked = "" if form.maps == ("aggregated_map",) else f" for “{target}”"
        verb = "is" if len(shares) == 1 else "are"
        shown = f"The image shows {TITLES[form.maps[-1]]}{asked}, cell by cell."
        return f"{shown} On the {question.object} {verb} {listed}."


def equation_figure(
    network: Network,
    scene: Scene,
    target: Sequence[str] | Mapping[str, str] | None = None,
    layer: Layer | None = None,
    *,
    equation: int | str = 6,
    short: bool = False,
) -> EquationFigure:
    """The live figure of a scene: pick a cell, and see the strongest channels' M and C, their products, a
    verdict, the maps, and the ledger Σ C ⊙ M of all cells, which with the biases adds up to the logit.

    ``target``: one to six classes, the scene's labels by default; a mapping gives each class its object where
    names differ, as ``{"Egyptian cat": "cat"}``. ``layer``: by default the last one; earlier ones have no
    ledger, because cells explain little of the logit there. ``equation``: 1, "cam", 2 to 4, 5 or 6; the
    figure grows from one to the next. ``short``: the signed map and the ledger alone.

    Beside the ledger's rows are removal effects, from the scene drawn again without an object or on the eight
    other backgrounds. Data for a page: about 90 kB for two classes on an embedded network. In the page, sums
    equal those of ``gmcam.equations`` to 1e-4 of a map's maximum.

    Raises ``ValueError`` for anything but a scene with objects, for classes that the network lacks or that
    have no object in the scene, for another equation, and for "cam" where CAM is not defined.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=15)
    >>> figure = gmcam.lab.equation_figure(network, scene, equation=5)
    >>> figure.row("cat", "on the cat"), figure.row("cat", "on the cup")
    ('+1.37', '−1.36')
    """
    if not isinstance(scene, Scene) or not scene.labels:
        kind = type(scene).__name__ if not isinstance(scene, Scene) else "one without objects"
        raise ValueError(f"expected a scene with objects, got {kind}: draw one with gmcam.lab.scene")
    target = scene.labels if target is None else [target] if isinstance(target, str) else target
    asked = dict(target) if isinstance(target, Mapping) else {name: name for name in target}
    if not 1 <= len(asked) <= MOST_CLASSES:
        raise ValueError(f"expected one to {MOST_CLASSES} classes, got {len(asked)}: name some in target")
    for name, label in asked.items():
        if label not in scene.labels:
            known, mapping = ", ".join(dict.fromkeys(scene.labels)), {name: scene.labels[0]}
            raise ValueError(
                f"expected for each class an object of the scene ({known}), got {label!r} for {name!r}: "
                f"pass target={mapping}"
            )
    form = SHORT if short else _form(equation)
    shown = subject(network, scene, asked, network.layer_path(layer))
    return EquationFigure(shown, form)


def _form(equation: int | str) -> Form:
    if equation not in FORMS:
        known = ", ".join(map(repr, FORMS))
        raise ValueError(f"expected equation to be one of {known}, got {equation!r}: choose one")
    return FORMS[equation]


def _name(label: str, mask: np.ndarray) -> str:
    """An object's name above it, or below where it reaches the upper border."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):  # outside of what the network sees
        return ""
    upper, lower = 100 * rows[[0, -1]] / mask.shape[0]
    top = upper - 4 if upper > 7 else min(lower + 5, 96)
    left = 100 * columns[[0, -1]].mean() / mask.shape[1]
    return f'<span class="gm-name" style="left:{left:.1f}%;top:{top:.1f}%">{escape(label)}</span>'


def _ledger(shown: Subject, target: str, hidden: bool) -> str:
    """A table with a row per part: bars left and right of zero, the sum, and the removal effect."""
    rows, logit = shown.ledger(target), shown.questions[target].logit
    left, right = max(-minus for _, _, minus, _ in rows), max(plus for _, plus, _, _ in rows)
    whole = left + right or 1.0  # of which bars and zero have a share; the style sheet adds room for labels
    lines = []
    for number, (name, plus, minus, effect) in enumerate(rows):
        bars = "".join(
            f'<i{kind} style="--share:{size / whole:.4f}"></i>'
            f'<b style="--share:{size / whole:.4f}">{_signed(size).removeprefix("+")}</b>'
            for kind, size in ((' class="gm-minus"', -minus), ("", plus))
            if _signed(size) != "0"
        )
        spans = name == "near an object"
        change = f"<td{' rowspan=2' * spans}>{'' if effect is None else _signed(effect)}</td>"
        if number and rows[number - 1][0] == "near an object":
            change = ""
        lines.append(
            f'<tr><th scope="row">{name}</th><td class="gm-bars"><span class="gm-bar">{bars}</span></td>'
            f"<td>{_coloured(plus + minus)}</td>{change}</tr>"
        )
    title = f"How {_signed(logit)} logits for “{escape(target)}” add up"
    rest = "" if shown.exact else " The layers above are not affine, so the cells leave a part unexplained."
    return f"""<div class="gm-ledger" data-target="{escape(target)}"{" hidden" * hidden}>
<table class="gm-table gm-sums" style="--zero:{left / whole:.4f}"><caption>{title}</caption>
<thead><tr><th scope="col"><span class="gm-unseen">part</span></th><th scope="col" class="gm-bars">
<span class="gm-ends"><b class="gm-against">against</b><b class="gm-for">for</b></span></th>
<th scope="col">sum</th><th scope="col">removal effect</th></tr></thead>
<tbody>{"".join(lines)}<tr class="gm-sum"><th scope="row">logit</th><td class="gm-bars"></td>
<td>{_signed(logit)}</td><td></td></tr></tbody></table>
<p class="gm-note">Sums are arithmetic, not causes: cells of Σ C ⊙ M, by what they cover. Removal effect:
how much the logit drops without the object, or with another background (mean of eight).{rest}</p></div>"""


def _coloured(value: float) -> str:
    text = _signed(value)
    return text if text == "0" else f'<b class="gm-{"for" if value > 0 else "against"}">{text}</b>'


def _signed(value: float) -> str:
    """At most three digits and a true minus, as ``words.js`` writes them."""
    size = abs(value)
    text = f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"
    return "0" if float(text) == 0 else ("\N{MINUS SIGN}" if value < 0 else "+") + text


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


@cache
def _style() -> str:
    return STYLE_SHEET.read_text() + (FOLDER / "figure.css").read_text()


@cache
def _script() -> str:
    """The modules as one script that is no module, which pages opened from a disk could not import."""
    text = "".join((FOLDER / f"{name}.js").read_text() for name in MODULES)
    comments = r"^ *(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)\n"
    text = re.sub(rf"{comments}|^import .*?;\n|^export ", "", text, flags=re.MULTILINE | re.DOTALL)
    return f'(() => {{"use strict";\n{text}start();\n}})();'
