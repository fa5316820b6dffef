"""Sliders that work without a kernel: every state is drawn beforehand, and the page picks one.

``freeze`` is for any drawing, ``frozen_explorer`` for class × layer × method × opacity of one picture.
Both are ordinary widgets in a live notebook. In a rendered page the front end alone moves them: each
control's ``index`` is linked to the ``selected_index`` of nested ``Stack`` widgets, whose leaves hold
the pictures as WebP. A ``value`` or a Python callback would need a kernel; an index does not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import ipywidgets
from PIL import Image

from gmcam.explaining import compare
from gmcam.lab.embedding import data_address, figure, see_through, to_width
from gmcam.lab.pictures import coloured, greyed
from gmcam.methods import METHODS
from gmcam.network import Network
from gmcam.reading import ImageSource as Source
from gmcam.reading import open_image
from gmcam.show import InlineFigure

OPACITIES = (0.25, 0.5, 0.75, 1.0)
METHODS_SHOWN = ("grad_cam", "grad_cam_pp", "x_grad_cam", "hires_cam", "guidance_map", "gmcam")
# Themes dim pictures on dark pages; saliency colours are to stay as they are.
_OPACITY_RULES = "".join(f".gmcam-opacity-{round(100 * o)} img {{opacity: {o}}}\n" for o in OPACITIES)
_STYLE = f"""<style>
.gmcam-frozen {{position: relative; max-width: 100%}}
.gmcam-frozen figure {{margin: 0}}
.gmcam-frozen img {{display: block; width: 100%; filter: none}}
.gmcam-frozen figcaption {{line-height: 1.4; min-height: 4.2em; padding-top: 0.4em}}
.gmcam-under {{position: absolute; top: 0; left: 0; width: 100%}}
.gmcam-over {{position: relative}}
{_OPACITY_RULES}</style>"""

Drawing = tuple[Source | InlineFigure, str]


def freeze(
    draw: Callable[..., Drawing],
    choices: Mapping[str, Sequence[str] | Mapping[str, Any]],
    *,
    sliders: Iterable[str] = (),
    start: Mapping[str, str] | None = None,
    width: int = 320,
    under: Source | None = None,
) -> ipywidgets.VBox:
    """Controls for ``choices`` and, for each combination, the picture that ``draw`` makes of it.

    ``choices``: what each control offers, labels, or labels with the value that stands for each.
    ``draw`` takes one value per control, by name, and gives a picture (as ``open_image`` takes it, or
    a figure of ``gmcam.lab``, which is emptied when its picture has been taken) and a sentence that
    tells what it shows; the sentence stands below it and is its alternative text. It is called once for
    every combination, so the page grows with their number: 90 pictures of 160 pixels are about half a
    megabyte. ``sliders``: the controls whose choices have an order. ``start``: labels to begin with, the
    first ones without it. ``width``: in pixels, on the page. With ``under``, pictures are see-through (PIL
    pictures or uint8 arrays (H, W, 4)) and lie over that one, and a control ``opacity`` is added.

    Before ipywidgets 8 there is no ``Stack``: then the first picture is shown, with a word on that.
    Raises ``ValueError`` without a choice, for a control without one, for names in ``sliders`` or ``start``
    that ``choices`` lacks, and with ``under`` for a control called ``opacity``.

    >>> from PIL import Image
    >>> def draw(shade, side):
    ...     return Image.new("L", (side, side), shade), f"A square of grey {shade}, {side} pixels wide."
    >>> controls = gmcam.lab.freeze(
    ...     draw, {"shade": {"dark": 50, "light": 200}, "side": {"small": 8, "large": 16}}, sliders=["side"]
    ... )
    """
    options = {
        name: dict(of) if isinstance(of, Mapping) else {o: o for o in of} for name, of in choices.items()
    }
    if not options or not all(options.values()):
        raise ValueError("freeze needs at least one control, and every control at least one choice")
    if under is not None and "opacity" in options:
        raise ValueError("with under, freeze adds a control 'opacity' of its own; call yours something else")
    sliders, start = set(sliders), dict(start or {})
    for name in [*sliders, *start]:
        if name not in options:
            raise ValueError(f"there is no control {name!r}; there are {', '.join(map(str, options))}")
    for name, label in start.items():
        if label not in options[name]:
            raise ValueError(f"{name} has no choice {label!r}; it has {', '.join(map(str, options[name]))}")
    controls = {
        name: _control(name, list(of), name in sliders, list(of).index(start[name]) if name in start else 0)
        for name, of in options.items()
    }

    stills: WeakKeyDictionary[InlineFigure, Image.Image] = WeakKeyDictionary()  # of figures that come again

    def drawn(chosen: dict[str, Any]) -> tuple[Source, str]:
        picture, words = draw(**chosen)
        if not isinstance(picture, InlineFigure):
            return picture, words
        if picture.axes or picture not in stills:
            stills[picture] = _still(picture, 2 * width)
        return stills[picture], words

    def leaf(chosen: dict[str, Any]) -> str:
        return figure(*drawn(chosen))

    if not hasattr(ipywidgets, "Stack"):  # before ipywidgets 8, as in some hosted notebooks
        first, words = drawn({name: of[start.get(name, next(iter(of)))] for name, of in options.items()})
        if under is not None:
            base = to_width(open_image(under), width).convert("RGBA")
            above = see_through(first).convert("RGBA").resize(base.size, Image.Resampling.BILINEAR)
            first = Image.alpha_composite(base, above)
        advice = "Its sliders need ipywidgets 8: %pip install 'ipywidgets>=8', then restart."
        return ipywidgets.VBox([ipywidgets.HTML(figure(first, words)), ipywidgets.HTML(advice)])

    # Shared by all leaves: a layout and a style of its own for each would double the page's widgets.
    leaf_layout = ipywidgets.Layout(margin="0", overflow="visible")
    leaf_style = ipywidgets.HTML().style

    def stack(names: list[str], chosen: dict[str, Any]) -> ipywidgets.Widget:
        if not names:
            return ipywidgets.HTML(leaf(chosen), layout=leaf_layout, style=leaf_style)
        name, *rest = names
        children = [stack(rest, chosen | {name: value}) for value in options[name].values()]
        return _linked(controls[name], children, leaf_layout)

    pictures = stack(list(options), {})
    shown = [ipywidgets.HTML(_STYLE, layout=ipywidgets.Layout(display="none"))]
    if under is not None:
        base = ipywidgets.HTML(
            f'<img class="dark-light" role="presentation" alt="" src="{data_address(under, quality=90)}">',
            layout=leaf_layout,
        )
        base.add_class("gmcam-under")
        controls["opacity"] = _control("opacity", [f"{o:.0%}" for o in OPACITIES], True, 2)
        # One stack of pictures, seen through boxes of different opacity: nothing is stored twice.
        boxes = [ipywidgets.Box([pictures], layout=leaf_layout) for _ in OPACITIES]
        for box, opacity in zip(boxes, OPACITIES, strict=True):
            box.add_class(f"gmcam-opacity-{round(100 * opacity)}")
        pictures = _linked(controls["opacity"], boxes, leaf_layout)
        pictures.add_class("gmcam-over")
        shown.append(base)
    frame = ipywidgets.VBox(
        [*shown, pictures], layout=ipywidgets.Layout(width=f"{width}px", overflow="visible")
    )
    frame.add_class("gmcam-frozen")
    wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap", align_items="flex-start", grid_gap="1em")
    return ipywidgets.VBox([ipywidgets.Box([frame, ipywidgets.VBox(list(controls.values()))], layout=wrap)])


def frozen_explorer(
    network: Network,
    image: Source,
    classes: Sequence[str],
    methods: Sequence[str] = METHODS_SHOWN,
    layers: Sequence[str] | None = None,
    *,
    size: int = 128,
    width: int = 320,
) -> ipywidgets.VBox:
    """Class × layer × method × opacity for one picture, computed here and now for all combinations.

    ``classes``: names. ``methods``: names in ``METHODS`` that explain a layer. ``layers``: all of
    ``network.layers`` without it. ``size``: side of the stored maps in pixels; ``width``: on the page.
    Raises ``ValueError`` like ``explain``, and without a class, method or layer.
    """
    layers = list(network.layers) if layers is None else list(layers)
    if not (classes and methods and layers):
        raise ValueError("a frozen explorer needs at least one class, one method and one layer")
    inputs = network.prepare(image)  # before anything is enlarged: it refuses what is too slender
    view = to_width(network.view(image), width)
    stored = (size, max(1, round(size * view.height / view.width)))
    found = {
        (name, layer, result.method): result
        for name in classes
        for layer in layers
        for result in compare(network, inputs, name, methods=methods, layer=layer)
    }

    def draw(**chosen: str) -> Drawing:
        result = found[chosen["class"], chosen["layer"], chosen["method"]]
        title, label = METHODS[result.method].title, result.label(0)
        cells = "x".join(map(str, result.raw.shape[1:]))
        words = f"{title} for {label}, logit {result.score[0]:.2f}, at {cells} cells: "
        words += "the map is empty" if result.empty[0] else f"strongest {_place(result.raw[0])}"
        return coloured(result.maps[0], stored), words + "."

    return freeze(
        draw,
        {
            "class": classes,
            "layer": layers,
            "method": {METHODS[name].title: name for name in methods},
        },
        sliders=["layer"],
        start={"layer": layers[-1], "method": METHODS[methods[-1]].title},
        width=width,
        under=greyed(view),
    )


def _control(name: str, labels: list[str], ordered: bool, index: int) -> ipywidgets.Widget:
    kind = ipywidgets.SelectionSlider if ordered else ipywidgets.Dropdown
    return kind(
        options=labels,
        index=index,
        description=name,
        style={"description_width": "5em"},
        layout=ipywidgets.Layout(width="20em", max_width="100%"),
    )


def _linked(
    control: ipywidgets.Widget, children: list[ipywidgets.Widget], layout: ipywidgets.Layout
) -> ipywidgets.Stack:
    stack = ipywidgets.Stack(children, selected_index=control.index, layout=layout)
    ipywidgets.jsdlink((control, "index"), (stack, "selected_index"))
    return stack


def _still(drawing: InlineFigure, widest: int) -> Image.Image:
    """A figure as a picture of at most that many pixels across."""
    drawn = Image.open(io.BytesIO(drawing._repr_png_())).convert("RGB")
    drawing.clear()  # it is not shown again, and dozens of figures with their pictures are heavy
    drawn.thumbnail((widest, drawn.height), Image.Resampling.LANCZOS)
    return drawn


def _place(raw: Any) -> str:
    """Where the middle of the strongest cell lies, in words: "in the middle", "at the top left"."""
    height, width = raw.shape
    row, column = divmod(int(raw.argmax()), width)
    down = ("top", "", "bottom")[(6 * row + 3) // (2 * height)]
    across = ("left", "", "right")[(6 * column + 3) // (2 * width)]
    return " ".join(["at the", *filter(None, (down, across))]) if down or across else "in the middle"
