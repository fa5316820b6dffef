"""Figures of saliency maps, with matplotlib: ``pip install 'gmcam[plot]'``. A map's colours multiply the pale
image: orange is for the class, blue against it, and white is nothing."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from torch import Tensor

from gmcam._extras import require
from gmcam.explaining import Result
from gmcam.methods import METHODS
from gmcam.palette import colours, pale, tint
from gmcam.reading import ImageSource, open_image

try:
    from matplotlib import cm, colors
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import BboxTransformFrom
except ModuleNotFoundError:
    require("matplotlib", "plot")
    raise

Panel = Image.Image | np.ndarray | Tensor
Panels = Sequence[Panel | None]
Words = Sequence[str]
(INK,), (SOFT,), (LINE,) = (colours()[role] for role in ("ink", "soft", "line"))
# Inches of 96 pixels: the book's text, its text and margin, and a phone. Letters of 9 points have 12 pixels.
TEXT, WIDE, PHONE = 7.34, 10.2, 3.6
DPI, TITLE, SMALL, _PAD = 144, 10, 9, 0.08


class InlineFigure(Figure):
    """A matplotlib figure that displays itself in a notebook, without pyplot and its global state.

    ``stacked`` draws it for a phone, with panels below each other: the JPEG in a cell's output."""

    stacked: Callable[[], InlineFigure] | None = None
    trimmed = True  # of its empty margin

    def _repr_png_(self) -> bytes:
        return self._saved("png")

    def _repr_jpeg_(self) -> bytes | None:
        return self.stacked()._saved("jpeg") if self.stacked else None

    def _saved(self, kind: str) -> bytes:
        """The file. Its description tells dark pages where photographs are: x₀ y₀ x₁ y₁, %, from below."""
        buffer = io.BytesIO()
        self.draw_without_rendering()
        shown = self.get_tightbbox().padded(_PAD) if self.trimmed else self.bbox_inches
        place = self.dpi_scale_trans.inverted() + BboxTransformFrom(shown)
        kept = [ax.bbox for ax in self.axes if any(len(image.get_shape()) == 3 for image in ax.images)]
        boxes, exif = (100 * place.transform_bbox(box).extents for box in kept), Image.Exif()
        exif[ExifTags.Base.ImageDescription] = ", ".join(" ".join(map("{:.2f}".format, box)) for box in boxes)
        self.savefig(buffer, format=kind, bbox_inches=shown, pil_kwargs={"exif": exif, "quality": 90})
        # Each text keeps the canvas it was last drawn on, megabytes of pixels, alive: replace it by a pixel.
        pixel = RendererAgg(1, 1, self.dpi)  # type: ignore[no-untyped-call]
        for text in self.findobj(Text):
            text.draw(pixel)
        return buffer.getvalue()


def overlay(image: ImageSource, saliency: Tensor | np.ndarray, ramp: str = "for") -> np.ndarray:
    """Multiply a pale image by the colours of a map (h, w): (H, W, 3) uint8 at the image's size.

    ``saliency``: shares of a maximum in [−1, 1], white at 0 and blue below; those beyond have the last
    colour. A map of few cells is enlarged without smoothing. ``ramp``: of positive values, "for" a class or,
    without one, "activity". Raises ``ValueError`` for a map that is not (h, w) or not finite.

    >>> from gmcam.show import overlay
    >>> overlay(np.full((1, 2, 3), 255, np.uint8), torch.tensor([[0.0, 1.0]])).tolist()
    [[[255, 255, 255], [140, 40, 0]]]
    """
    image = open_image(image)
    # A box that is smaller than a cell takes the nearest one; a larger one takes the mean.
    values = Image.fromarray(as_values(saliency)).resize(image.size, Image.Resampling.BOX)
    laid: np.ndarray = pale(image) * tint(np.asarray(values), ramp)
    return laid.astype(np.uint8)


def as_values(saliency: Tensor | np.ndarray) -> np.ndarray:
    """A map (h, w) in float32. Raises ``ValueError`` for another shape, and values that are not finite."""
    values = as_array(saliency).astype(np.float32)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected one saliency map (h, w), got {values.shape}: pass result.maps[0]")
    if not np.isfinite(values).all():
        raise ValueError("expected a finite saliency map, got NaN or infinite values: replace them first")
    return values


def by_cell(result: Result, index: int = 0) -> Tensor:
    """Map ``index`` at its own resolution (h, w): the positive raw values as shares of the largest."""
    raw = result.raw[index].float().relu()
    return raw / raw.max() if raw.any() else raw


def as_array(panel: Panel) -> np.ndarray:
    """A tensor's values as an array, whatever its device and dtype; an image as (H, W, 3)."""
    if isinstance(panel, Tensor):
        return panel.detach().cpu().float().numpy()
    return np.asarray(open_image(panel) if isinstance(panel, Image.Image) else panel)


