"""Controls that work without a kernel: every state is drawn in advance, and the page selects one.

``freeze`` is for any drawing, ``frozen_explorer`` for class × layer × method of one image. Both are ordinary
widgets in a live notebook. In a rendered page the front end alone moves them: each control's ``index`` is
linked to the ``selected_index`` of nested ``Stack`` widgets, whose leaves hold the images as WebP. A link of
``value``, or a Python callback, would need a kernel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from PIL import Image, ImageChops
from torch import Tensor

from gmcam._extras import require
from gmcam.capture import Layer
from gmcam.explaining import compare
from gmcam.lab.embedding import data_address, figure, to_width
from gmcam.lab.pictures import coloured, greyed
from gmcam.network import Network
from gmcam.reading import ImageSource, open_image
from gmcam.registry import find_method
from gmcam.show import InlineFigure, by_cell

try:
    import ipywidgets
except ModuleNotFoundError:
    require("ipywidgets", "plot")
    raise

METHODS_SHOWN = ("grad_cam", "grad_cam_pp", "x_grad_cam", "hires_cam", "guidance_map", "gmcam")
FEW = 4  # so many choices are buttons, and more a list
# Themes dim images on dark pages, which would change the colours of saliency: hence `filter: none`.
_RULES = """
.gmcam-frozen {position: relative; isolation: isolate; max-width: 100%}
.gmcam-frozen figure {margin: 0}
.gmcam-frozen img {display: block; width: 100%; filter: none}
.gmcam-frozen figcaption {line-height: 1.4; min-height: 4.2em; padding-top: 0.4em}
.gmcam-under {position: absolute; top: 0; left: 0; width: 100%}
.gmcam-over {position: relative; mix-blend-mode: multiply}
.gmcam-over img {image-rendering: pixelated}
"""

Drawing = tuple[ImageSource | InlineFigure, str]
Options = Mapping[str, Mapping[str, Any]]  # control → label → value


def freeze(
    draw: Callable[..., Drawing],
    choices: Mapping[str, Sequence[str] | Mapping[str, Any]],
    *,
    sliders: Iterable[str] = (),
    start: Mapping[str, str] | None = None,
    width: int = 320,
    background: ImageSource | None = None,
) -> ipywidgets.VBox:
    """Controls for ``choices`` and, for each combination, the image that ``draw`` returns for it.

    ``choices``: for each control its labels, or its labels with their values. ``draw`` receives one value
    per control, by name. It returns an image (as ``open_image`` takes it, or an ``InlineFigure``) and a
    sentence, used as caption and alternative text. It is called once per combination, and the page grows
    with their number: 90 images of 160 pixels are about half a megabyte.
    ``sliders``: controls whose choices have an order. ``start``: initial labels, by default the first.
    ``width``: on the page, in pixels. With ``background``, that image is multiplied by the images, which are
    enlarged to its size without smoothing, such as maps of few cells from ``coloured``.

    Before ipywidgets 8, which introduced ``Stack``, only the first image is shown, with a note. Raises
    ``ValueError`` without a control, for a control without a choice, and for names in ``sliders`` or
    ``start`` that ``choices`` lacks.

    >>> from PIL import Image
    >>> def draw(shade, side):
    ...     return Image.new("L", (side, side), shade), f"A square of grey {shade}, {side} pixels wide."
    >>> controls = gmcam.lab.freeze(
    ...     draw, {"shade": {"dark": 50, "light": 200}, "side": {"small": 8, "large": 16}}, sliders=["side"]
    ... )
    """
    options = {
        name: dict(labels) if isinstance(labels, Mapping) else {label: label for label in labels}
        for name, labels in choices.items()
    }
    sliders, start = set(sliders), dict(start or {})
    _check(options, [*sliders, *start], start)
    start = {name: start.get(name, next(iter(labels))) for name, labels in options.items()}

    def render(values: Mapping[str, Any]) -> tuple[ImageSource, str]:
        drawing, caption = draw(**values)
        return _as_image(drawing, width), caption

    if not hasattr(ipywidgets, "Stack"):
        still = render({name: labels[start[name]] for name, labels in options.items()})
        return _without_stack(*still, background, width)

    controls = {
        name: _control(name, list(labels), list(labels).index(start[name]), name in sliders)
        for name, labels in options.items()
    }
    # Shared by all leaves: a separate layout and style for each would double the page's widgets.
    layout, style = ipywidgets.Layout(margin="0", overflow="visible"), ipywidgets.HTML().style

    def stack(names: Sequence[str], values: Mapping[str, Any]) -> ipywidgets.Widget:
        if not names:
            return ipywidgets.HTML(figure(*render(values)), layout=layout, style=style)
        name, *rest = names
        children = [stack(rest, {**values, name: value}) for value in options[name].values()]
        return _linked(controls[name], children, layout)

    images = stack(list(options), {})
    frame_layout = ipywidgets.Layout(width=f"{width}px", overflow="visible")
    frame = ipywidgets.VBox([], layout=frame_layout)
    frame.add_class("gmcam-frozen")
    rules, under = _RULES, []
    if background is not None:
        base = to_width(open_image(background), width)
        address = data_address(base, quality=90)
        img = f'<img class="dark-light" role="presentation" alt="" src="{address}">'
        under = [ipywidgets.HTML(img, layout=layout)]
        under[0].add_class("gmcam-under")
        images.add_class("gmcam-over")
        shape = f"gmcam-{base.width}-by-{base.height}"
        frame.add_class(shape)
        rules += f".{shape} img {{aspect-ratio: {base.width} / {base.height}}}\n"  # cells may have another
    style = ipywidgets.HTML(f"<style>{rules}</style>", layout=ipywidgets.Layout(display="none"))
    frame.children = [style, *under, images]
    return ipywidgets.VBox([in_rows(controls.values()), frame])


def in_rows(controls: Iterable[ipywidgets.Widget]) -> ipywidgets.Box:
    """Controls side by side, above what they change."""
    wrap = ipywidgets.Layout(
        display="flex", flex_flow="row wrap", align_items="center", grid_gap="0.4em 1.5em"
    )
    box = ipywidgets.Box(list(controls), layout=wrap)
    box.add_class("gmcam-controls")
    return box


def _check(options: Options, named: Sequence[str], start: Mapping[str, str]) -> None:
    if not options or not all(options.values()):
        raise ValueError("expected at least one control, each with at least one choice: add to choices")
    for name in named:
        if name not in options:
            known = ", ".join(map(str, options))
            raise ValueError(f"expected one of the controls {known}, got {name!r}: add it to choices")
    for name, label in start.items():
        if label not in options[name]:
            known = ", ".join(map(str, options[name]))
            raise ValueError(f"expected {name} to start at one of {known}, got {label!r}: choose one")


def _as_image(drawing: ImageSource | InlineFigure, width: int) -> ImageSource:
    """A figure as an image for screens of two pixels in one, its letters legible; an image as it is."""
    if not isinstance(drawing, InlineFigure):
        return drawing
    narrow = drawing.stacked() if drawing.stacked and width < 600 else drawing
    image = Image.open(io.BytesIO(narrow._repr_png_())).convert("RGB")
    image.thumbnail((2 * width, image.height), Image.Resampling.LANCZOS)
    return image


def _without_stack(
    image: ImageSource, caption: str, background: ImageSource | None, width: int
) -> ipywidgets.VBox:
    """One image with its caption, for ipywidgets 7, as in some hosted notebooks."""
    if background is not None:
        base = to_width(open_image(background), width)
        image = ImageChops.multiply(base, open_image(image).resize(base.size, Image.Resampling.BOX))
    advice = "Its sliders need ipywidgets 8: %pip install 'ipywidgets>=8', then restart."
    return ipywidgets.VBox([ipywidgets.HTML(figure(image, caption)), ipywidgets.HTML(advice)])


def _control(name: str, labels: Sequence[str], index: int, ordered: bool) -> ipywidgets.Widget:
    """A slider for choices with an order, buttons for a few others, and a list for more."""
    few = ipywidgets.RadioButtons if len(labels) <= FEW else ipywidgets.Dropdown
    kind = ipywidgets.SelectionSlider if ordered else few
    layout = ipywidgets.Layout(width="20em" if ordered else "auto", max_width="100%")
    style = {"description_width": "initial"}
    return kind(options=labels, index=index, description=name, style=style, layout=layout)


def _linked(
    control: ipywidgets.Widget, children: list[ipywidgets.Widget], layout: ipywidgets.Layout
) -> ipywidgets.Stack:
    stack = ipywidgets.Stack(children, selected_index=control.index, layout=layout)
    ipywidgets.jsdlink((control, "index"), (stack, "selected_index"))
    return stack


def frozen_explorer(
    network: Network,
    image: ImageSource,
    target: Sequence[str],
    method: Sequence[str] = METHODS_SHOWN,
    layer: Sequence[Layer] | None = None,
    *,
    width: int = 320,
) -> ipywidgets.VBox:
    """Class × layer × method for one image, computed in advance for all combinations and drawn cell by cell.

    ``target``: class names. ``method``: names in ``METHODS``. ``layer``: by default all of
    ``network.layers``. ``width``: on the page, in pixels. Starts at the last layer and method. Raises
    ``ValueError`` as ``explain`` does, and without a class, method or layer.
    """
    layers = list(network.layers if layer is None else layer)
    if not (target and method and layers):
        raise ValueError("expected at least one class, method and layer: name some, or leave layer out")
    inputs = network.prepare(image)  # refuses an image that is too slender before it is enlarged
    titles = {entry.title: entry.name for entry in map(find_method, method)}
    labels = [each if isinstance(each, str) else network.layer_path(each) for each in layers]
    results = {
        (name, label, result.method): result
        for name in target
        for label in labels
        for result in compare(network, inputs, name, methods=list(titles.values()), layer=label)
    }

    def draw(**values: str) -> Drawing:
        result = results[values["class"], values["layer"], values["method"]]
        title, cells = find_method(result.method).title, "x".join(map(str, result.cells))
        place = "the map is empty" if result.empty[0] else f"strongest {place_in_words(result.raw[0])}"
        caption = f"{title} for {result.label(0)}, logit {result.score[0]:.2f}, at {cells} cells: {place}."
        return coloured(by_cell(result)), caption

    return freeze(
        draw,
        {"class": target, "layer": labels, "method": titles},
        sliders=["layer"],
        start={"layer": labels[-1], "method": list(titles)[-1]},
        width=width,
        background=greyed(network.view(image)),
    )


def place_in_words(raw: Tensor) -> str:
    """The place of the strongest cell's centre in a map (h, w): "in the middle", "at the top left"."""
    height, width = raw.shape
    row, column = divmod(int(raw.argmax()), width)
    down = ("top", "", "bottom")[(6 * row + 3) // (2 * height)]
    across = ("left", "", "right")[(6 * column + 3) // (2 * width)]
    return " ".join(["at the", *filter(None, (down, across))]) if down or across else "in the middle"
