"""The data view: how far the distribution of the source's data lies from the target's. Measures between two samples of features, and of class names.

Features may be anything with a row for each case: pixels, hand-made numbers, a network's activations, columns of a table. Unless a measure says
otherwise they are standardised over both samples together, and channels that move by less than a millionth of the largest deviation are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.linalg import eigh

from headstart import distance
from headstart.result import Score
from headstart.similarity.label_shift import classes_shared, label_shift
from headstart.similarity.marginals import feature_tests, median_shift
from headstart.similarity.measure import CLASSIFICATION, Evidence, Ignores, Measure
from headstart.similarity.two_sample import (
    FOLDS,
    MOST,
    PAIRED,
    Pool,
    Statistic,
    TwoSample,
    auc_interval,
    classifier,
    energy,
    mmd,
    one_thread,
    permutation_test,
    pool,
    sliced_wasserstein,
)

BLOCKS = 10  # of KID; fewer where they would hold under ten cases
CASES_PER_DIMENSION = 20  # why: the Fréchet distance of two samples of one distribution is then 0.04 of its joint variance, not all of it

Found: TypeAlias = "tuple[float, tuple[float, float] | None]"  # a value and its interval


@dataclass(frozen=True)
class KID:
    """The kernel Inception distance: ``value`` is the mean over ``blocks`` of separate cases, ``sd`` their deviation, ``error`` = sd / sqrt(blocks).

    0 on average where there is no difference, and then negative more than half of the time: so skewed that Student's intervals, meant to hold the truth in
    90 %, held it in 85. ``size`` and ``source_size`` are the cases in a block.
    """

    value: float
    sd: float
    error: float
    blocks: int
    size: int
    source_size: int


@dataclass(frozen=True)
class Frechet:
    """The Fréchet distance over the joint variance, 0..4, in the first ``dimensions`` principal components of ``features`` features."""

    test: TwoSample
    dimensions: int
    features: int


def kid(pooled: Pool) -> KID:
    """Return the unbiased squared MMD under the kernel (z z' / d + 1)^3 on standardised features (Bińkowski et al. 2018, sec. 4), over separate blocks.

    Published values are of Inception's features as they come; these are not comparable with them, but of one size for any kind of features.
    """
    n, m = pooled.n, pooled.m
    smaller = min(n, m)
    blocks = BLOCKS if smaller >= 10 * BLOCKS else max(2, smaller // 10)
    size, source_size = n // blocks, m // blocks
    own, other = pooled.z[:n], pooled.z[n:]  # rows lie in random order, so any stretch of them is a random part
    pairs = [(own[b * size : (b + 1) * size], other[b * source_size : (b + 1) * source_size]) for b in range(blocks)]
    values = np.array([_cubic_mmd(*pair) for pair in pairs])
    sd = float(values.std(ddof=1))
    return KID(float(values.mean()), sd, sd / float(np.sqrt(blocks)), blocks, size, source_size)


def frechet_test(pooled: Pool, *, permutations: int) -> Frechet:
    """Return the Fréchet distance with its p-value and the number of principal components that it was taken in: see :func:`frechet`."""
    statistic, dimensions = frechet(pooled)
    return Frechet(permutation_test(statistic, pooled, permutations=permutations), dimensions, pooled.rows.shape[1])


def frechet(pooled: Pool) -> tuple[Statistic, int]:
    """Return a statistic, and the dimensions it sees: :func:`headstart.distance.frechet` over the joint variance, of features as they come.

    The joint variance is the mean of both traces plus |mean - mean_s|^2 / 4. Covariances of d features from n cases are off by about d / n, so that at
    n = d two samples of one distribution seem far apart. Where there are fewer than 20 cases for each feature, the features give way to their
    first principal components, over both samples together, as many as 20 cases each allow.
    """
    rows = torch.from_numpy(_components(pooled.rows, max(1, min(pooled.n, pooled.m) // CASES_PER_DIMENSION)))

    def statistic(_: Pool, labellings: np.ndarray) -> np.ndarray:
        return np.array([_frechet_share(rows[own], rows[~own]) for own in torch.from_numpy(labellings > 0).T])

    return statistic, rows.shape[1]


def _cubic_mmd(z: np.ndarray, zs: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        k: np.ndarray = (a @ b.T / a.shape[1] + 1.0) ** 3
        return k

    within = sum(float(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(z, z), kernel(zs, zs)))
    return within - 2.0 * float(kernel(z, zs).mean())


def _components(rows: np.ndarray, most: int) -> np.ndarray:
    """Return (N, at most so many) centred rows in the directions of largest variance; all columns where there are no more."""
    centred: np.ndarray = rows - rows.mean(axis=0)
    n, d = centred.shape
    if d <= most:
        return centred
    dual = n < d
    gram = centred @ centred.T if dual else centred.T @ centred
    values, vectors = eigh(gram, subset_by_index=[len(gram) - most, len(gram) - 1])
    components: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0)) if dual else centred @ vectors
    return components


def _frechet_share(own: torch.Tensor, other: torch.Tensor) -> float:
    apart = float((own.mean(dim=0) - other.mean(dim=0)).square().sum())
    joint = float(own.var(dim=0).sum() + other.var(dim=0).sum()) / 2.0 + apart / 4.0
    return max(0.0, float(distance.frechet(own, other)) / joint) if joint > 0.0 else 0.0


STANDARDISED: frozenset[Ignores] = frozenset({"scale", "shift"})
ANYTHING: frozenset[Ignores] = frozenset({"rotation", "scale", "shift"})
NAMES = frozenset({"labels", "source_labels"})
BIASED = "Above 0 by chance, the more so the fewer cases there are: compare it with its value under shuffled labels."
ONE_BY_ONE = "Looks at features one by one: a correlation that turned is invisible. The median hides a few features that moved far."


def drawn(evidence: Evidence) -> Pool:
    """Return what single features are read of: at most 2,000 cases of each sample."""
    return pool(*_both(evidence), seed=evidence.seed, most=MOST)


def paired(evidence: Evidence) -> Pool:
    """Return the part of :func:`drawn` whose cases are compared pair by pair: at most 1,000 of each sample."""
    return evidence.shared(drawn).first(PAIRED)


def _between(
    name: str,
    value: Callable[[Pool], Found],
    *,
    unit: str,
    paper: str,
    limits: str,
    draw: Callable[[Evidence], Pool] | None = None,
    ignores: frozenset[Ignores] = STANDARDISED,
    at_identity: float | None = 0.0,
) -> Measure:
    """Return a measure between two samples of features as ``draw`` draws them, :func:`paired` by default; ``n`` of its score counts the cases of both."""

    def compute(evidence: Evidence) -> Score:
        with one_thread():
            pooled = evidence.shared(draw or paired)
            found, interval = value(pooled)
        return Score(name, found, interval, pooled.n + pooled.m, unit, "data", higher_is_closer=False)

    return Measure(name, "data", compute, frozenset({"x", "xs"}), paper, limits, ignores=ignores, at_identity=at_identity)


def _both(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    if evidence.x is None or evidence.xs is None:
        raise TypeError("A measure between two samples was computed without x and xs, which it declares that it needs.")
    return evidence.x, evidence.xs


def _of(statistic: Statistic) -> Callable[[Pool], Found]:
    return lambda pooled: (float(statistic(pooled, pooled.labellings(0))[0]), None)


def _auc(pooled: Pool) -> Found:
    auc = float(classifier(pooled, pooled.labellings(0))[0])
    return auc, auc_interval(auc, pooled.n, pooled.m, folds=FOLDS)


def _largest(pooled: Pool) -> Found:
    tests = feature_tests(pooled)
    return tests.largest, tests.interval


def _label_shift(evidence: Evidence) -> Score:
    if evidence.y is None or evidence.ys is None:
        raise TypeError("Label shift was computed without y and ys, which it declares that it needs.")
    found = label_shift(evidence.y, evidence.ys, labels=evidence.labels, source_labels=evidence.source_labels, seed=evidence.seed)
    return Score("label shift", found.value, found.interval, found.n + found.m, "0..1", "data", higher_is_closer=False)


def _classes_shared(evidence: Evidence) -> Score:
    return Score("classes shared", classes_shared(evidence.labels, evidence.source_labels), None, len(evidence.labels), "0..1", "data")


MEASURES = (
    _between(
        "domain classifier",
        _auc,
        unit="AUC, 0..1",
        paper="Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests (with AUC, and a ridge classifier in a Gaussian kernel)",
        limits="Near 1 for most pairs of real data sets, and then it ranks nothing; what tells them apart need not matter to the task.",
        at_identity=0.5,
    ),
    _between(
        "MMD",
        _of(mmd),
        unit="squared MMD, 0..2",
        paper="Gretton et al. 2012, A kernel two-sample test, eq. 5 (median bandwidth)",
        limits=f"{BIASED} One bandwidth sees one scale of differences.",
    ),
    _between(
        "KID",
        lambda pooled: (kid(pooled).value, None),
        unit="squared MMD",
        paper="Bińkowski et al. 2018, Demystifying MMD GANs (separate blocks in place of drawn subsets)",
        limits="Features are standardised, so it is not comparable with published values; negative by chance; sees moments up to the third.",
        at_identity=None,
    ),
    _between(
        "sliced Wasserstein",
        _of(sliced_wasserstein),
        unit="joint standard deviations",
        paper="Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters (order 2)",
        limits=f"{BIASED} In many dimensions a random direction sees little of a shift that lies along one.",
    ),
    _between(
        "energy distance",
        _of(energy),
        unit="0..1",
        paper="Székely & Rizzo 2013, Energy statistics (over 2 E|X - Y|)",
        limits=f"{BIASED} In many dimensions all cases lie about equally far apart, and its values are small.",
    ),
    _between(
        "Fréchet distance",
        lambda pooled: _of(frechet(pooled)[0])(pooled),
        unit="share of the joint variance, 0..4",
        paper="Dowson & Landau 1982; Heusel et al. 2017 (FID)",
        limits=f"{BIASED} Sees means and covariances of the loudest directions only; features are not standardised, so a column of large numbers decides.",
        ignores=ANYTHING,
    ),
    *(
        _between(
            f"{name} shift",
            lambda pooled, moment=moment: (median_shift(pooled, moment), None),  # type: ignore[misc]
            unit=unit,
            paper="Student's moments, feature by feature; median of the absolute differences",
            limits=f"{BIASED} {ONE_BY_ONE}",
            draw=drawn,
        )
        for moment, (name, unit) in enumerate(
            (("mean", "joint standard deviations, 0..2"), ("variance", "joint variances, 0..2"), ("skew", "skewness"), ("kurtosis", "excess kurtosis"))
        )
    ),
    _between(
        "features that differ",
        lambda pooled: (feature_tests(pooled).share, None),
        unit="0..1",
        paper="Kolmogorov-Smirnov tests, corrected as in Benjamini & Hochberg 1995 at 5 %",
        limits="A test's power grows with the number of cases: with many, differences that do not matter count, with few, none does.",
        draw=drawn,
    ),
    _between(
        "largest KS distance",
        _largest,
        unit="0..1",
        paper="Kolmogorov-Smirnov distance; Massart 1990 for the interval",
        limits="One feature decides, and the largest of many is large by chance.",
        draw=drawn,
    ),
    Measure(
        "label shift",
        "data",
        _label_shift,
        NAMES | {"y", "ys"},
        "total variation between class frequencies; permutation test",
        "Compares names as written, so that one class under two names counts as two; frequencies in a data set need not be those in use.",
        kinds=CLASSIFICATION,
        ignores=ANYTHING,
        at_identity=0.0,
    ),
    Measure(
        "classes shared",
        "data",
        _classes_shared,
        NAMES,
        "share of the target's class names that the source has",
        "Compares names as written: synonyms count as different, and one name for two things as the same.",
        ignores=ANYTHING,
        at_identity=1.0,
    ),
)
