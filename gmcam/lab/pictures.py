"""Figures that only chapters draw: feature sheets, the article's Figure 2, charts of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from PIL import Image
from torch import Tensor

from gmcam import equations
from gmcam.capture import capture
from gmcam.network import Network
from gmcam.reading import ImageSource as Source
from gmcam.reading import open_image
from gmcam.show import (
    COLOURS,
    DPI,
    INK,
    SIGNED_COLOURS,
    InlineFigure,
    Panel,
    _bare,
    _colours,
    _grey,
    _literal,
    _scale,
    as_array,
    grid,
    overlay,
)

# Okabe and Ito's colours, which all common colour blindnesses tell apart; the dashes tell them twice.
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
_WIDTH, _HEIGHT = 7.6, 2.3  # inches: all columns, one row
_LETTERS = 105  # of a legend, in one row
_PANELS_ACROSS = (4, 3)  # of dots

Line = tuple[Any, Any]


def lines(
    panels: Sequence[Panel | Mapping[str, Line]],
    titles: Sequence[str] = (),
    columns: int = 2,
    x: str = "",
    y: str = "",
) -> InlineFigure:
    """Charts of lines, and pictures, side by side.

    A chart maps names to lines (x values, y values); x values may be words. A name has one look in all
    charts and stands in one legend. The vertical axis is the same everywhere: from 0, or the lowest
    value if that is below, to 1, or the highest value if that is above. NaN leaves a gap. ``x`` and
    ``y`` name the axes. Raises ``ValueError`` without a column, or a chart with a value in it.
    """
    drawn = [panel for panel in panels if isinstance(panel, Mapping)]
    if columns < 1:
        raise ValueError(f"lines needs at least one column, not {columns}")
    if not any(np.size(line[1]) for panel in drawn for line in panel.values()):
        raise ValueError("lines needs at least one panel that maps names to lines, with values")
    names = list(dict.fromkeys(name for panel in drawn for name in panel))
    looks = {name: _look(index) for index, name in enumerate(names)}
    values = np.concatenate([np.ravel(line[1]) for panel in drawn for line in panel.values()])
    low, high = min(0.0, np.nanmin(values)), max(1.0, np.nanmax(values))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = InlineFigure(figsize=(_WIDTH, rows * _HEIGHT + 0.4), dpi=DPI, layout="constrained")
    # A column of pictures alone is narrower.
    widths = [0.7 + 0.3 * any(isinstance(one, Mapping) for one in panels[c::columns]) for c in range(columns)]
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    for index, ax in enumerate(axes.flat):
        panel = panels[index] if index < len(panels) else None
        if isinstance(panel, Mapping):
            for name, (across, up) in panel.items():
                ax.plot(np.asarray(across), np.asarray(up), label=name, **looks[name])
            ax.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
            leftmost = not any(isinstance(one, Mapping) for one in panels[index - index % columns : index])
            lowest = not any(isinstance(one, Mapping) for one in panels[index + columns :: columns])
            _label(ax, x if lowest else "", y if leftmost else "")
        else:
            ax.set_axis_off()
            if panel is not None:
                ax.imshow(as_array(panel), interpolation="antialiased")
        ax.set_title(titles[index] if index < len(titles) else "", fontsize=10, color=INK, pad=5)
    shown = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside lower center",
        ncols=max(1, min(len(shown), _LETTERS // (max(map(len, shown)) + 8))),  # 8: the line itself
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=3,
    )
    return figure


def _look(index: int) -> dict[str, Any]:
    colour, dash = LINE_COLOURS[index % len(LINE_COLOURS)], _DASHES[index % len(_DASHES)]
    return {"color": colour, "linestyle": dash, "linewidth": 1.8}


def _label(ax: Axes, x: str, y: str) -> None:
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(labelsize=8, colors=INK, length=2)
    if isinstance(ax.xaxis.get_major_formatter(), StrCategoryFormatter):
        for word in ax.get_xticklabels():
            word.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)


def greyed(image: Source) -> Image.Image:
    """The picture that lies beneath an overlay: grey, and less dark than the map's darkest colour."""
    return Image.fromarray(_grey(open_image(image)).astype(np.uint8).repeat(3, axis=2))


