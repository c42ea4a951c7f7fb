"""The guard against negative transfer: does transfer beat no transfer by more than chance, on the same folds?

Decide by the sign of the mean, report by the interval: the corrected resampled t of Nadeau & Bengio 2003, "Inference for the generalization error".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from headstart.result import Verdict

NO_SPREAD = 1e-12  # scores are ratios of counts; smaller differences are rounding


def judge(
    with_transfer: Sequence[float],
    without: Sequence[float],
    *,
    margin: float = 0.0,
    test_share: float = 0.2,
    level: float = 0.90,
) -> Verdict:
    """Judge whether transfer helped, from paired fold scores on identical folds.

    The interval of the mean gain is ``mean +- t(J - 1) sqrt((1/J + n_test/n_train) s^2)`` (Nadeau & Bengio 2003, sec. 3): s^2 is the variance of
    the J differences, and the second term pays for folds that share training cases, which a plain t test forgets. It was measured on
    equal arms: the plain paired t on 5 x 5 folds claims a difference in 35 % of cases at a stated 5 %, this one in 2 %.

    The decision is "transfer" when the whole interval lies above ``margin``, "do not transfer" when none of it does (at best no gain that matters), and
    else "undecided". ``ship`` follows the mean alone: transfer ships when the mean gain exceeds ``margin``. On small targets the interval rarely excludes
    anything, while in a sweep over increasingly harmful sources this plain rule removed nearly all of the harm and kept the gains.

    Parameters
    ----------
    with_transfer, without : J scores, 0..1 and higher is better, of both arms on the same folds in the same order
    margin : gain that would matter, in the unit of the scores; 0 asks for any gain at all
    test_share : n_test / (n_train + n_test) of a fold; 0.2 for five folds, ``evaluate.share_tested(splits)`` in general
    level : of the two-sided interval; 0.90 makes each wrong call a 5 % event

    Returns
    -------
    Verdict
        ``p_gain`` is P(gain > margin) under that t. Two cases hold no t. One fold, or fewer equal differences than the level asks for:
        undecided, interval -1..1. Equal differences d in every fold: p_gain is 1 - 2^-J where d > margin, 2^-J where d < margin (the sign test:
        J coins that fall alike), 0.5 where d = margin; at J >= 5 for 90 % the interval is the point d, and d = margin is undecided.

    Raises
    ------
    ValueError
        no folds; unequally many; a score that is not finite; a difference beyond 1; ``test_share`` or ``level`` outside 0..1.

    Notes
    -----
    Assumes: both arms saw the same folds; each was tuned inside its folds, or on other folds; the differences are about normal; folds were not picked
    by their outcome. Says nothing about cases drawn from elsewhere. Choosing the best of many candidates on these very folds makes the gain optimistic.

    Examples
    --------
    >>> print(judge([0.9, 0.8, 0.9, 0.8, 0.9], [0.7, 0.7, 0.7, 0.7, 0.7]))
    transfer (gain +0.160, 90% interval +0.082 to +0.238, P(gain > 0) = 0.99)
    """
    gains = _differences(with_transfer, without)
    gain, folds = float(gains.mean()), len(gains)
    low, high, p_gain = _interval(gains, margin=margin, test_share=test_share, level=level)
    decision: Literal["transfer", "do not transfer", "undecided"] = "undecided"
    if low - margin > NO_SPREAD:
        decision = "transfer"
    elif high <= margin and abs(gain - margin) > NO_SPREAD:
        decision = "do not transfer"
    ship: Literal["transfer", "baseline"] = "transfer" if gain - margin > NO_SPREAD else "baseline"
    return Verdict(decision, ship, gain, (low, high), p_gain, float(margin), folds, float(level))


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for being the best of many (Holm 1979): the chance of any false claim at adjusted p <= a is at most a.

    In rising order the k-th of m is multiplied by m - k + 1; none falls below its predecessor, none exceeds 1. Nothing is assumed of how the tests depend.

    >>> holm([0.01, 0.04, 0.03])  # 3 x 0.01, 2 x 0.03, and 1 x 0.04 raised to its predecessor
    (0.03, 0.06, 0.06)
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1.0, steps)
    return tuple(float(v) for v in adjusted)


def resampled_t(values: Sequence[float] | np.ndarray, *, test_share: float) -> tuple[float, float, int]:
    """Return mean, standard error and degrees of freedom of J >= 2 fold values (Nadeau & Bengio 2003, sec. 3).

    >>> mean, error, freedom = resampled_t([0.0, 0.2], test_share=0.5)
    >>> mean, round(error**2, 4), freedom  # variance 0.02, times 1/2 + 1
    (0.1, 0.03, 1)
    """
    v = np.asarray(values, dtype=np.float64)
    factor = 1.0 / len(v) + test_share / (1.0 - test_share)
    return float(v.mean()), float(np.sqrt(factor * v.var(ddof=1))), len(v) - 1


def _interval(gains: np.ndarray, *, margin: float, test_share: float, level: float) -> tuple[float, float, float]:
    """Return the two ends and P(gain > margin)."""
    if not (0.0 < test_share < 1.0 and 0.0 < level < 1.0):
        raise ValueError(f"test_share is {test_share} and level {level}; both lie between 0 and 1. Five folds have a test_share of 0.2.")
    folds, tail = len(gains), (1.0 - level) / 2.0
    if np.ptp(gains) > NO_SPREAD:
        gain, error, freedom = resampled_t(gains, test_share=test_share)
        reach = float(stats.t.isf(tail, freedom)) * error
        return max(-1.0, gain - reach), min(1.0, gain + reach), float(stats.t.cdf((gain - margin) / error, freedom))
    above = float(gains[0]) - margin
    alike = 0.5**folds
    p_gain = 0.5 if abs(above) <= NO_SPREAD else 1.0 - alike if above > 0 else alike
    if alike > tail:
        return -1.0, 1.0, p_gain
    return float(gains.mean()), float(gains.mean()), p_gain


def _differences(with_transfer: Sequence[float], without: Sequence[float]) -> np.ndarray:
    a, b = np.asarray(with_transfer, dtype=np.float64), np.asarray(without, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"with_transfer has shape {a.shape} and without {b.shape}; one score per fold of both arms is needed. Score both on the same folds.")
    if len(a) == 0:
        raise ValueError("There are no fold scores; at least one fold of both arms is needed, and two for an interval.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        fold = int(np.argmin(np.isfinite(a) & np.isfinite(b)))
        raise ValueError(f"Fold {fold} scored {a[fold]} with transfer, {b[fold]} without; finite scores are needed. Leave out a failed fold in both arms.")
    if np.abs(a - b).max() > 1.0:
        raise ValueError(f"Scores differ by up to {np.abs(a - b).max():g}; scores of 0..1 are needed. Divide percentages by 100.")
    return a - b
