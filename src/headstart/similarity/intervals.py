"""Intervals of scores of cases that were each left out once, in closed form: no draws, so no seed and no order.

Cases count as independent: that neighbours shared a training set, and that a penalty was chosen on the same cases, is not paid for.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

LEVEL = 0.90  # as everywhere in this package

Interval = tuple[float, float]


def share(right: np.ndarray, *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return the mean of n credits of 0..1 and its Wilson interval (Wilson 1927).

    >>> value, (low, high) = share(np.array([1.0, 1.0, 0.0, 0.0]), level=0.6827)  # z = 1: (1/2 +- sqrt(1/16 + 1/64)) / (5/4), moved to the centre
    >>> value, round(low, 3), round(high, 3)
    (0.5, 0.276, 0.724)
    """
    value, n = float(np.mean(right)), len(right)
    z = float(norm.isf((1.0 - level) / 2.0))
    centre, reach = value + z**2 / (2 * n), z * float(np.sqrt(value * (1.0 - value) / n + z**2 / (4 * n**2)))
    low, high = (centre - reach) / (1.0 + z**2 / n), (centre + reach) / (1.0 + z**2 / n)
    return value, (max(0.0, min(low, value)), min(1.0, max(high, value)))


def mean_share(right: np.ndarray, codes: np.ndarray, *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return the mean over classes of the share that was right: balanced accuracy, with an interval.

    Each class has its Wilson interval; the squared distances from its share to either end add up over classes, as variances do (Zou & Donner 2008,
    "Construction of confidence limits about effect measures"). It keeps a width where every case is right, and lies inside 0..1.

    >>> value, (low, high) = mean_share(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]))
    >>> value, round(low + high, 12)
    (0.5, 1.0)
    """
    each = [share(right[codes == c], level=level) for c in np.unique(codes)]
    values = np.array([value for value, _ in each])
    below = np.array([value - low for value, (low, _) in each])
    above = np.array([high - value for value, (_, high) in each])
    value, c = float(values.mean()), len(each)
    return value, (value - float(np.sqrt(below @ below)) / c, value + float(np.sqrt(above @ above)) / c)


def explained(errors: np.ndarray, y: np.ndarray, *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return R2 of predictions for cases left out, averaged over columns and floored at 0, with an interval.

    R2 = 1 - sum e^2 / sum m^2, m the error of the mean of the other cases, so that features which tell nothing score 0 whatever n. The interval is
    that of the logarithm of a ratio of two means, by linearisation. Asked for 90 % it was measured to hold the truth in 82 to 84 % of normal
    samples of 20 cases, 85 to 88 of 30, 88 to 90 of 80 and more; it is wrong where few cases hold most of the error.

    Parameters
    ----------
    errors, y : (n, c); columns that do not vary are left out

    >>> explained(np.array([[0.0], [0.0], [0.0]]), np.array([[1.0], [2.0], [3.0]]))
    (1.0, (1.0, 1.0))
    """
    n = len(y)
    mean_error = (y - y.mean(axis=0)) * (n / (n - 1.0))
    varies = np.any(mean_error != 0.0, axis=0)
    e2, m2 = np.square(errors[:, varies]), np.square(mean_error[:, varies])
    each = e2.sum(axis=0) / m2.sum(axis=0)
    influence = ((e2 - each * m2) / m2.mean(axis=0)).mean(axis=1)
    ratio = float(each.mean())
    if ratio == 0.0:
        return 1.0, (1.0, 1.0)
    reach = float(norm.isf((1.0 - level) / 2.0)) * float(np.sqrt(influence @ influence / (n - 1.0) / n)) / ratio
    value, low, high = (max(0.0, 1.0 - ratio * float(np.exp(by))) for by in (0.0, reach, -reach))
    return value, (low, high)
