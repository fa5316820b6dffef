"""Means with bootstrap intervals: over images, or over clusters of them, such as classes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

REPLICATES = 2000


def draws(names: Iterable[str], replicates: int = REPLICATES) -> dict[str, np.ndarray]:
    """How often each name is drawn with replacement, in the data (once) and in each replicate:
    (1 + replicates,) each. The same names give the same draws, in any order."""
    population = sorted(set(names))
    shares, generator = np.full(len(population), 1 / len(population)), np.random.default_rng(0)
    counts = generator.multinomial(len(population), shares, replicates)
    return dict(zip(population, np.vstack([np.ones_like(counts[:1]), counts]).T, strict=True))


def bootstrap_weights(
    images: Sequence[object] | None = None,
    clusters: Sequence[Iterable[str]] | None = None,
    replicates: int = REPLICATES,
) -> np.ndarray:
    """The weight of each of n rows, in the data (1) and in each replicate: (1 + replicates, n).
    ``images``: the image of each row. It has a Poisson weight of mean 1 seeded with its name, so differences
    between methods are paired; None for no draw of images. ``clusters``: the clusters that each row's image
    belongs to, such as its objects. Clusters are drawn with replacement, crossed with the images: a scene of
    objects a and b weighs w_image · w_a · w_b, and a map that ignores the class scores exactly 1/n on
    mosaics of n. Sources: Hanley and MacGibbon, *Creating non-parametric bootstrap samples using Poisson
    frequencies*, 2006; Owen and Eckles, *Bootstrapping data arrays of arbitrary order*, 2012."""
    rows = len(clusters if images is None else images)  # type: ignore[arg-type]
    weights = np.ones((1 + replicates, rows), np.float32)
    if images is not None:
        poisson = {name: _poisson(str(name), replicates) for name in dict.fromkeys(images)}
        weights *= np.stack([poisson[name] for name in images], 1)
    if clusters is not None:
        drawn = draws((name for members in clusters for name in members), replicates)
        for row, members in enumerate(clusters):
            for name in set(members):
                weights[:, row] *= drawn[name]
    return weights


def bootstrap_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The weighted mean of each column in each row of weights: (1 + replicates, n) and (n, metrics) →
    (1 + replicates, metrics). NaN does not count, and a mean of nothing is NaN."""
    sums, counts = np.zeros((2, len(weights), values.shape[1]))
    for start in range(0, len(values), 1000):  # so that the products fit into memory
        part, rows = weights[:, start : start + 1000].astype(float), values[start : start + 1000]
        sums += part @ np.nan_to_num(rows)
        counts += part @ (~np.isnan(rows)).astype(float)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % interval: percentiles of rows 1 … of ``means`` (1 + replicates, metrics); NaN where
    more than a fortieth of the replicates are NaN: three images or fewer do not show how they vary."""
    unknown = np.isnan(means[1:]).mean(0) > 0.025
    low, high = np.nanpercentile(np.where(unknown, 0, means[1:]), [2.5, 97.5], axis=0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (n,) adjusted for being n, by Holm's step-down method: the chance of any false mark below 0.05
    in a table stays below 0.05. NaN does not count. Source: Holm, *A Simple Sequentially Rejective Multiple
    Test Procedure*, 1979.

    >>> gmcam.evaluate.holm(np.array([0.03, 0.01, 0.5])).tolist()
    [0.06, 0.03, 0.5]
    """
    order = np.argsort(p)[: (~np.isnan(p)).sum()]
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted


def _poisson(image: str, replicates: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    return np.concatenate([[1.0], np.random.default_rng(seed).poisson(1.0, replicates)])
