"""Count where GMCAM is better or worse than another method in the stored runs: book/runs_marks.csv.

    python benchmarks/marks.py

Reads ``book/runs`` and takes a few minutes, because it draws classes and images anew for every run.
"""

from pathlib import Path

from gmcam.evaluate import Run
from gmcam.lab.article_tables import stored_marks

BOOK = Path(__file__).parents[1] / "book"


def main() -> None:
    folders = [folder for folder in sorted((BOOK / "runs").iterdir()) if "hard" not in folder.name]
    rows = stored_marks({folder.name: Run.open(folder) for folder in folders})
    first = ["run", "part", "metric"]
    rows = rows[first + [name for name in rows if name not in first]]
    rows.to_csv(BOOK / "runs_marks.csv", index=False, float_format="%.6f")


if __name__ == "__main__":
    main()
