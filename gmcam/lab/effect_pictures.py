"""Figures of effects on a score, in logits: orange is for the class, blue against it, white is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from gmcam.explaining import explain
from gmcam.lab.scenes import Scene
from gmcam.network import Network
from gmcam.palette import colours
from gmcam.show import (
    DPI,
    INK,
    PHONE,
    SMALL,
    SOFT,
    TEXT,
    TITLE,
    InlineFigure,
    as_array,
    clear_axes,
    overlay,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

(FOR,), (AGAINST,), (HALO,) = (colours()[role] for role in ("for", "against", "panel"))


def signed_cells(
    scene: Scene, panels: Sequence[tuple[str, Image.Image, Tensor]], target: str, columns: int = 4
) -> InlineFigure:
    """Draw maps in logits over images, cell by cell, on one scale that is symmetric about zero.

    ``panels``: title, image and map (h, w). In every panel the ``scene``'s objects are outlined, that of
    ``target`` solid and others dashed. A line below says what the strongest colour stands for. On a phone two
    panels are side by side. Raises ``ValueError`` without a panel or a column.
    """
    if not panels or columns < 1:
        raise ValueError(f"expected a panel and a column, got {len(panels)} and {columns}: pass some")
    draw = partial(_signed_cells, scene, panels, target)
    figure = draw(min(columns, len(panels)), TEXT)
    figure.stacked = partial(draw, min(columns, len(panels), 2), PHONE)
    return figure


def _signed_cells(
    scene: Scene, panels: Sequence[tuple[str, Image.Image, Tensor]], target: str, columns: int, width: float
) -> InlineFigure:
    values = [as_array(cells) for _, _, cells in panels]
    reach = max(float(np.abs(cells).max()) for cells in values)
    rows, side = -(-len(panels) // columns), width / columns
    letters = int(side * 72 / (0.53 * TITLE))
    titles = [wrapped(title, letters) for title, _, _ in panels]
    key = wrapped(
        f"Orange is for “{target}”, blue against it; the strongest colour is ±{reach:.2g} logits in a cell.",
        int(width * 72 / (0.5 * SMALL)),
    )
    titled = 0.2 * (1 + max(title.count("\n") for title in titles))
    size = (width, rows * (side + titled) + 0.2 * (1 + key.count("\n")))
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, title, (_, image, _), cells in zip(axes.flat, titles, panels, values, strict=False):
        ax.imshow(overlay(image, cells / (reach or 1)))
        clear_axes(ax, title)
        _outline(ax, scene, target)
    figure.supxlabel(key, fontsize=SMALL, color=INK, x=0, ha="left")
    return figure


def _outline(ax: Axes, scene: Scene, target: str) -> None:
    """The objects' outlines, and their names above them, or below where they reach the upper border."""
    for mask, label, (left, upper, right, lower) in zip(scene.masks, scene.labels, scene.boxes, strict=True):
        dashes = "solid" if label == target else (0, (3, 2))
        ax.contour(mask, [0.5], colors=INK, linewidths=1.1, linestyles=[dashes])  # 1.5 pixels
        above = upper > mask.shape[0] / 10
        name = ax.text(
            (left + right) / 2, upper - 4 if above else lower + 4, label, fontsize=SMALL, color=INK
        )
        name.set(ha="center", va="bottom" if above else "top", fontweight="bold")
        name.set_path_effects([withStroke(linewidth=2.5, foreground=HALO)])


def effect_ledger(network: Network, scene: Scene, target: str) -> InlineFigure:
    """Draw a scene of two objects with both, either and none, each with the logit of ``target``, and a ledger
    for each object: addition + interaction = removal.

    Raises ``ValueError`` for a scene of another number of objects, and an unknown target.
    """
    if len(scene.labels) != 2:
        raise ValueError(f"expected a scene of two objects, got {len(scene.labels)}: draw one of two")
    first, second = scene.labels
    renders = {"both": scene, f"no {second}": scene.without(1), f"no {first}": scene.without(0)}
    renders["neither"] = scene.without(0).without(0)
    images = [render.image for render in renders.values()]
    scores = explain(network, images, target, method="grad_cam").score.tolist()
    titled = {
        f"{name}: {_signed(score)}": image for name, score, image in zip(renders, scores, images, strict=True)
    }
    both, only_first, only_second, neither = scores
    parts = ((only_first - neither, both - only_second), (only_second - neither, both - only_first))
    ledgers = {
        f"the {label}, on the logit of “{target}”": {
            "addition": addition,
            "interaction": removal - addition,
            "= removal": removal,
        }
        for label, (addition, removal) in zip(scene.labels, parts, strict=True)
    }
    figure = _effect_ledger(titled, ledgers, (TEXT, 3.5))
    figure.stacked = partial(_effect_ledger, titled, ledgers, (PHONE, 7.2))
    return figure


def _effect_ledger(
    images: Mapping[str, Image.Image], ledgers: Mapping[str, Mapping[str, float]], size: tuple[float, float]
) -> InlineFigure:
    """Images and ledgers side by side, or in a figure that is higher than wide, below each other."""
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    wide, ratios = size[0] > size[1], (1, 1.15)
    halves: Any = (
        figure.subfigures(1, 2, width_ratios=ratios)
        if wide
        else figure.subfigures(2, 1, height_ratios=ratios[::-1])
    )
    first, second = halves
    for ax, (title, image) in zip(first.subplots(2, 2).flat, images.items(), strict=True):
        ax.imshow(image)
        clear_axes(ax, title)
    for ax, (title, rows) in zip(second.subplots(2, 1, sharex=True), ledgers.items(), strict=True):
        _ledger(ax, rows, title)
    return figure


def _ledger(ax: Axes, rows: Mapping[str, float], title: str) -> None:
    """A bar for each part, left of zero or right of it; below a rule the last, which is their sum."""
    across = ax.get_yaxis_transform()
    for y, (name, value) in zip(range(len(rows))[::-1], rows.items(), strict=True):
        colour, weight = FOR if value >= 0 else AGAINST, "normal" if y else "bold"
        ax.barh(y, value, height=0.5, color=colour)
        for words, x, ink in ((name, -0.03, INK), (_signed(value), 1.18, colour)):
            look: dict[str, Any] = {
                "ha": "right",
                "va": "center",
                "fontsize": SMALL,
                "fontweight": weight,
                "color": ink,
            }
            ax.annotate(words, (x, y), xycoords=across, **look)
    ax.axhline(0.5, color=SOFT, linewidth=0.8)
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.margins(x=0.04)
    clear_axes(ax)
    ax.set_title(title, fontsize=TITLE, color=INK, loc="left", fontweight="bold")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
