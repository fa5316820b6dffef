"""The live explorer: class, layer, method and opacity of one picture, recomputed as they change."""

from __future__ import annotations

import io
from functools import lru_cache
from html import escape

import ipywidgets
import numpy as np
from PIL import Image

from gmcam.images.reading import Picture as Source
from gmcam.methods import METHODS, Result, explain
from gmcam.networks.network import Network
from gmcam.views.figures import overlay

WIDTH = 288
FAST = ("cam", "grad_cam", "hires_cam", "guidance_map", "gmcam")


def explorer(
    network: Network,
    image: Source,
    classes: tuple[str, ...] = (),
    methods: tuple[str, ...] = FAST,
) -> ipywidgets.VBox:
    """Controls for class, layer, method and opacity, and the picture with its saliency map.

    ``classes``: names to choose from, the network's five most probable without them. ``methods``:
    names in ``METHODS``, a few of one pass without them. Every change recomputes what it touches; the
    class, layer and method keep the map that was computed once, so opacity moves at the speed of
    drawing. It needs a running kernel. Raises ``ValueError`` for an unknown class or method.
    """
    view = network.view(image)
    view = view.resize((WIDTH, round(WIDTH * view.height / view.width)), Image.Resampling.LANCZOS)
    inputs = network.prepare(image)
    probabilities = network.probabilities(inputs)[0]
    indices = [network.class_index(name) for name in classes]
    indices = indices or probabilities.topk(min(5, len(probabilities))).indices.tolist()
    for name in methods:
        if name not in METHODS:
            raise ValueError(f"no method is called {name!r}; there are {', '.join(METHODS)}")

    wide = {"description_width": "5em"}
    layout = ipywidgets.Layout(width="22em")
    target = ipywidgets.Dropdown(
        options=[(f"{network.class_name(i)} ({probabilities[i]:.1%})", i) for i in indices],
        description="class",
        style=wide,
        layout=layout,
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
    picture = ipywidgets.Image(format="png", width=WIDTH, layout=ipywidgets.Layout(max_width="100%"))
    words = ipywidgets.HTML()

    @lru_cache(maxsize=256)
    def computed(index: int, layer_name: str, method_name: str) -> Result:
        return explain(network, inputs, index, method=method_name, layer=layer_name)

    def draw(_change: object = None) -> None:
        try:
            result = computed(target.value, layer.value, method.value)
        except ValueError as error:  # CAM away from the last map: say so and show the bare picture
            picture.value = _png(np.asarray(view))
            words.value = f"<em>{escape(str(error))}</em>"
            return
        picture.value = _png(overlay(view, result.maps[0].cpu(), opacity.value))
        row, column = divmod(int(result.raw[0].argmax()), result.raw.shape[2])
        words.value = (
            f"logit {result.score[0]:.2f}; map of {result.raw.shape[1]} × {result.raw.shape[2]} cells"
            + ("; the map is empty" if result.empty[0] else f", strongest in row {row}, column {column}")
        )

    for control in (target, layer, method, opacity):
        control.observe(draw, "value")
    draw()
    controls = ipywidgets.VBox([target, layer, method, opacity, words])
    wrap = ipywidgets.Layout(display="flex", flex_flow="row wrap")
    return ipywidgets.VBox([ipywidgets.Box([picture, controls], layout=wrap)])


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()
