"""The numbers in the text of the chapter *Write your own metric*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gmcam.evaluate import differences, summary
from gmcam.lab.fill_study import signed

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SEEN = 0.2  # the least probability of a target that counts as recognised
_NEW = {"Near ↑": "near", "Contrast ↑": "contrast"}
_LEADS = ("inside", *_NEW)  # in which squaring raises a map


def seen(records: DataFrame) -> DataFrame:
    """The rows whose target has at least a fifth of the probability. ``gmcam.evaluate.recognised`` also
    admits the five highest classes, here of eight."""
    return records[records["probability"] >= SEEN]


def above_square(records: DataFrame) -> DataFrame:
    """GMCAM minus Grad-CAM squared: one row per metric, its ``p`` adjusted for the three of them."""
    two = records[records["method"].isin(["grad_cam_squared", "gmcam"])]
    return differences(two, "grad_cam_squared", metrics=_LEADS).set_index("metric")


def share_of_squaring(records: DataFrame) -> Series:
    """The part of GMCAM's lead over Grad-CAM that Grad-CAM squared has, per metric."""
    gain = differences(records, "grad_cam", metrics=_LEADS)
    table = gain.pivot(index="metric", columns="method", values="value")
    return table["grad_cam_squared"] / table["gmcam"]


def numbers(records: DataFrame) -> Mapping[str, str]:
    """Name → number, with its interval, for ``glue``. ``records``: with the chapter's two columns."""

    def ends(rows: DataFrame, key: object, digits: int = 2) -> str:
        return signed(rows.loc[key, ["value", "low", "high"]], digits)

    shares, known = share_of_squaring(records), seen(records)
    rest, rest_seen = above_square(records), above_square(known)
    found = {"share_inside": f"{100 * shares['inside']:.0f} %"}
    for metric, word in _NEW.items():
        found |= {
            f"share_{word}": f"{100 * shares[metric]:.0f} %",
            f"rest_{word}": ends(rest, metric),
            f"p_{word}": f"{rest.loc[metric, 'p']:.2f}",
            f"seen_{word}": ends(rest_seen, metric),
        }
    blob = differences(records, "gmcam", metrics=["dice"]).set_index("method")
    points = differences(records, "grad_cam", metrics=["pointing"]).set_index("method")
    noise = summary(records, metrics=["Contrast ↑"]).set_index("method")
    found |= {"blob_lead": ends(blob, "centred_blob"), "points_gmcam": ends(points, "gmcam")}
    found["random"] = ends(noise, "random_network", digits=3)
    for name, rows in (("pairs", records), ("pairs_seen", known)):
        found[name] = str((rows["method"] == "gmcam").sum())
    return found
