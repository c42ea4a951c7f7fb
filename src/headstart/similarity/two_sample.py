"""Are these two samples of one distribution? Statistics between two samples, each with a p-value from relabelled cases.

Under the question's "yes", which case came from which sample is chance, so a statistic is compared with itself under shuffled labels. Such a test
holds its level at any n, m and d (Hoeffding 1952); the statistic decides only what it is able to see.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from threadpoolctl import threadpool_limits

from headstart import distance
from headstart.channels import is_dead

MOST = 2000  # cases of each sample where features are looked at one by one
PAIRED = 1000  # cases of each where all pairs are: 1.2 s on one core where 2,000 take 5.6, and an AUC of 0.53 is beyond chance
PERMUTATIONS = 999  # p-values in steps of 0.001
LEVEL = 0.90  # of intervals
FOLDS = 5
RIDGE = 0.3  # added to a kernel with mean 1 on its diagonal; 1 finds 2 to 5 of 100 shifted means more, and 3 to 15 turned correlations fewer (LOG.md)
PROJECTIONS = 64
PLACES = 9  # decimals of a relative number that count; what lies below is rounding
ROUNDING = 1e-12  # shuffled labels may give the same statistic in other roundings
BLOCK = 2048  # rows in float64 at once

Statistic: TypeAlias = "Callable[[Pool, np.ndarray], np.ndarray]"


@dataclass(frozen=True)
class TwoSample:
    """A statistic between two samples.

    Parameters
    ----------
    value : the statistic
    p : share of shuffled labellings, the true one included, whose statistic is at least as large; one-sided, at least 1 / (permutations + 1)
    chance : its mean over shuffled labellings: what samples of these sizes show where there is nothing to see
    n, m : cases used of the target and of the source
    interval : of the value, at 90 %, or ``None`` where none is given
    """

    value: float
    p: float
    chance: float
    n: int
    m: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows of both samples, the target's n first, in an order that the order of arrival does not change: what every statistic reads.

    Parameters
    ----------
    rows : (n + m, d) features as they came, float64; every test below takes the rows as independent, which cases of one patient are not
    n, m : how many of the target and of the source
    lots : (n + m,) random number of each row; equal rows share one two by two, so that a case and its twin fall into one fold
    seed : decides lots and labellings
    """

    rows: np.ndarray
    n: int
    m: int
    lots: np.ndarray
    seed: int

    @cached_property
    def live(self) -> np.ndarray:
        """Indices of the channels that move; all where none does."""
        dead = is_dead(self.rows.std(axis=0))
        return np.arange(len(dead)) if dead.all() else np.flatnonzero(~dead)

    @cached_property
    def z(self) -> np.ndarray:
        """(n + m, live) features standardised over both samples together, which is blind to the labels; 0 where nothing moves."""
        live = self.rows[:, self.live]
        deviation = live.std(axis=0)
        z: np.ndarray = (live - live.mean(axis=0)) / np.where(is_dead(deviation), np.inf, deviation)
        return z

    @cached_property
    def squared(self) -> torch.Tensor:
        """(n + m, n + m) squared distances of the standardised rows."""
        z = torch.from_numpy(self.z)
        return distance.squared_distances(z, z)

    @cached_property
    def kernel(self) -> torch.Tensor:
        """(n + m, n + m) Gaussian kernel whose bandwidth is the median distance; ones where all rows are equal."""
        if not bool(self.squared.any()):
            return torch.ones_like(self.squared)
        return distance.gaussian_kernel(self.squared, bandwidth=distance.median_root(self.squared))

    def first(self, most: int) -> Pool:
        """Return the pool of the first rows of both, at most so many of each: a random part, since rows lie in the order of their lots."""
        n, m = min(self.n, most), min(self.m, most)
        keep = np.r_[:n, self.n : self.n + m]
        return Pool(self.rows[keep], n, m, self.lots[keep], self.seed)

    def labellings(self, permutations: int) -> np.ndarray:
        """Return (n + m, 1 + permutations) signed weights: 1/n for a case of the target, -1/m for one of the source. Column 0 holds the true labels."""
        true = np.repeat([1.0 / self.n, -1.0 / self.m], [self.n, self.m])
        shuffled = np.random.default_rng([self.seed, 1]).permuted(np.tile(true, (permutations, 1)), axis=1)
        return np.ascontiguousarray(np.vstack([true[None], shuffled]).T)


