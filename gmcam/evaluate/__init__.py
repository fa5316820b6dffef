"""Measure methods on a whole dataset: a run's folder, its records, its tables."""

from gmcam.evaluate.bootstrap import bootstrap_means, bootstrap_weights, draws, holm, interval
from gmcam.evaluate.evaluating import evaluate
from gmcam.evaluate.measuring import Choices
from gmcam.evaluate.runs import Run
from gmcam.evaluate.tables import (
    at_best_threshold,
    differences,
    recognised,
    status,
    summary,
    table,
    write_tables,
)

__all__ = ["Choices", "Run", "at_best_threshold", "bootstrap_means", "bootstrap_weights", "differences"]
__all__ += ["draws", "evaluate", "holm", "interval", "recognised", "status", "summary", "table"]
__all__ += ["write_tables"]
