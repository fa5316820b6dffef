"""Figures that only chapters draw: feature sheets, the article's Figure 2, charts of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from gmcam import equations
from gmcam.capture import Layer, capture
from gmcam.network import Network
from gmcam.reading import ImageSource, open_image
from gmcam.show import (
    COLOURS,
    DPI,
    INK,
    SIGNED_COLOURS,
    InlineFigure,
    Panel,
    as_array,
    clear_axes,
    colour_scale,
    grey_levels,
    grid,
    map_colours,
    overlay,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, distinct with every common colour blindness; dashes distinguish them once more.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
_WIDTH, _HEIGHT = 7.6, 2.3  # inches: all columns, one row
_LETTERS = 105  # in a row of the legend

Line = tuple[Any, Any]
Dot = tuple[float, float, float, Sequence[float]]  # value, low, high, clusters


def lines(
    panels: Sequence[Panel | Mapping[str, Line]],
    titles: Sequence[str] = (),
    columns: int = 2,
    x: str = "",
    y: str = "",
) -> InlineFigure:
    """Draw charts of lines, and images, side by side.

    A chart maps names to lines (x values, y values); x values may be words. A name looks the same in all
    charts and appears once in the legend. All charts share their vertical axis, which contains 0, 1 and
    every value. NaN leaves a gap. ``x`` and ``y`` label the axes. Raises ``ValueError`` without a column,
    and without a chart that has a value.
    """
    charts = [panel for panel in panels if isinstance(panel, Mapping)]
    if columns < 1:
        raise ValueError(f"expected at least one column, got {columns}")
    if not any(np.size(line[1]) for chart in charts for line in chart.values()):
        raise ValueError("expected a panel that maps names to lines, got no values: pass {name: (x, y)}")
    names = list(dict.fromkeys(name for chart in charts for name in chart))
    looks = {name: _look(index) for index, name in enumerate(names)}
    values = np.concatenate([np.ravel(line[1]) for chart in charts for line in chart.values()])
    low, high = min(0.0, np.nanmin(values)), max(1.0, np.nanmax(values))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = InlineFigure(figsize=(_WIDTH, rows * _HEIGHT + 0.4), dpi=DPI, layout="constrained")
    has_chart = [any(isinstance(panel, Mapping) for panel in panels[c::columns]) for c in range(columns)]
    widths = [1.0 if chart else 0.7 for chart in has_chart]
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    for index, ax in enumerate(axes.flat):
        panel = panels[index] if index < len(panels) else None
        if isinstance(panel, Mapping):
            for name, (across, up) in panel.items():
                ax.plot(np.asarray(across), np.asarray(up), label=name, **looks[name])
            ax.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
            left, below = panels[index - index % columns : index], panels[index + columns :: columns]
            leftmost, lowest = (not any(isinstance(p, Mapping) for p in side) for side in (left, below))
            _label_axes(ax, x if lowest else "", y if leftmost else "")
        else:
            ax.set_axis_off()
            if panel is not None:
                ax.imshow(as_array(panel), interpolation="antialiased")
        ax.set_title(titles[index] if index < len(titles) else "", fontsize=10, color=INK, pad=5)
    entries = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(entries), _LETTERS // (max(map(len, entries)) + 8))),  # 8: the line itself
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=3,
    )
    return figure


def dots(panels: Mapping[str, Mapping[str, Dot]], chance: float | None = None) -> InlineFigure:
    """Draw a panel per measure with a row per name: a dot, its interval, and its value at the row's end.

    ``panels``: title → name → value, ends of the interval, and the values of single clusters, drawn small;
    all panels have the same rows. ``chance``: a line in every panel. Names that start with ``*`` are bold.
    Raises ``ValueError`` without a panel, and for panels of different rows.
    """
    rows = {tuple(panel) for panel in panels.values()}
    if len(rows) != 1:
        raise ValueError(f"expected panels with the same rows, got {len(rows)} kinds: name the same methods")
    names = list(rows.pop())[::-1]
    size = (_WIDTH, 0.33 * len(names) + 0.75)
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        if chance is not None:
            ax.axvline(chance, color="#888888", linewidth=0.8, linestyle=(0, (3, 2)))
        for y, name in enumerate(names):
            value, low, high, clusters = panel[name]
            ax.plot(list(clusters), [y] * len(clusters), "o", color="#9AA5B4", markersize=2.6, alpha=0.8)
            ax.hlines(y, low, high, color=INK, linewidth=2.6, alpha=0.35)
            ax.plot(value, y, "o", color=INK, markersize=5.5)
            place = {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 9, "color": INK}
            ax.annotate(f"{round(value, 2) + 0.0:.2f}".replace("-", "−"), (1.02, y), **place)  # no −0.00
        _label_axes(ax, "", "")
        ax.grid(False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0, labelsize=9)
        ax.set_yticks(range(len(names)), [name.removeprefix("*") for name in names])
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_title(title, fontsize=10, color=INK, pad=6)
    for text, name in zip(axes[0].get_yticklabels(), names, strict=True):
        text.set_fontweight("bold" if name.startswith("*") else "normal")
    return figure


def _look(index: int) -> dict[str, Any]:
    colour, dash = LINE_COLOURS[index % len(LINE_COLOURS)], _DASHES[index % len(_DASHES)]
    return {"color": colour, "linestyle": dash, "linewidth": 1.8}


def _label_axes(ax: Axes, x: str, y: str) -> None:
    from matplotlib.category import StrCategoryFormatter

    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(labelsize=8, colors=INK, length=2)
    if isinstance(ax.xaxis.get_major_formatter(), StrCategoryFormatter):
        for word in ax.get_xticklabels():
            word.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)


def greyed(image: ImageSource) -> Image.Image:
    """The grey image that ``overlay`` draws a map on."""
    return Image.fromarray(grey_levels(open_image(image)).astype(np.uint8).repeat(3, axis=2))


def coloured(saliency: Tensor | np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A saliency map (h, w) in [0, 1] as an RGBA image of ``size`` (width, height).

    Where the map is s, its colour has the opacity s: composited over ``greyed`` it gives ``overlay``.
    Raises ``ValueError`` for a map that is not (h, w) or not finite.
    """
    colours, values = map_colours(saliency, size)
    rgba = np.concatenate([colours, values[..., None] * 255], axis=2)
    return Image.fromarray(rgba.round().astype(np.uint8))


