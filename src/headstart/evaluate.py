"""Did it work: metrics, splits that nothing leaks through, and intervals that say how sure a score is.

Classes are codes 0..c-1 throughout, except in the splits, which take codes or names. ``classes`` is how many there are; 0 stands for regression,
where targets are numbers and a model's output is (n, 1) instead of (n, c) probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.core import InputError
from headstart.guard import resampled_t

METRIC = "balanced accuracy"
R2 = "R2"
BINS = 5  # of a numeric target, to stratify by: quintiles resolve its tails and leave enough cases in each
TRIES = 50  # shuffles of the groups before a split is called impossible
SMALLEST = 1e-12  # a probability of 0 counts as this: one such mistake costs 27.6 nats instead of infinity
TEMPERATURES = (0.05, 20.0)

Split = tuple[np.ndarray, np.ndarray]


def balanced_accuracy(y: Sequence[int] | np.ndarray, codes: Sequence[int] | np.ndarray) -> float:
    """Return the mean recall of the classes that y holds, 0..1; chance is 1/c whatever the class sizes.

    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    y, codes = np.asarray(y, dtype=np.intp), np.asarray(codes)
    held, right = np.bincount(y), np.bincount(y, weights=y == codes)
    return float(np.mean(right[held > 0] / held[held > 0]))


def accuracy(y: Sequence[int] | np.ndarray, codes: Sequence[int] | np.ndarray) -> float:
    """Return the share of cases that were predicted right, 0..1.

    >>> accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.75
    """
    return float(np.mean(np.asarray(y) == np.asarray(codes)))


