"""The measurements of a chapter's steps: ``book/monday_morning_steps.parquet``.

    python benchmarks/monday_morning_steps.py

What the columns hold is in ``gmcam.lab.debug_tables``. About three minutes on one core.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import gmcam
from gmcam.lab import debug_study as study
from gmcam.lab.debug_tables import FILE, LITE, cluster_rows, edit_rows, map_rows, repair_rows

OUT = Path(__file__).parents[1] / "book" / FILE


def main() -> None:
    network, biased = gmcam.load(LITE), gmcam.load(study.BIASED)
    pagodas = study.pagodas(network)
    repairs = {"before": network, "after": study.repair(network)}
    repairs["careless"] = study.repair(network, careful=False)
    known = {"before": biased, "after": study.repair_biased(biased)}
    parts = [
        map_rows(network, pagodas),
        cluster_rows(network, pagodas),
        edit_rows(network, pagodas),
        edit_rows(network, study.confirming(network), "confirmed"),
        edit_rows(biased, study.biased_images(biased)),
        repair_rows(network, repairs),
        repair_rows(biased, known),
    ]
    rows = []
    for part in parts:
        rows += list(part)
        print(len(rows), flush=True)
    pd.DataFrame(rows).to_parquet(OUT, index=False, compression="zstd")


if __name__ == "__main__":
    main()
