"""Shares, traces and hits of cheap methods and their rivals on 13 scenes: ``book/nine_scenes.csv``.

    python benchmarks/nine_scenes.py

EfficientNet-Lite0, scenes of a cat and a cup in which it recognises both; one row a scene, target, method and
layer (``gmcam.lab.nine_study.measured``). The chapter *Nine methods side by side* reads it.
"""

from pathlib import Path

import gmcam
from gmcam.lab.nine_study import measured

OUT = Path(__file__).parents[1] / "book" / "nine_scenes.csv"


def main() -> None:
    records = measured(gmcam.load("efficientnet-lite0"))
    records.to_csv(OUT, index=False, float_format="%.6f", lineterminator="\n")
    print(f"{OUT}: {len(records)} rows")


if __name__ == "__main__":
    main()
