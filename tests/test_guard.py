"""The guard: closed forms, laws, and its error rate over simulated worlds."""

from __future__ import annotations

import re
from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import RepeatedStratifiedKFold

from headstart.guard import holm, judge, resampled_t


def test_the_interval_equals_the_closed_form():
    """d = .10, .20, .00, .10: mean 1/10, s^2 = (0 + 1 + 1 + 0)/100/3 = 1/150; factor 1/4 + 1/4; error^2 = 1/300; t(3) at 95 % = 2.353363."""
    verdict = judge([0.8, 0.9, 0.7, 0.8], [0.7, 0.7, 0.7, 0.7], test_share=0.2)
    reach = 2.3533634348018264 * sqrt(1 / 300)
    assert verdict.gain == pytest.approx(0.1)
    assert verdict.interval == pytest.approx((0.1 - reach, 0.1 + reach))
    assert verdict.p_gain == pytest.approx(stats.t(3).cdf(0.1 * sqrt(300)))
    assert (verdict.decision, verdict.ship, verdict.folds, verdict.level) == ("undecided", "transfer", 4, 0.90)


def test_two_folds_follow_the_cauchy_distribution():
    """With two folds t has 1 degree of freedom, whose distribution is 1/2 + atan(t)/pi."""
    verdict = judge([0.6, 0.8], [0.5, 0.5], test_share=0.5, level=0.5)
    error = sqrt(0.02 * (1 / 2 + 1))
    assert verdict.interval == pytest.approx((0.2 - error, 0.2 + error))
    assert verdict.p_gain == pytest.approx(0.5 + np.arctan(0.2 / error) / np.pi)


def test_the_standard_error_exceeds_that_of_a_plain_t_test():
    values = np.random.default_rng(0).normal(0.1, 0.05, 25)
    mean, error, freedom = resampled_t(values, test_share=0.2)
    assert (mean, freedom) == (pytest.approx(values.mean()), 24)
    assert error == pytest.approx(stats.sem(values) * sqrt(1 + 25 / 4))


@pytest.mark.parametrize(
    ("gain", "decision", "ship"),
    [(0.20, "transfer", "transfer"), (-0.20, "do not transfer", "baseline"), (0.01, "undecided", "transfer"), (-0.01, "undecided", "baseline")],
)
def test_the_interval_decides_and_the_sign_ships(gain, decision, ship):
    noise = 0.03 * np.array([1, -1, 1, -1, 0])
    verdict = judge(0.6 + gain + noise, np.full(5, 0.6))
    assert (verdict.decision, verdict.ship) == (decision, ship)


def test_a_gain_below_the_margin_is_none_that_matters():
    gains = np.array([0.010, 0.012, 0.008, 0.011, 0.009])
    assert judge(0.7 + gains, np.full(5, 0.7)).decision == "transfer"
    verdict = judge(0.7 + gains, np.full(5, 0.7), margin=0.05)
    assert (verdict.decision, verdict.ship) == ("do not transfer", "baseline")
    assert verdict.p_gain < 0.01


@pytest.mark.parametrize("folds", [2, 5, 25])
def test_identical_arms_are_undecided_and_ship_the_baseline(folds):
    scores = np.random.default_rng(folds).uniform(size=folds)
    verdict = judge(scores, scores)
    assert (verdict.decision, verdict.ship, verdict.gain, verdict.p_gain) == ("undecided", "baseline", 0.0, 0.5)
    low, high = verdict.interval
    assert low <= 0.0 <= high


@pytest.mark.parametrize(("folds", "decision", "interval"), [(4, "undecided", (-1.0, 1.0)), (5, "transfer", (0.1, 0.1))])
def test_equal_gains_need_as_many_folds_as_coins_that_fall_alike(folds, decision, interval):
    verdict = judge(np.linspace(0.5, 0.8, folds) + 0.1, np.linspace(0.5, 0.8, folds))
    assert verdict.decision == decision
    assert verdict.interval == pytest.approx(interval)
    assert verdict.p_gain == 1 - 0.5**folds
    assert verdict.ship == "transfer"


def test_one_fold_decides_nothing_but_still_ships_the_better_arm():
    verdict = judge([0.9], [0.5])
    assert (verdict.decision, verdict.interval, verdict.p_gain, verdict.ship) == ("undecided", (-1.0, 1.0), 0.5, "transfer")
    assert judge([0.5], [0.9]).ship == "baseline"


def test_swapping_the_arms_negates_gain_and_interval():
    rng = np.random.default_rng(0)
    for folds in (1, 2, 5, 25):
        a, b = rng.uniform(size=(2, folds))
        there, back = judge(a, b), judge(b, a)
        assert back.gain == pytest.approx(-there.gain)
        assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
        assert back.p_gain == pytest.approx(1 - there.p_gain)


