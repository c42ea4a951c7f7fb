"""How many times likelier the target draws a case than the source: four estimates of the density ratio at the source's cases.

Kernel mean matching (Huang et al. 2007), KLIEP (Sugiyama et al. 2008), a classifier of domains (Bickel et al. 2007), nearest neighbours (Loog 2012). All are
pure functions of xs (n, d) and xt (m, d) and return (n,) values that are not negative.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from headstart.core import InputError
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.relations.components import median_gamma
from headstart.methods.relations.quadratic import CLOSE, STEPS, box_program, cholesky, reach, solved

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median distance: the kernels that KLIEP chooses from
FOLDS = 5
LOOK = 300  # cases from which ridge says where on the path of strengths to begin
GAP = 1e-9  # of the mean log, at which KLIEP's solver stops
NOTHING = 1e-10  # of the largest: the least mean that a kernel is taken to have over the source; one that reaches no source case would be free


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


def importance(T: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return alpha (b,), not negative: w(x) = sum_l alpha_l k_l(x) maximises the target's mean log w where the source's mean w is 1.

    Maximising mean log w - mean_source w over alpha >= 0 has the same solution (Sugiyama et al. 2008, eq. 11-12): scaled to its best, any alpha has mean 1. By
    the primal-dual interior-point method of :mod:`headstart.methods.relations.quadratic`, in some fifteen Cholesky factors of (b, b).

    Parameters
    ----------
    T : (m, b) kernels at the target's cases
    s : (b,) their means over the source's cases

    >>> importance(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.25])).round(4).tolist()  # shares 2/3 and 1/3 over the means
    [1.3333, 1.3333]
    """
    if s.max() == 0.0:
        return np.zeros_like(s)
    means = np.maximum(s, NOTHING * s.max())
    seen = T[T.max(axis=1) > 0] / means  # why: a case that no kernel reaches has a log of no finite value, whatever alpha
    m, b = len(T), len(s)
    beta = np.full(b, 1.0 / b)  # alpha times means
    dual = np.ones(b)
    root_m, scaled = np.sqrt(m), np.empty_like(seen)
    for _ in range(STEPS):
        w = seen @ beta
        residual, mean = 1.0 - seen.T @ (1.0 / w) / m - dual, beta @ dual / b
        if mean < GAP / b and np.abs(residual).max() < GAP:
            break
        np.divide(seen, root_m * w[:, None], out=scaled)
        bend = dual / beta
        H = scaled.T @ scaled
        H.flat[:: b + 1] += bend
        factor = cholesky(H)
        step, dual_step = _newton(factor, residual, bend, -dual)
        far = min(reach(beta, step), reach(dual, dual_step))
        after = (beta + far * step) @ (dual + far * dual_step) / b
        step, dual_step = _newton(factor, residual, bend, (mean * (after / mean) ** 3 - step * dual_step) / beta - dual)
        far = CLOSE * min(reach(beta, step), reach(dual, dual_step))
        beta, dual = beta + far * step, dual + far * dual_step
    alpha: np.ndarray = beta / beta.sum() / means
    return alpha


def _newton(factor: np.ndarray, residual: np.ndarray, bend: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of the primal and the dual; ``wanted`` is that of the dual, if the primal stood still."""
    step = solved(factor, wanted - residual)
    return step, wanted - bend * step


def kliep(xs: np.ndarray, xt: np.ndarray, *, gamma: float | None, n_centres: int, seed: int) -> tuple[np.ndarray, float]:
    """Return KLIEP's weights (n,) and its gamma: where that is ``None``, the one of the best mean log w on target cases held out in five folds.

    Raises
    ------
    InputError
        kernels so narrow that they reach no source case.
    """
    dice = np.random.default_rng(seed)
    centres = xt[np.sort(dice.permutation(len(xt))[:n_centres])]
    ours, theirs = (euclidean_distances(x, centres, squared=True) for x in (xs, xt))
    if gamma is None:
        fold = dice.permutation(len(xt)) % min(FOLDS, len(xt))
        gamma = _likeliest(ours, theirs, fold, middle=median_gamma(np.vstack([xs, xt])))
    S = np.exp(-gamma * ours)
    weights: np.ndarray = S @ importance(np.exp(-gamma * theirs), S.mean(axis=0))
    if not weights.any():
        raise InputError(
            f"No source case is near a target case at gamma = {gamma:g}. Give a smaller gamma, or use a method that moves features, such as CORAL."
        )
    return weights, gamma


def _likeliest(ours: np.ndarray, theirs: np.ndarray, fold: np.ndarray, *, middle: float) -> float:
    """Return the gamma of ``WIDTHS`` around the ``middle`` one with the best mean log w on held-out target cases; of equals that of the least width."""
    best, found = -np.inf, np.inf
    for width in sorted(WIDTHS, key=lambda width: abs(np.log(width))):  # why: the first to be tried should be hard to beat
        gamma = middle / width**2
        score = _held_out(np.exp(-gamma * theirs), np.exp(-gamma * ours).mean(axis=0), fold, least=best)
        if score is not None and (score, gamma) > (best, found):
            best, found = score, gamma
    return found


def _held_out(T: np.ndarray, s: np.ndarray, fold: np.ndarray, *, least: float) -> float | None:
    """Return the mean over folds of the mean log w on held-out target cases; ``None`` where it turns out on the way that it stays below ``least``.

    As alpha is not negative and the mean of w is 1, w is at most the largest kernel value over its mean: what a fold can bring is known before it is run.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.nan_to_num((T / np.maximum(s, NOTHING * s.max())).max(axis=1))
    size = np.bincount(fold)
    scores = np.bincount(fold, _log(most)) / size  # at most, until a fold is run
    for k in range(len(size)):
        if scores.mean() < least - GAP:
            return None
        scores[k] = _log(T[fold == k] @ importance(T[fold != k], s)).mean()
    return float(scores.mean())


def _log(w: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(w, np.finfo(float).tiny))
    return logs


def classified(xs: np.ndarray, xt: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (n / m) p(target | x) / p(source | x) by logistic regression, its strength chosen by cross-validation (Bickel et al. 2007)."""
    head = LogisticPath(balanced=True, seed=seed, look=LOOK).fit(np.vstack([xs, xt]), np.repeat([0, 1], [len(xs), len(xt)]))
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
