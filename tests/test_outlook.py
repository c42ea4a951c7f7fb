"""The outlook: closed forms for the labels that settle a verdict, planted learning curves, and words."""

from __future__ import annotations

import dataclasses
import json
from math import ceil, sqrt

import numpy as np
import pytest
from scipy import stats

from headstart.guard import judge
from headstart.outlook import gain_at, gain_of_all, labels_needed, outlook
from headstart.result import Corrected, CurvePoint, Outlook, Score

SIZES = (20, 40, 80, 160)


def curve(transfer, baseline, *, folds=5, noise=0.0, seed=0):
    """Points of two laws n -> score, with noise of their own in every fold."""
    rng = np.random.default_rng(seed)
    none = Score("balanced accuracy", 0.0)
    rows = [[(transfer(n) + noise * rng.normal(), baseline(n) + noise * rng.normal()) for _ in range(folds)] for n in SIZES]
    return [CurvePoint(n, none, none, tuple(row)) for n, row in zip(SIZES, rows, strict=True)]


def test_the_labels_needed_follow_the_closed_form():
    """Mean .10, s^2 = 1/150, error^2 = 1/300 (as in test_guard); t(3): 2.353363 at 95 %, 0.978472 at 80 %."""
    more = labels_needed([0.1, 0.2, 0.0, 0.1], test_share=0.2, n=200)
    assert more == ceil(200 * (((2.3533634348 + 0.9784723124) * sqrt(1 / 300) / 0.1) ** 2 - 1))


def test_with_that_many_labels_the_verdict_is_settled_four_times_of_five():
    """Planted: mean gains drawn as the assumption says, normal about the gain with the error of the larger sample, judged by their t interval."""
    gains = 0.02 + np.array([0.05, -0.05, 0.04, -0.04, 0.0] * 3)
    n = 100
    times = (n + labels_needed(gains, test_share=0.2, n=n)) / n
    error = sqrt((1 / 15 + 0.25) * gains.var(ddof=1) / times)
    rng = np.random.default_rng(0)
    t = (0.02 + error * rng.normal(size=20_000)) / (error * np.sqrt(rng.chisquare(14, size=20_000) / 14))
    assert np.mean(t > stats.t(14).isf(0.05)) == pytest.approx(0.80, abs=0.02)


def test_a_settled_verdict_needs_no_more_labels():
    gains = [0.2, 0.1, 0.1, 0.1, 0.2]
    assert judge(gains, [0.0] * 5).decision == "transfer"
    assert labels_needed(gains, test_share=0.2, n=50) == 0


@pytest.mark.parametrize("gains", [[], [0.1], [0.1, 0.1, 0.1], [0.1, -0.1], [0.1001, -0.1]])
def test_no_number_is_told_without_folds_spread_or_a_gain(gains):
    assert labels_needed(gains, test_share=0.2, n=50) is None


def test_twice_the_spread_asks_for_four_times_the_labels_and_the_sign_does_not_matter():
    gains = 0.01 + 0.02 * np.array([1, -1, 1, -1, 0])
    wider = 0.01 + 0.04 * np.array([1, -1, 1, -1, 0])
    near, far, harm = (labels_needed(g, test_share=0.2, n=1000) for g in (gains, wider, -gains))
    assert far + 1000 == pytest.approx(4 * (near + 1000), abs=5)
    assert harm == near


def test_the_margin_is_what_has_to_be_excluded():
    gains = 0.01 + 0.02 * np.array([1, -1, 1, -1, 0])
    assert labels_needed(gains + 0.05, test_share=0.2, n=100, margin=0.05) == labels_needed(gains, test_share=0.2, n=100)


@pytest.mark.parametrize(("c", "slopes"), [(0.5, (0.4, 1.2)), (1.0, (1.0, 4.0)), (0.25, (0.1, 0.6))])
def test_a_planted_power_law_is_foretold_exactly(c, slopes):
    points = curve(lambda n: 0.9 - slopes[0] * n**-c, lambda n: 0.85 - slopes[1] * n**-c)
    gain, (low, high) = gain_at(points, 320, test_share=0.2)
    truth = 0.05 + (slopes[1] - slopes[0]) * 320**-c
    assert (gain, low, high) == pytest.approx((truth,) * 3, abs=1e-6)


def test_flat_curves_foretell_the_gain_they_show():
    gain, _ = gain_at(curve(lambda n: 0.8, lambda n: 0.7), 10_000, test_share=0.2)
    assert gain == pytest.approx(0.1)


def test_no_score_above_one_is_foretold():
    gain, _ = gain_at(curve(lambda n: min(1.0, 0.6 + 0.1 * np.log2(n / 10)), lambda n: 0.5), 1_000_000, test_share=0.2)
    assert gain <= 0.5 + 1e-9