def show(image: Any, *results: Result, smooth: bool = False) -> InlineFigure:
    """Draw the maps of ``results`` over the image: row i holds target i of every result, a column per result.

    Maps are drawn cell by cell, each from 0 to its maximum (``by_cell``), or with ``smooth`` as
    ``result.maps`` has them, smoothed and enlarged. Each row starts with the image, cropped to what the
    network receives. Rows are named after their target and its probability, or where the results' targets
    differ, the maps. A signal, a tensor (C, T), is drawn above the curve of each map; of a volume,
    (C, D, H, W), and of frames, (T, C, H, W), six slices are drawn, a row per map. Raises ``ValueError`` for
    anything but one or more results, for one image.

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
        return draw(image, [(result, row) for result in results for row in range(len(result.maps))], smooth)
    views = [result.network.view(image) for result in results]
    count = max(len(result.maps) for result in results)
    targets = [[_target(result, row) for row in range(len(result.maps))] for result in results]
    alike = all(target == targets[0] for target in targets)
    panels, titles = list[Panel | None](), list[str]()
    for row in range(count):
        panels.append(views[0])
        titles.append("" if row else "image")
        for result, view in zip(results, views, strict=True):
            has_map = row < len(result.maps)
            panels.append(overlay(view, _drawn(result, row, smooth)) if has_map else None)
            titles.append(_title(result, row, results, alike) if has_map else "")
    return grid(panels, titles, columns=1 + len(results), rows=targets[0] if alike else [""] * count)


def _drawn(result: Result, row: int, smooth: bool) -> Tensor:
    return result.maps[row] if smooth else by_cell(result, row)


def _signal(signal: Any, maps: Sequence[tuple[Result, int]], smooth: bool) -> InlineFigure:
    """The signal's channels, and under them the curve of each map."""
    values = as_array(signal).reshape(-1, as_array(signal).shape[-1])
    figure = InlineFigure(figsize=(TEXT, 1.5 + 0.9 * len(maps)), dpi=DPI, layout="constrained")
    heights = {"height_ratios": [1.6, *[1] * len(maps)]}
    axes = figure.subplots(1 + len(maps), 1, sharex=True, squeeze=False, gridspec_kw=heights)[:, 0]
    axes[0].plot(values.T, linewidth=1, color=INK, alpha=max(0.3, 1 / len(values)))
    axes[0].set_title("signal", fontsize=TITLE, color=INK, loc="left")
    length = values.shape[1]
    for ax, (result, row) in zip(axes[1:], maps, strict=True):
        curve = as_array(_drawn(result, row, smooth))
        step = (np.arange(length) + 0.5) * len(curve) // length  # the cell of each value
        ax.fill_between(range(length), curve[step.astype(int)], color=colours()["for"][0], linewidth=0)
        title = _title(result, row, [result for result, _ in maps]).replace("\n", ", ")
        ax.set_title(title, fontsize=TITLE, color=INK, loc="left")
        ax.set(ylim=(0, 1), yticks=[0, 1])
    for ax in axes:
        ax.tick_params(labelsize=SMALL, colors=INK)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(0, length - 1)
    return figure


def _slices(volume: Any, maps: Sequence[tuple[Result, int]], smooth: bool) -> InlineFigure:
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
        drawn = _drawn(result, row, smooth)
        cells = [int((place + 0.5) * len(drawn) / depth) for place in places]
        panels += [overlay(image, drawn[cell]) for image, cell in zip(images, cells, strict=True)]
        titles += [_title(result, row, [result for result, _ in maps]), *[""] * (len(places) - 1)]
    return grid(panels, titles, columns=len(places), rows=[""] * (1 + len(maps)))


def _title(result: Result, index: int, results: Sequence[Result], alike: bool = False) -> str:
    """Method, and layer where they differ; the target, too, unless rows name it ``alike`` for all."""
    layers = {other.layer for other in results if other.method == result.method}
    method = METHODS[result.method].title + (f", {result.layer}" if len(layers) > 1 else "")
    words = [method * (not alike or not index), "(empty map)" * bool(result.empty[index])]
    return "\n".join([" ".join(filter(None, words)), *[_target(result, index)] * (not alike)])


def _target(result: Result, index: int) -> str:
    """The target and its probability."""
    label = result.label(index).replace("$", r"\$")  # between dollar signs matplotlib reads a formula
    percent = "" if result.probability is None else f", {100 * result.probability[index]:.1f} %"
    return label + percent


