"""The live explorer: class, layer, method and opacity of one picture, recomputed as they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets

from gmcam.explaining import Result, explain
from gmcam.lab.embedding import figure, to_width
from gmcam.methods import METHODS
from gmcam.network import Network
from gmcam.reading import ImageSource as Source
from gmcam.show import overlay

WIDTH = 288
# What a map or a picture may end in; RuntimeError is torch's word for a lack of memory, among others.
FAILURES = (ValueError, RuntimeError, MemoryError)
FAST = ("cam", "grad_cam", "hires_cam", "guidance_map", "gmcam")


class _Subject:
    """The picture in hand: how it looks, what the network says of it, and the maps computed so far."""

    def __init__(self, network: Network, image: Source) -> None:
        self.network = network
        self.inputs = network.prepare(image)  # before anything is enlarged: it refuses what is too slender
        self.view = to_width(network.view(image), WIDTH)
        self.probabilities = network.probabilities(self.inputs)[0].tolist()
        self.computed: dict[tuple[int, str, str], Result] = {}

    def result(self, index: int, layer: str, method: str) -> Result:
        key = index, layer, method
        if key not in self.computed:
            self.computed[key] = explain(self.network, self.inputs, index, method=method, layer=layer)
        return self.computed[key]

    def by_probability(self) -> list[int]:
        return sorted(range(len(self.probabilities)), key=lambda index: -self.probabilities[index])

    def options(self, indices: list[int]) -> list[tuple[str, int]]:
        """Classes to choose from, with their probabilities."""
        return [(f"{self.network.class_name(i)} ({self.probabilities[i]:.1%})", i) for i in indices]


def explorer(
    network: Network,
    image: Source,
    classes: tuple[str, ...] = (),
    methods: tuple[str, ...] = FAST,
) -> ipywidgets.VBox:
    """Controls for class, layer, method and opacity, a button for another picture, and its saliency map.

    ``classes``: names to choose from; without them, and for another picture, all that the network knows,
    the most probable first.
    ``methods``: names in ``METHODS``, a few of one pass without them. A map is computed when it is first
    looked at and then kept as long as its picture is. Afterwards it moves at the speed of drawing. It
    needs a running kernel. Raises ``ValueError`` for an unknown class or method, and without a method.
    """
    if not methods:
        raise ValueError("explorer needs at least one method")
    subject = _Subject(network, image)
    offered = [network.class_index(name) for name in classes] or subject.by_probability()
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"no method is called {name!r}; there are {', '.join(METHODS)}")

    wide = {"description_width": "5em"}
    layout = ipywidgets.Layout(width="22em")
    target = ipywidgets.Dropdown(
        options=subject.options(offered), description="class", style=wide, layout=layout
    )
    layer = ipywidgets.SelectionSlider(
        options=list(network.layers),
        value=network.default_layer,
        description="layer",
        style=wide,
        layout=layout,
    )
    method = ipywidgets.Dropdown(
        options=[(METHODS[name].title, name) for name in methods],
        value=methods[-1],
        description="method",
        style=wide,
        layout=layout,
    )
    opacity = ipywidgets.FloatSlider(
        0.75, min=0, max=1, step=0.05, description="opacity", style=wide, layout=layout
    )
    said = ipywidgets.HTML(layout=layout)
    upload = ipywidgets.FileUpload(accept="image/*", description="Your own picture", layout=layout)
    picture = ipywidgets.HTML(layout=ipywidgets.Layout(width=f"{WIDTH}px", max_width="100%"))

    def draw(_change: object = None) -> None:
        try:
            result = subject.result(target.value, layer.value, method.value)
        except FAILURES as error:  # as CAM away from the last map: say so and show the bare picture
            picture.value = figure(subject.view, str(error), quality=90)
            return
        row, column = divmod(int(result.raw[0].argmax()), result.raw.shape[2])
        where = "the map is empty" if result.empty[0] else f"strongest in row {row}, column {column}"
        height, width = result.raw.shape[1:]
        words = f"Logit {result.score[0]:.2f}; map of {height} × {width} cells, {where}."
        # A little sharper than a picture that is stored a hundred times.
        picture.value = figure(overlay(subject.view, result.maps[0], opacity.value), words, quality=90)

    def take(_change: object) -> None:
        nonlocal subject
        if not upload.value:
            return
        try:
            subject = _Subject(network, _uploaded(upload.value))
        except FAILURES as error:  # the picture in hand stays
            said.value = f"<em>{escape(str(error))}</em>"
            return
        said.value = ""
        target.options = subject.options(subject.by_probability())
        draw()

    for control in (target, layer, method, opacity):
        control.observe(draw, "value")
    upload.observe(take, "value")
    draw()
    controls = ipywidgets.VBox([target, layer, method, opacity, upload, said])
    wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap", align_items="flex-start", grid_gap="1em")
    return ipywidgets.VBox([ipywidgets.Box([picture, controls], layout=wrap)])


def _uploaded(files: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> bytes:
    """What the first file holds; before ipywidgets 8, as in some hosted notebooks, files come by name."""
    listed = files.values() if isinstance(files, Mapping) else files
    return bytes(next(iter(listed))["content"])