def pool(x: np.ndarray, xs: np.ndarray, *, seed: int, most: int) -> Pool:
    """Return the pool of target x (n, d) and source xs (m, d): at most so many cases of each, drawn by lot without replacement.

    >>> pool(np.array([[1.0], [2.0]]), np.array([[2.0], [3.0], [4.0]]), seed=0, most=2).rows.shape
    (4, 1)
    """
    lots = _lots(x, xs, seed=seed)
    own, other = (np.argsort(part, kind="stable")[:most] for part in (lots[: len(x)], lots[len(x) :]))
    rows = np.vstack([np.asarray(x[own], dtype=np.float64), np.asarray(xs[other], dtype=np.float64)])
    return Pool(rows, len(own), len(other), np.r_[lots[: len(x)][own], lots[len(x) :][other]], seed)


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which matrix products and PyTorch use one thread: the same bytes on any number of cores.

    Most steps are small: where the other cores are busy, threads that wait for each other took two to three times as long.
    """
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def permutation_test(statistic: Statistic, pooled: Pool, *, permutations: int = PERMUTATIONS) -> TwoSample:
    """Return the statistic with its p-value. Takes (permutations + 1) times (n + m)^2 operations for the statistics of this file.

    >>> apart = pool(np.array([[0.0], [0.1], [0.2], [0.3]]), np.array([[9.0], [9.1], [9.2], [9.3]]), seed=0, most=4)
    >>> permutation_test(energy, apart).p < 0.06  # 2 of 70 labellings split them so, this one and its mirror image
    True
    """
    values = statistic(pooled, pooled.labellings(permutations))
    return TwoSample(float(values[0]), permutation_p(values), float(values[1:].mean()), pooled.n, pooled.m)


def permutation_p(values: np.ndarray) -> float:
    """Return the share of values at least as large as the first, which counts: the p-value of the first among as many under shuffled labels.

    >>> permutation_p(np.array([2.0, 1.0, 3.0, 2.0]))
    0.75
    """
    return float(np.mean(values >= values[0] - ROUNDING))


def classifier_test(pooled: Pool, *, permutations: int = PERMUTATIONS) -> TwoSample:
    """Return the AUC of :func:`classifier` with its p-value and interval (Lopez-Paz & Oquab 2017, with AUC in place of accuracy)."""
    test = permutation_test(classifier, pooled, permutations=permutations)
    return TwoSample(test.value, test.p, test.chance, test.n, test.m, auc_interval(test.value, test.n, test.m, folds=FOLDS))


def mmd(pooled: Pool, labellings: np.ndarray) -> np.ndarray:
    """Return (k,) the squared maximum mean discrepancy of each labelling, biased: see :func:`headstart.distance.mmd2`."""
    a = torch.from_numpy(labellings)
    values: np.ndarray = (a * (pooled.kernel @ a)).sum(dim=0).numpy()
    bounded: np.ndarray = np.maximum(values, 0.0)
    return bounded


def energy(pooled: Pool, labellings: np.ndarray) -> np.ndarray:
    """Return (k,) the energy distance of each labelling over 2 E|X - Y|, its largest possible value: 0..1 (Székely & Rizzo 2013).

    One product with the matrix of distances is enough: with u and v the mean distances of either sample's cases to its own less to the other's, and
    the sum of all distances known, the mean within and across follow.
    """
    n, m = pooled.n, pooled.m
    distances = pooled.squared.sqrt()
    moved = (distances @ torch.from_numpy(labellings)).numpy()
    u, v = (np.maximum(labellings, 0.0) * moved).sum(axis=0), -(np.maximum(-labellings, 0.0) * moved).sum(axis=0)
    across = (float(distances.sum()) - n**2 * u - m**2 * v) / (n + m) ** 2
    share: np.ndarray = np.divide(-(u + v), 2.0 * across, out=np.zeros_like(u), where=across > 0)
    bounded: np.ndarray = np.maximum(share, 0.0)
    return bounded


def sliced_wasserstein(pooled: Pool, labellings: np.ndarray) -> np.ndarray:
    """Return (k,) the sliced Wasserstein distance of order 2 of each labelling, in joint standard deviations."""
    z = torch.from_numpy(pooled.z)
    slices = z @ distance.directions(z, projections=PROJECTIONS, seed=pooled.seed)
    own = torch.from_numpy(labellings > 0)
    return np.array([distance.wasserstein_1d(slices[of], slices[~of]).mean().item() for of in own.T]) ** 0.5


def classifier(pooled: Pool, labellings: np.ndarray) -> np.ndarray:
    """Return (k,) the held-out AUC, for each labelling, of a classifier of the sample: the share of pairs, one case of each, that it puts in order, 0..1.

    Ridge regression of the labels in the Gaussian kernel of :func:`mmd`, which sees means, spreads and correlations. Five folds by lot, and pairs
    are formed inside a fold. AUC weighs both samples alike, whatever n and m. One inverse serves all folds and labellings: the
    predictions of a fold F by the model fitted without it are y_F - (A_FF)^-1 (A y)_F, A the inverse of kernel plus ridge (Rifkin & Lippert 2007).
    """
    n, m = pooled.n, pooled.m
    centred = pooled.kernel - pooled.kernel.mean(dim=0)
    centred -= centred.mean(dim=1, keepdim=True)
    centred /= max(float(centred.diagonal().mean()), ROUNDING)
    centred.diagonal().add_(RIDGE)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(centred))
    y = torch.from_numpy(labellings) * (n * m / (n + m))
    weighed = inverse @ y
    ordered, pairs = np.zeros(labellings.shape[1]), np.zeros(labellings.shape[1])
    folds = pooled.lots % FOLDS
    for fold in np.unique(folds):
        f = torch.from_numpy(np.flatnonzero(folds == fold))
        left_out = y[f] - torch.linalg.solve(inverse[f][:, f], weighed[f])
        own = labellings[f.numpy()] > 0
        ranks = rankdata(np.round(left_out.numpy(), PLACES), axis=0)  # why rounded: equal rows tie, whatever their order
        count = own.sum(axis=0)
        ordered += (ranks * own).sum(axis=0) - count * (count + 1) / 2
        pairs += count * (len(f) - count)
    auc: np.ndarray = np.divide(ordered, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)
    return auc


def auc_interval(auc: float, n: int, m: int, *, folds: int | None = None, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of an AUC of n and m cases that holds the values whose own standard error reaches it (Newcombe 2006, part 2, method 5).

    Unlike a plain normal interval it has a width at 0 and 1. With ``folds``, the AUC is cross-validated: folds share training cases, so the variance
    is (1/J + 1/(J - 1)) / (1/J) times that of a classifier trained elsewhere (Nadeau & Bengio 2003, sec. 3); without this, 90 % intervals of
    :func:`classifier` held the truth in 75 to 87 %.

    >>> auc_interval(1.0, 10, 10)[1], round(auc_interval(1.0, 10, 10)[0], 2)
    (1.0, 0.85)
    """
    more_folds = 1.0 if folds is None else 1.0 + folds / (folds - 1.0)
    z = float(norm.isf((1.0 - level) / 2.0)) * float(np.sqrt(more_folds))
    more = (n + m) / 2.0 - 1.0

    def beyond(t: float) -> float:
        variance = t * (1.0 - t) * (1.0 + more * (1.0 - t) / (2.0 - t) + more * t / (1.0 + t)) / (n * m)
        return abs(auc - t) - z * float(np.sqrt(variance))

    inside = min(max(auc, ROUNDING), 1.0 - ROUNDING)  # why: at 0 and 1 themselves the error is 0, and they would be their own ends
    low = 0.0 if auc <= 0.0 else float(brentq(beyond, 0.0, inside))
    high = 1.0 if auc >= 1.0 else float(brentq(beyond, inside, 1.0))
    return low, high