def coloured(saliency: Tensor | np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A saliency map (h, w) in [0, 1] as an RGBA picture of ``size`` (width, height).

    A cell of value s has the map's colour and the opacity s, so that laid over ``greyed`` it is
    ``overlay``. Raises ``ValueError`` for a map that is not (h, w) or not finite.
    """
    colours, scaled = _colours(saliency, size)
    return Image.fromarray(
        np.concatenate([colours, scaled[..., None] * 255], axis=2).round().astype(np.uint8)
    )


def feature_sheet(maps: Tensor, count: int = 16, columns: int = 8) -> InlineFigure:
    """The ``count`` feature maps (K, h, w) of the largest mean absolute value, strongest first, on one scale.

    Raises ``ValueError`` for maps that are not (K, h, w), and for a count below 1.
    """
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"feature maps of one picture are (K, h, w), not {tuple(maps.shape)}")
    if count < 1:
        raise ValueError(f"a feature sheet has at least one map, not {count}")
    strongest = maps.abs().mean((1, 2)).argsort(descending=True)[:count].tolist()
    return grid(
        [maps[k] for k in strongest],
        [f"k = {k}" for k in strongest],
        columns=columns,
        bar="activation",
    )


def pipeline(
    network: Network, image: Source, target: str | int, layer: str | None = None, channels: int = 3
) -> InlineFigure:
    """The article's Figure 2 with real values: from M and C to Grad-CAM and to the proposed map.

    The upper branch averages each gradient map to one weight λ (Equations 3 and 4); the lower one
    multiplies maps and gradients cell by cell into GM, and guides the same aggregation with it
    (Equations 5 and 6). ``channels``: how many of the channels with the largest share are drawn, at
    least one. Raises ``ValueError`` like ``explain``.
    """
    if channels < 1:
        raise ValueError(f"the pipeline draws at least one channel, not {channels}")
    path, index = network.layer_path(layer), network.class_index(target)
    captured = capture(
        network.module, network.prepare(image), index, [path], any_shape=network.reshape is not None
    )
    M, C = (network.as_maps(kept[path]).float() for kept in (captured.maps, captured.gradients))
    weights = equations.channel_weights(C)
    guide, base, guided = (
        equations.guidance_map(M, C),
        equations.grad_cam(M, C),
        equations.gmcam(M, C),
    )
    share = (weights[0].abs() * M[0].abs().mean((1, 2))).argsort(descending=True)[:channels].tolist()

    figure = InlineFigure(figsize=(9.4, 4.6), dpi=DPI, layout="constrained")
    widths = [1.4, 0.16, *[0.85] * len(share), 0.16, 1.15, 0.16, 1.3]
    spec = figure.add_gridspec(2, len(widths), width_ratios=widths)
    view = network.view(image)
    label = _literal(network.class_name(index))
    _bare(_draw(figure.add_subplot(spec[:, 0]), np.asarray(view)), f"picture\nY = logit of “{label}”")
    scale, peak_c = _scale([as_array(M[0, k]) for k in share]), float(C[0, share].abs().max())
    low, high = scale.get_clim()
    for column, k in enumerate(share, 2):
        upper, lower = figure.add_subplot(spec[0, column]), figure.add_subplot(spec[1, column])
        upper.imshow(as_array(M[0, k]), scale.cmap, vmin=low, vmax=high)
        lower.imshow(C[0, k].cpu().numpy(), cmap=SIGNED_COLOURS, vmin=-(peak_c or 1), vmax=peak_c or 1)
        _bare(upper, f"$M_{{{k}}}$")
        _bare(lower, f"$C_{{{k}}}$")
        lower.set_xlabel(f"$\\lambda_{{{k}}}$ = {_short(weights[0, k])}", fontsize=7.5, color=INK)
    after = 2 + len(share)
    for column in (1, after, after + 2):
        for row in (0, 1):
            _arrow(figure.add_subplot(spec[row, column]))
    _bare(
        _draw(figure.add_subplot(spec[0, after + 1]), base[0].cpu().numpy()),
        "Eq. 4\n" + r"ReLU $\sum_k \lambda_k M_k$",
    )
    _bare(
        _draw(figure.add_subplot(spec[1, after + 1]), guide[0].cpu().numpy()),
        "Eq. 5: GM\n" + r"ReLU $\sum_k C_k \odot M_k$",
    )
    for row, (raw, name) in enumerate(((base, "Grad-CAM"), (guided, "Eq. 6: GMCAM"))):
        peak = raw[0] / (raw[0].max() if raw[0].max() > 0 else 1)
        _bare(_draw(figure.add_subplot(spec[row, after + 3]), overlay(view, peak)), name)
    return figure


def _draw(ax: Axes, panel: np.ndarray) -> Axes:
    ax.imshow(panel, cmap=COLOURS)
    return ax


def _arrow(ax: Axes) -> None:
    ax.set_axis_off()
    ax.annotate("", (1.3, 0.5), (-0.3, 0.5), "axes fraction", arrowprops={"arrowstyle": "->", "color": INK})


def _short(value: Tensor | float) -> str:
    """Two significant digits, with a true minus sign."""
    return f"{float(value):.2g}".replace("-", "\N{MINUS SIGN}")
