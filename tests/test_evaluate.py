"""Metrics against scikit-learn, splits against their promises, intervals against coverage."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from headstart import evaluate
from headstart.core import InputError
from headstart.evaluate import folds, holdout, interval_of_mean, interval_of_r2, interval_of_test, scale, temperature


@pytest.fixture
def guesses():
    rng = np.random.default_rng(0)
    y = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    proba = rng.dirichlet(np.ones(4), 300) * 0.5 + 0.5 * np.eye(4)[np.where(rng.uniform(size=300) < 0.6, y, rng.integers(0, 4, 300))]
    return y, proba


def test_metrics_agree_with_scikit_learn(guesses):
    y, proba = guesses
    codes = proba.argmax(axis=1)
    assert evaluate.balanced_accuracy(y, codes) == pytest.approx(metrics.balanced_accuracy_score(y, codes))
    assert evaluate.accuracy(y, codes) == pytest.approx(metrics.accuracy_score(y, codes))
    assert evaluate.log_loss(y, proba) == pytest.approx(metrics.log_loss(y, proba))


def test_an_impossible_class_costs_much_but_not_infinity():
    assert evaluate.log_loss([0], np.array([[0.0, 1.0]])) == pytest.approx(12 * np.log(10))


def test_calibration_error_is_the_weighted_gap_per_bin():
    """Two bins: confidence .6 with 1 of 2 right (gap .1, 2 of 5 cases), .9 with 3 of 3 right (gap .1, 3 of 5 cases)."""
    proba = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    assert evaluate.expected_calibration_error([0, 1, 0, 0, 1], proba) == pytest.approx(0.4 * 0.1 + 0.6 * 0.1)


def test_calibration_error_of_calibrated_probabilities_vanishes_with_n():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1.0, 200_000)
    y = (rng.uniform(size=len(p)) > p).astype(int)
    assert evaluate.expected_calibration_error(y, np.stack([p, 1 - p], axis=1)) < 0.005


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_holdout_takes_the_share_of_every_class(share):
    y = np.repeat(["a", "b", "c"], [100, 40, 4])
    train, test = holdout(y, share=share, seed=0)
    assert sorted([*train, *test]) == list(range(144))
    for name, n in (("a", 100), ("b", 40), ("c", 4)):
        assert np.sum(y[test] == name) == max(1, round(share * n))


def test_holdout_puts_a_class_of_two_on_both_sides():
    train, test = holdout([0] * 20 + [1, 1], seed=0)
    assert np.sum(train >= 20) == np.sum(test >= 20) == 1


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_split(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, 300)
    y = (groups + rng.integers(0, 2, 300)) % 3
    for train, test in [holdout(y, groups=groups, seed=seed), *folds(y, groups=groups, repeats=2, seed=seed)]:
        assert not set(groups[train]) & set(groups[test])
        assert len(train) + len(test) == 300
        assert set(y[train]) == {0, 1, 2}
    _, test = holdout(y, groups=groups, seed=seed)
    assert set(y[test]) == {0, 1, 2}
    assert len(test) == pytest.approx(75, abs=15)


def test_duplicates_given_as_groups_stay_together_and_cost_no_balance():
    y = np.repeat([0, 1], 100)
    groups = np.array([str(i) for i in range(200)])
    groups[[1, 50]] = "0"
    train, test = holdout(y, groups=groups, seed=1)
    assert {0, 1, 50} <= set(train) or {0, 1, 50} <= set(test)
    assert abs(np.sum(y[test] == 0) - 25) <= 1
    assert np.sum(y[test] == 1) == 25


def test_folds_partition_the_cases_in_every_repeat_and_repeats_differ():
    y = np.arange(50) % 2
    splits = folds(y, k=5, repeats=3, seed=0)
    assert len(splits) == 15
    for r in range(3):
        assert sorted(np.concatenate([test for _, test in splits[5 * r : 5 * r + 5]])) == list(range(50))
    assert not np.array_equal(splits[0][1], splits[5][1])


@pytest.mark.parametrize(("smallest", "k"), [(2, 2), (3, 3), (9, 5)])
def test_folds_fall_to_the_size_of_the_smallest_class(smallest, k):
    y = [0] * 20 + [1] * smallest
    splits = folds(y, k=5, seed=0)
    assert len(splits) == k
    assert all(set(np.array(y)[train]) == {0, 1} == set(np.array(y)[test]) for train, test in splits)


def test_folds_fall_to_the_number_of_groups_that_hold_a_class():
    y = np.array([0] * 20 + [1] * 9)
    groups = np.array([*range(20), *[20, 21, 22] * 3])
    assert len(folds(y, groups=groups, k=5, seed=0)) == 3


@pytest.mark.parametrize("split", [holdout, folds])
def test_splits_depend_on_the_seed_alone(split):
    y = np.arange(60) % 3
    assert repr(split(y, seed=1)) == repr(split(y, seed=1)) != repr(split(y, seed=2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: holdout(["a", "a", "b"], seed=0),
            "Class 'b' has 1 case(s), too few to stand on both sides of the test split. Add cases, or leave the class out.",
        ),
        (
            lambda: folds(["a", "a", "b"], seed=0),
            "Class 'b' has 1 case(s), too few to stand in two folds. Add cases, or leave the class out.",
        ),
        (
            lambda: holdout(["a", "a", "b", "b"], groups=[1, 2, 3, 3], seed=0),
            "Class 'b' has 2 case(s) in 1 group(s), too few to stand on both sides of the test split. Add cases from other groups, or leave the class out.",
        ),
        (
            lambda: folds(["a", "a", "b", "b"], groups=[1, 2, 3, 3], seed=0),
            "Class 'b' has 2 case(s) in 1 group(s), too few to stand in two folds. Add cases from other groups, or leave the class out.",
        ),
        (lambda: holdout(["a", "a"], seed=0), "2 cases of 1 class(es) cannot be split; at least 2 classes are needed. Add cases of another class."),
        (lambda: folds(["a", "b"], groups=[1], seed=0), "There are 1 groups for 2 cases. Give one for each case."),
        (lambda: holdout(["a", "b"], share=1.5, seed=0), "The test share is 1.5; a number between 0 and 1 is needed. 0.25 tests a quarter."),
    ],
)
def test_impossible_splits_name_the_class_and_the_way_out(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == message


def test_interval_of_a_mean_equals_the_closed_form():
    """Scores .7, .8, .9: mean .8, s^2 = .01, factor 1/3 + 1/2, t(2) at 95 % = 2.919986."""
    low, high = interval_of_mean([0.7, 0.8, 0.9], test_share=1 / 3)
    reach = 2.919985580353726 * sqrt(0.01 * 5 / 6)
    assert (low, high) == pytest.approx((0.8 - reach, min(1.0, 0.8 + reach)))


def test_equal_scores_of_all_folds_are_no_certainty_where_cases_are_counted():
    """Thirty cases, .98 of them right: over half of the worlds have no mistake at all."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(500):
        scores = (rng.uniform(size=30) < 0.98).reshape(5, 6).mean(axis=1)
        low, high = interval_of_mean(scores, test_share=0.2, cases=30)
        inside.append(low <= 0.98 <= high)
    assert np.mean(inside) > 0.9  # .45 without
    assert interval_of_mean([0.9] * 3, test_share=0.3) == (0.9, 0.9)