def grid(
    panels: Panels,
    titles: Words = (),
    columns: int = 4,
    bar: str = "",
    rows: Words = (),
    ramp: str = "activity",
) -> InlineFigure:
    """Arrange panels in rows: images, (H, W, 3) arrays, and (h, w) maps, which share one colour scale.

    None leaves a place empty, NaN a gap in a map. ``titles`` and ``rows`` name the first panels and rows.
    ``bar``: a name for the maps' values, which draws their colour bar. ``ramp``: of maps without negative
    values, "activity" or "for" a class; signed ones run from blue to orange, white at 0. On a narrow page two
    or three columns stand side by side, and the others below. Raises ``ValueError`` without a panel or a
    column."""
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column, got {len(panels)} and {columns}")
    columns = min(columns, len(panels))
    draw = partial(_grid, panels, titles, columns, bar, rows, ramp)
    figure = draw(TEXT if columns < 6 else WIDE, columns)
    figure.stacked = partial(draw, PHONE, 2 if columns in (2, 4) else 3)
    return figure


def _grid(
    panels: Panels, titles: Words, columns: int, bar: str, rows: Words, ramp: str, width: float, most: int
) -> InlineFigure:
    """A grid in a figure of at most ``width`` inches, with at most ``most`` columns side by side."""
    arrays = [None if panel is None else as_array(panel) for panel in panels]
    maps = [array for array in arrays if array is not None and array.ndim == 2]
    lines, across = -(-len(panels) // columns), min(columns, most)
    left = 0.2 * max((1 + name.count("\n") for name in rows if name), default=0)
    right = 0.8 * bool(bar and maps)
    side = min(2.1, (width - left - right) / across)
    letters = int(side * 72 / (0.53 * TITLE))  # 72 points are an inch
    titles = [wrapped(title, letters) for title in titles[: len(panels)]]
    table = bool(rows) or 0 < len(titles) <= columns < len(panels)  # whose columns stay together
    spots = [divmod(i, columns if table else across) for i in range(len(panels))]
    spots = [(column // across * lines + row, column % across) for row, column in spots]
    height, above = ([0.0] * (1 + max(row for row, _ in spots)) for _ in range(2))  # panels, titles
    for (row, _), array, title in zip(spots, arrays, [*titles, *[""] * len(panels)], strict=False):
        shape = (0, 1) if array is None else array.shape
        height[row] = max(height[row], side * shape[0] / shape[1])
        above[row] = max(above[row], 0.18 * (1 + title.count("\n")) * bool(title))
    size = left + across * side + right, sum(height) + sum(above) + 0.1
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(len(height), across, squeeze=False, height_ratios=height)
    scale = colour_scale(maps, ramp)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, (spot, array) in enumerate(zip(spots, arrays, strict=True)):
        ax, row = axes[spot], index // columns
        if array is None:
            continue
        ax.set_axis_on()
        ax.imshow(array, scale.cmap, scale.norm, interpolation="nearest" if array.ndim == 2 else None)
        clear_axes(ax, titles[index] if index < len(titles) else "", frame=array.ndim == 2)
        if spot[1] == 0 and row < len(rows):
            ax.set_ylabel(wrapped(rows[row], letters), fontsize=TITLE, color=INK)
    if bar and maps:
        colour_bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.015, aspect=24, shrink=0.9)
        colour_bar.set_label(bar, fontsize=SMALL, color=INK)
        colour_bar.ax.tick_params(labelsize=SMALL, colors=INK)
        colour_bar.outline.set_visible(False)
    return figure


def wrapped(text: str, letters: int) -> str:
    """The text in lines of so many letters; longer words, and formulas between dollars, stay whole."""
    joined = re.sub(r"\$[^$\n]*\$", lambda formula: formula[0].replace(" ", "\xa0"), text)
    lines = [textwrap.fill(line, letters, break_long_words=False) for line in joined.split("\n")]
    return "\n".join(lines).replace("\xa0", " ")


def colour_scale(maps: Sequence[np.ndarray], ramp: str = "activity") -> cm.ScalarMappable:
    """One scale for all maps: a ramp from zero, or where values are negative, symmetric and white at zero."""
    values = np.concatenate([np.zeros(1), *(array[np.isfinite(array)] for array in maps)])
    signed, reach, found = values.min() < 0, np.abs(values).max() or 1.0, colours()
    stops = [*found["ramp-against"][:0:-1], *found["ramp-for"]] if signed else found[f"ramp-{ramp}"]
    # An odd number of colours, so that one of them is zero's.
    colour = colors.LinearSegmentedColormap.from_list("signed" if signed else ramp, stops, 257)
    return cm.ScalarMappable(colors.Normalize(-reach * signed, reach), colour)


def clear_axes(ax: Axes, title: str = "", frame: bool = False) -> None:
    """Remove the ticks, and the frame or, around a map that may be white, draw it soft; set the title."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=frame, color=LINE)
    ax.set_title(title, fontsize=TITLE, color=INK, pad=4)
