"""Figures of effects on a score, in logits: orange is for the class, blue against it, white is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from gmcam.explaining import explain
from gmcam.lab.palette import colours, pale
from gmcam.lab.scenes import Scene
from gmcam.network import Network
from gmcam.show import DPI, INK, InlineFigure, as_array, clear_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RULE, HALO = "#9AA5B4", "#F5F6F8"
(FOR,), (AGAINST,) = colours()["for"], colours()["against"]
_RAMP = [*colours()["ramp-against"][:0:-1], *colours()["ramp-for"]]
SIGNED = LinearSegmentedColormap.from_list("against-for", _RAMP)
_WIDTH = 7.6  # inches: the page's text


def signed_cells(
    scene: Scene, panels: Sequence[tuple[str, Image.Image, Tensor]], target: str, columns: int = 4
) -> InlineFigure:
    """Draw maps in logits over images, cell by cell, on one scale that is symmetric about zero.

    ``panels``: title, image and map (h, w), whose colours multiply the pale image. In every panel the
    ``scene``'s objects are outlined, that of ``target`` solid and others dashed. Raises ``ValueError``
    without a panel or a column.
    """
    if not panels or columns < 1:
        raise ValueError(f"expected a panel and a column, got {len(panels)} and {columns}: pass some")
    values = [as_array(cells) for _, _, cells in panels]
    reach, columns = max(float(np.abs(cells).max()) for cells in values) or 1.0, min(columns, len(panels))
    rows, side = -(-len(panels) // columns), _WIDTH / columns
    titled = 0.2 * (1 + max(title.count("\n") for title, _, _ in panels))
    size = (_WIDTH, rows * (side + titled) + 0.55)
    figure = InlineFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    scale = ScalarMappable(Normalize(-reach, reach), SIGNED)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, image, _), cells in zip(axes.flat, panels, values, strict=False):
        colours = Image.fromarray(scale.to_rgba(cells, bytes=True)[..., :3])
        enlarged = np.asarray(colours.resize(image.size, Image.Resampling.NEAREST))
        ax.imshow(pale(image) * enlarged / 255)
        clear_axes(ax, title)
        _outline(ax, scene, target)
    bar = figure.colorbar(scale, ax=axes, location="bottom", fraction=0.05, pad=0.03, aspect=40, shrink=0.6)
    bar.set_label(f"logits in a cell: blue against “{target}”, orange for it", fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=2)
    bar.outline.set_visible(False)
    return figure


def _outline(ax: Axes, scene: Scene, target: str) -> None:
    """The objects' outlines, and their names above them, or below where they reach the upper border."""
    for mask, label, (left, upper, right, lower) in zip(scene.masks, scene.labels, scene.boxes, strict=True):
        dashes = "solid" if label == target else (0, (3, 2))
        ax.contour(mask, [0.5], colors=INK, linewidths=1.1, linestyles=[dashes])
        above = upper > mask.shape[0] / 10
        name = ax.text((left + right) / 2, upper - 4 if above else lower + 4, label, fontsize=9, color=INK)
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
    both, only_first, only_second, neither = scores
    figure = InlineFigure(figsize=(_WIDTH, 3.5), dpi=DPI, layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15), wspace=0.04)
    left, right = halves
    for ax, title, image, score in zip(left.subplots(2, 2).flat, renders, images, scores, strict=True):
        ax.imshow(image)
        clear_axes(ax, f"{title}: {_signed(score)}")
    parts = ((only_first - neither, both - only_second), (only_second - neither, both - only_first))
    axes = right.subplots(2, 1, sharex=True)
    for ax, label, (addition, removal) in zip(axes, scene.labels, parts, strict=True):
        rows = {"addition": addition, "interaction": removal - addition, "= removal": removal}
        _ledger(ax, rows, f"the {label}, on the logit of “{target}”")
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
                "fontsize": 9,
                "fontweight": weight,
                "color": ink,
            }
            ax.annotate(words, (x, y), xycoords=across, **look)
    ax.axhline(0.5, color=RULE, linewidth=0.8)
    ax.axvline(0, color=RULE, linewidth=0.8)
    ax.set_ylim(-0.5, len(rows) - 0.5)
    ax.margins(x=0.04)
    clear_axes(ax)
    ax.set_title(title, fontsize=9.5, color=INK, loc="left", fontweight="bold")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
