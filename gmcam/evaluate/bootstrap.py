"""Means with bootstrap intervals."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def bootstrap_means(images: Sequence[str], values: np.ndarray, replicates: int = 1000) -> np.ndarray:
    """The mean of each column, then of each bootstrap replicate: (1 + replicates, metrics).
    ``values`` (n, metrics): rows of ``images`` (n,); NaN does not count, a mean of nothing is NaN. In a
    replicate, all rows of an image have one Poisson weight of mean 1, seeded with its name: differences
    between methods are paired, and order does not matter. Source: Hanley and MacGibbon, *Creating
    non-parametric bootstrap samples using Poisson frequencies*, 2006."""
    sums, counts = np.zeros((2, 1 + replicates, values.shape[1]))
    for start in range(0, len(images), 1000):  # so that the weights fit into memory
        rows = values[start : start + 1000]
        weights = np.stack([_weights(str(name), replicates) for name in images[start : start + 1000]], 1)
        sums += weights @ np.nan_to_num(rows)
        counts += weights @ (~np.isnan(rows)).astype(float)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval: percentiles of rows 1 … of ``means`` (1 + replicates, metrics); NaN where
    more than a fortieth of the replicates are NaN: three images or fewer do not show how they vary."""
    unknown = np.isnan(means[1:]).mean(0) > 0.025
    low, high = np.nanpercentile(np.where(unknown, 0, means[1:]), [2.5, 97.5], axis=0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


@lru_cache(maxsize=512)  # rows of an image follow each other
def _weights(image: str, replicates: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    return np.concatenate([[1.0], np.random.default_rng(seed).poisson(1.0, replicates)])
