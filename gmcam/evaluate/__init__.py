"""Measure methods on a whole dataset: a run's folder, its records, its tables."""

from gmcam.evaluate.evaluating import evaluate
from gmcam.evaluate.measuring import Choices
from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import differences, status, summary, table, write_figures, write_tables
from gmcam.evaluate.totals import Totals

__all__ = [
    "Choices",
    "Run",
    "Totals",
    "differences",
    "evaluate",
    "status",
    "summary",
    "table",
    "write_figures",
    "write_tables",
]