def test_swapping_the_arms_negates_what_is_foretold():
    points = curve(lambda n: 0.9 - n**-0.5, lambda n: 0.85 - 2 * n**-0.5, noise=0.02)
    turned = [dataclasses.replace(p, folds=tuple((b, a) for a, b in p.folds)) for p in points]
    (gain, (low, high)), (back, (lower, upper)) = (gain_at(p, 320, test_share=0.2) for p in (points, turned))
    assert (back, lower, upper) == pytest.approx((-gain, -high, -low))


def test_the_interval_holds_the_planted_gain_of_twice_the_labels():
    """200 curves with noise in every fold: a 90 % interval misses in a tenth, and with the correction for shared cases in less."""
    truth = 0.05 + 320**-0.5
    held = 0
    for seed in range(200):
        _, (low, high) = gain_at(curve(lambda n: 0.9 - n**-0.5, lambda n: 0.85 - 2 * n**-0.5, noise=0.02, seed=seed), 320, test_share=0.2)
        held += low <= truth <= high
    assert held >= 0.85 * 200


def test_the_gain_of_all_cases_is_that_of_the_folds_and_what_planted_laws_add():
    points = curve(lambda n: 0.9 - 0.4 * n**-0.5, lambda n: 0.85 - 1.2 * n**-0.5)
    gains = [0.1, 0.12, 0.08, 0.11, 0.09]
    gain, interval = gain_of_all(gains, points, 200, test_share=0.2)
    assert gain == pytest.approx(0.1 + 0.8 * (200**-0.5 - 160**-0.5), abs=1e-6)
    raw = judge(0.5 + np.array(gains), np.full(5, 0.5))
    assert np.subtract(interval, gain) == pytest.approx(np.subtract(raw.interval, raw.gain), abs=1e-3)  # these laws are certain


def test_a_curve_that_is_less_certain_than_the_gain_corrects_nothing():
    noisy = curve(lambda n: 0.9 - 0.4 * n**-0.5, lambda n: 0.85 - 1.2 * n**-0.5, noise=0.2)
    assert gain_of_all([0.1, 0.101, 0.099, 0.1, 0.1], noisy, 200, test_share=0.2) is None


def test_the_correction_mends_the_gain_of_folds_and_its_interval_holds_the_truth():
    """120 draws of a baseline that still learns: fold gains at 160 cases are 3 points too high for the 200 of the model."""
    law, truth = (lambda n: 0.9), 0.1 + 4.0 * 200**-0.5
    rng, raw, mended, held = np.random.default_rng(0), [], [], []
    for seed in range(120):
        points = curve(law, lambda n: 0.8 - 4.0 * n**-0.5, noise=0.02, seed=seed)
        gains = 0.1 + 4.0 * 160**-0.5 + 0.03 * rng.normal(size=5)
        raw.append(gains.mean() - truth)
        if (found := gain_of_all(gains, points, 200, test_share=0.2)) is not None:
            gain, (low, high) = found
            mended.append(gain - truth)
            held.append(low <= truth <= high)
    assert len(mended) > 100
    assert np.mean(raw) == pytest.approx(0.0334, abs=0.004)
    assert abs(np.mean(mended)) < 0.005
    assert np.mean(held) >= 0.87


@pytest.mark.parametrize("points", [[], curve(lambda n: 0.8, lambda n: 0.7)[:2], curve(lambda n: 0.8, lambda n: 0.7, folds=1)])
def test_a_curve_that_is_too_short_foretells_nothing(points):
    assert gain_at(points, 320, test_share=0.2) is None


def test_the_outlook_of_an_undecided_run_speaks_of_both():
    gains = 0.02 + np.array([0.06, -0.06, 0.05, -0.05, 0.0])
    verdict = judge(0.5 + gains, np.full(5, 0.5))
    found = outlook(verdict, gains, curve(lambda n: 0.9 - n**-0.5, lambda n: 0.85 - n**-0.5), test_share=0.2, n=200, trained=200, of_curve=True)
    assert verdict.decision == "undecided"
    assert found.n == 400
    assert found.more == labels_needed(gains, test_share=0.2, n=200)
    assert found.gain == pytest.approx(0.05)
    assert found.corrected.gain == pytest.approx(verdict.gain)  # both laws have one slope
    assert len(found.sentences()) == 3


def test_words_say_what_cannot_be_told_and_are_silent_where_nothing_is_left_to_say():
    assert "No number of labels within reach" in Outlook(None, 400, None, None).sentences()[0]
    assert Outlook(0, 400, None, None).sentences() == ()
    assert Outlook(0, 400, 0.03, (-0.01, 0.07)).sentences() == (
        "With twice the labels the gain of frozen features is foretold +0.030 (-0.010 to +0.070, 90%).",
    )
    corrected = Outlook(0, 400, None, None, corrected=Corrected(0.04, (0.01, 0.07), 240, 300))
    assert corrected.sentences() == (
        "Judging folds train on 240 cases, the shipped model on 300: by the learning curve its gain is +0.040 (+0.010 to +0.070, 90%).",
    )
    assert json.loads(json.dumps(dataclasses.asdict(Outlook(331, 400, 0.03, (-0.01, 0.07)))))["more"] == 331
