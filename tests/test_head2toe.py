"""Head2Toe: planted features are found, keeping all is the plain head, relevance is scikit-learn's ridge, and no case of the other side takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skops.io
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError, Source
from headstart.export import _head
from headstart.methods import Head2Toe, Head2ToeRegressor
from headstart.methods.features import LogisticPath, RidgeLOO
from headstart.methods.features.door import case_weights
from headstart.methods.features.head2toe import ALPHAS, HeadOnRelevant, RidgeOnRelevant

STAGES = (40, 60, 30)  # widths of three stages
PLANTED = np.array([45, 70, 95])  # all in the middle one


@parametrize_with_checks([HeadOnRelevant(), HeadOnRelevant(head="logistic"), RidgeOnRelevant()])
def test_the_estimators_are_scikit_learns(estimator, check):
    check(estimator)


def world(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise in three stages; three features of the middle one, of different units, tell three classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    X = rng.normal(size=(n, sum(STAGES)))
    X[:, PLANTED] += 2.0 * np.eye(3)[y]
    return X * np.random.default_rng(9).uniform(0.1, 10.0, X.shape[1]), y


def test_features_planted_in_a_middle_stage_are_found_where_the_last_stage_is_blind() -> None:
    (X, y), (Xt, yt) = world(300), world(600, seed=1)
    model = HeadOnRelevant(keep=3 / sum(STAGES)).fit(X, y)
    assert model.kept_.tolist() == PLANTED.tolist()
    last = slice(sum(STAGES[:2]), None)
    assert np.mean(RidgeLOO().fit(X[:, last], y).predict(Xt[:, last]) == yt) < 0.4  # chance is 1/3
    assert np.mean(model.predict(Xt) == yt) > 0.85
    X[:, PLANTED] = 0.0
    assert not set(HeadOnRelevant(keep=0.05).fit(X, y).kept_) & set(PLANTED)  # what never moves tells nothing


def test_a_planted_slope_is_found_for_numbers() -> None:
    (X, _), (Xt, _) = world(300), world(600, seed=1)
    slope = np.array([1.0, -0.2, 0.1]) / X[:, PLANTED].std(axis=0)
    model = RidgeOnRelevant(keep=3 / sum(STAGES)).fit(X, X[:, PLANTED] @ slope + 5.0)
    assert model.kept_.tolist() == PLANTED.tolist()
    np.testing.assert_allclose(model.predict(Xt), Xt[:, PLANTED] @ slope + 5.0, atol=0.02)


@pytest.mark.parametrize("shape", [(60, 8), (40, 90)])
def test_keeping_everything_is_the_plain_head(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=shape), np.arange(shape[0]) % 3
    X[:, 0] += y
    groups = np.arange(shape[0]) // 4
    assert np.array_equal(HeadOnRelevant(keep=1.0).fit(X, y).predict_proba(X), RidgeLOO().fit(X, y).predict_proba(X))
    logistic = HeadOnRelevant(keep=1.0, head="logistic", seed=3).fit(X, y, groups)
    assert np.array_equal(logistic.predict_proba(X), LogisticPath(seed=3).fit(X, y, groups).predict_proba(X))
    plain = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(X, X[:, 0])
    np.testing.assert_allclose(RidgeOnRelevant(keep=1.0).fit(X, X[:, 0]).predict(X), plain.predict(X), atol=1e-9)


@pytest.mark.parametrize("shape", [(60, 8), (40, 90)])
def test_relevance_is_the_norm_of_scikit_learns_ridge_weights(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=shape) * rng.uniform(0.1, 10.0, shape[1]), np.minimum(np.arange(shape[0]) % 5, 2)
    Z = StandardScaler().fit_transform(X)
    theirs = Ridge(alpha=RidgeLOO().fit(Z, y).alpha_).fit(Z, 2.0 * np.eye(3)[y] - 1.0, sample_weight=case_weights(y, balanced=True))
    np.testing.assert_allclose(HeadOnRelevant().fit(X, y).relevance_, np.linalg.norm(theirs.coef_, axis=0), rtol=1e-6)


def test_the_order_of_features_and_their_units_change_nothing() -> None:
    X, y = world(120)
    order = np.random.default_rng(2).permutation(X.shape[1])
    one, two = HeadOnRelevant(keep=0.1).fit(X, y), HeadOnRelevant(keep=0.1).fit(1000.0 * X[:, order] - 7.0, y)
    assert sorted(order[two.kept_]) == one.kept_.tolist()
    np.testing.assert_allclose(two.predict_proba(1000.0 * X[:, order] - 7.0), one.predict_proba(X), atol=1e-6)


def test_cases_of_the_other_side_take_no_part_in_the_choice() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3000)), np.arange(60) % 2
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    inside = cross_val_score(HeadOnRelevant(keep=0.01), X, y, cv=folds).mean()
    peeking = cross_val_score(RidgeLOO(), X[:, HeadOnRelevant(keep=0.01).fit(X, y).kept_], y, cv=folds).mean()
    assert inside < 0.65  # chance is .5
    assert peeking > 0.95


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5])
def test_a_share_out_of_range_is_told(keep: float) -> None:
    with pytest.raises(InputError, match=r"^keep=\S+ is out of range. Give a share above 0 and up to 1.$"):
        HeadOnRelevant(keep=keep).fit(*world(30))


HEADS = [HeadOnRelevant(), HeadOnRelevant(head="logistic"), RidgeOnRelevant()]


@pytest.mark.parametrize("model", HEADS, ids=["ridge", "logistic", "numbers"])
def test_a_head_is_saved_and_loaded_without_pickle(model: HeadOnRelevant | RidgeOnRelevant, tmp_path: Path) -> None:
    X, y = world(60)
    model.fit(X, y)
    skops.io.dump(model, tmp_path / "head.skops")
    again = _head(tmp_path / "head.skops")
    assert np.array_equal(again.predict(X), model.predict(X))


def test_both_learn_from_every_stage_and_each_asks_for_its_kind_of_target() -> None:
    source = Source("s", stages=("stem", "a", "b"))
    assert Head2Toe().view(source) == Head2ToeRegressor().view(source)
    assert (Head2Toe().view(source).kind, Head2Toe().view(source).cuts) == ("unit", (1, 2, 3))
    assert (Head2Toe.needs, Head2ToeRegressor.needs) == ({"classes"}, {"numbers"})


def test_a_rotation_of_a_stage_leaves_the_lengths_of_its_rows() -> None:
    from headstart.views import _side_by_side

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 4)).astype(np.float32), np.zeros((5, 3), dtype=np.float32)
    second[:4] = 1e3 * rng.normal(size=(4, 3))
    plain = _side_by_side([first, second], unit=False)  # type: ignore[list-item]
    unit = _side_by_side([first, second], unit=True)  # type: ignore[list-item]
    np.testing.assert_allclose(np.linalg.norm(unit[:, :4], axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit[:, 4:], axis=1), [1, 1, 1, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(unit[:, :4] * np.linalg.norm(plain[:, :4], axis=1, keepdims=True), first, rtol=1e-5)
    turn = ortho_group.rvs(4, random_state=0).astype(np.float32)
    np.testing.assert_allclose(_side_by_side([first @ turn, second], unit=True)[:, :4], unit[:, :4] @ turn, atol=1e-6)  # type: ignore[list-item]