def r2(y: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> float:
    """Return the share of the target's variance that is explained, floored at 0: worse than the mean counts as the mean, 0..1.

    The floor keeps one wild prediction in one fold from deciding a comparison. 0 where the target is constant.

    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]), r2([1.0, 2.0, 3.0], [9.0, 9.0, 9.0])
    (0.5, 0.0)
    """
    y, predicted = np.asarray(y, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    spread = float(np.sum((y - y.mean()) ** 2))
    return max(0.0, 1.0 - float(np.sum((y - predicted) ** 2)) / spread) if spread > 0 else 0.0


def metric(classes: int) -> str:
    """Return the name of the score: balanced accuracy, or R2 where ``classes`` is 0."""
    return METRIC if classes else R2


def score(y: np.ndarray, output: np.ndarray, *, classes: int) -> float:
    """Return the score of outputs, 0..1 and higher is better: (n, c) probabilities, or (n, 1) numbers where ``classes`` is 0."""
    return balanced_accuracy(y, output.argmax(axis=1)) if classes else r2(y, output[:, 0])


def strata(y: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes (n,) and names of what splits are stratified by: the classes, or up to five quantile bins of a numeric target.

    >>> strata(np.array([1.0, 2.0, 3.0, 4.0] * 5), ())[1]
    ('1 to 2', '3 to 4')
    """
    if labels:
        return y, tuple(labels)
    bins = max(2, min(BINS, len(y) // 10))
    edges = np.unique(np.quantile(y, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    codes = np.unique(np.searchsorted(edges, y, side="left"), return_inverse=True)[1]
    return codes, tuple(f"{y[codes == c].min():g} to {y[codes == c].max():g}" for c in range(codes.max() + 1))


def log_loss(y: Sequence[int] | np.ndarray, proba: np.ndarray) -> float:
    """Return the mean -log probability of the true class in nats; ``proba`` is (n, c), and log(c) is chance.

    >>> round(log_loss([0, 1], np.array([[0.5, 0.5], [0.5, 0.5]])), 4)
    0.6931
    """
    y = np.asarray(y, dtype=np.intp)
    return float(-np.mean(np.log(np.maximum(np.asarray(proba)[np.arange(len(y)), y], SMALLEST))))


def expected_calibration_error(y: Sequence[int] | np.ndarray, proba: np.ndarray, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal bins of the top probability, 0..1 (Guo et al. 2017, eq. 3).

    Bins are closed on the right. Biased upwards on few cases: a perfectly calibrated model does not score 0.

    >>> expected_calibration_error([0, 1], np.array([[0.75, 0.25], [0.75, 0.25]]))
    0.25
    """
    y, proba = np.asarray(y), np.asarray(proba)
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == y
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(y))


def holdout(y: Sequence[Any] | np.ndarray, *, groups: Sequence[Any] | np.ndarray | None = None, share: float = 0.25, seed: int) -> Split:
    """Return row numbers of a training and a test part, in rising order.

    Stratified: each class gives the test part ``share`` of its cases, rounded, at least one and never all; groups stay whole, so their
    shares are approximate. Give duplicates as groups.

    Parameters
    ----------
    y : (n,) codes or names
    groups : (n,) who must not be on both sides, or ``None``
    share : of the cases that are tested, between 0 and 1; a quarter leaves most for training and still resolves 0.1 at n = 300

    Raises
    ------
    InputError
        no split puts every class on both sides; names the class.

    Examples
    --------
    >>> train, test = holdout(["a"] * 4 + ["b"] * 4, seed=0)
    >>> len(train), len(test)
    (6, 2)
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"The test share is {share}; a number between 0 and 1 is needed. 0.25 tests a quarter.")
    names, codes, units = _classes_and_units(y, groups)
    counts = np.bincount(codes)
    wanted = np.clip(np.round(share * counts), 1, np.maximum(1, counts - 1))
    per_unit = np.zeros((units.max() + 1, len(names)))
    np.add.at(per_unit, (units, codes), 1)
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        tested = _pick_units(per_unit, wanted, rng.permutation(len(per_unit)))
        have = per_unit[tested].sum(axis=0)
        if np.all((have > 0) & (have < counts)):
            is_test = tested[units]
            return np.flatnonzero(~is_test), np.flatnonzero(is_test)
    worst = int(np.argmin(np.minimum(have, counts - have)))
    raise InputError(_cannot_split(names, per_unit, worst, "on both sides of the test split"))


def folds(y: Sequence[Any] | np.ndarray, *, groups: Sequence[Any] | np.ndarray | None = None, k: int = 5, repeats: int = 1, seed: int) -> list[Split]:
    """Return ``repeats`` times k stratified (training rows, test rows), each repeat shuffled anew.

    k falls to the size of the smallest class, or to the least number of groups that hold a class. Every training part holds every class;
    a test part may lack one where groups are large.

    Parameters
    ----------
    y : (n,) codes or names
    groups : (n,) who must not be in two folds of a repeat, or ``None``

    Raises
    ------
    InputError
        fewer than two folds, or none in which every training part holds every class; names the class.

    Examples
    --------
    >>> [(len(train), len(test)) for train, test in folds(["a"] * 4 + ["b"] * 4, k=2, repeats=2, seed=0)]
    [(4, 4), (4, 4), (4, 4), (4, 4)]
    """
    names, codes, units = _classes_and_units(y, groups)
    per_class = np.array([len(np.unique(units[codes == c])) for c in range(len(names))])
    per_unit = np.zeros((units.max() + 1, len(names)))
    np.add.at(per_unit, (units, codes), 1)
    k = min(k, int(per_class.min()))
    if k < 2:
        raise InputError(_cannot_split(names, per_unit, int(per_class.argmin()), "in two folds"))
    out: list[Split] = []
    for child in np.random.SeedSequence(seed).spawn(repeats):
        out += _one_repeat(names, codes, None if groups is None else units, k, child.generate_state(TRIES), per_unit)
    return out


def share_tested(splits: Sequence[Split]) -> float:
    """Return n_test / n, the mean over splits: what the interval of a mean and the guard ask for. ``folds`` may give fewer than the k asked.

    >>> share_tested(folds(["a"] * 10 + ["b"] * 2, k=5, seed=0))
    0.5
    """
    return float(np.mean([len(test) / (len(train) + len(test)) for train, test in splits]))


def interval_of_mean(fold_scores: Sequence[float], *, test_share: float, cases: int = 0, level: float = 0.90) -> tuple[float, float] | None:
    """Return the corrected resampled t interval of a mean score (Nadeau & Bengio 2003), within 0..1; ``None`` with fewer than two folds.

    ``test_share`` is n_test / n of a fold. Equal scores in every fold show no spread, which is no certainty: where they are shares of right ones among so many
    ``cases``, the interval is then Jeffreys' of that share; with 0 it has no width.

    >>> low, high = interval_of_mean([0.6, 0.8], test_share=0.5, level=0.5)  # 0.7 +- 1.0 sqrt(0.02 (1/2 + 1)), t(1) quantile 1
    >>> round(low, 4), round(high, 4)
    (0.5268, 0.8732)
    >>> [round(end, 2) for end in interval_of_mean([1.0, 1.0, 1.0], test_share=0.3, cases=30)]
    [0.94, 1.0]
    """
    if len(fold_scores) < 2:
        return None
    mean, error, freedom = resampled_t(fold_scores, test_share=test_share)
    if cases and min(fold_scores) == max(fold_scores):
        return _of_share(mean, cases, level=level)
    reach = float(stats.t.isf((1.0 - level) / 2.0, freedom)) * error
    return max(0.0, mean - reach), min(1.0, mean + reach)


def interval_of_test(
    y: Sequence[int] | np.ndarray, codes: Sequence[int] | np.ndarray, *, groups: np.ndarray | None = None, level: float = 0.90
) -> tuple[float, float]:
    """Return an interval of the balanced accuracy on a test set.

    The mean of c recalls, of n_k cases each, spreads like the share of right ones among N = c^2 / sum 1 / n_k cases, so that Jeffreys' interval of such a share
    is taken (Brown, Cai & DasGupta 2001), widened to hold the estimate itself, which at 0 and 1 lies outside (ibid., sec. 4.1.2). Unlike a bootstrap it keeps
    its width when every case is right. A prior for each class by itself would pull each recall to a half: of 20 classes of 3 cases, .9 of them right, such
    90 % intervals held 57 %, these hold 91 %.

    Cases of one of the ``groups`` (n,) are right or wrong together as far as they are seen to be: N is divided by how much wider the groups' sums of weighed
    errors spread than those of as many single cases would (Kish 1965's design effect), and by the t quantile of so few groups over the normal one, both
    squared; where all are right or all wrong, N is the number of groups. Groups themselves are independent.

    >>> low, high = interval_of_test([0] * 20 + [1] * 20, [0] * 20 + [1] * 20)
    >>> low < 0.97 and high == 1.0
    True
    """
    y, codes = np.asarray(y), np.asarray(codes)
    _, places, counts = np.unique(y, return_inverse=True, return_counts=True)
    point, n = balanced_accuracy(y, codes), len(counts) ** 2 / np.sum(1.0 / counts)
    right = (codes == y).astype(float)
    if groups is not None and len(np.unique(groups)) < len(y):
        n /= _design_effect(right, places, counts, groups, n, level=level)
    return _of_share(point, n, level=level)


def _of_share(point: float, n: float, *, level: float) -> tuple[float, float]:
    """Return Jeffreys' interval of a share of n, widened to hold the estimate."""
    tail = (1.0 - level) / 2.0
    low, high = stats.beta.ppf([tail, 1.0 - tail], n * point + 0.5, n * (1.0 - point) + 0.5)
    return min(float(low), point), max(float(high), point)


def _design_effect(right: np.ndarray, places: np.ndarray, counts: np.ndarray, groups: np.ndarray, n: float, *, level: float) -> float:
    _, units = np.unique(groups, return_inverse=True)
    k, recalls = int(units.max()) + 1, np.bincount(places, weights=right) / counts
    point = float(recalls.mean())
    if k < 2:
        return n
    if point in (0.0, 1.0):
        return max(1.0, n / k)
    sums = np.bincount(units, weights=(right - recalls[places]) / (len(counts) * counts[places]))
    wider = float(np.sum(sums**2)) * k / (k - 1) * n / (point * (1.0 - point))
    tail = (1.0 - level) / 2.0
    return max(1.0, wider) * float(stats.t.isf(tail, k - 1) / stats.norm.isf(tail)) ** 2


def interval_of_r2(
    y: np.ndarray, predicted: np.ndarray, *, groups: np.ndarray | None = None, level: float = 0.90, seed: int, draws: int = 2000
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of :func:`r2` on a test set, widened to hold the estimate itself; of whole ``groups`` (n,) where there are any.

    Of few cases it is too narrow: 90 % intervals of 12 held about 80 %, of 25 about 85 %, of 50 about 87 %.

    >>> interval_of_r2(np.arange(9.0), np.arange(9.0), seed=0)
    (1.0, 1.0)
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        rows: Sequence[np.ndarray] = list(rng.integers(0, len(y), size=(draws, len(y))))
    else:
        _, units = np.unique(groups, return_inverse=True)
        own = [np.flatnonzero(units == one) for one in range(int(units.max()) + 1)]
        rows = [np.concatenate([own[one] for one in drawn]) for drawn in rng.integers(0, len(own), size=(draws, len(own)))]
    low, high = np.quantile([r2(y[i], predicted[i]) for i in rows], [(1 - level) / 2, (1 + level) / 2])
    point = r2(y, predicted)
    return min(float(low), point), max(float(high), point)


def interval_of_score(y: np.ndarray, output: np.ndarray, *, classes: int, groups: np.ndarray | None, seed: int) -> tuple[float, float]:
    """Return the interval of :func:`score` on a test set."""
    if classes:
        return interval_of_test(y, output.argmax(axis=1), groups=groups)
    return interval_of_r2(y, output[:, 0], groups=groups, seed=seed)


def reach(y: np.ndarray, predicted: np.ndarray, *, level: float = 0.90) -> float:
    """Return the half width that holds ``level`` of unseen targets: the split-conformal quantile of absolute errors (Lei et al. 2018, sec. 2.2).

    Errors must come from cases that the model was not fitted on. Infinite where n is too small for the level is never returned: then the
    largest error is.

    >>> reach(np.zeros(9), np.arange(1.0, 10.0), level=0.9)  # rank ceil(0.9 * 10) = 9
    9.0
    """
    errors = np.sort(np.abs(np.asarray(y) - np.asarray(predicted)))
    return float(errors[min(len(errors), int(np.ceil(level * (len(errors) + 1)))) - 1])


def temperature(y: Sequence[int] | np.ndarray, proba: np.ndarray) -> float:
    """Return the temperature, 0.05..20, that minimises log loss (Guo et al. 2017, sec. 4.2); above 1 softens, 1 changes nothing.

    Fit it on cases that the model was not fitted on. The loss is convex in 1/temperature, so the minimum is the only one.

    >>> proba = np.array([[0.9, 0.1]] * 4)
    >>> round(temperature([0, 0, 0, 1], proba), 3)  # 3 of 4 are right: 0.9 should have been 0.75, log 9 / log 3
    2.0
    """
    y = np.asarray(y, dtype=np.intp)
    log_proba, rows = _log(proba), np.arange(len(y))

    def loss(inverse: float) -> float:
        return -float(log_softmax(inverse * log_proba, axis=1)[rows, y].mean())

    coldest, hottest = TEMPERATURES
    found = minimize_scalar(loss, bounds=(1.0 / hottest, 1.0 / coldest), method="bounded", options={"xatol": 1e-8})
    return float(np.clip(1.0 / found.x, coldest, hottest))


def scale(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n, c) at that temperature: p^(1/t), normalised. The most probable class stays.

    >>> scale(np.array([[0.9, 0.1]]), 2.0).round(3).tolist()
    [[0.75, 0.25]]
    """
    scaled: np.ndarray = softmax(_log(proba) / temperature, axis=1)
    return scaled


def _log(proba: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(np.asarray(proba, dtype=np.float64), SMALLEST))
    return logs


def _classes_and_units(y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class names, class codes (n,) and unit codes (n,); a unit is a group, or a row where there are no groups."""
    names, codes = np.unique(np.asarray(y), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"{len(codes)} cases of {len(names)} class(es) cannot be split; at least 2 classes are needed. Add cases of another class.")
    if groups is None:
        return names, codes, np.arange(len(codes))
    if len(groups) != len(codes):
        raise InputError(f"There are {len(groups)} groups for {len(codes)} cases. Give one for each case.")
    return names, codes, np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]


def _pick_units(per_unit: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return (units,) which are tested: largest first, one is taken while it brings the class counts nearer to what is wanted."""
    order = order[np.argsort(-per_unit[order].sum(axis=1), kind="stable")]
    tested, missing = np.zeros(len(per_unit), dtype=bool), wanted.astype(float)
    for unit in order:
        after = missing - per_unit[unit]
        if np.sum((after / wanted) ** 2) < np.sum((missing / wanted) ** 2):
            tested[unit], missing = True, after
    return tested


def _one_repeat(names: np.ndarray, codes: np.ndarray, units: np.ndarray | None, k: int, seeds: np.ndarray, per_unit: np.ndarray) -> list[Split]:
    """Return the first shuffle whose training parts hold every class; ungrouped, that is the first."""
    splitter = StratifiedKFold if units is None else StratifiedGroupKFold
    lacking = 0
    for state in seeds:
        splits = list(splitter(k, shuffle=True, random_state=int(state)).split(codes[:, None], codes, units))
        gaps = [np.flatnonzero(np.bincount(codes[train], minlength=len(names)) == 0) for train, _ in splits]
        if all(len(gap) == 0 for gap in gaps) and all(len(test) for _, test in splits):
            return splits
        lacking = next((int(gap[0]) for gap in gaps if len(gap)), lacking)
    raise InputError(_cannot_split(names, per_unit, lacking, f"in the training part of each of {k} folds"))


def _cannot_split(names: np.ndarray, per_unit: np.ndarray, c: int, where: str) -> str:
    cases, holders = int(per_unit[:, c].sum()), int(np.count_nonzero(per_unit[:, c]))
    what = f"{cases} case(s)" if holders == cases else f"{cases} case(s) in {holders} group(s)"
    return f"Class {str(names[c])!r} has {what}, too few to stand {where}. Add cases{'' if holders == cases else ' from other groups'}, or leave the class out."
