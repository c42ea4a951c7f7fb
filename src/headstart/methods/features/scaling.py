"""Standardising features of networks, some of which are dead: channels that hardly move, and then only by rounding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from headstart.channels import is_dead


class LiveScaler(StandardScaler):
    """scikit-learn's ``StandardScaler``, which makes 0 of features whose deviation is under a millionth of the largest.

    MiniLM's last norm has channels with deviations of 1e-33 and 1e-9 beside others of 0.05. Divided by such a deviation, rounding becomes a feature
    like any other; and a head's weight on it, taken back to the raw scale, is 1e31, under which no gradient survives clipping.

    >>> abs(LiveScaler().fit_transform([[0.0, 1e-9], [2.0, 0.0]])).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn mean and deviation of X (n, d)."""
        super().fit(X, y, sample_weight)
        self.scale_[is_dead(np.sqrt(self.var_))] = np.inf
        return self


def column_moments(X: np.ndarray, *, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (d,) and variance (d,) of the columns of X (n, d), finite float64, as ``StandardScaler`` does but with one copy of X in place of five.

    Two passes with the correction of Chan, Golub & LeVeque 1983.

    >>> [one.tolist() for one in column_moments(np.array([[0.0], [4.0]]), weights=np.array([3.0, 1.0]))]
    [[1.0], [3.0]]
    """
    share = np.full(len(X), 1.0 / len(X)) if weights is None else weights / weights.sum()
    mean = share @ X
    apart = X - mean
    over = share @ apart
    np.square(apart, out=apart)
    return mean, np.maximum(share @ apart - over**2, 0.0)


def live_scale(mean: np.ndarray, var: np.ndarray, n: float) -> np.ndarray:
    """Return what :class:`LiveScaler` divides features of those moments of n cases by: deviations, infinity where dead, 1 where constant up to rounding.

    >>> live_scale(np.zeros(2), np.array([4.0, 1e-14]), 10).tolist()
    [2.0, inf]
    """
    eps = np.finfo(np.float64).eps
    deviation = np.sqrt(var)
    constant = var <= n * eps * var + (n * mean * eps) ** 2
    scale: np.ndarray = np.where(is_dead(deviation), np.inf, np.where(constant, 1.0, deviation))
    return scale


def over_both(scale: np.ndarray, var: np.ndarray, own: tuple[np.ndarray, np.ndarray], n: int, beside: np.ndarray) -> np.ndarray:
    """Return what features are divided by (d,) so that they fit two domains: n cases with ``own`` mean and variance (d,), and the cases ``beside`` (m, d).

    Deviations over both, times one number: that which leaves the first a mean variance of 1, which penalties and rates are made for. What ``scale`` says is
    dead in the first stays so; ``var`` (d,) are its variances as ``scale`` knows them. Divided by the deviation in the first alone, what hardly moves there
    and much in the other would be blown up, such as a pixel at the rim of a digit.

    >>> one = column_moments(np.array([[0.0, 0.0], [2.0, 0.2]]))
    >>> over_both(live_scale(*one, 2), one[1], one, 2, np.array([[0.0, 9.0], [2.0, -9.0]])).round(2).tolist()
    [0.71, 4.5]
    """
    m, other = len(beside), column_moments(beside)
    s, t = n / (n + m), m / (n + m)
    both = live_scale(s * own[0] + t * other[0], s * own[1] + t * other[1] + s * t * (own[0] - other[0]) ** 2, n + m)
    both = np.where(np.isinf(scale), np.inf, both)
    live = np.isfinite(both)
    root = np.sqrt(np.mean(var[live] / both[live] ** 2)) if live.any() else 0.0
    fitting: np.ndarray = both * (root or 1.0)
    return fitting
