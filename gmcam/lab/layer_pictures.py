"""Charts of values over the layers of a network, with every line labelled at its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcam.show import DPI, INK, LINE, PHONE, SMALL, SOFT, TEXT, TITLE, InlineFigure, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ink, soft, and two colours of Okabe and Ito's that people of any colour vision tell apart.
COLOURS = (INK, SOFT, "#009E73", "#CC79A7")
Values = Sequence[float] | float | np.ndarray
_HEIGHT, _LABEL, _LETTERS = 2.1, 0.1, 16  # a row in inches; a label's line as a share of it, and its letters


def layer_lines(
    panels: Mapping[str, Mapping[str, Values]],
    layers: Sequence[str],
    rivals: Collection[str] = (),
    columns: int = 2,
) -> InlineFigure:
    """Draw a chart per panel with a line per name over ``layers``, each line labelled at its right end.

    ``panels``: title → name → values, one per layer; a single number is a flat line, of a map that depends on
    no layer; an array (seeds, layers) is the line of its means in a band from its minimum to its maximum.
    ``rivals``: names whose lines are thin, soft and behind the others. The panels of a row share their
    vertical axis; on a phone they are one below another. Raises ``ValueError`` without a panel or a column,
    and for a line of another length.
    """
    if not panels or columns < 1:
        raise ValueError(f"expected a panel and a column, got {len(panels)} and {columns}: pass some")
    lengths = {np.atleast_1d(values).shape[-1] for lines in panels.values() for values in lines.values()}
    if not lengths <= {1, len(layers)}:
        raise ValueError(f"expected a value or {len(layers)} of them in a line, got {sorted(lengths)}")
    figure = _layer_lines(panels, layers, rivals, min(columns, len(panels)))
    figure.stacked = partial(_layer_lines, panels, layers, rivals, 1, PHONE)
    return figure


def _layer_lines(
    panels: Mapping[str, Mapping[str, Values]],
    layers: Sequence[str],
    rivals: Collection[str],
    columns: int,
    width: float = TEXT,
) -> InlineFigure:
    rows = -(-len(panels) // columns)
    names = dict.fromkeys(name for lines in panels.values() for name in lines if name not in rivals)
    main = [colour for colour in COLOURS if colour != SOFT]
    colours = {name: main[index % len(main)] for index, name in enumerate(names)}
    figure = InlineFigure(figsize=(width, rows * _HEIGHT + 0.3), dpi=DPI)
    figure.set_layout_engine("constrained", h_pad=0.09)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    letters = 0.7 * width / columns * 72 / (0.53 * SMALL)  # of 9 points, beside the names of the lines
    step = -(-sum(len(name) + 1 for name in layers) // int(letters))  # every such layer is named
    for ax, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, values in lines.items():
            look: dict[str, Any] = {"color": SOFT, "linewidth": 1.0, "alpha": 0.6, "zorder": 2}
            if name in colours:
                look = {"color": colours[name], "linewidth": 2.0, "marker": "o", "markersize": 4, "zorder": 3}
            seeds = np.atleast_2d(values) * np.ones(len(layers))
            if len(seeds) > 1:
                band = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
                ax.fill_between(range(len(layers)), seeds.min(0), seeds.max(0), **band)
            ax.plot(range(len(layers)), seeds.mean(0), label=name, **look)
        ax.set_title(title, fontsize=TITLE, color=INK, loc="left", pad=8)
        ax.set_xticks(range(len(layers)), [name if not i % step else "" for i, name in enumerate(layers)])
        ax.set_xlim(-0.15, len(layers) - 0.85)
        ax.tick_params(labelsize=SMALL, colors=INK, length=2)
        ax.grid(axis="y", color=LINE, linewidth=0.6)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color(SOFT)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes.flat[: len(panels)]:
        label_ends(ax, bold=colours)
    return figure


def label_ends(ax: Axes, bold: Collection[str] = ()) -> None:
    """Each line's name to the right of its end, moved up or down where names would overlap; of a line that
    ends within the chart, beside its end. Where some are ``bold``, the others are soft."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    ends = []
    for line in ax.get_lines():
        name, points = str(line.get_label()), np.asarray(line.get_xydata())
        points = points[np.isfinite(points).all(1)]
        look: dict[str, Any] = {"fontsize": SMALL, "color": SOFT if bold and name not in bold else INK}
        look["fontweight"] = "bold" if name in bold else "normal"
        if not len(points):
            continue
        across, up = (points[-1, 0] - left) / (right - left), (points[-1, 1] - low) / (high - low)
        if across < 0.9:
            ax.annotate(name, points[-1], (4, -4), textcoords="offset points", va="top", **look)
        else:
            ends.append((float(up), float(across), name, line.get_color(), look))
    ends.sort(key=lambda end: end[0])
    names = [wrapped(name, _LETTERS) for _, _, name, _, _ in ends]
    heights = _apart([end[0] for end in ends], [1 + name.count("\n") for name in names])
    inside: dict[str, Any] = {"transform": ax.transAxes, "linewidth": 0.7, "clip_on": False}
    for (up, across, name, colour, look), words, height in zip(ends, names, heights, strict=True):
        ax.text(1.08, height, words, transform=ax.transAxes, va="center", linespacing=1, **look)
        ax.plot([across, 1.07], [up, height], color=colour, label=f"_{name}", **inside)


def _apart(ends: Sequence[float], lines: Sequence[int] | None = None) -> list[float]:
    """Heights in [0, 1], as near to the rising ``ends`` as labels of so many ``lines`` can be."""
    sizes = [_LABEL * count for count in lines or [1] * len(ends)]
    below = [sum(sizes[:index]) + (size - sizes[0]) / 2 for index, size in enumerate(sizes)]  # without gaps
    groups: list[tuple[float, int]] = []  # labels that touch: the lowest one's height, and how many they are
    for end, offset in zip(ends, below, strict=True):
        height, count = end - offset, 1
        while groups and groups[-1][0] > height:
            under, members = groups.pop()
            height, count = (under * members + height * count) / (members + count), members + count
        groups.append((height, count))
    room = max(0.0, 1 - (below[-1] if below else 0.0))
    lowest = [min(max(height, 0.0), room) for height, count in groups for _ in range(count)]
    return [height + offset for height, offset in zip(lowest, below, strict=True)]
