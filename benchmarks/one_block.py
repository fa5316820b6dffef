"""One block of each stored run measured with the present code, beside its stored means: book/runs_again.csv.

    GMCAM_DATA=DIR python benchmarks/one_block.py

``DIR`` holds the folders ``voc``, ``coco`` and ``imagenet_sample`` of the datasets.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import pandas as pd

import gmcam
from gmcam.datasets import Dataset, open_dataset
from gmcam.evaluate import Choices, evaluate
from gmcam.metrics import METRICS

RUNS = Path(__file__).parents[1] / "book" / "runs"
SOURCES = {
    "collage": ("collage", None),
    "voc-val": ("voc", "voc"),
    "coco-val2017": ("coco", "coco"),
    "imagenet-val": ("imagenet", "imagenet_sample"),
}


def first_block(card: dict, data: Path) -> tuple[Dataset, Choices]:
    """The images of a run's first block, and the run's choices."""
    choices = Choices(**(card["arguments"] | {"methods": tuple(card["arguments"]["methods"])}))
    name, folder = SOURCES[card["dataset"]["name"]]
    return open_dataset(name, folder and data / folder, None, choices.batch), choices


def means(records: pd.DataFrame) -> pd.Series:
    """Mean of every metric, by method and metric."""
    metrics = [name for name in METRICS if name in records]
    return records.groupby("method", sort=False)[metrics].mean().stack(future_stack=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    tables = []
    for folder in sorted(RUNS.iterdir()):
        card = json.loads((folder / "run.json").read_text())
        dataset, choices = first_block(card, Path(os.environ.get("GMCAM_DATA", ".")))
        with tempfile.TemporaryDirectory() as into:
            run = evaluate(gmcam.load(card["network"]["name"]), dataset, choices, into)
            again = means(run.records())
        stored = means(pd.read_parquet(folder / "records" / "block-000000.parquet"))
        table = pd.DataFrame({"stored": stored, "again": again}).rename_axis(["method", "metric"])
        tables.append(table.reset_index().assign(run=folder.name))
    columns = ["run", "method", "metric", "stored", "again"]
    pd.concat(tables)[columns].round(5).to_csv(RUNS.parent / "runs_again.csv", index=False)


if __name__ == "__main__":
    main()
