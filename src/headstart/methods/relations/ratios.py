"""How many times likelier the target draws a case than the source: four estimates of the density ratio at the source's cases.

Kernel mean matching (Huang et al. 2007), KLIEP (Sugiyama et al. 2008), a classifier of domains (Bickel et al. 2007), nearest neighbours (Loog 2012). All are
pure functions of xs (n, d) and xt (m, d) and return (n,) values that are not negative.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from headstart.methods.features.logistic import LogisticPath
from headstart.methods.relations.components import median_gamma
from headstart.methods.relations.quadratic import box_program

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median distance: the kernels that KLIEP chooses from
FOLDS = 5


def mean_matching(xs: np.ndarray, xt: np.ndarray, *, gamma: float, upper: float, slack: float) -> np.ndarray:
    """Return weights under which the kernel mean of xs is nearest to that of xt (Huang et al. 2007, eq. 5): 0..upper, mean 1 within ``slack``.

    >>> mean_matching(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]), gamma=1.0, upper=10.0, slack=0.0).round(4).tolist()
    [0.0, 2.0]
    """
    n = len(xs)
    k = n * rbf_kernel(xs, xt, gamma=gamma).mean(axis=1)
    # why: an interior-point method needs an inside
    slack = max(slack, 1e-7)
    return box_program(rbf_kernel(xs, gamma=gamma), k, upper=upper, low=n * (1.0 - slack), high=n * (1.0 + slack))


def importance(xs: np.ndarray, xt: np.ndarray, *, centres: np.ndarray, gamma: float) -> np.ndarray:
    """Return alpha (b,), not negative: w(x) = sum_l alpha_l exp(-gamma |x - c_l|^2) maximises the target's mean log w where the source's mean w is 1.

    Maximising mean log w - mean_source w over alpha >= 0 has the same solution (Sugiyama et al. 2008, eq. 11-12): scaled to its best, any alpha has mean 1.
    """
    T, s = rbf_kernel(xt, centres, gamma=gamma), rbf_kernel(xs, centres, gamma=gamma).mean(axis=0)

    def loss(alpha: np.ndarray) -> tuple[float, np.ndarray]:
        w = np.maximum(T @ alpha, np.finfo(float).tiny)
        return float(s @ alpha - np.log(w).mean()), s - T.T @ (1.0 / w) / len(T)

    start = np.full(len(centres), 1.0 / max(s.sum(), np.finfo(float).tiny))
    found = minimize(loss, start, jac=True, bounds=[(0.0, None)] * len(centres), method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-10})
    alpha: np.ndarray = found.x
    return alpha


def kliep(xs: np.ndarray, xt: np.ndarray, *, gamma: float | None, n_centres: int, seed: int) -> tuple[np.ndarray, float]:
    """Return KLIEP's weights (n,) and its gamma: where that is ``None``, the one of the best mean log w on target cases held out in five folds."""
    dice = np.random.default_rng(seed)
    centres = xt[np.sort(dice.permutation(len(xt))[:n_centres])]
    if gamma is None:
        fold = dice.permutation(len(xt)) % min(FOLDS, len(xt))
        middle = median_gamma(np.vstack([xs, xt]))
        gamma = max((middle / width**2 for width in WIDTHS), key=lambda g: _held_out(xs, xt, fold, centres=centres, gamma=g))
    weights: np.ndarray = rbf_kernel(xs, centres, gamma=gamma) @ importance(xs, xt, centres=centres, gamma=gamma)
    return weights, gamma


def _held_out(xs: np.ndarray, xt: np.ndarray, fold: np.ndarray, *, centres: np.ndarray, gamma: float) -> float:
    scores = []
    for k in range(fold.max() + 1):
        alpha = importance(xs, xt[fold != k], centres=centres, gamma=gamma)
        w = rbf_kernel(xt[fold == k], centres, gamma=gamma) @ alpha
        scores.append(np.log(np.maximum(w, np.finfo(float).tiny)).mean())
    return float(np.mean(scores))


def classified(xs: np.ndarray, xt: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (n / m) p(target | x) / p(source | x) by logistic regression, its strength chosen by cross-validation (Bickel et al. 2007)."""
    head = LogisticPath(balanced=True, seed=seed).fit(np.vstack([xs, xt]), np.repeat([0, 1], [len(xs), len(xt)]))
    target = expit(head.decision_function(xs))  # balanced: both domains count as one half, which is the factor n / m
    ratio: np.ndarray = target / np.maximum(1.0 - target, np.finfo(float).eps)
    return ratio


def neighbours(xs: np.ndarray, xt: np.ndarray, *, prior: float) -> np.ndarray:
    """Return how many target cases have each source case as their nearest, plus ``prior`` (Loog 2012, eq. 5 has 1: Laplace's rule).

    >>> neighbours(np.array([[0.0], [10.0]]), np.array([[1.0], [8.0], [9.0]]), prior=1.0).tolist()
    [2.0, 3.0]
    """
    nearest = NearestNeighbors(n_neighbors=1).fit(xs).kneighbors(xt, return_distance=False).ravel()
    counts: np.ndarray = np.bincount(nearest, minlength=len(xs)) + prior
    return counts


def chosen(xs: np.ndarray, xt: np.ndarray, *, k: int, classes: np.ndarray) -> np.ndarray:
    """Return whether each source case is among the k nearest of any target case (Turhan et al. 2009); of each class the nearest is always.

    >>> chosen(np.array([[0.0], [1.0], [10.0]]), np.array([[0.4]]), k=1, classes=np.array([0, 0, 1])).tolist()
    [True, False, True]
    """
    near = NearestNeighbors(n_neighbors=min(k, len(xs))).fit(xs).kneighbors(xt, return_distance=False)
    kept = np.zeros(len(xs), dtype=bool)
    kept[near] = True
    for c in np.unique(classes[~kept]):
        rows = np.flatnonzero(classes == c)
        if not kept[rows].any():
            to_target = NearestNeighbors(n_neighbors=1).fit(xt).kneighbors(xs[rows])[0].ravel()
            kept[rows[to_target.argmin()]] = True
    return kept
