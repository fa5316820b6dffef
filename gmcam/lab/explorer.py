"""The live explorer: class, layer and method for one image, recomputed as they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gmcam._extras import require
from gmcam.capture import INPUT, capture
from gmcam.explaining import Result, explain
from gmcam.lab.embedding import figure, to_width
from gmcam.lab.frozen import in_rows
from gmcam.network import Network
from gmcam.reading import ImageSource
from gmcam.registry import find_method
from gmcam.show import by_cell, overlay

try:
    import ipywidgets
except ModuleNotFoundError:
    require("ipywidgets", "plot")
    raise

WIDTH = 288
# What computing a map or opening an image may raise; torch raises RuntimeError for a lack of memory.
FAILURES = (ValueError, RuntimeError, MemoryError)
FAST = ("cam", "grad_cam", "hires_cam", "guidance_map", "gmcam")


class _Subject:
    """The current image: its view, its classes' probabilities (their logits where the network has none), and
    the maps computed so far."""

    def __init__(self, network: Network, image: ImageSource) -> None:
        self.network = network
        self.inputs = network.prepare(image)  # refuses an image that is too slender before it is enlarged
        self.view = to_width(network.view(image), WIDTH)
        if network.output is None:
            logits = capture(network.module, self.inputs, layer=INPUT, gradients=False).logits
            self.values, self.form = logits[0].tolist(), "{:.2f}"
        else:
            self.values, self.form = network.probabilities(self.inputs)[0].tolist(), "{:.1%}"
        self.results: dict[tuple[int, str, str], Result] = {}

    def result(self, index: int, layer: str, method: str) -> Result:
        key = index, layer, method
        if key not in self.results:
            self.results[key] = explain(self.network, self.inputs, index, method=method, layer=layer)
        return self.results[key]

    def by_probability(self) -> list[int]:
        return sorted(range(len(self.values)), key=lambda index: -self.values[index])

    def options(self, indices: list[int]) -> list[tuple[str, int]]:
        """Labels of classes, with their values, and their indices."""
        names = self.network.class_name
        return [(f"{names(i)} ({self.form.format(self.values[i])})", i) for i in indices]


def explorer(
    network: Network,
    image: ImageSource,
    target: Sequence[str | int] = (),
    method: Sequence[str] = FAST,
) -> ipywidgets.VBox:
    """Controls for class, layer and method, a button to upload an image, and its saliency map, cell by cell.

    ``target``: the classes offered; all classes, the most probable first, where it is empty and for an
    uploaded image. ``method``: names in ``METHODS``; by default a few that need one pass. Each map is
    computed when it is first shown and kept while its image is. Needs a running kernel. Raises
    ``ValueError`` for an unknown class or method, and without a method.
    """
    if not method:
        raise ValueError("expected at least one method, got none: name some, or leave method out")
    entries = [find_method(name) for name in method]
    subject = _Subject(network, image)
    offered = [network.class_index(each) for each in target] or subject.by_probability()

    layout = ipywidgets.Layout(width="20em", max_width="100%")
    look = {"style": {"description_width": "initial"}, "layout": layout}
    classes = ipywidgets.Dropdown(options=subject.options(offered), description="class", **look)
    layers = ipywidgets.SelectionSlider(
        options=list(network.layers), value=network.default_layer, description="layer", **look
    )
    methods = ipywidgets.Dropdown(
        options=[(entry.title, entry.name) for entry in entries],
        value=entries[-1].name,
        description="method",
        **look,
    )
    message = ipywidgets.HTML(layout=layout)
    upload = ipywidgets.FileUpload(accept="image/*", description="Your own image", layout=layout)
    display = ipywidgets.HTML(layout=ipywidgets.Layout(width=f"{WIDTH}px", max_width="100%"))

    def draw(_change: object = None) -> None:
        try:
            result = subject.result(classes.value, layers.value, methods.value)
        except FAILURES as error:  # such as CAM at an early layer: show the message and the bare image
            display.value = figure(subject.view, str(error), quality=90)
            return
        height, width = result.cells
        row, column = divmod(int(result.raw[0].argmax()), width)
        place = "the map is empty" if result.empty[0] else f"strongest in row {row}, column {column}"
        caption = f"Logit {result.score[0]:.2f}; map of {height} × {width} cells, {place}."
        # Sharper than images stored by the hundred.
        display.value = figure(overlay(subject.view, by_cell(result)), caption, quality=90)

    def replace_image(_change: object = None) -> None:
        nonlocal subject
        if not upload.value:
            return
        try:
            subject = _Subject(network, _uploaded(upload.value))
        except FAILURES as error:  # keep the current image
            message.value = f"<em>{escape(str(error))}</em>"
            return
        message.value = ""
        classes.options = subject.options(subject.by_probability())
        draw()

    for control in (classes, layers, methods):
        control.observe(draw, "value")
    upload.observe(replace_image, "value")
    draw()
    return ipywidgets.VBox([in_rows([classes, layers, methods, upload]), message, display])


def _uploaded(files: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> bytes:
    """The content of the first file; before ipywidgets 8, as in some hosted notebooks, files come by name."""
    listed = files.values() if isinstance(files, Mapping) else files
    return bytes(next(iter(listed))["content"])
