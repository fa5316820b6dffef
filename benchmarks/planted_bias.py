"""Measurements of *Find the planted bias* and its verdict: planted_bias_*.parquet.

    OMP_NUM_THREADS=1 python benchmarks/planted_bias.py [--out FOLDER] [PART ...]

album: for 16 scenes of every class and the networks A, B and C, the share ``outside`` the object of each
    ``method``'s map for the object's class, the background's part ``area`` of the image, the class's
    ``probability``, and whether it is the ``top`` class. Two minutes.
effects: for eight objects of every class on all nine backgrounds, the probability ``p`` of the object's class
    and ``p_flower``, and the ``top`` class: of A, B and C, and of B trained further with three seeds on
    "unbiased" and, as a control, on "biased" scenes. Ten minutes.
repairs: as album, for 16 flowers on grass: of B, A, and B trained further.
graded: as effects, for 96 small images on grass and elsewhere: of small networks whose training images had
    flower and grass together in 80, 95 and 100 per cent, or independently, three seeds each. Ten minutes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

import gmcam
from gmcam.lab import planted
from gmcam.lab.exercises.planted_bias import suspects

BOOK = Path(__file__).parents[1] / "book"
SEEDS = 3
_trained: dict[str, gmcam.Network] = {}


def trained() -> dict[str, gmcam.Network]:
    """B, trained further: on unbiased scenes and on biased ones."""
    if not _trained:
        for scenes in ("unbiased", "biased"):
            for seed in range(SEEDS):
                _trained[f"{scenes} {seed}"] = planted.repaired(suspects()["B"], scenes, seed)
                print(f"trained on {scenes} scenes, seed {seed}", flush=True)
    return _trained


def album() -> Iterator[planted.Row]:
    scenes = planted.album(16)
    for letter, network in suspects().items():
        for row in planted.map_rows(network, scenes, planted.METHODS + planted.RIVALS):
            yield {"network": letter} | row


def effects() -> Iterator[planted.Row]:
    scenes = planted.everywhere()
    for name, network in (suspects() | trained()).items():
        for row in planted.probability_rows(network, scenes):
            yield {"network": name} | row


def repairs() -> Iterator[planted.Row]:
    flowers = [gmcam.lab.scene("flower", seed=i, size=128, background="grass") for i in range(16)]
    networks = {letter: suspects()[letter] for letter in "AB"} | trained()
    for name, network in networks.items():
        for row in planted.map_rows(network, flowers, planted.METHODS + planted.RIVALS):
            yield {"network": name} | row


def graded() -> Iterator[planted.Row]:
    for seed in range(SEEDS):
        for level in planted.LEVELS:
            network = planted.graded(level, seed)
            print(f"graded {level}, seed {seed}", flush=True)
            for row in planted.graded_rows(network):
                yield {"level": level, "network": seed} | row


PARTS = {"album": album, "effects": effects, "repairs": repairs, "graded": graded}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    options.add_argument("--out", type=Path, default=BOOK)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for part in arguments.parts or PARTS:
        table = pd.DataFrame(PARTS[part]())
        floats = table.select_dtypes("float").columns
        table[floats] = table[floats].round(4).astype("float32")
        path = arguments.out / f"planted_bias_{part}.parquet"
        table.to_parquet(path, compression="zstd", index=False)
        print(f"{path.name}: {len(table)} rows, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
