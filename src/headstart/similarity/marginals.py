"""Do two samples differ in single features? Moments of every feature, and a Kolmogorov-Smirnov test of every feature, corrected for their number.

What lies between features (a correlation that turned) is invisible here; see :mod:`headstart.similarity.two_sample`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.stats import false_discovery_control, kstwo

from headstart.similarity.two_sample import LEVEL, ROUNDING, Pool, permutation_p

ALPHA = 0.05  # of all corrected decisions
PERMUTATIONS = 199
STILL = 1e-3  # of the joint deviation: third and fourth powers of less drown in rounding
FEATURES = 256  # worked on at once

Differences: TypeAlias = "tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]"  # of mean, variance, skew and kurtosis


@dataclass(frozen=True)
class Shift:
    """Absolute differences of one moment, over the features that move.

    Parameters
    ----------
    median, worst : over features
    feature : column of the worst
    median_by_chance, worst_by_chance : their means over shuffled labels. The worst of many features is large by chance alone
    median_p, worst_p : share of shuffled labellings with as large a one: each a test of all features at once, at its level whatever their
        correlation. The worst finds one feature that moved far, the median finds many that moved a little
    """

    median: float
    worst: float
    feature: int
    median_by_chance: float
    worst_by_chance: float
    median_p: float
    worst_p: float


@dataclass(frozen=True)
class MomentShifts:
    """Differences of four moments between target and source, feature by feature.

    ``mean`` and ``variance`` are in joint deviations and joint variances, 0..2: (v + vs) / 2 + (mean - mean_s)^2 / 4, both samples weighing
    alike. Small differences of means are Cohen's d. ``skew`` and excess ``kurtosis`` are those of each sample by itself, 0 where a feature
    stands still in it.
    """

    mean: Shift
    variance: Shift
    skew: Shift
    kurtosis: Shift
    features: int
    n: int
    m: int


@dataclass(frozen=True)
class FeatureTests:
    """A two-sample Kolmogorov-Smirnov test of each feature that moves.

    Parameters
    ----------
    features : how many
    share : of them that differ after correction by Benjamini & Hochberg 1995 at 5 %: of those, one in 20 is expected to be a false alarm, where
        features are independent or rise together
    surely : share that differs after correction by Holm 1979 at 5 %: in at least 95 of 100 samples not one is a false alarm. Where features are correlated or
        values tie, in more, and fewer differences are found
    largest : the largest distance between the two distribution functions, 0..1, and ``feature``, the column where it lies
    interval : of ``largest``, at 90 %, from bands that hold for all features at once (Massart 1990)
    """

    features: int
    share: float
    surely: float
    largest: float
    feature: int
    interval: tuple[float, float]
    n: int
    m: int


def moment_shifts(pooled: Pool, *, permutations: int = PERMUTATIONS) -> MomentShifts:
    """Return how far the four moments of each feature lie apart, with what chance would show. Permutation of the worst: Westfall & Young 1993."""
    shifts = []
    for differences in _moment_differences(pooled, pooled.labellings(permutations)):  # (1 + permutations, live) each
        median, worst = np.median(differences, axis=1), differences.max(axis=1)
        feature = int(pooled.live[differences[0].argmax()])
        chance, ps = zip(*((float(found[1:].mean()), permutation_p(found)) for found in (median, worst)), strict=True)
        shifts.append(Shift(float(median[0]), float(worst[0]), feature, *chance, *ps))
    mean, variance, skew, kurtosis = shifts
    return MomentShifts(mean, variance, skew, kurtosis, len(pooled.live), pooled.n, pooled.m)


def median_shift(pooled: Pool, moment: int) -> float:
    """Return the median over features of the absolute difference of a moment: 0 the mean, 1 the variance, 2 the skew, 3 the kurtosis."""
    return float(np.median(_moment_differences(pooled, pooled.labellings(0))[moment]))


def feature_tests(pooled: Pool) -> FeatureTests:
    """Return what a Kolmogorov-Smirnov test of each feature finds. Its p-values are those of ``scipy.stats.ks_2samp(method="asymp")``."""
    n, m, live = pooled.n, pooled.m, pooled.live
    largest = np.concatenate([_ks_distances(pooled.rows[:, live[start : start + FEATURES]], n) for start in range(0, len(live), FEATURES)])
    p = np.clip(kstwo.sf(largest, np.round(n * m / (n + m))), 0.0, 1.0)
    d, at = len(p), int(largest.argmax())
    ascending = np.sort(p)
    holm = np.maximum.accumulate(np.minimum(ascending * np.arange(d, 0, -1), 1.0))
    reach = sum(float(np.sqrt(np.log(4.0 * d / (1.0 - LEVEL)) / (2.0 * k))) for k in (n, m))
    return FeatureTests(
        features=d,
        share=float(np.mean(false_discovery_control(p) <= ALPHA)),
        surely=float(np.mean(holm <= ALPHA)),
        largest=float(largest[at]),
        feature=int(live[at]),
        interval=(max(0.0, float(largest[at]) - reach), min(1.0, float(largest[at]) + reach)),
        n=n,
        m=m,
    )


def _ks_distances(values: np.ndarray, n: int) -> np.ndarray:
    """Return (d,) the largest distance between the distribution functions of the first n rows and of the rest, in each column. Ties count once."""
    m = len(values) - n
    columns = np.ascontiguousarray(values.T)
    order = columns.argsort(axis=1)
    ahead = np.where(order < n, m, -n).cumsum(axis=1)  # in units of 1/(n m), exactly
    ascending = np.take_along_axis(columns, order, axis=1)
    ahead[:, :-1][ascending[:, :-1] == ascending[:, 1:]] = 0
    distances: np.ndarray = np.abs(ahead).max(axis=1) / (n * m)
    return distances


def _moment_differences(pooled: Pool, labellings: np.ndarray) -> Differences:
    """Return, for k labellings, (k, d) absolute differences of mean, variance, skew and kurtosis. All labellings share four matrix products a sample."""
    parts = [_differences(pooled.z[:, start : start + FEATURES], labellings) for start in range(0, len(pooled.live), FEATURES)]
    mean, variance, skew, kurtosis = (np.concatenate(blocks, axis=1) for blocks in zip(*parts, strict=True))
    return mean, variance, skew, kurtosis


def _differences(z: np.ndarray, labellings: np.ndarray) -> Differences:
    square = z * z
    powers = [z, square, square * z, square * square]
    sides = [[weights.T @ power for power in powers] for weights in (np.maximum(labellings, 0.0), np.maximum(-labellings, 0.0))]
    (mean, variance, *shape), (mean_s, variance_s, *shape_s) = (_moments(*side) for side in sides)
    joint = (variance + variance_s) / 2.0 + np.square(mean - mean_s) / 4.0
    joint = np.where(joint > ROUNDING, joint, np.inf)
    skew, kurtosis = (np.abs(own - other) for own, other in zip(shape, shape_s, strict=True))
    return np.abs(mean - mean_s) / np.sqrt(joint), np.abs(variance - variance_s) / joint, skew, kurtosis


def _moments(m1: np.ndarray, m2: np.ndarray, m3: np.ndarray, m4: np.ndarray) -> Differences:
    """Return mean, variance, skew and excess kurtosis from the means of the first four powers."""
    square = m1 * m1
    variance = np.maximum(m2 - square, 0.0)
    third = m3 - 3.0 * m1 * m2 + 2.0 * m1 * square
    fourth = m4 - 4.0 * m1 * m3 + 6.0 * square * m2 - 3.0 * square * square
    moves = variance > STILL**2
    scale = np.where(moves, variance, np.inf)
    return m1, variance, third / scale**1.5, np.where(moves, fourth / scale**2 - 3.0, 0.0)
