"""What more labels would bring: how many settle an undecided verdict, and which gain a learning curve foretells.

Both are extrapolations from one data set; each states what it assumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from headstart.guard import NO_SPREAD, resampled_t
from headstart.result import Corrected, CurvePoint, Outlook, Verdict

POWER = 0.80  # of being settled with that many labels, the usual aim of a planned study
MOST = 100  # times the labels at hand; a forecast beyond means that the gain is too small to be told at all
EXPONENTS = tuple(k / 20 for k in range(2, 31))  # .1 .. 1.5; measured learning curves lie within (Viering & Loog 2023, sec. 4)
LEAST_POINTS = 3  # an inverse power law has three numbers


def labels_needed(gains: Sequence[float], *, test_share: float, n: int, level: float = 0.90, margin: float = 0.0, power: float = POWER) -> int | None:
    """Return how many more labels would settle a verdict that is undecided with ``n``; 0 where it is settled, ``None`` where no number can be told.

    Assumes that the gain stays what it is and that the standard error e of its mean falls as 1/sqrt(n), as the error of any score on more cases
    does. The interval then excludes the margin with probability ``power`` at n' = n ((t_level + t_power) e / |gain - margin|)^2, the t's being
    quantiles of J - 1 degrees of freedom.

    Parameters
    ----------
    gains : J paired differences of fold scores, 0..1
    test_share : n_test / n of a fold
    n : labels that made them, those held out among them
    power : 0.8 as in planned studies; 0.5 would promise a coin's fall, for at the border half of all draws lie on either side

    Returns
    -------
    None where there are fewer than two folds, no spread, a gain equal to the margin, or more than 100 times n would be needed.

    Limits: an undecided gain is itself uncertain, and the number with it, by the square: a gain half as large asks for four times the labels.

    Examples
    --------
    >>> labels_needed([0.0, 0.2], test_share=0.5, n=100, level=0.5, power=0.75)  # error^2 = 0.03, t(1) quantiles 1 and 1: 100 (4 0.03 / 0.01 - 1)
    1100
    """
    if len(gains) < 2 or float(np.ptp(gains)) <= NO_SPREAD:
        return None
    mean, error, freedom = resampled_t(gains, test_share=test_share)
    distance, needed = abs(mean - margin), float(stats.t.isf((1.0 - level) / 2.0, freedom)) * error
    if distance > needed:
        return 0
    if distance <= NO_SPREAD:
        return None
    times = ((needed + float(stats.t.ppf(power, freedom)) * error) / distance) ** 2
    return math.ceil(n * (times - 1.0) - 1e-6) if times <= MOST else None


def gain_at(curve: Sequence[CurvePoint], n: int, *, test_share: float, level: float = 0.90) -> tuple[float, tuple[float, float]] | None:
    """Foretell the gain at ``n`` training cases from the learning curves of both arms; return it with its interval.

    Each arm's mean score is fitted by a - b n^-c with b >= 0 and a <= 1 (inverse power law; Cortes et al. 1994), and the fits are subtracted. The
    interval is the jackknife's over the folds that both arms share, with the correction of Nadeau & Bengio 2003 for folds that share cases.
    ``None`` with fewer than three points or two folds, or for a curve without fold scores.

    Limits: it knows the spread of folds, not whether a power law goes on beyond the data; twice the labels is as far as it should be asked.

    Examples
    --------
    >>> from headstart.result import Score
    >>> points = [CurvePoint(k, Score("", 0.0), Score("", 0.0), folds=((0.9 - 1 / k, 0.9 - 2 / k),) * 2) for k in (10, 20, 40)]
    >>> gain, interval = gain_at(points, 100, test_share=0.5)
    >>> round(gain, 4)  # (0.9 - 1 / 100) - (0.9 - 2 / 100)
    0.01
    """
    laws = _pseudo(curve, lambda sizes, scores: _gain(sizes, scores, n))
    if laws is None:
        return None
    whole, values = laws
    _, error, freedom = resampled_t(values, test_share=test_share)
    reach = float(stats.t.isf((1.0 - level) / 2.0, freedom)) * error
    return whole, (max(-1.0, whole - reach), min(1.0, whole + reach))


def gain_of_all(
    gains: Sequence[float], curve: Sequence[CurvePoint], n: int, *, test_share: float, level: float = 0.90
) -> tuple[float, tuple[float, float]] | None:
    """Return the judged gain corrected for folds that train on less: what it is with all ``n`` training cases, on which the shipped model is fitted.

    A fold of five trains on four fifths. Where one arm still learns and the other does not, the gain of the folds is not that of the model. What the last
    fifth brings is read off both arms' inverse power laws (as in :func:`gain_at`), from the size of a fold to ``n``, and added to the mean gain. Its
    standard error is the jackknife's over folds; both errors are added as if independent, with the degrees of freedom of Welch & Satterthwaite.

    ``None`` where the curve is too short, or so noisy that the correction is less certain than the gain itself: it would hide more than it mends.

    Limits: the laws are those of the two settings that won the search, the gain is that of choosing anew in each fold.

    Examples
    --------
    >>> from headstart.result import Score
    >>> points = [CurvePoint(k, Score("", 0.0), Score("", 0.0), folds=((0.9, 0.9 - 2 / k),) * 2) for k in (10, 20, 40)]
    >>> gain, interval = gain_of_all([0.04, 0.06], points, 50, test_share=0.2)
    >>> round(gain, 4)  # 0.05, less what the baseline has yet to learn: 2 / 40 - 2 / 50
    0.04
    """
    laws = _pseudo(curve, lambda sizes, scores: _gain(sizes, scores, n) - _gain(sizes, scores, sizes[-1]))
    if laws is None or len(gains) < 2 or float(np.ptp(gains)) <= NO_SPREAD:
        return None
    step, values = laws
    _, doubt, few = resampled_t(values, test_share=test_share)
    mean, error, freedom = resampled_t(gains, test_share=test_share)
    if doubt > error:
        return None
    both = error**2 + doubt**2
    freedom_of_both = both**2 / (error**4 / freedom + doubt**4 / few)
    reach = float(stats.t.isf((1.0 - level) / 2.0, freedom_of_both)) * math.sqrt(both)
    return mean + step, (max(-1.0, mean + step - reach), min(1.0, mean + step + reach))


def _pseudo(curve: Sequence[CurvePoint], ask: Callable[[np.ndarray, np.ndarray], float]) -> tuple[float, np.ndarray] | None:
    """Return what is asked of sizes and mean scores (points, 2), and the jackknife's pseudo-values (folds,); ``None`` for a curve that is too short."""
    folds = min((len(p.folds) for p in curve), default=0)
    if len(curve) < LEAST_POINTS or folds < 2:
        return None
    sizes = np.array([p.n for p in curve], dtype=np.float64)
    scores = np.array([p.folds[:folds] for p in curve], dtype=np.float64)  # (points, folds, 2)
    whole = ask(sizes, scores.mean(axis=1))
    without = [ask(sizes, np.delete(scores, k, axis=1).mean(axis=1)) for k in range(folds)]
    return whole, folds * whole - (folds - 1) * np.array(without)


