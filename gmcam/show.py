"""Still pictures: overlays, grids, feature-map sheets, and the article's Figure 2 for any network.

Maps are drawn with *inferno*, which is perceptually uniform and reads in greyscale and with every
common colour blindness; the picture beneath is turned grey, so that colour means saliency alone.
Signed values are drawn with *PuOr*, white at zero. Every function returns a ``InlineFigure``, which a
notebook shows and ``savefig`` writes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from gmcam.explaining import Result
from gmcam.methods import METHODS
from gmcam.reading import ImageSource as Source
from gmcam.reading import open_image

Panel = Image.Image | np.ndarray | Tensor
COLOURS = "inferno"
SIGNED_COLOURS = "PuOr"
INK = "#222222"
# Inches: a panel at most, a row of panels at most. A wider row would be scaled down with its words.
_PANEL, _WIDTH = 2.1, 7.4
DPI = 144
_TITLE = 10  # points


class InlineFigure(Figure):
    """A matplotlib figure that shows itself in any notebook, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
        # A text keeps the canvas that it was drawn on, megabytes of pixels, and a notebook every figure that
        # it has shown. The last canvas of the texts is one of a single pixel.
        pixel = RendererAgg(1, 1, self.dpi)  # type: ignore[no-untyped-call]
        for text in self.findobj(Text):
            text.draw(pixel)
        return buffer.getvalue()


def overlay(image: Source, saliency: Tensor | np.ndarray, opacity: float = 0.75) -> np.ndarray:
    """A saliency map laid over a picture: (H, W, 3) uint8 at the picture's size.

    ``saliency`` (h, w) in [0, 1] is scaled to the picture. A cell of value s shows the map's colour
    with weight ``opacity`` · s over the greyed picture. Raises ``ValueError`` for an opacity outside
    [0, 1] or a map that is not (h, w) or not finite.

    >>> from gmcam.show import overlay
    >>> overlay(gmcam.lab.photo("chelsea"), np.eye(7)).shape
    (300, 451, 3)
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity lies between 0 and 1, not {opacity}")
    picture = open_image(image)
    colours, scaled = _colours(saliency, picture.size)
    weight = (opacity * scaled)[..., None]
    return (_grey(picture) * (1 - weight) + colours * weight).astype(np.uint8)


def _grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"), dtype=np.float32)[..., None] * 0.8 + 25


def _colours(saliency: Tensor | np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The map at ``size``: colours (H, W, 3) in 0…255, and values (H, W) in [0, 1]."""
    values = as_array(saliency).astype(np.float32)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"a saliency map is (h, w), not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a saliency map is finite; this one holds NaN or infinite values")
    scaled = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    return colour_table()[(scaled * 255).astype(np.uint8)], scaled


def as_array(panel: Panel) -> np.ndarray:
    """Values as they are, wherever a tensor lies; a picture as (H, W, 3)."""
    if isinstance(panel, Tensor):
        return panel.detach().cpu().float().numpy()
    return np.asarray(open_image(panel) if isinstance(panel, Image.Image) else panel)


def colour_table() -> np.ndarray:
    """The 256 colours of ``COLOURS`` as (256, 3) float32 in 0…255."""
    table: np.ndarray = matplotlib.colormaps[COLOURS](np.arange(256))[:, :3] * 255
    return table.astype(np.float32)


def show(image: Source, *results: Result, opacity: float = 0.75) -> InlineFigure:
    """The picture and every map of every result over it, titled, with a colour bar.

    Several results of one network with the same several targets make a table: a row per target, a
    column per method. Otherwise all maps stand in lines of up to four. The part of the picture that the
    network saw is shown. Raises ``ValueError`` without a result, for a list of results (give them one by
    one, ``*results``), and for a result of several pictures.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> figure = gmcam.show(scene.image, gmcam.explain(network, scene.image, ["cat", "cup"]))
    >>> figure.savefig("maps.png")  # doctest: +SKIP
    """
    if not results:
        raise ValueError("show needs at least one result of explain")
    for result in results:
        _check_result(result)
    view, names = results[0].network.view(image), _names(results)
    panels: list[Panel] = []
    titles = []
    if _are_a_table(results):
        rows = []
        for index in range(len(results[0].maps)):
            panels += [view, *(overlay(view, result.maps[index], opacity) for result in results)]
            heads = names if index == 0 else [""] * len(names)
            titles.append("" if index else "picture")
            titles += [head + _empty(result, index) for head, result in zip(heads, results, strict=True)]
            rows.append(_title(results[0], index))
        while not titles[-1]:  # a line without a title takes no room for one
            titles.pop()
        return grid(panels, titles, columns=1 + len(results), bar="saliency", rows=rows)
    panels.append(view)
    titles.append("picture")
    for name, result in zip(names, results, strict=True):
        seen = result.network.view(image)
        for index, saliency in enumerate(result.maps):
            panels.append(overlay(seen, saliency, opacity))
            titles.append(f"{name}{_empty(result, index)}\n{_title(result, index)}")
    return grid(panels, titles, bar="saliency")


