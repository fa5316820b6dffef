"""The price of a repair on other photographs: ``book/monday_morning.parquet``.

    GMCAM_DATA=… python benchmarks/monday_morning.py

The 200 photographs of the folder ``imagenet_sample``, one a class, none of them a pagoda, for
EfficientNet-Lite0 as it is and after the chapter's two repairs. One row a photograph and network: ``photo``,
``label``, ``network`` ("before", "careful", "careless"), ``probability`` of the label, whether it is
``right``, and the ``top`` class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import gmcam
from gmcam.datasets import imagenet
from gmcam.lab.debug_study import repair, top_classes
from gmcam.lab.debugging import outcomes

OUT = Path(__file__).parents[1] / "book" / "monday_morning.parquet"


def rows(network: gmcam.Network, repairs: dict[str, gmcam.Network], first: int, last: int) -> Iterator[Any]:
    """The rows of photographs ``first`` to ``last``, exclusive."""
    data = imagenet(Path(os.environ["GMCAM_DATA"], "imagenet_sample"))
    records = [data.read(index) for index in range(first, min(last, len(data)))]
    labels = [record.truths[0].label for record in records]
    inputs = network.prepare([record.image for record in records])
    for name, repaired in repairs.items():
        chance, right = outcomes(repaired, inputs, labels)
        top = [network.class_name(int(index)) for index in top_classes(repaired, inputs)]
        names = [record.name for record in records]
        for row in zip(names, labels, chance.tolist(), right.tolist(), top, strict=True):
            yield dict(zip(("photo", "label", "probability", "right", "top"), row, strict=True)) | {
                "network": name
            }


def main() -> None:
    network = gmcam.load("efficientnet-lite0")
    repairs = {"before": network, "careful": repair(network), "careless": repair(network, careful=False)}
    parts = [row for first in range(0, 200, 20) for row in rows(network, repairs, first, first + 20)]
    pd.DataFrame(parts).to_parquet(OUT, index=False, compression="zstd")
    print(f"{OUT}: {len(parts)} rows")


if __name__ == "__main__":
    main()
