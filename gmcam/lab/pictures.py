"""Figures that only chapters draw: feature sheets, the article's Figure 2, charts of lines and dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from gmcam import equations
from gmcam.capture import Layer, capture
from gmcam.lab.layer_pictures import COLOURS, label_ends
from gmcam.network import Network
from gmcam.palette import pale, tint
from gmcam.reading import ImageSource, open_image
from gmcam.show import (
    DPI,
    INK,
    LINE,
    PHONE,
    SMALL,
    SOFT,
    TEXT,
    TITLE,
    WIDE,
    InlineFigure,
    Panel,
    as_array,
    as_values,
    clear_axes,
    grid,
    overlay,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", "-.", (0, (1, 1.2)))
_HEIGHT, _ROW = 2.3, 0.26  # inches: of a chart, of a row of dots
_NAME = 24  # letters of a row's name in a line, on a phone

Line = tuple[Any, Any]
Dot = tuple[float, float, float, Sequence[float]]  # value, low, high, clusters


def lines(
    panels: Sequence[Panel | Mapping[str, Line]],
    titles: Sequence[str] = (),
    columns: int = 2,
    x: str = "",
    y: str = "",
) -> InlineFigure:
    """Draw charts of lines, each labelled at its end, and images, side by side; on a phone one below another.

    A chart maps names to lines (x values, y values); x values may be words. A name looks the same in all
    charts. All charts share their vertical axis, which contains 0, 1 and every value. NaN leaves a gap. ``x``
    and ``y`` label the axes. Raises ``ValueError`` without a column, and without a chart that has a value.
    """
    charts = [panel for panel in panels if isinstance(panel, Mapping)]
    if columns < 1:
        raise ValueError(f"expected at least one column, got {columns}")
    if not any(np.size(line[1]) for chart in charts for line in chart.values()):
        raise ValueError("expected a panel that maps names to lines, got no values: pass {name: (x, y)}")
    figure = _lines(panels, titles, min(columns, len(panels)), x, y)
    figure.stacked = partial(_lines, panels, titles, 1, x, y, PHONE)
    return figure


def _lines(
    panels: Sequence[Panel | Mapping[str, Line]],
    titles: Sequence[str],
    columns: int,
    x: str,
    y: str,
    width: float = TEXT,
) -> InlineFigure:
    charts = [panel for panel in panels if isinstance(panel, Mapping)]
    names = list(dict.fromkeys(name for chart in charts for name in chart))
    looks = {name: _look(index) for index, name in enumerate(names)}
    values = np.concatenate([np.ravel(line[1]) for chart in charts for line in chart.values()])
    low, high = min(0.0, np.nanmin(values)), max(1.0, np.nanmax(values))
    rows = -(-len(panels) // columns)
    figure = InlineFigure(figsize=(width, rows * _HEIGHT + 0.2), dpi=DPI, layout="constrained")
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
            label_ends(ax)
        else:
            ax.set_axis_off()
            if panel is not None:
                ax.imshow(as_array(panel), interpolation="antialiased")
        ax.set_title(titles[index] if index < len(titles) else "", fontsize=TITLE, color=INK, pad=5)
    return figure


def _look(index: int) -> dict[str, Any]:
    dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dash, "linewidth": 1.8}


def _label_axes(ax: Axes, x: str, y: str) -> None:
    from matplotlib.category import StrCategoryFormatter

    ax.grid(True, color=LINE, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(SOFT)
    ax.tick_params(labelsize=SMALL, colors=INK, length=2)
    if isinstance(ax.xaxis.get_major_formatter(), StrCategoryFormatter):
        for word in ax.get_xticklabels():
            word.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel(x, fontsize=SMALL, color=INK)
    ax.set_ylabel(y, fontsize=SMALL, color=INK)


def dots(
    panels: Mapping[str, Mapping[str, Dot]],
    chance: float | None = None,
    columns: int = 4,
    *,
    shared: bool = True,
    published: Mapping[str, Mapping[str, float]] | None = None,
    rules: Sequence[int] = (),
    log: bool = False,
    x: str = "",
    undefined: str = "",
) -> InlineFigure:
    """Draw a panel per measure with a row per name: a dot, its interval, and its value at the row's end.

    ``panels``: title → name → value, ends of the interval, and the values of single clusters, drawn small;
    all panels have the same rows. A value of NaN leaves its row empty, but for the word ``undefined``. Names
    that start with ``*`` are bold, and the others soft. ``chance``: a line in every panel. ``shared``: one
    horizontal axis for all panels. ``published``: title → name → a value from elsewhere, drawn as a diamond.
    ``rules``: a line below so many rows. ``log``: logarithmic axes; ``x`` labels them. On a phone the panels
    are one below another. Raises ``ValueError`` without a panel or a column, and for panels of different
    rows.
    """
    rows = {tuple(panel) for panel in panels.values()}
    if len(rows) != 1:
        raise ValueError(f"expected panels with the same rows, got {len(rows)} kinds: name the same methods")
    if columns < 1:
        raise ValueError(f"expected at least one column, got {columns}")
    columns = min(columns, len(panels))
    draw = partial(_dots, panels, chance, shared, published or {}, rules, log, x, undefined)
    figure = draw(columns, TEXT if columns < 4 else WIDE)
    figure.stacked = partial(draw, 1, PHONE)
    return figure


def _dots(
    panels: Mapping[str, Mapping[str, Dot]],
    chance: float | None,
    shared: bool,
    published: Mapping[str, Mapping[str, float]],
    rules: Sequence[int],
    log: bool,
    x: str,
    undefined: str,
    columns: int,
    width: float,
) -> InlineFigure:
    names = list(next(iter(panels.values())))[::-1]
    bold = {name for name in names if name.startswith("*")}
    labels = [wrapped(name.removeprefix("*"), _NAME if columns == 1 else 99) for name in names]
    lines = -(-len(panels) // columns)
    # Placed by hand: matplotlib's layouts draw hundreds of texts several times.
    above = 0.32 + 0.2 * max(title.count("\n") for title in panels)
    below, right, letter = 0.28 + 0.2 * bool(x), 0.52, 0.08  # of values; a wide letter
    left = 0.15 + letter * max(len(line) for label in labels for line in label.split("\n"))
    high = _ROW * (1 + 0.3 * max(label.count("\n") for label in labels)) * len(names)
    wide = (width - left - right * columns) / columns
    figure = InlineFigure(figsize=(width, lines * (high + above + below)), dpi=DPI)
    figure.trimmed = False
    axes = figure.subplots(lines, columns, squeeze=False, sharex=shared, sharey=True)
    edges = {"left": left, "right": width - right, "bottom": below, "top": figure.get_figheight() - above}
    for edge, inches in edges.items():
        total = width if edge in ("left", "right") else figure.get_figheight()
        figure.subplots_adjust(**{edge: inches / total})
    figure.subplots_adjust(wspace=right / wide, hspace=(above + below) / high)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        if chance is not None:
            ax.axvline(chance, color=SOFT, linewidth=0.8, linestyle=(0, (3, 2)))
        for count in rules:
            ax.axhline(len(names) - count - 0.5, color=SOFT, linewidth=0.8)
        value, low, high = np.array([panel[name][:3] for name in names], dtype=float).T
        tones = [INK if name in bold or not bold else SOFT for name in names]
        small = [(each, y) for y, name in enumerate(names) for each in panel[name][3]]
        ax.plot(*np.reshape(small, (-1, 2)).T, "o", color=SOFT, markersize=2.6, alpha=0.5, mew=0)
        ax.hlines(range(len(names)), low, high, color=tones, linewidth=2.6, alpha=0.4)  # 3.5 pixels
        ax.scatter(value, range(len(names)), 6.75**2, tones, linewidths=0, zorder=2)  # 9 pixels
        found = published.get(title, {})
        places = [(found[name], y) for y, name in enumerate(names) if name in found]
        ax.plot(*np.reshape(places, (-1, 2)).T, "D", color=SOFT, markersize=5, fillstyle="none")
        how = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": SMALL, "color": INK}
        for y, name in enumerate(names):
            if np.isfinite(value[y]):
                weight = "bold" if name in bold else "normal"
                ax.text(1.03, y, three_digits(value[y]), fontweight=weight, **how)
            elif undefined:
                ax.text(0.5, y, undefined, ha="center", style="italic", **how)
        _label_axes(ax, x, "")
        ax.grid(False, axis="x")
        ax.grid(True, axis="y")
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0, labelsize=SMALL)
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")  # no small exponents
        else:
            ax.locator_params(axis="x", nbins=3 if columns > 2 else 4)  # apart where panels are narrow
        ax.set_yticks(range(len(names)), labels)
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_title(title, fontsize=TITLE, color=INK, pad=6, loc="left")
    for ax in axes[:, 0]:  # the others show no names
        for text, name in zip(ax.get_yticklabels(), names, strict=True):
            text.set_fontweight("bold" if name in bold else "normal")
    return figure


def three_digits(value: float) -> str:
    """At most three significant digits, at most two decimals, and a true minus; never −0."""
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def greyed(image: ImageSource) -> Image.Image:
    """The pale image that ``overlay`` multiplies by a map's colours."""
    return Image.fromarray((pale(open_image(image)) * 255).astype(np.uint8).repeat(3, axis=2))


