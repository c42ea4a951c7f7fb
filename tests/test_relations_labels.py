"""Label shift: planted class shares come back, and probabilities are those of Bayes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from headstart.core import InputError
from headstart.methods.relations import BBSE, LabelShiftEM
from headstart.methods.relations.label_shift import black_box_shares, likeliest_shares, reweighed


def shifted(shares: list[float], *, n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian classes about 0, 2.5 and 5, with those shares."""
    dice = np.random.default_rng(seed)
    y = dice.choice(3, size=n, p=shares)
    return dice.normal(size=(n, 1)) + 2.5 * y[:, None], y


@pytest.mark.parametrize("method", [BBSE, LabelShiftEM])
@pytest.mark.parametrize("planted", [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.5, 0.5, 0.0]])
def test_planted_shares_are_found_and_the_classifier_mended(method: type, planted: list[float]) -> None:
    xs, ys = shifted([0.3, 0.4, 0.3])
    xt, yt = shifted(planted, seed=1)
    model = method(LogisticRegression()).fit(xs, ys, xt)
    assert np.allclose(model.shares_, planted, atol=0.05)
    assert model.score(xt, yt) > LogisticRegression().fit(xs, ys).score(xt, yt)
    assert np.allclose(model.weights_, (model.shares_ / np.bincount(ys) * len(ys))[ys])


def test_corrected_probabilities_are_those_of_bayes() -> None:
    xs, ys = shifted([1 / 3, 1 / 3, 1 / 3], n=20000)
    xt, _ = shifted([0.1, 0.2, 0.7], n=20000, seed=1)
    joint = norm.pdf(xt[:200], [0.0, 2.5, 5.0]) * [0.1, 0.2, 0.7]
    model = LabelShiftEM(LogisticRegression(C=100.0)).fit(xs, ys, xt)
    assert np.abs(model.predict_proba(xt[:200]) - joint / joint.sum(axis=1, keepdims=True)).max() < 0.05


def test_em_ends_at_the_greatest_likelihood() -> None:
    dice = np.random.default_rng(0)
    proba, source = dice.dirichlet([1.0, 1.0, 1.0], size=200), np.array([0.2, 0.3, 0.5])

    def loss(free: np.ndarray) -> float:
        q = np.exp(np.append(free, 0.0))
        return -float(np.log(proba @ (q / q.sum() / source)).sum())

    best = minimize(loss, np.zeros(2), method="BFGS").x
    q = np.exp(np.append(best, 0.0))
    assert np.allclose(likeliest_shares(proba, source), q / q.sum(), atol=1e-4)


def test_shares_from_exact_rates_are_exact_and_not_negative() -> None:
    given, source = np.array([[0.8, 0.1, 0.2], [0.1, 0.8, 0.1], [0.1, 0.1, 0.7]]), np.array([0.5, 0.3, 0.2])
    truth = np.array([0.2, 0.3, 0.5])
    assert np.allclose(black_box_shares(given * source, given @ truth, n=500), truth)
    assert black_box_shares(given * source, np.array([0.95, 0.05, 0.0]), n=500).min() == 0.0


def test_a_classifier_that_tells_classes_hardly_apart_is_refused() -> None:
    dice = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"^The classifier tells some classes hardly apart \(least singular value .* Use em, or merge those classes\.$"):
        BBSE().fit(dice.normal(size=(400, 2)), np.arange(400) % 2, dice.normal(size=(100, 2)))


def test_a_class_of_one_case_is_refused_by_name() -> None:
    x = np.arange(7.0)[:, None]
    with pytest.raises(InputError, match=r"^Class 'rare' has one source case, so that its confusions cannot be measured\."):
        BBSE().fit(x, ["a", "a", "a", "b", "b", "b", "rare"], x)


def test_labelled_target_cases_count_as_they_are() -> None:
    xs, ys = shifted([0.3, 0.4, 0.3], n=600)
    xt, yt = shifted([0.1, 0.2, 0.7], n=50, seed=1)
    model = LabelShiftEM(LogisticRegression()).fit(xs, ys, xt, yt.tolist())
    assert np.allclose(model.shares_, np.bincount(yt, minlength=3) / 50)


def test_a_row_that_every_factor_zeroes_is_left() -> None:
    assert reweighed(np.array([[1.0, 0.0]]), np.array([0.0, 2.0])).tolist() == [[1.0, 0.0]]
