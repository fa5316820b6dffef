"""Measurements of *Break it*: break_it_*.parquet.

    OMP_NUM_THREADS=1 python benchmarks/break_it.py [--out FOLDER] [PART ...]

chosen: for three images of every class and two networks, Grad-CAM's share ``inside`` the object: of the
    "right" class, of the right class with the map raised to the 8th "power", of the best of seven "wrong"
    classes and of their "wrong mean", and of the best of forty "untrained" networks and of their "untrained
    mean", both image by image. Five minutes.
fooled: for 16 flowers on grass, the share ``outside`` the flower of each ``method``'s map, and the flower's
    probability on grass (``p``) and on brick (``p_brick``): of the biased network, of two attacks on it, and
    of two honest networks. Five minutes.
deletion: for eight of these flowers, the ``deletion`` area in 8 steps with each ``fill``, of the biased
    network's Grad-CAM and of the flower's mask, in the biased, the guarded and an honest network. Two
    minutes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from gmcam.lab import attacks

BOOK = Path(__file__).parents[1] / "book"
PARTS = {"chosen": attacks.chosen_rows, "fooled": attacks.fooled_rows, "deletion": attacks.deletion_rows}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    options.add_argument("--out", type=Path, default=BOOK)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        rows: Iterator[dict[str, object]] = PARTS[part]()
        table = pd.DataFrame(rows)
        floats = table.select_dtypes("float").columns
        table[floats] = table[floats].round(4).astype("float32")
        path = arguments.out / f"break_it_{part}.parquet"
        table.to_parquet(path, compression="zstd", index=False)
        print(f"{path.name}: {len(table)} rows, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
