"""Borrow by density ratio: a source's case counts as much as it looks like one of the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from headstart.methods.data.borrowed import Borrow, BorrowingRidge
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import knob


class RatioRidge(BorrowingRidge):
    """Weigh a source's cases by the odds that a ridge classifier of domains gives them, p(target | x) / p(source | x), and drop those with the least.

    Parameters
    ----------
    share, alphas, seed : as in :class:`~headstart.methods.data.borrowed.BorrowingRidge`

    Examples
    --------
    >>> X, lent = np.array([[0.0], [1.0], [2.0], [3.0]]), np.arange(20.0)[:, None]
    >>> usefulness, _ = RatioRidge().weigh(X, np.array([0, 0, 1, 1]), lent, np.arange(20) % 2)
    >>> bool(np.all(np.diff(usefulness) < 0))
    True
    """

    def weigh(self, X: np.ndarray, y: np.ndarray, lent: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        domains = RidgeLOO().fit(np.vstack([X, lent]), np.repeat([0, 1], [len(X), len(lent)]))
        log_odds = domains.sharpness_ * np.subtract(*(lent @ domains.coef_.T + domains.intercept_).T)
        return log_odds, np.exp(np.clip(log_odds, -20.0, 20.0))


@dataclass(frozen=True)
class BorrowRatio(Borrow):
    """Learn from a source's labelled cases, weighed by how much they look like the target's.

    Parameters
    ----------
    share : of the source's cases of each class, those that look most like the target's, 0..1
    back, span : as in :class:`~headstart.methods.features.probe.Probe`
    """

    name: ClassVar[str] = "borrow-ratio"
    paper: ClassVar[str] = "Bickel et al. 2007, Discriminative learning for differing training and test distributions"
    limits: ClassVar[str] = "looks alone decide: a case that looks right and is labelled wrong counts in full"
    ridge: ClassVar[type[BorrowingRidge]] = RatioRidge

    share: float = knob(0.5, choices=(0.05, 0.2, 0.5, 1.0))