def outlook(verdict: Verdict, gains: Sequence[float], curve: Sequence[CurvePoint], *, test_share: float, n: int, trained: int, of_curve: bool) -> Outlook:
    """Return what more labels would bring to a run on ``n`` labels: how many settle its verdict, and the gain with twice as many.

    ``trained`` is how many of them the shipped model is fitted on; ``of_curve``: whether the verdict is about the arm that the curve shows.
    """
    undecided = verdict.decision == "undecided"
    more = labels_needed(gains, test_share=test_share, n=n, level=verdict.level, margin=verdict.margin) if undecided else 0
    foretold = gain_at(curve, 2 * curve[-1].n, test_share=test_share, level=verdict.level) if curve else None
    gain, interval = (None, None) if foretold is None else foretold
    whole = gain_of_all(gains, curve, trained, test_share=test_share, level=verdict.level) if of_curve else None
    corrected = None if whole is None else Corrected(*whole, folds=curve[-1].n, trained=trained)
    return Outlook(more, 2 * n, gain, interval, verdict.level, corrected)


def _gain(sizes: np.ndarray, scores: np.ndarray, n: int) -> float:
    """Return the difference at n of the laws fitted to (points, 2) scores of transfer and baseline."""
    return _law(sizes, scores[:, 0], n) - _law(sizes, scores[:, 1], n)


def _law(sizes: np.ndarray, scores: np.ndarray, n: int) -> float:
    """Return a - b n^-c at n, the least squares fit over exponents c with b >= 0 and a <= 1."""
    best = (np.inf, float(scores.mean()))
    for c in EXPONENTS:
        x = (sizes / sizes[-1]) ** -c
        slope = float(np.cov(x, scores, bias=True)[0, 1] / x.var())
        slope = min(slope, 0.0)
        top = float(scores.mean() - slope * x.mean())
        if top > 1.0:
            top, slope = 1.0, min(0.0, float(x @ (scores - 1.0) / (x @ x)))
        left = float(np.sum((top + slope * x - scores) ** 2))
        if left < best[0] - NO_SPREAD:
            best = (left, top + slope * float((n / sizes[-1]) ** -c))
    return best[1]