def coloured(saliency: Tensor | np.ndarray) -> Image.Image:
    """A saliency map (h, w) in [−1, 1] in its colours, a pixel a cell: times ``greyed`` it gives ``overlay``.

    Raises ``ValueError`` for a map that is not (h, w) or not finite.
    """
    return Image.fromarray(tint(as_values(saliency)))


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
    view = network.view(image)
    label = network.class_name(index).replace("$", r"\$")
    M_shown, C_shown = (_tinted(maps[0, shown], "activity") for maps in (M, C))
    M_titles = [f"$M_{{{k}}}$" for k in shown]
    C_titles = [f"$C_{{{k}}}$\n$\\lambda_{{{k}}} = {_two_digits(weights[0, k])}$" for k in shown]
    sums = r"ReLU $\sum_k \lambda_k M_k$", r"ReLU $\sum_k C_k \odot M_k$"
    # From left to right; of two panels the upper and the lower one.
    branches: list[dict[str, Panel]] = [{f"image\nY = logit of “{label}”": view}]
    branches += [
        {M_title: M_map, C_title: C_map}
        for M_title, M_map, C_title, C_map in zip(M_titles, M_shown, C_titles, C_shown, strict=True)
    ]
    branches.append({f"Eq. 4\n{sums[0]}": _tinted(base), f"Eq. 5: GM\n{sums[1]}": _tinted(guidance)})
    overlays = [overlay(view, _shares(maps)) for maps in (base, guided)]
    branches.append(dict(zip(("Grad-CAM", "Eq. 6: GMCAM"), overlays, strict=True)))

    figure = InlineFigure(figsize=(WIDE, 4.4), dpi=DPI, layout="constrained")
    arrow = 0.16  # a narrow column
    widths = [1.4, arrow, *[0.85] * len(shown), arrow, 1.15, arrow, 1.3]
    spec = figure.add_gridspec(2, len(widths), width_ratios=widths)
    columns = [column for column, wide in enumerate(widths) if wide != arrow]
    for column, branch in zip(columns, branches, strict=True):
        for row, (title, panel) in enumerate(branch.items()):
            ax = figure.add_subplot(spec[row, column] if len(branch) > 1 else spec[:, column])
            ax.imshow(as_array(panel), interpolation="nearest")
            clear_axes(ax, title, frame=0 < column < len(widths) - 1)
    for column in set(range(len(widths))) - set(columns):
        for row in range(2):
            _arrow(figure.add_subplot(spec[row, column]))
    figure.stacked = partial(_pipeline_stacked, branches)
    return figure