def _lots(x: np.ndarray, xs: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (n + m,) a random number for each row of both. No two rows share one but pairs of equal rows, which all equal rows form at random.

    Neither the labels nor the order of arrival decide anything, and shifting or scaling all rows does not either. So no sub-sample, fold or labelling
    depends on them; and two samples of the same cases, each case once, draw the same, with every case in the fold of its twin.
    """
    rank = _content_rank(x, xs, seed=seed)
    rng = np.random.default_rng([seed, 2])
    order = rank.argsort(kind="stable")
    order = order[np.lexsort((rng.random(len(order)), rank[order]))]  # equal rows side by side, in random order
    ascending = rank[order]
    first = np.r_[0, np.flatnonzero(np.diff(ascending)) + 1]  # of each run of equal rows
    place = np.arange(len(order)) - first[ascending]
    lots = np.empty(len(order), dtype=np.int64)
    pair = (place % 2 == 0).cumsum() - 1
    lots[order] = rng.permutation(int(pair[-1]) + 1)[pair]
    return lots


def _content_rank(x: np.ndarray, xs: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (n + m,) ranks 0, 1, ... of the rows of both by their distance to the common mean, then along a random direction; equal rows share one."""
    mean = (_block_sum(x) + _block_sum(xs)) / (len(x) + len(xs))
    direction = np.random.default_rng(seed).standard_normal(x.shape[1])
    keys = []
    for part in (x, xs):
        for start in range(0, len(part), BLOCK):
            centred = np.asarray(part[start : start + BLOCK], dtype=np.float64) - mean
            keys.append(np.stack([np.einsum("ij,ij->i", centred, centred), centred @ direction], axis=1))
    key = np.vstack(keys)
    places = np.round(key / np.maximum(np.abs(key).max(axis=0), np.finfo(float).tiny), PLACES) + 0.0
    rank: np.ndarray = np.unique(places, axis=0, return_inverse=True)[1].ravel()
    return rank


def _block_sum(a: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.sum([np.sum(a[start : start + BLOCK], axis=0, dtype=np.float64) for start in range(0, len(a), BLOCK)], axis=0)
    return total