def test_interval_of_a_mean_stays_in_range_and_needs_two_folds():
    assert interval_of_mean([0.0, 1.0], test_share=0.5) == (0.0, 1.0)
    assert interval_of_mean([0.7], test_share=0.2) is None


def test_interval_of_a_perfect_test_matches_jeffreys_posterior():
    """All right: the lower end is the 5 % point of Beta(n + 1/2, 1/2), for classes of unequal size with the n that their mean recall spreads like."""
    low, high = interval_of_test([0] * 30, [0] * 30)
    assert low == pytest.approx(stats.beta(30.5, 0.5).ppf(0.05), abs=1e-9)
    assert interval_of_test([0] * 30 + [1] * 10, [0] * 30 + [1] * 10)[0] == pytest.approx(stats.beta(30.5, 0.5).ppf(0.05), abs=1e-9)  # 4 / (1/30 + 1/10) = 30
    assert high == 1.0


def test_interval_of_a_test_covers_the_truth_as_often_as_stated():
    """1000 worlds, recalls .95 and .70 on 40 and 15 cases: coverage 90 %, within 4 standard errors and the conservatism of small counts."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [40, 15])
    inside = []
    for _ in range(1000):
        wrong = rng.uniform(size=55) > np.where(y == 0, 0.95, 0.70)
        low, high = interval_of_test(y, np.where(wrong, 1 - y, y))
        inside.append(low <= (0.95 + 0.70) / 2 <= high)
    assert 0.86 < np.mean(inside) < 0.97


@pytest.mark.parametrize(("classes", "each"), [(5, 5), (20, 3), (37, 25)])
def test_interval_of_a_test_covers_the_truth_of_many_classes(classes, each):
    """A prior for each class by itself held .78, .57 and .52 of these."""
    rng, y = np.random.default_rng(0), np.repeat(np.arange(classes), each)
    inside = []
    for _ in range(400):
        low, high = interval_of_test(y, np.where(rng.uniform(size=len(y)) < 0.9, y, (y + 1) % classes))
        inside.append(low <= 0.9 <= high)
    assert 0.85 < np.mean(inside) < 0.98


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_interval_of_a_test_covers_the_truth_where_cases_of_a_group_are_right_together(alike):
    """Twenty groups of five; cases of a group follow it with the square root of the correlation. Taken as independent, .66 were held at .5."""
    rng, y, groups = np.random.default_rng(0), np.arange(100) % 2, np.repeat(np.arange(20), 5)
    inside = []
    for _ in range(400):
        follows = rng.uniform(size=100) < sqrt(alike)
        right = np.where(follows, (rng.uniform(size=20) < 0.8)[groups], rng.uniform(size=100) < 0.8)
        low, high = interval_of_test(y, np.where(right, y, 1 - y), groups=groups)
        inside.append(low <= 0.8 <= high)
    assert 0.84 < np.mean(inside) < 0.98


def test_r2_of_few_groups_has_a_wider_interval_than_of_as_many_cases():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 10)
    y = rng.normal(size=80)
    predicted = y + rng.normal(size=8)[groups]
    (low, high), (least, most) = interval_of_r2(y, predicted, seed=0), interval_of_r2(y, predicted, groups=groups, seed=0)
    assert most - least > 1.3 * (high - low)


def test_interval_of_a_test_narrows_with_n():
    widths = []
    for n in (20, 200):
        y, codes = np.arange(n) % 2, np.where(np.arange(n) % 5 == 0, 0, np.arange(n) % 2)
        low, high = interval_of_test(y, codes)
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / sqrt(10), rel=0.2)


def test_temperature_recovers_a_planted_temperature():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.uniform(size=(20_000, 1)) > true.cumsum(axis=1)).sum(axis=1)
    assert temperature(y, true) == pytest.approx(1.0, abs=0.03)
    assert temperature(y, scale(true, 1 / 3)) == pytest.approx(3.0, abs=0.1)
    assert temperature(y, scale(true, 2.0)) == pytest.approx(0.5, abs=0.02)


def test_temperature_never_raises_log_loss_on_its_own_cases_and_keeps_the_ranking(guesses):
    y, proba = guesses
    calibrated = scale(proba, temperature(y, proba))
    assert evaluate.log_loss(y, calibrated) <= evaluate.log_loss(y, proba)
    assert np.array_equal(calibrated.argmax(axis=1), proba.argmax(axis=1))
    assert np.allclose(calibrated.sum(axis=1), 1.0)
    assert np.allclose(scale(proba, 1.0), proba)


def test_temperature_stays_within_its_bounds_where_nothing_or_everything_is_right():
    proba = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert temperature([0, 1], proba) == pytest.approx(0.05, rel=1e-3)
    assert temperature([1, 0], proba) == pytest.approx(20.0, rel=1e-3)
    assert np.isfinite(temperature([0, 1], np.array([[0.0, 1.0], [0.0, 1.0]])))


def test_share_tested_follows_the_folds_that_were_made():
    assert evaluate.share_tested(folds(np.arange(50) % 2, k=5, repeats=2, seed=0)) == pytest.approx(0.2)
    assert evaluate.share_tested(folds([0] * 9 + [1] * 3, k=5, seed=0)) == pytest.approx(1 / 3)
