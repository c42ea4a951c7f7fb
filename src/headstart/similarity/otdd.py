"""Optimal transport between labelled data sets: how far must the cases of one, with their labels, be moved to become the other?

A label is compared with another by the Gaussians that its cases form, so that the two label sets need not have a class in common
(Alvarez-Melis & Fusi 2020, "Geometric dataset distances via optimal transport").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.spatial.distance import cdist

from headstart.result import Score
from headstart.similarity.measure import CLASSIFICATION, Evidence, Measure
from headstart.similarity.sampling import at_most, halves

MOST = 1000  # cases of each set; why: exact transport takes about n^3
DIMS = 32  # principal axes; why: the distance between two samples of one distribution shrinks like n^(-1/d)
PIVOTS = 10**7  # of the network simplex, far more than 1,000 cases need
NULL = 1e-10  # share of the largest variance, below which an axis is rounding


def otdd(x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray, *, seed: int, dims: int = DIMS, most: int = MOST) -> float:
    """Return the least mean cost of moving one labelled data set onto the other: 0 for equal sets, no upper bound, lower is closer.

    Ground cost |x - x'|^2 + W2^2(N_y, N_y'), where N_y is the Gaussian of the cases of label y, solved exactly; the square root is a metric.
    Before that, both sets are brought to at most ``most`` cases, to their ``dims`` common principal axes (each set weighs one half), and to
    a scale on which the variance within the two sets, summed over all axes and averaged, is 1, so that values compare across networks. A class with
    no more cases than axes is given a diagonal covariance on them.

    Parameters
    ----------
    x, xs : (n, d), (m, d) features of the target and of the source's data, by the same network
    y, ys : (n,), (m,) class codes, of label sets that need have nothing in common
    dims, most : see above
    seed : draws the cases

    Notes
    -----
    Exact transport between two samples of one distribution is not 0: random halves of the digits of scikit-learn lie 0.46 apart (0.00 beyond
    chance), the digits 0 to 4 and 5 to 9 lie 2.13 apart (1.73). See :func:`beyond_chance`.

    >>> x, y = np.array([[-1.0], [1.0]]), np.array([0, 0])  # variance 1; moved by 3, the cases cost 9 and their label 9
    >>> round(otdd(x, y, x + 3, y, seed=0), 6)
    18.0
    """
    a, b = _prepared(x, y, xs, ys, seed=seed, dims=dims, most=most)
    return _transport(a, b)


def beyond_chance(x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray, *, seed: int, dims: int = DIMS, most: int = MOST) -> float:
    """Return how much farther halves of the two data sets lie from each other than halves of one: about 0 where both sets are draws of one distribution.

    [d(A1, B2) + d(A2, B1) - d(A1, A2) - d(B1, B2)] / 2, with d of :func:`otdd` and random halves A1, A2 and B1, B2; it takes out what finite samples
    and high dimension add to d. 0 for equal sets; chance can make it a little negative; lower is closer.
    """
    a, b = _prepared(x, y, xs, ys, seed=seed, dims=dims, most=most)
    (a1, a2), (b1, b2) = ([one.take(rows) for rows in halves(one.x, seed=seed)] for one in (a, b))
    return (_transport(a1, b2) + _transport(a2, b1) - _transport(a1, a2) - _transport(b1, b2)) / 2


def label_distances(a: Classes, b: Classes) -> np.ndarray:
    """Return (ca, cb) squared 2-Wasserstein distances between Gaussians (Dowson & Landau 1982): |m - m'|^2 + tr S + tr S' - 2 tr (S^1/2 S' S^1/2)^1/2."""
    # the last trace is the sum of the singular values of S^1/2 S'^1/2; for diagonal matrices, that of the products of deviations
    overlap = np.sqrt(a.variances) @ np.sqrt(b.variances).T
    for i, j in np.ndindex(overlap.shape):
        if not (a.is_diagonal[i] and b.is_diagonal[j]):
            overlap[i, j] = np.linalg.svd(a.roots[i] @ b.roots[j], compute_uv=False).sum()
    spread = a.variances.sum(axis=1)[:, None] + b.variances.sum(axis=1)
    squared: np.ndarray = cdist(a.means, b.means, "sqeuclidean") + np.maximum(spread - 2 * overlap, 0.0)
    return squared


@dataclass(frozen=True)
class Classes:
    """Gaussians of c classes: means (c, k), covariances' diagonals (c, k) and square roots (c, k, k), and which covariances are diagonal (c,)."""

    means: np.ndarray
    variances: np.ndarray
    roots: np.ndarray
    is_diagonal: np.ndarray


@dataclass(frozen=True)
class Labelled:
    """Cases x (n, k) with codes (n,) of classes that all occur."""

    x: np.ndarray
    codes: np.ndarray

    def take(self, rows: np.ndarray) -> Labelled:
        """Return those cases, with codes of the classes that are left."""
        return Labelled(self.x[rows], class_codes(self.codes[rows]))

    def classes(self) -> Classes:
        """Return the Gaussian of each class, by maximum likelihood: copies of all cases change nothing."""
        groups = [self.x[self.codes == code] for code in range(self.codes.max() + 1)]
        few = np.array([len(group) <= self.x.shape[1] for group in groups])
        covariances = [np.diag(group.var(axis=0)) if is_few else _covariance(group) for group, is_few in zip(groups, few, strict=True)]
        roots = np.stack([_root(one) for one in covariances])
        return Classes(np.stack([group.mean(axis=0) for group in groups]), np.stack([np.diag(one) for one in covariances]), roots, few)


def _prepared(x: np.ndarray, y: np.ndarray, xs: np.ndarray, ys: np.ndarray, *, seed: int, dims: int, most: int) -> tuple[Labelled, Labelled]:
    (xa, ya), (xb, yb) = at_most(x, y, most=most, seed=seed), at_most(xs, ys, most=most, seed=seed)
    a, b = _on_common_axes(xa, xb, dims=dims)
    return Labelled(a, class_codes(ya)), Labelled(b, class_codes(yb))


def _on_common_axes(xa: np.ndarray, xb: np.ndarray, *, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets on at most ``dims`` principal axes of their even mixture, on the scale of the variance within them."""
    a, b = xa.astype(np.float64), xb.astype(np.float64)
    middle, within = (a.mean(axis=0) + b.mean(axis=0)) / 2, float(a.var(axis=0).sum() + b.var(axis=0).sum()) / 2
    a, b = a - middle, b - middle
    stacked = np.vstack([a / np.sqrt(2 * len(a)), b / np.sqrt(2 * len(b))])
    is_wide = len(stacked) < stacked.shape[1]
    gram = stacked @ stacked.T if is_wide else stacked.T @ stacked
    values, vectors = eigh(gram, subset_by_index=[max(0, len(gram) - dims), len(gram) - 1])
    kept = values > NULL * max(values[-1], np.finfo(float).tiny)
    axes = stacked.T @ vectors[:, kept] / np.sqrt(values[kept]) if is_wide else vectors[:, kept]
    scale = np.sqrt(within) if within > 0 else 1.0
    return a @ axes / scale, b @ axes / scale


def _transport(a: Labelled, b: Labelled) -> float:
    cost = cdist(a.x, b.x, "sqeuclidean") + label_distances(a.classes(), b.classes())[np.ix_(a.codes, b.codes)]
    import ot  # why here: it takes seconds, and most of what imports this file moves no mass

    return float(ot.emd2([], [], cost, numItermax=PIVOTS))  # empty weights are equal weights


def class_codes(y: np.ndarray) -> np.ndarray:
    """Return codes 0..c-1 of the classes that occur."""
    codes: np.ndarray = np.unique(y, return_inverse=True)[1].ravel()
    return codes


def _covariance(group: np.ndarray) -> np.ndarray:
    z = group - group.mean(axis=0)
    covariance: np.ndarray = z.T @ z / len(z)
    return covariance


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def _score(name: str, distance: Any, evidence: Evidence) -> Score:
    x, y, xs, ys = (np.asarray(part) for part in (evidence.x, evidence.y, evidence.xs, evidence.ys))
    value = distance(x, y, xs, ys, seed=evidence.seed)
    return Score(name, value, None, min(MOST, len(x)) + min(MOST, len(xs)), "variances within, squared distance", "task", higher_is_closer=False)


NEEDS = frozenset({"x", "y", "xs", "ys"})
PAPER = "Alvarez-Melis & Fusi 2020, Geometric dataset distances via optimal transport; on 32 principal axes and at most 1,000 cases of each set, exact"
OTDD = Measure(
    "OTDD",
    "task",
    lambda e: _score("OTDD", otdd, e),
    NEEDS,
    PAPER,
    "Two samples of one distribution do not lie at 0, and the fewer cases the farther; a class is taken for one Gaussian.",
    CLASSIFICATION,
    frozenset({"rotation", "scale", "shift"}),
    at_identity=0.0,
)
OTDD_BEYOND_CHANCE = Measure(
    "OTDD beyond chance",
    "task",
    lambda e: _score("OTDD beyond chance", beyond_chance, e),
    NEEDS,
    PAPER + "; here less the distance between halves of one set, which the paper does not take off",
    "Half of the cases make each distance, so it swings (digits: by 0.1 at 60 cases of each set, 0.02 at 900); a class is taken for one Gaussian.",
    CLASSIFICATION,
    frozenset({"rotation", "scale", "shift"}),
    at_identity=0.0,
)
