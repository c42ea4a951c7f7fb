"""The H-score with a regularised covariance, adjusted for chance: how much of the target's variance the features tell, after whitening both.

Bao et al. 2019 ("An information-theoretic approach to transferability in task transfer learning") score tr(cov(F)^+ cov(E[F | y])), which any features
reach in full where they outnumber the cases. Ibrahim, Ponomareva & Mazumder 2021 ("Newer is not always better") shrink the covariance as Ledoit & Wolf
2004 do: (1 - a) tr(S_a^-1 S_b) with S_a = (1 - a) S + a tr(S)/d I. That is no cure where variances decay as those of networks do: 512 features of
noise with variances 1/k still reached .78 of the bound on 256 cases of ten classes. So the score of labels that were dealt out at random, which is known in
closed form, is taken off. For any target this is a sum of squared canonical correlations: with one-hot classes, with several labels, or with numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh

from headstart.moments import Moments
from headstart.spectrum import Spectrum

FULL = 1e-6  # of the bound; where chance leaves less room, rounding decides
INDEPENDENT = 1e-10  # of the largest; directions of the target that vary by less are combinations of others


@dataclass(frozen=True)
class HScore:
    """The regularised H-score.

    Parameters
    ----------
    plain : as Ibrahim et al. 2021 have it, 0..``bound``
    chance : its mean over all orders of the same targets; as a share of ``bound`` it is what features of noise reach
    bound : rank k of the centred targets; the number of classes less one
    """

    plain: float
    chance: float
    bound: int

    @property
    def value(self) -> float:
        """The score: 0 at chance or below, ``bound`` at the bound; 0 where chance reaches the bound, so that nothing can be told."""
        room = self.bound - self.chance
        return max(0.0, self.bound * (self.plain - self.chance) / room) if room > FULL * self.bound else 0.0


def h_score(spectrum: Spectrum, y: np.ndarray, *, shrinkage: float | None = None) -> HScore:
    """Return the H-score of features, decomposed with equal weights, for target columns y (n, c).

    Right for n < d, where S is singular: S_a is not, and every class mean lies in the span of the cases. With U the n - 1 or fewer directions in which the
    features move, each explains 1 / (n - 1) of any target that is dealt out at random.

    Parameters
    ----------
    shrinkage : a, 0..1; ``None`` takes that of Ledoit & Wolf, 0 is the H-score as first published

    Examples
    --------
    >>> x = np.array([[-3.0], [-1.0], [1.0], [3.0]])  # one feature is not shrunk: S_a = S, and H is R2 of the line
    >>> found = h_score(Spectrum.of(x), np.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> round(found.plain, 12), round(found.chance, 12), round(found.value, 12), found.bound
    (1.0, 0.333333333333, 1.0, 1)
    """
    n, d = spectrum.X.shape
    values = spectrum.values / n
    if shrinkage is None:
        shrinkage = _shrinkage(float(values.sum()), float(values @ values), float(spectrum.lengths @ spectrum.lengths) / n, n, d)
    T = spectrum.targets(y)[0]
    whiten = _whitener(T.T @ T)
    explained = np.square(spectrum.coordinates(y) @ whiten).sum(axis=1)
    shares = _shares(values, shrinkage, d)
    bound = whiten.shape[1]
    return HScore(float(shares @ explained), bound * float(shares.sum()) / (n - 1), bound)


def h_score_of_moments(found: Moments, *, shrinkage: float | None = None) -> HScore:
    """Return :func:`h_score` of all rows that were summed up, unweighted: eigenvalues and one Cholesky decomposition of d x d."""
    n, d = found.n, len(found.mean)
    S = found.scatter / n
    trace = float(np.trace(S))
    if shrinkage is None:
        shrinkage = _shrinkage(trace, float(np.einsum("ij,ij->", S, S)), found.quartic / n, n, d)
    whiten = _whitener(found.y_scatter)
    bound = whiten.shape[1]
    if trace == 0.0:
        return HScore(0.0, 0.0, bound)
    chance = bound * float(_shares(np.maximum(eigvalsh(S), 0.0), shrinkage, d).sum()) / (n - 1)
    means = found.cross @ whiten / np.sqrt(n)
    S *= 1.0 - shrinkage
    S[np.diag_indices(d)] += shrinkage * trace / d
    solved = cho_solve(cho_factor(S, lower=True, overwrite_a=True), means)
    return HScore(float((1.0 - shrinkage) * np.einsum("ij,ij->", means, solved)), chance, bound)


def _shares(values: np.ndarray, shrinkage: float, d: int) -> np.ndarray:
    """Return (r,) the share of each direction that shrinkage leaves: eigenvalues of (1 - a) S_a^-1 S."""
    kept = (1.0 - shrinkage) * values
    shares: np.ndarray = np.divide(kept, kept + shrinkage * float(values.sum()) / d, out=np.zeros_like(kept), where=kept > 0.0)
    return shares


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