def _check_result(result: object) -> None:
    if not isinstance(result, Result):
        kind = type(result).__name__
        raise ValueError(f"show takes results one by one, show(image, *results), not a {kind}")
    pictures = 1 if result.probabilities is None else len(result.probabilities)
    if pictures > 1:
        raise ValueError(f"show is for one picture, and a result explains {pictures}: explain each by itself")


def _names(results: Sequence[Result]) -> list[str]:
    """The methods' titles, with the layer where one method explains several."""
    layers = {r.method: {other.layer for other in results if other.method == r.method} for r in results}
    return [METHODS[r.method].title + f", {r.layer}" * (len(layers[r.method]) > 1) for r in results]


def _are_a_table(results: Sequence[Result]) -> bool:
    """Whether several results explain the same several targets of one network."""
    first = results[0]
    if len(results) == 1 or len(first.maps) == 1 or not isinstance(first.target, Tensor):
        return False
    return all(
        r.network.module is first.network.module
        and isinstance(r.target, Tensor)
        and torch.equal(r.target, first.target)
        for r in results
    )


def _empty(result: Result, index: int) -> str:
    return " (empty map)" if result.empty[index] else ""


def _title(result: Result, index: int) -> str:
    """What the map explains: the class with its probability, or the function's name."""
    title = _literal(result.label(index))
    if isinstance(result.target, Tensor) and result.probabilities is not None:
        title += f", {result.probabilities[0, result.target[index]]:.1%}"
    return title


def _literal(name: str) -> str:
    """A name as matplotlib shows it letter by letter: between dollars it would read a formula."""
    return name.replace("$", r"\$")


def grid(
    panels: Sequence[Image.Image | np.ndarray | Tensor],
    titles: Sequence[str] = (),
    columns: int = 4,
    bar: str = "",
    rows: Sequence[str] = (),
) -> InlineFigure:
    """Side by side: pictures, (H, W, 3) arrays, and (h, w) maps, which share one colour scale.

    ``titles``: of the panels in order, as far as they go. ``rows``: a name for each row, likewise.
    ``bar``: label of the colour bar, which stands for the maps' values, or for 0 to 1 where panels come
    from ``overlay``. NaN leaves a gap in a map. Raises ``ValueError`` without a panel or a column.
    """
    if not panels or columns < 1:
        raise ValueError(f"grid needs at least one panel and one column, not {len(panels)} and {columns}")
    arrays = [as_array(panel) for panel in panels]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    maps = [array for array in arrays if array.ndim == 2]
    side = min(_PANEL, _WIDTH / columns)
    height = lines * side + 0.45 * -(-len(titles) // columns)
    figure = InlineFigure(
        figsize=(columns * side + 0.9 * bool(bar or maps), height), dpi=DPI, layout="constrained"
    )
    axes = figure.subplots(lines, columns, squeeze=False)
    scale = _scale(maps)
    for index, ax in enumerate(axes.flat):
        if index >= len(panels):
            ax.set_axis_off()
            continue
        array = arrays[index]
        if array.ndim == 2:
            ax.imshow(array, cmap=scale.cmap, norm=scale.norm, interpolation="nearest")
        else:
            ax.imshow(array, interpolation="antialiased")
        _bare(ax, _wrapped(titles[index], side) if index < len(titles) else "")
        if index % columns == 0 and index // columns < len(rows):
            ax.set_ylabel(rows[index // columns], fontsize=10, color=INK)
    if bar or maps:
        mappable = scale if maps else ScalarMappable(Normalize(0, 1), COLOURS)
        colour_bar = figure.colorbar(mappable, ax=axes, fraction=0.03, pad=0.015, aspect=24, shrink=0.9)
        colour_bar.set_label(bar, fontsize=9, color=INK)
        colour_bar.ax.tick_params(labelsize=8, colors=INK)
        colour_bar.outline.set_visible(False)
    return figure


def _scale(maps: Sequence[np.ndarray]) -> ScalarMappable:
    """One colour scale for all maps: sequential from zero, or symmetric where values are signed."""
    finite = [panel[np.isfinite(panel)] for panel in maps]
    low = min((float(values.min()) for values in finite if values.size), default=0.0)
    high = max((float(values.max()) for values in finite if values.size), default=1.0)
    if low < 0:
        reach = max(-low, high)
        return ScalarMappable(Normalize(-reach, reach), SIGNED_COLOURS)
    return ScalarMappable(Normalize(0, high or 1.0), COLOURS)


def _wrapped(title: str, inches: float) -> str:
    """The title in lines that fit above a panel of that width."""
    letters = int(inches * 72 / (0.53 * _TITLE))
    return "\n".join(textwrap.fill(line, letters, break_long_words=False) for line in title.split("\n"))


def _bare(ax: Axes, title: str = "") -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, fontsize=_TITLE, color=INK, pad=4)
