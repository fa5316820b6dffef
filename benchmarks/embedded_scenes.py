"""Grad-CAM, the guidance map, GMCAM and rivals on 504 scenes: ``book/embedded_scenes.parquet``.

    python benchmarks/embedded_scenes.py

Both pooled and flattened embedded networks, their last map, both objects of each scene
(``gmcam.lab.embedded_study.measured``). The page *The embedded networks* reads it. About three minutes on one
thread.
"""

from pathlib import Path

import pandas as pd
import torch

import gmcam
from gmcam.lab import dual_class_scenes
from gmcam.lab.embedded_study import NETWORKS, measured

OUT = Path(__file__).parents[1] / "book" / "embedded_scenes.parquet"


def main() -> None:
    torch.set_num_threads(1)  # so that any machine adds up in the same order
    scenes = dual_class_scenes(504, size=128)
    parts = [measured(gmcam.load(name), scenes) for name in NETWORKS]
    records = pd.concat(parts, ignore_index=True)
    records.to_parquet(OUT, index=False)
    print(f"{OUT}: {len(records)} rows")


if __name__ == "__main__":
    main()