def test_adding_a_constant_to_both_arms_or_reordering_folds_changes_nothing():
    a, b = np.random.default_rng(1).uniform(0.0, 0.5, size=(2, 10))
    verdict = judge(a, b)
    for other in (judge(a + 0.3, b + 0.3), judge(a[::-1], b[::-1])):
        assert other.decision == verdict.decision
        assert (other.gain, other.p_gain, *other.interval) == pytest.approx((verdict.gain, verdict.p_gain, *verdict.interval))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            [0.5, 0.6],
            [0.5],
            "with_transfer has shape (2,) and without (1,); one score per fold of both arms is needed. Score both on the same folds.",
        ),
        ([], [], "There are no fold scores; at least one fold of both arms is needed, and two for an interval."),
        (
            [0.5, float("nan")],
            [0.5, 0.5],
            "Fold 1 scored nan with transfer, 0.5 without; finite scores are needed. Leave out a failed fold in both arms.",
        ),
        (
            [0.5, 0.5],
            [float("-inf"), 0.5],
            "Fold 0 scored 0.5 with transfer, -inf without; finite scores are needed. Leave out a failed fold in both arms.",
        ),
        ([85.0], [80.0], "Scores differ by up to 5; scores of 0..1 are needed. Divide percentages by 100."),
    ],
)
def test_bad_scores_are_refused_in_one_line(a, b, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        judge(a, b)


@pytest.mark.parametrize("setting", [{"test_share": 0.0}, {"test_share": 1.0}, {"level": 0.0}, {"level": 90}])
def test_settings_outside_their_range_are_refused(setting):
    with pytest.raises(ValueError, match=r"both lie between 0 and 1\. Five folds have a test_share of 0\.2\."):
        judge([0.5, 0.6], [0.5, 0.7], **setting)


def test_holm_is_the_closed_test_of_bonferroni():
    """By the closure principle a hypothesis is rejected where every set of hypotheses that holds it is: by brute force over all sets (Marcus et al. 1976)."""
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 7):
        p = rng.uniform(0, 0.2, size=m) ** 2
        sets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
        closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(m)]
        assert holm(p) == pytest.approx(closed)


def test_holm_keeps_false_claims_at_the_level_whatever_ties_the_tests_together():
    """2,000 draws of 12 true nulls that share most of their noise, as sources that are judged on the same folds do."""
    rng = np.random.default_rng(1)
    z = sqrt(0.7) * rng.normal(size=(2000, 1)) + sqrt(0.3) * rng.normal(size=(2000, 12))
    p = stats.norm.sf(z)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.12
    assert np.mean([min(holm(row)) <= 0.05 for row in p]) <= 0.05 + 2 * sqrt(0.05 * 0.95 / 2000)


def world(*, noise: tuple[float, float], n: int = 60, d: int = 8, repeats: int = 2, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fold accuracies of a ridge rule on two noisy views of the same cases, over the same repeated folds."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    views = [0.4 * y[:, None] * rng.choice([-1.0, 1.0], d) + s * rng.normal(size=(n, d)) for s in noise]
    splits = list(RepeatedStratifiedKFold(n_splits=5, n_repeats=repeats, random_state=seed).split(y[:, None], y))
    scores = [[_accuracy(X, y, train, test) for train, test in splits] for X in views]
    return np.array(scores[0]), np.array(scores[1])


def _accuracy(X, y, train, test):
    w = np.linalg.solve(X[train].T @ X[train] + np.eye(X.shape[1]), X[train].T @ y[train])
    return np.mean(np.sign(X[test] @ w) == y[test])


def test_equal_arms_are_called_different_no_more_often_than_stated():
    """400 worlds with two exchangeable feature maps and truly overlapping folds: 5 % on each side, plus 2 standard errors of the count."""
    verdicts = [judge(*world(noise=(1.0, 1.0), seed=s)) for s in range(400)]
    allowed = 0.05 + 2 * sqrt(0.05 * 0.95 / 400)
    assert np.mean([v.decision == "transfer" for v in verdicts]) <= allowed
    assert np.mean([v.decision == "do not transfer" for v in verdicts]) <= allowed
    assert 0.4 < np.mean([v.ship == "transfer" for v in verdicts]) < 0.6


def test_a_plain_t_test_on_the_same_worlds_breaks_its_promise():
    """Why the correction: without it the same folds call equal arms different several times too often."""
    rejected = []
    for s in range(400):
        a, b = world(noise=(1.0, 1.0), seed=s)
        d = a - b
        rejected.append(np.ptp(d) > 0 and d.mean() / stats.sem(d) > stats.t(len(d) - 1).isf(0.05))
    assert np.mean(rejected) > 0.10


def test_a_planted_gain_is_found_and_a_planted_harm_ships_the_baseline():
    gains = [judge(*world(noise=(0.4, 3.0), seed=s)) for s in range(50)]
    assert np.mean([v.decision == "transfer" for v in gains]) > 0.9
    harms = [judge(*world(noise=(3.0, 0.4), seed=s)) for s in range(50)]
    assert all(v.ship == "baseline" for v in harms)
    assert np.mean([v.decision == "do not transfer" for v in harms]) > 0.9
