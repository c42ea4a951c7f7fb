"""Made cases: they have the law that they claim, come of training cases alone, are the same for the same seed, and help where they should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError
from headstart.evaluate import balanced_accuracy
from headstart.export import _head
from headstart.methods import Gaussian, Interpolate, Smote, tuners
from headstart.methods.data.enlarged import Cases, EnlargedClassifier
from headstart.methods.data.gaussian import GaussianRidge, class_means, copula
from headstart.methods.data.interpolate import InterpolatedRidge
from headstart.methods.data.smote import SmoteRidge
from headstart.methods.features import RidgeLOO

MAKERS = [InterpolatedRidge(), GaussianRidge(), GaussianRidge(copula=True), SmoteRidge(), SmoteRidge(kind="borderline"), SmoteRidge(kind="adasyn")]
named = pytest.mark.parametrize(
    "model", MAKERS, ids=lambda m: "-".join([type(m).__name__, *(str(v) for v in m.get_params().values() if isinstance(v, str | bool))])
)


class Plain(EnlargedClassifier):
    """The arm without: the same head, its penalty on the same inner folds, and nothing made."""

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        return Cases(X, y)


@parametrize_with_checks([InterpolatedRidge(), GaussianRidge(times=2), SmoteRidge()])
def test_the_estimators_are_scikit_learns(estimator, check):
    check(estimator)


def clouds(sizes: list[int], *, d: int = 8, seed: int = 0, shift: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng, y = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    means = np.random.default_rng(7).normal(size=(len(sizes), d)) * shift / np.sqrt(d)
    return means[y] + rng.normal(size=(len(y), d)), y


@named
def test_the_same_seed_makes_the_same_bits_and_another_seed_others(model) -> None:
    X, y = clouds([40, 12, 9])
    one, two = (model.enlarge(X, y, np.random.default_rng(3)) for _ in range(2))
    assert one.X.tobytes() == two.X.tobytes()
    assert len(one.X) > len(X)
    assert not np.array_equal(one.X, model.enlarge(X, y, np.random.default_rng(4)).X)
    np.testing.assert_array_equal(one.X[: len(X)], X)
    np.testing.assert_array_equal(one.y[: len(X)], y)
    assert model.fit(X, y).coef_.tobytes() == model.fit(X, y).coef_.tobytes()


class Spied:
    """Remembers every row that anything was made of."""

    seen: list[np.ndarray]

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        self.seen.append(X)
        return super().enlarge(X, y, dice)  # type: ignore[misc]


@pytest.mark.parametrize("kind", [InterpolatedRidge, GaussianRidge, SmoteRidge])
def test_nothing_is_made_of_a_case_that_the_choice_of_the_penalty_is_measured_on(kind: type[EnlargedClassifier]) -> None:
    spy = type("Spy", (Spied, kind), {"__init__": kind.__init__, "seen": []})()
    X, y = clouds([30, 12])
    spy.fit(X, y)
    *inner, final = spy.seen
    assert len(inner) == 5
    assert len(final) == len(X)
    tested = [~(X[:, None] == rows[None]).all(axis=2).any(axis=1) for rows in inner]
    assert np.sum(tested, axis=0).tolist() == [1] * len(X)  # each case is left out of what is made exactly once


def test_points_between_lie_between_and_bring_every_class_to_one_size() -> None:
    X, y = clouds([30, 10, 4])
    found = InterpolatedRidge().enlarge(X, y, np.random.default_rng(0))
    assert np.bincount(found.y).tolist() == [30, 30, 30]
    for c in range(3):
        rows = found.X[found.y == c]
        assert (rows >= X[y == c].min(axis=0) - 1e-12).all()
        assert (rows <= X[y == c].max(axis=0) + 1e-12).all()
    many = np.repeat([0, 1], [20_000, 100])
    Z = np.random.default_rng(1).normal(size=(len(many), 1)) + 5.0
    made = InterpolatedRidge().enlarge(Z, many, np.random.default_rng(0)).X[len(Z) :]
    assert made.mean() == pytest.approx(Z[many == 1].mean(), abs=0.03)
    assert made.var() == pytest.approx(2 / 3 * Z[many == 1].var(), rel=0.03)


def test_draws_have_the_mean_of_their_class_and_the_shrunk_scatter_of_all() -> None:
    from sklearn.covariance import ledoit_wolf

    X, y = clouds([30, 20], d=3)
    found = GaussianRidge(times=4000).enlarge(X, y, np.random.default_rng(0))
    drawn, codes = found.X[len(X) :], found.y[len(X) :]
    np.testing.assert_allclose(class_means(drawn, codes), class_means(X, y), atol=0.02)
    within = drawn - class_means(drawn, codes)[codes]
    np.testing.assert_allclose(within.T @ within / len(within), ledoit_wolf(X - class_means(X, y)[y], assume_centered=True)[0], atol=0.02)


def test_a_copula_keeps_each_feature_s_own_law_and_the_ranks_dependence() -> None:
    from scipy.stats import ks_2samp, spearmanr

    rng = np.random.default_rng(0)
    z = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 400)
    skewed = np.stack([np.exp(z[:, 0]), z[:, 1] ** 3], axis=1)
    drawn = copula(skewed, 4000, rng)
    assert all(ks_2samp(drawn[:, j], skewed[:, j]).statistic < 0.05 for j in range(2))
    assert spearmanr(drawn)[0] == pytest.approx(spearmanr(skewed)[0], abs=0.06)
    assert skewed.min() <= drawn.min()


def test_smote_makes_what_imbalanced_learn_makes_of_standardised_features() -> None:
    from imblearn.over_sampling import SMOTE

    X, y = clouds([30, 9], d=4)
    found = SmoteRidge().enlarge(X, y, np.random.default_rng(5))
    seed = int(np.random.default_rng(5).integers(2**31))
    mean, spread = X.mean(axis=0), X.std(axis=0)
    theirs, _ = SMOTE(sampling_strategy={1: 30}, k_neighbors=5, random_state=seed).fit_resample((X - mean) / spread, y)
    np.testing.assert_allclose(found.X[len(X) :], theirs[len(X) :] * spread + mean, atol=1e-10)


@pytest.mark.parametrize("kind", ["smote", "borderline", "adasyn"])
def test_classes_that_cannot_be_filled_up_are_left_as_they_are(kind: str) -> None:
    X, y = clouds([20, 1, 2], shift=40.0)
    found = SmoteRidge(kind=kind).enlarge(X, y, np.random.default_rng(0))
    assert np.bincount(found.y)[1] == 1
    assert SmoteRidge(kind=kind).fit(X, y).predict(X).tolist() == y.tolist()


def test_without_imbalanced_learn_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imblearn", None)
    monkeypatch.setattr("headstart.methods.data.smote.find_spec", lambda name: None)
    line = r"Method 'smote' needs imbalanced-learn, which is not installed\. Install it: pip install 'headstart\[imbalance\]'\."
    with pytest.raises(InputError, match=line):
        tuners(["smote"])
    with pytest.raises(InputError, match=line):
        Smote().estimator(seed=0)
    assert Interpolate().estimator(seed=0).fit(*clouds([9, 5])).made_ == 4


@named
def test_what_is_fitted_is_saved_and_loaded_whole(model, tmp_path: Path) -> None:
    X, y = clouds([20, 8])
    fitted = model.fit(X, y)
    skops.io.dump(fitted, tmp_path / "head.skops")
    np.testing.assert_array_equal(_head(tmp_path / "head.skops").predict_proba(X), fitted.predict_proba(X))


def gains(model: EnlargedClassifier, world, *, draws: int) -> np.ndarray:
    """Gain in balanced accuracy over the same head without, on unseen cases, for each draw of a world."""
    out = []
    for seed in range(draws):
        (X, y), (Xt, yt) = world(seed)
        out.append(balanced_accuracy(yt, model.fit(X, y).predict(Xt)) - balanced_accuracy(yt, Plain().fit(X, y).predict(Xt)))
    return np.array(out)


def test_gaussian_draws_help_where_shots_are_few() -> None:
    found = gains(GaussianRidge(times=20), lambda s: (clouds([5] * 3, d=40, seed=s, shift=3.0), clouds([500] * 3, d=40, seed=900 + s, shift=3.0)), draws=64)
    assert found.mean() > 0.005
    assert found.mean() > 2.0 * found.std(ddof=1) / 8


def heavy(sizes: list[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A large class of normal cases, and a rare one with heavy tails (Student's t with two degrees of freedom)."""
    X, y = clouds(sizes, d=20, seed=seed, shift=3.0)
    means = np.random.default_rng(7).normal(size=(len(sizes), 20)) * 3.0 / np.sqrt(20)
    tails = np.sqrt(np.random.default_rng(500 + seed).chisquare(2, len(y)) / 2)[:, None]
    return np.where((y == 1)[:, None], means[y] + (X - means[y]) / tails, X), y


