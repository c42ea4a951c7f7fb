"""Borrow by similarity of features: a source's cases that lie next to the target's cases of the same class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.preprocessing import normalize

from headstart.methods.data.borrowed import Borrow, BorrowingRidge, standardised
from headstart.methods.method import knob

NEAREST = 3  # cases of the target: one alone may be the odd one


class SimilarRidge(BorrowingRidge):
    """Borrow the source's cases whose cosine with the three nearest target cases of their own class is largest, less that with those of other classes.

    Parameters
    ----------
    share, alphas, seed : as in :class:`~headstart.methods.data.borrowed.BorrowingRidge`

    Examples
    --------
    >>> X, y = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), np.array([0, 0, 1, 1])
    >>> lent = np.array([[1.0, 0.1], [0.1, 1.0]])
    >>> SimilarRidge().weigh(X, y, lent, np.array([0, 0]))[0].argmax()  # the second lies among the others
    np.int64(0)
    """

    def weigh(self, X: np.ndarray, y: np.ndarray, lent: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own, theirs = (normalize(Z) for Z in standardised(X, lent))
        cosine = theirs @ own.T
        usefulness = np.zeros(len(lent))
        for c in np.unique(codes):
            rows = codes == c
            mine, others = (_nearest(cosine[rows][:, which]) for which in (y == c, y != c))
            usefulness[rows] = mine - others
        return usefulness, np.ones(len(lent))


def _nearest(cosine: np.ndarray) -> np.ndarray:
    """Return (m,) the mean of the largest three of each row (m, n)."""
    if not cosine.shape[1]:
        return np.zeros(len(cosine))
    nearest: np.ndarray = -np.sort(-cosine, axis=1)[:, :NEAREST].mean(axis=1)
    return nearest


@dataclass(frozen=True)
class BorrowSimilar(Borrow):
    """Learn from those of a source's labelled cases that lie next to the target's cases of their class.

    Parameters
    ----------
    share : of the source's cases of each class, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`
    """

    name: ClassVar[str] = "borrow-similar"
    paper: ClassVar[str] = "Cui et al. 2018, Large scale fine-grained categorization and domain-specific transfer learning"
    limits: ClassVar[str] = "what lies near the cases that are known adds least that is new"
    ridge: ClassVar[type[BorrowingRidge]] = SimilarRidge

    share: float = knob(0.5, choices=(0.05, 0.2, 0.5, 1.0))
