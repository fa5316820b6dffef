"""Means with bootstrap intervals, added up picture by picture in any order and in any number of parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

REPLICATES = 1000


@dataclass
class Totals:
    """Sums of several metrics, and of each bootstrap replicate's, ready to be merged.

    The interval is a Poisson bootstrap over pictures: replicate b counts a picture ``w`` times, ``w``
    drawn from a Poisson distribution of mean 1 by a generator seeded with the picture's name. So all
    classes and methods of a picture share their weights (differences between methods are paired), and
    neither order nor partition of the pictures changes a weight. Source: Hanley and MacGibbon,
    *Creating non-parametric bootstrap samples using Poisson frequencies*, Computer Methods and
    Programs in Biomedicine, 2006.

    ``sums`` and ``counts`` (1 + replicates, metrics); row 0 counts every picture once.
    """

    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, metrics: int, replicates: int = REPLICATES) -> Totals:
        return cls(np.zeros((1 + replicates, metrics)), np.zeros((1 + replicates, metrics)))

    def update(self, pictures: Sequence[str], values: np.ndarray) -> None:
        """Add rows ``values`` (n, metrics) that belong to ``pictures`` (n,); NaN does not count.

        Raises ``ValueError`` where the shapes do not fit.
        """
        if values.shape != (len(pictures), self.sums.shape[1]):
            raise ValueError(
                f"values {values.shape} do not fit {len(pictures)} pictures and {self.sums.shape[1]} metrics"
            )
        weights = (
            np.stack([_weights(str(name), len(self.sums)) for name in pictures], 1) if len(pictures) else None
        )
        if weights is not None:
            self.sums += weights @ np.nan_to_num(values)
            self.counts += weights @ (~np.isnan(values)).astype(float)

    def merge(self, other: Totals) -> None:
        """Add what another part of the pictures came to."""
        self.sums += other.sums
        self.counts += other.counts

    def means(self) -> np.ndarray:
        """(1 + replicates, metrics): the mean, then each replicate's; NaN where nothing counted."""
        with np.errstate(invalid="ignore"):
            return self.sums / np.where(self.counts > 0, self.counts, np.nan)


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval: the percentiles of rows 1 … of ``means`` (1 + replicates, …).

    NaN where over a fortieth of the replicates have nothing to count: there are then three pictures or
    fewer, of which no resampling can tell how much they would vary.
    """
    known = np.isnan(means[1:]).mean(0) <= 0.025
    ends = np.full((2, *means.shape[1:]), np.nan)
    if known.any():
        ends[:, known] = np.nanpercentile(means[1:][:, known], [2.5, 97.5], axis=0)
    return ends[0], ends[1]


@lru_cache(maxsize=512)  # the classes and methods of a picture follow each other
def _weights(picture: str, rows: int) -> np.ndarray:
    """(rows,): 1, then the picture's weight in each replicate."""
    seed = int.from_bytes(hashlib.sha256(picture.encode()).digest()[:8], "big")
    return np.concatenate([[1.0], np.random.default_rng(seed).poisson(1.0, rows - 1)])