def test_smote_helps_where_a_rare_class_has_heavy_tails() -> None:
    found = gains(SmoteRidge(), lambda s: (heavy([300, 12], seed=s), heavy([1500, 1500], seed=900 + s)), draws=12)
    assert found.mean() > 0.005
    assert found.mean() > 1.5 * found.std(ddof=1) / np.sqrt(12)


def turned(sizes: list[int], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes one apart in thirty correlated features."""
    rng, y = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    axes = np.random.default_rng(99).normal(size=(30, 30))
    root = np.linalg.cholesky(0.1 * np.eye(30) + 0.9 * axes @ axes.T / 30)
    return np.random.default_rng(7).normal(size=(len(sizes), 30))[y] / np.sqrt(30) + rng.normal(size=(len(y), 30)) @ root.T, y


def test_points_between_help_a_little_where_the_scatter_of_a_rare_class_is_mostly_chance() -> None:
    found = gains(InterpolatedRidge(), lambda s: (turned([600, 20], seed=s), turned([1500, 1500], seed=900 + s)), draws=12)
    assert found.mean() > 0.002
    assert found.mean() > 2.0 * found.std(ddof=1) / np.sqrt(12)


def test_a_head_by_least_squares_gains_nothing_of_points_between_in_classes_of_one_size() -> None:
    X, y = clouds([12, 12])
    assert InterpolatedRidge().fit(X, y).made_ == 0
    np.testing.assert_array_equal(InterpolatedRidge().fit(X, y).coef_, Plain().fit(X, y).coef_)


def test_the_arm_without_is_the_plain_ridge_head() -> None:
    X, y = clouds([40, 25, 30])
    plain = Plain().fit(X, y)
    np.testing.assert_allclose(plain.coef_, RidgeLOO(alphas=(plain.alpha_,)).fit(X, y).coef_, atol=1e-10)
    assert [type(m().estimator(seed=0)).__name__ for m in (Gaussian, Interpolate, Smote)] == ["GaussianRidge", "InterpolatedRidge", "SmoteRidge"]