def _pipeline_stacked(branches: Sequence[Mapping[str, Panel]]) -> InlineFigure:
    """The image; the maps M; the maps C; then a row for each sum and what comes of it."""
    first, *pairs, sums, ends = (list(branch.items()) for branch in branches)
    rows = [first, *zip(*pairs, strict=True), *zip(sums, ends, strict=True)]
    across = max(map(len, rows))
    cells = [cell for row in rows for cell in [*row, *[("", None)] * (across - len(row))]]
    titles, panels = zip(*cells, strict=True)
    figure = grid(panels, titles, across, rows=[""] * len(rows))
    return figure.stacked() if figure.stacked else figure


def _shares(maps: Tensor) -> np.ndarray:
    """Maps as shares of their largest absolute value, in [−1, 1]."""
    return as_array(maps / (maps.abs().max().item() or 1))


def _tinted(maps: Tensor, ramp: str = "for") -> np.ndarray:
    """Maps in their colours on one scale, the ramp's or, where values are negative, the signed one."""
    return tint(_shares(maps), "for" if maps.min() < 0 else ramp)


def _arrow(ax: Axes) -> None:
    ax.set_axis_off()
    ax.annotate("", (1.3, 0.5), (-0.3, 0.5), "axes fraction", arrowprops={"arrowstyle": "->", "color": INK})


def _two_digits(value: Tensor | float) -> str:
    """Two significant digits, with a true minus sign."""
    return f"{float(value):.2g}".replace("-", "\N{MINUS SIGN}")
