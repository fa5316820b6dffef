"""Measure methods on a whole dataset: a run's folder, its records, its tables."""

from gmcam.evaluate.bootstrap import bootstrap_means, interval
from gmcam.evaluate.evaluating import evaluate
from gmcam.evaluate.measuring import Choices
from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import differences, status, summary, table, write_figures, write_tables

__all__ = ["Choices", "Run", "bootstrap_means", "differences", "evaluate", "interval", "status", "summary"]
__all__ += ["table", "write_figures", "write_tables"]
