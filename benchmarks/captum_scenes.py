"""Captum's pixel methods, two of ours and their rivals on 56 scenes: ``book/captum_scenes.parquet``.

    python benchmarks/captum_scenes.py

``collage-vgg``, its last map, both objects of each scene (``gmcam.lab.captum_study.measured``). The chapter
*Captum baselines* reads it. About five minutes on one thread.
"""

from pathlib import Path

import torch

import gmcam
from gmcam.lab import dual_class_scenes
from gmcam.lab.captum_study import measured

OUT = Path(__file__).parents[1] / "book" / "captum_scenes.parquet"


def main() -> None:
    torch.set_num_threads(1)  # so that any machine adds up in the same order
    records = measured(gmcam.load("collage-vgg"), dual_class_scenes(56, size=128))
    records.to_parquet(OUT, index=False)
    print(f"{OUT}: {len(records)} rows")


if __name__ == "__main__":
    main()
