"""Figures of saliency maps, with matplotlib: ``pip install 'gmcam[plot]'``. Over a grey image, maps are drawn
in *inferno*, a perceptually uniform scale; signed values are drawn in *PuOr*, white at zero."""

import io
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gmcam._extras import require
from gmcam.explaining import Result
from gmcam.methods import METHODS
from gmcam.reading import ImageSource, open_image

try:
    from matplotlib import cm, colormaps, colors
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
except ModuleNotFoundError:
    require("matplotlib", "plot")
    raise

Panel = Image.Image | np.ndarray | Tensor
Panels = Sequence[Panel | None]
COLOURS, SIGNED_COLOURS = "inferno", "PuOr"
INK, DPI, _TITLE = "#222222", 144, 10  # the titles' size in points


class InlineFigure(Figure):
    """A matplotlib figure that displays itself in a notebook, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.12)
        # Each text keeps the canvas it was last drawn on, megabytes of pixels, alive: replace it by a pixel.
        pixel = RendererAgg(1, 1, self.dpi)  # type: ignore[no-untyped-call]
        for text in self.findobj(Text):
            text.draw(pixel)
        return buffer.getvalue()


def overlay(image: ImageSource, saliency: Tensor | np.ndarray, opacity: float = 0.75) -> np.ndarray:
    """Lay a saliency map (h, w) in [0, 1] over an image: (H, W, 3) uint8 at the image's size.

    Where the scaled map is s, its colour has the weight ``opacity`` · s over the grey image. Raises
    ``ValueError`` for an opacity outside [0, 1] and for a map that is not (h, w) or not finite."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"expected an opacity between 0 and 1, got {opacity}")
    image = open_image(image)
    colours, values = map_colours(saliency, image.size)
    weight = (opacity * values)[..., None]
    return (grey_levels(image) * (1 - weight) + colours * weight).astype(np.uint8)


def grey_levels(image: Image.Image) -> np.ndarray:
    """The image under a map (H, W, 1): grey, and lighter than the map's darkest colour."""
    return np.asarray(image.convert("L"), dtype=np.float32)[..., None] * 0.8 + 25