def feature_sheet(maps: Tensor, count: int = 16, columns: int = 8) -> InlineFigure:
    """Draw the ``count`` feature maps (K, h, w) of the largest mean absolute value, strongest first.

    Raises ``ValueError`` for maps that are not (K, h, w), and for a count below 1.
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"expected the feature maps of one image (K, h, w), got {tuple(maps.shape)}")
    if count < 1:
        raise ValueError(f"expected at least one feature map, got {count}")
    strongest = maps.abs().mean((1, 2)).argsort(descending=True)[:count].tolist()
    titles = [f"k = {k}" for k in strongest]
    return grid([maps[k] for k in strongest], titles, columns=columns, bar="activation")


def pipeline(
    network: Network, image: ImageSource, target: str | int, layer: Layer | None = None, channels: int = 3
) -> InlineFigure:
    """Draw the article's Figure 2 with real values: from M and C to Grad-CAM and to the proposed map.

    The upper branch averages each gradient map to one weight λ (Equations 3 and 4). The lower one
    multiplies maps and gradients cell by cell into GM, which guides the same aggregation (Equations 5 and
    6). ``channels``: how many of the channels with the largest share are drawn, at least one. Raises
    ``ValueError`` as ``explain`` does.
    """
    if channels < 1:
        raise ValueError(f"expected at least one channel, got {channels}")
    path, index = network.layer_path(layer), network.class_index(target)
    captured = capture(network.module, network.prepare(image), index, path, any_shape=True)
    M, C = (network.as_maps(maps[path], path).float() for maps in (captured.maps, captured.gradients))
    weights = equations.channel_weights(C)
    guidance, base, guided = (
        f(M, C)[0] for f in (equations.guidance_map, equations.grad_cam, equations.gmcam)
    )
    share = weights[0].abs() * M[0].abs().mean((1, 2))
    shown = share.argsort(descending=True)[:channels].tolist()

    figure = InlineFigure(figsize=(9.4, 4.6), dpi=DPI, layout="constrained")
    arrow = 0.16  # a narrow column
    widths = [1.4, arrow, *[0.85] * len(shown), arrow, 1.15, arrow, 1.3]
    spec = figure.add_gridspec(2, len(widths), width_ratios=widths)
    last = len(widths) - 1

    def draw(place: Any, title: str, panel: Panel, **scale: Any) -> Axes:
        ax = figure.add_subplot(place)
        ax.imshow(as_array(panel), **scale)
        clear_axes(ax, title)
        return ax

    view = network.view(image)
    label = network.class_name(index).replace("$", r"\$")
    draw(spec[:, 0], f"image\nY = logit of “{label}”", view)
    maps = colour_scale([as_array(M[0, k]) for k in shown])
    peak = float(C[0, shown].abs().max()) or 1.0
    for column, k in enumerate(shown, 2):
        draw(spec[0, column], f"$M_{{{k}}}$", M[0, k], cmap=maps.cmap, norm=maps.norm)
        ax = draw(spec[1, column], f"$C_{{{k}}}$", C[0, k], cmap=SIGNED_COLOURS, vmin=-peak, vmax=peak)
        ax.set_xlabel(f"$\\lambda_{{{k}}}$ = {_two_digits(weights[0, k])}", fontsize=7.5, color=INK)
    draw(spec[0, last - 2], "Eq. 4\n" + r"ReLU $\sum_k \lambda_k M_k$", base, cmap=COLOURS)
    draw(spec[1, last - 2], "Eq. 5: GM\n" + r"ReLU $\sum_k C_k \odot M_k$", guidance, cmap=COLOURS)
    for row, (raw, title) in enumerate(((base, "Grad-CAM"), (guided, "Eq. 6: GMCAM"))):
        draw(spec[row, last], title, overlay(view, raw / (raw.max() if raw.max() > 0 else 1)))
        for column in (1, last - 3, last - 1):
            _arrow(figure.add_subplot(spec[row, column]))
    return figure


def _arrow(ax: Axes) -> None:
    ax.set_axis_off()
    ax.annotate("", (1.3, 0.5), (-0.3, 0.5), "axes fraction", arrowprops={"arrowstyle": "->", "color": INK})


def _two_digits(value: Tensor | float) -> str:
    """Two significant digits, with a true minus sign."""
    return f"{float(value):.2g}".replace("-", "\N{MINUS SIGN}")
