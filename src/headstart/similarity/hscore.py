"""The H-score with a regularised covariance: how much of the target's variance the features tell, after whitening both.

Bao et al. 2019 ("An information-theoretic approach to transferability in task transfer learning") score tr(cov(F)^+ cov(E[F | y])), which any features
reach in full where they outnumber the cases. Ibrahim, Ponomareva & Mazumder 2021 ("Newer is not always better") shrink the covariance as Ledoit & Wolf
2004 do: (1 - a) tr(S_a^-1 S_b) with S_a = (1 - a) S + a tr(S)/d I. For any target this is a sum of squared canonical correlations, of F with
one-hot classes, with several labels, or with numbers.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from headstart.moments import Moments
from headstart.spectrum import Spectrum

INDEPENDENT = 1e-10  # of the largest; directions of the target that vary by less are combinations of others


def h_score(spectrum: Spectrum, y: np.ndarray, *, shrinkage: float | None = None) -> tuple[float, int]:
    """Return the regularised H-score of features for target columns y (n, c), and its bound: the rank of the centred targets.

    Right for n < d, where S is singular: S_a is not, and every class mean lies in the span of the cases. ``shrinkage`` is a, 0..1; ``None``
    takes that of Ledoit & Wolf, 0 is the H-score as first published.

    >>> x = np.array([[-3.0], [-1.0], [1.0], [3.0]])  # one feature is not shrunk: S_a = S, and H is R2 of the line
    >>> value, bound = h_score(Spectrum.of(x), np.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> round(value, 12), bound
    (1.0, 1)
    """
    n, d = spectrum.X.shape
    values = spectrum.values / n
    shrunk = shrinkage
    if shrunk is None:
        shrunk = _shrinkage(float(values.sum()), float(values @ values), float(spectrum.lengths @ spectrum.lengths) / n, n, d)
    T = spectrum.targets(y)[0]
    whiten = _whitener(T.T @ T)
    explained = np.square(spectrum.coordinates(y) @ whiten).sum(axis=1)
    kept = (1.0 - shrunk) * values
    floor = shrunk * float(values.sum()) / d
    share = np.divide(kept, kept + floor, out=np.zeros_like(kept), where=kept > 0.0)
    return float(share @ explained), whiten.shape[1]


def h_score_of_moments(found: Moments) -> tuple[float, int]:
    """Return :func:`h_score` of all rows that were summed up, unweighted: one Cholesky decomposition of d x d, no eigenvectors."""
    n, d = found.n, len(found.mean)
    S = found.scatter / n
    trace = float(np.trace(S))
    shrunk = _shrinkage(trace, float(np.einsum("ij,ij->", S, S)), found.quartic / n, n, d)
    whiten = _whitener(found.y_scatter)
    means = found.cross @ whiten / np.sqrt(n)
    if trace == 0.0:
        return 0.0, whiten.shape[1]
    S *= 1.0 - shrunk
    S[np.diag_indices(d)] += shrunk * trace / d
    solved = cho_solve(cho_factor(S, lower=True, overwrite_a=True), means)
    return float((1.0 - shrunk) * np.einsum("ij,ij->", means, solved)), whiten.shape[1]


def _shrinkage(trace: float, square: float, quartic: float, n: float, d: int) -> float:
    """Return a, 0..1, from tr(S), |S|^2 and the mean of |x - mean|^4 (Ledoit & Wolf 2004, eq. 13 and lemma 3.4, with the maximum-likelihood S)."""
    apart = square - trace**2 / d
    wrong = (quartic - square) / n
    return float(np.clip(wrong / apart, 0.0, 1.0)) if apart > 0.0 else 0.0


def _whitener(scatter: np.ndarray) -> np.ndarray:
    """Return (c, k) that turns centred targets into k orthonormal columns, k their rank."""
    values, vectors = eigh(scatter)
    live = values > INDEPENDENT * values[-1]
    whiten: np.ndarray = vectors[:, live] / np.sqrt(values[live])
    return whiten
