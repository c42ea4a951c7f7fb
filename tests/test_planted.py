"""Planted worlds: real digits as target, sources whose usefulness is known, judged from folds to verdict."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.evaluate import balanced_accuracy, folds, share_tested
from headstart.guard import judge
from headstart.methods.features import RidgeLOO

PER_CLASS = 5
DRAWS = 8


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X + np.random.default_rng(0).normal(scale=1e-3, size=X.shape), y


def source(X, y, *, label_noise):
    """A feature map learnt on 1200 other digits; with label noise 1 its labels say nothing."""
    rng = np.random.default_rng(1)
    wrong = rng.uniform(size=1200) < label_noise
    return LinearDiscriminantAnalysis().fit(X[:1200], np.where(wrong, rng.permutation(y[:1200]), y[:1200])).transform


def target(y, *, seed):
    """Rows of a small labelled target, and of the cases that nobody sees before the end."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.choice(1200 + np.flatnonzero(y[1200:] == c), PER_CLASS, replace=False) for c in range(10)])
    return rows, np.setdiff1d(np.arange(1200, len(y)), rows)


def scores(X, y, splits):
    return [balanced_accuracy(y[test], RidgeLOO().fit(X[train], y[train]).predict(X[test])) for train, test in splits]


def verdict(body, X, y):
    splits = folds(y, k=5, repeats=3, seed=0)
    return judge(scores(body(X), y, splits), scores(X, y, splits), test_share=share_tested(splits))


def verdicts(body, X, y):
    rows = [target(y, seed=s)[0] for s in range(DRAWS)]
    return [verdict(body, X[r], y[r]) for r in rows]


def test_a_related_source_is_shipped_and_never_refused(digits):
    """On unseen digits this source is worth about 8 points: 50 labels ship it almost always, and prove it now and then (so "undecided" exists)."""
    found = verdicts(source(*digits, label_noise=0.0), *digits)
    assert sum(v.ship == "transfer" for v in found) >= 0.75 * DRAWS
    assert not any(v.decision == "do not transfer" for v in found)
    assert any(v.decision == "transfer" for v in found)


def test_an_unrelated_source_is_refused_in_every_draw(digits):
    found = verdicts(source(*digits, label_noise=1.0), *digits)
    assert all((v.decision, v.ship) == ("do not transfer", "baseline") for v in found)


def test_a_source_that_changes_nothing_is_no_evidence(digits):
    """A change of units is a source without knowledge: the heads standardise, so both arms are one."""
    found = verdicts(lambda X: 2.0 * X + 1.0, *digits)
    assert all((v.decision, v.ship, v.gain, v.p_gain) == ("undecided", "baseline", 0.0, 0.5) for v in found)


@pytest.mark.parametrize("label_noise", [0.0, 0.5, 0.8, 1.0])
def test_what_is_shipped_is_never_far_below_the_baseline_on_unseen_cases(digits, label_noise):
    """The sign of the mean guards: averaged over draws, on some 550 unseen digits, harm stays below 2 points whatever the source."""
    X, y = digits
    body = source(X, y, label_noise=label_noise)
    gains = []
    for seed in range(DRAWS // 2):
        rows, unseen = target(y, seed=seed)
        ship = verdict(body, X[rows], y[rows]).ship
        views = {"baseline": lambda Z: Z, "transfer": body}
        hit = {k: balanced_accuracy(y[unseen], RidgeLOO().fit(f(X[rows]), y[rows]).predict(f(X[unseen]))) for k, f in views.items()}
        gains.append(hit[ship] - hit["baseline"])
    assert np.mean(gains) > (0.04 if label_noise == 0.0 else -0.02)