def map_colours(saliency: Tensor | np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The map at ``size`` (width, height): colours (H, W, 3) in 0…255 and values (H, W) in [0, 1]."""
    values = as_array(saliency).astype(np.float32)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected one saliency map (h, w), got {values.shape}: pass result.maps[0]")
    if not np.isfinite(values).all():
        raise ValueError("expected a finite saliency map, got NaN or infinite values: replace them first")
    scaled = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    return colour_table()[(scaled * 255).astype(np.uint8)], scaled


def colour_table() -> np.ndarray:
    """The 256 colours of ``COLOURS`` as (256, 3) float32 in 0…255."""
    return np.asarray(colormaps[COLOURS](np.arange(256))[:, :3] * 255, dtype=np.float32)


def as_array(panel: Panel) -> np.ndarray:
    """A tensor's values as an array, whatever its device and dtype; an image as (H, W, 3)."""
    if isinstance(panel, Tensor):
        return panel.detach().cpu().float().numpy()
    return np.asarray(open_image(panel) if isinstance(panel, Image.Image) else panel)


def show(image: Any, *results: Result, opacity: float = 0.75) -> InlineFigure:
    """Draw the maps of ``results`` over the image: row i holds target i of every result, a column per result.

    Each row starts with the image, cropped to what the network receives. Each map is titled with its method,
    its target and the target's probability. A signal, a tensor (C, T), is drawn above the curve of each map;
    of a volume, (C, D, H, W), and of frames, (T, C, H, W), six slices are drawn, a row per map. Raises
    ``ValueError`` for anything but one or more results, for one image.

    >>> network, scene = gmcam.load("collage-vgg"), gmcam.lab.scene("cat", "cup", seed=3)
    >>> figure = gmcam.show(scene.image, gmcam.explain(network, scene.image, ["cat", "cup"]))
    >>> figure.savefig("maps.png")  # doctest: +SKIP
    """
    if not results or not all(isinstance(result, Result) for result in results):
        kinds = ", ".join(type(result).__name__ for result in results) or "none"
        raise ValueError(f"expected results of explain, got {kinds}: call show(image, *results)")
    if any(result.images > 1 for result in results):
        raise ValueError("expected results for one image, got several images: explain each on its own")
    if results[0].maps.ndim != 3:
        draw = _signal if results[0].maps.ndim == 2 else _slices
        return draw(image, [(result, row) for result in results for row in range(len(result.maps))], opacity)
    views = [result.network.view(image) for result in results]
    panels, titles = list[Panel | None](), list[str]()
    for row in range(max(len(result.maps) for result in results)):
        panels.append(views[0])
        titles.append("" if row else "image")
        for result, view in zip(results, views, strict=True):
            has_map = row < len(result.maps)
            panels.append(overlay(view, result.maps[row], opacity) if has_map else None)
            titles.append(_title(result, row, results) if has_map else "")
    return grid(panels, titles, columns=1 + len(results), bar="saliency")


def _signal(signal: Any, maps: Sequence[tuple[Result, int]], opacity: float) -> InlineFigure:
    """The signal's channels, and under them the curve of each map."""
    values = as_array(signal).reshape(-1, as_array(signal).shape[-1])
    figure = InlineFigure(figsize=(7.4, 1.5 + 0.9 * len(maps)), dpi=DPI, layout="constrained")
    heights = {"height_ratios": [1.6, *[1] * len(maps)]}
    axes = figure.subplots(1 + len(maps), 1, sharex=True, squeeze=False, gridspec_kw=heights)[:, 0]
    axes[0].plot(values.T, linewidth=1, color=INK, alpha=max(0.3, 1 / len(values)))
    axes[0].set_title("signal", fontsize=_TITLE, color=INK, loc="left")
    for ax, (result, row) in zip(axes[1:], maps, strict=True):
        look = {"color": colormaps[COLOURS](0.55), "alpha": opacity, "linewidth": 0}
        ax.fill_between(range(values.shape[1]), as_array(result.maps[row]), **look)
        ax.set_title(_title(result, row, [result for result, _ in maps]).replace("\n", ", "), fontsize=_TITLE)
        ax.title.set(color=INK, horizontalalignment="left", x=0)
        ax.set(ylim=(0, 1), yticks=[0, 1])
    for ax in axes:
        ax.tick_params(labelsize=8, colors=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(0, values.shape[1] - 1)
    return figure


def _slices(volume: Any, maps: Sequence[tuple[Result, int]], opacity: float) -> InlineFigure:
    """Six slices, or frames, evenly spaced: the image's, and below them those of each map."""
    depth, height, width = maps[0][0].maps.shape[1:]
    frames = bool(getattr(maps[0][0].network.reshape, "count", None))  # they come before the channels
    shape = (depth, -1, height, width) if frames else (-1, depth, height, width)
    values = as_array(volume).astype(np.float32).reshape(shape).mean(int(frames))
    grey = ((values - values.min()) / (np.ptp(values) or 1) * 255).astype(np.uint8)
    places = np.unique(np.linspace(0, depth - 1, min(6, depth)).round().astype(int))
    images = [Image.fromarray(grey[place]).convert("RGB") for place in places]
    panels, titles = list[Panel](images), [f"{'frame' if frames else 'slice'} {place}" for place in places]
    for result, row in maps:
        chosen = zip(images, places, strict=True)
        panels += [overlay(image, result.maps[row, place], opacity) for image, place in chosen]
        titles += [_title(result, row, [result for result, _ in maps]), *[""] * (len(places) - 1)]
    return grid(panels, titles, columns=len(places), bar="saliency")


def _title(result: Result, index: int, results: Sequence[Result]) -> str:
    layers = {other.layer for other in results if other.method == result.method}
    title = METHODS[result.method].title + (f", {result.layer}" if len(layers) > 1 else "")
    label = result.label(index).replace("$", r"\$")  # between dollar signs matplotlib reads a formula
    percent = "" if result.probability is None else f", {result.probability[index]:.1%}"
    return f"{title}{' (empty map)' if result.empty[index] else ''}\n{label}{percent}"


def grid(
    panels: Panels, titles: Sequence[str] = (), columns: int = 4, bar: str = "", rows: Sequence[str] = ()
) -> InlineFigure:
    """Arrange panels in rows: images, (H, W, 3) arrays, and (h, w) maps, which share one colour scale.

    None leaves a place empty, NaN a gap in a map. ``titles`` and ``rows`` name the first panels and rows,
    ``bar`` the colour bar of the maps' values. Raises ``ValueError`` without a panel or a column."""
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column, got {len(panels)} and {columns}")
    arrays = [None if panel is None else as_array(panel) for panel in panels]
    maps = [array for array in arrays if array is not None and array.ndim == 2]
    columns = min(columns, len(panels))
    lines, titled_lines = -(-len(panels) // columns), -(-len(titles) // columns)
    side = min(2.1, 7.4 / columns)  # inches of a panel; the page is 7.4 wide
    size = columns * side + 0.9 * bool(bar or maps), lines * side + 0.45 * titled_lines
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    letters, scale = int(side * 72 / (0.53 * _TITLE)), colour_scale(maps)  # 72 points are an inch
    for ax, array, title in zip_longest(axes.flat, arrays, titles[: len(panels)]):
        if array is None:
            ax.set_axis_off()
            continue
        ax.imshow(array, scale.cmap, scale.norm, interpolation="nearest" if array.ndim == 2 else None)
        wrapped = [textwrap.fill(line, letters, break_long_words=False) for line in (title or "").split("\n")]
        clear_axes(ax, "\n".join(wrapped))
    for ax, name in zip(axes[:, 0], rows, strict=False):
        ax.set_ylabel(name, fontsize=_TITLE, color=INK)
    if bar or maps:
        colour_bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.015, aspect=24, shrink=0.9)
        colour_bar.set_label(bar, fontsize=9, color=INK)
        colour_bar.ax.tick_params(labelsize=8, colors=INK)
        colour_bar.outline.set_visible(False)
    return figure


def colour_scale(maps: Sequence[np.ndarray]) -> cm.ScalarMappable:
    """One scale for all maps: from zero, or symmetric around zero where values are negative."""
    values = np.concatenate([np.zeros(1), *(array[np.isfinite(array)] for array in maps)])
    signed, reach = values.min() < 0, np.abs(values).max() or 1.0
    return cm.ScalarMappable(colors.Normalize(-reach * signed, reach), SIGNED_COLOURS if signed else COLOURS)


def clear_axes(ax: Axes, title: str = "") -> None:
    """Remove ticks and frame, and set the title."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=_TITLE, color=INK, pad=4)
