"""Heads on activations, against brute force, scikit-learn and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError
from headstart.methods.features import HEADS, KNN, LogisticPath, RidgeLOO, two_classes
from headstart.methods.features.door import case_weights
from headstart.methods.features.logistic import Race, _row_space, hint, inner_splits
from headstart.methods.features.scaling import LiveScaler

SHAPES = [(40, 7), (30, 90)]  # n > d and n < d


def clouds(n: int, d: int, *, classes: int = 3, seed: int = 0, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Unbalanced Gaussian clouds with unlike units and means per feature."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.integers(0, classes + 1, n), classes - 1)
    y[:classes] = range(classes)
    X = rng.normal(size=(classes, d))[y] + spread * rng.normal(size=(n, d))
    return X * rng.uniform(0.1, 10.0, d) + rng.normal(size=d), y


@parametrize_with_checks([head() for head in HEADS.values()])
def test_every_head_is_a_scikit_learn_classifier(estimator, check):
    check(estimator)


@pytest.mark.parametrize("head", HEADS.values())
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_agree_with_predictions_and_class_names(head, classes):
    X, y = clouds(60, 5, classes=classes)
    names = np.array(["zebra", "ant", "cat"])[y]
    model = head().fit(X, names)
    proba = model.predict_proba(X)
    assert proba.shape == (60, classes)
    assert np.allclose(proba.sum(axis=1), 1.0)
    assert np.all((proba > 0) & (proba < 1))
    assert list(model.classes_) == sorted(set(names))
    assert np.array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])


@pytest.mark.parametrize("head", HEADS.values())
def test_renaming_classes_and_units_of_features_leave_probabilities_unchanged(head):
    X, y = clouds(60, 5)
    proba = head().fit(X, y).predict_proba(X)
    order = np.array([2, 0, 1])  # class c gets the name order[c]
    renamed = head().fit(X, order[y]).predict_proba(X)
    assert np.allclose(renamed[:, order], proba, atol=1e-3)  # lbfgs stops at a tolerance
    scaled = head().fit(X * 50.0 - 3.0, y).predict_proba(X * 50.0 - 3.0)
    assert np.allclose(scaled, proba, atol=1e-6)


@pytest.mark.parametrize("head", HEADS.values())
def test_the_same_input_gives_the_same_bytes_and_leaves_it_unchanged(head):
    X, y = clouds(50, 80)
    kept = X.copy()
    first, second = (head().fit(X, y).predict_proba(X).tobytes() for _ in range(2))
    assert first == second
    assert np.array_equal(X, kept)


@pytest.mark.parametrize("head", HEADS.values())
def test_one_class_is_refused_in_one_line(head):
    with pytest.raises(InputError, match=rf"^y holds only one class, 'cat'; {head.__name__} needs at least 2. Add cases of another class.$"):
        head().fit(np.eye(3), ["cat"] * 3)


@pytest.mark.parametrize("head", HEADS.values())
def test_digits_are_learnt(head):
    X, y = load_digits(return_X_y=True)
    model = head().fit(X[:600], y[:600])
    assert np.mean(model.predict(X[600:]) == y[600:]) > 0.86  # chance 0.10


@pytest.mark.parametrize("head", [LogisticPath, RidgeLOO])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_linear_gives_the_logits_of_raw_features(head, classes, n, d):
    X, y = clouds(n, d, classes=classes)
    model = head().fit(X, y)
    W, b = model.linear()
    assert W.shape == (classes, d)
    assert b.shape == (classes,)
    assert np.allclose(softmax(X @ W.T + b, axis=1), model.predict_proba(X), atol=1e-12)
    if classes == 2:
        assert np.allclose(W[0], -W[1])
        assert np.array_equal(model.decision_function(X) > 0, model.predict(X) == 1)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_the_whole_ridge_path_equals_brute_force_leave_one_out(n, d, balanced):
    X, y = clouds(n, d)
    w = case_weights(y, balanced=balanced)
    Z, Y = StandardScaler().fit_transform(X), 2.0 * np.eye(3)[y] - 1.0
    alphas = (0.1, 3.0, 300.0)
    model = RidgeLOO(alphas=alphas, balanced=balanced).fit(X, y)
    errors = []
    for alpha in alphas:
        left_out = np.array([_ridge(np.delete(Z, i, 0), np.delete(Y, i, 0), np.delete(w, i), alpha, Z[i]) for i in range(n)])
        errors.append(np.average(np.square(Y - left_out).mean(axis=1), weights=w))
        if alpha == model.alpha_:
            assert np.abs(model.loo_decision_ - left_out).max() < 1e-8
    assert np.allclose(model.path_, errors, rtol=1e-8)
    assert model.alpha_ == alphas[int(np.argmin(errors))]


def _ridge(Z, Y, w, alpha, z):
    """Predict z by weighted ridge with a free intercept, from the normal equations."""
    A = np.hstack([Z, np.ones((len(Z), 1))])
    penalty = np.diag([alpha] * Z.shape[1] + [0.0])
    return np.append(z, 1.0) @ np.linalg.solve(A.T @ (w[:, None] * A) + penalty, A.T @ (w[:, None] * Y))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(120, 10), (60, 100)])
def test_ridge_chooses_and_predicts_as_scikit_learn_does(n, d, classes):
    X, y = clouds(n, d, classes=classes)
    Z = StandardScaler().fit_transform(X)
    alphas = np.logspace(-1, 5, 13)
    ours, theirs = RidgeLOO(alphas=tuple(alphas), balanced=False).fit(Z, y), RidgeClassifierCV(alphas=alphas).fit(Z, y)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    assert np.allclose(ours.decision_function(Z), theirs.decision_function(Z), atol=1e-8)


@pytest.mark.parametrize("balanced", [True, False])
def test_logistic_fits_what_scikit_learn_fits_at_that_strength(balanced):
    X, y = clouds(80, 6)
    ours = LogisticPath(balanced=balanced).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    theirs = LogisticRegression(C=ours.C_, class_weight="balanced" if balanced else None, tol=1e-8, max_iter=5000).fit(Z, y)
    assert np.allclose(ours.predict_proba(X), theirs.predict_proba(Z), atol=2e-3)


def test_logistic_chooses_the_strength_that_grid_search_chooses():
    X, y = clouds(120, 6)
    cs = (1e-4, 1e-2, 1.0, 100.0)
    ours = LogisticPath(cs=cs, balanced=False, seed=3).fit(X, y)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": cs}, scoring="neg_log_loss", cv=folds).fit(StandardScaler().fit_transform(X), y)
    assert ours.C_ == search.best_params_["C"]
    assert np.allclose(ours.path_, -search.cv_results_["mean_test_score"], rtol=2e-3)


@pytest.mark.parametrize(("n", "d", "folds_run"), [(150, 8, {4}), (2500, 200, {1, 2})])
def test_the_race_of_strengths_ends_where_the_whole_path_does_and_early_with_many_cases(n, d, folds_run, monkeypatch):
    X, y = clouds(n, d, spread=3.0 + 2.0 * (d == 200))
    cs = tuple(10.0**k for k in range(-5, 3))
    held_out = []
    add = Race.add
    monkeypatch.setattr(Race, "add", lambda race, i, fold, *rest: (held_out.append((i, fold)), add(race, i, fold, *rest))[1])
    ours = LogisticPath(cs=cs, balanced=False).fit(X, y)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": cs}, scoring="neg_log_loss", cv=folds).fit(StandardScaler().fit_transform(X), y)
    whole = -search.cv_results_["mean_test_score"]
    assert whole[cs.index(ours.C_)] < whole.min() + 1e-3
    best = cs.index(ours.C_)
    assert {best - 1, best, best + 1} <= {i for i, _ in held_out}  # it has a neighbour on either side
    assert len({fold for i, fold in held_out if i == best}) in folds_run


@pytest.mark.parametrize(("n", "classes"), [(300, 2), (300, 6), (3000, 6)])
def test_ridge_hints_at_the_strength_that_cross_validation_finds(n, classes):
    """Gaussian classes with few telling directions among many: the best C is neither end of the path, and the hint is within a factor of 6 of it."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    Z = StandardScaler().fit_transform(rng.normal(size=(n, 60)) + (rng.normal(size=(classes, 60)) * (np.arange(60) < 20) * 0.5)[y])
    cs = np.logspace(-5, 2, 15)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": cs}, scoring="neg_log_loss", cv=4).fit(Z, y)
    assert abs(np.log10(hint(Z, y, np.ones(n), seed=0) / search.best_params_["C"])) < np.log10(6.0)


def test_a_strength_is_dropped_for_a_clear_paired_difference_of_units_and_not_before_100_of_them():
    rng = np.random.default_rng(0)
    common, worse = rng.exponential(size=200), 0.01 + 0.02 * rng.normal(size=200)  # 0.01 is 7 standard errors of the difference, and none of the losses

    def standing(units: np.ndarray, rows: int) -> list[int]:
        race = Race(np.ones(200), units)
        race.add(0, 0, None, np.arange(rows), common[:rows])
        race.add(1, 0, None, np.arange(rows), (common + worse)[:rows])
        return race.standing()

    assert standing(np.arange(200), 200) == [0]
    assert standing(np.arange(200), 90) == [0, 1]
    assert standing(np.arange(200) // 4, 200) == [0, 1]  # 50 groups


@pytest.mark.parametrize("twice", [0, 5])
def test_rotation_into_the_row_space_changes_no_inner_product_and_no_solution(twice):
    X, y = clouds(25, 60)
    X[:twice] = X[10 : 10 + twice]
    Z = StandardScaler().fit_transform(X)
    rotated, back = _row_space(Z)
    assert rotated.shape == (25, 24 - twice)  # centred rows have a dimension less, and equal ones have one together
    assert np.allclose(back(rotated), Z, atol=1e-10)
    assert np.allclose(rotated @ rotated.T, Z @ Z.T, atol=1e-10)
    full, small = (LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(F, y) for F in (Z, rotated))
    assert np.allclose(back(small.coef_), full.coef_, atol=1e-5)


@pytest.mark.parametrize("groups", [None, "groups"])
def test_a_class_with_one_member_takes_the_documented_strength(groups):
    X, y = clouds(30, 10)
    y = np.where(np.arange(30) == 29, 3, y)
    if groups is None:
        model = LogisticPath().fit(X, y)
    else:
        model = LogisticPath().fit(X, np.minimum(y, 2), groups=np.where(np.minimum(y, 2) == 0, 0, np.arange(30)))
    assert model.path_ is None
    assert model.C_ == min(model.cs, key=lambda c: abs(np.log(c) - np.log(1 / 10)))


def test_a_class_with_two_members_gets_two_inner_folds():
    X, y = clouds(30, 4, classes=2)
    assert LogisticPath().fit(np.vstack([X, X[:2] + 30.0]), np.append(y, [2, 2])).path_ is not None
    assert len(inner_splits(np.append(y, [2, 2]), None, folds=4, seed=0)) == 2


def test_groups_keep_copies_out_of_the_held_out_fold():
    """Thirty random cases, ten copies each, random labels: only memory of a copy can beat chance."""
    rng = np.random.default_rng(0)
    X, y, who = rng.normal(size=(30, 40)).repeat(10, axis=0), rng.permutation(np.arange(30) % 2).repeat(10), np.arange(30).repeat(10)
    assert np.nanmin(LogisticPath().fit(X, y).path_) < 0.1
    assert np.nanmin(LogisticPath().fit(X, y, groups=who).path_) > 0.6  # chance: log 2 = 0.693


def test_groups_of_another_length_are_refused():
    X, y = clouds(30, 4)
    with pytest.raises(ValueError, match="groups has 3 entries for 30 rows"):
        LogisticPath().fit(X, y, groups=[1, 2, 3])


@pytest.mark.parametrize("head", HEADS.values())
def test_balancing_lifts_the_recall_of_a_rare_class(head):
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(0.0, 1.0, (300, 2)), rng.normal(1.0, 1.0, (20, 2))])
    y = np.repeat([0, 1], [300, 20])
    recall = {b: np.mean(head(balanced=b).fit(X, y).predict(X)[300:] == 1) for b in (True, False)}
    assert recall[True] > recall[False] + 0.2


@pytest.mark.parametrize("classes", [2, 3])
def test_ridge_probabilities_are_calibrated_on_fresh_cases(classes):
    X, y = clouds(2000, 10, classes=classes, spread=2.0)
    model = RidgeLOO(balanced=False).fit(X[:500], y[:500])
    proba = model.predict_proba(X[500:])
    assert abs(proba.max(axis=1).mean() - np.mean(model.predict(X[500:]) == y[500:])) < 0.05


def test_ridge_is_as_sure_as_it_is_right_of_many_classes_with_few_cases_each():
    rng = np.random.default_rng(0)
    means = 2.0 * rng.normal(size=(20, 10))
    X, y = means[np.arange(160) % 20] + rng.normal(size=(160, 10)), np.arange(160) % 20
    fresh = means[np.arange(2000) % 20] + rng.normal(size=(2000, 10))
    apart = {}
    for smoothing in (2.0, 20.0):
        p = RidgeLOO(smoothing=smoothing).fit(X, y).predict_proba(fresh)
        right = float(np.mean(p.argmax(axis=1) == np.arange(2000) % 20))
        apart[smoothing] = abs(float(p.max(axis=1).mean()) - right)
    assert right > 0.8
    assert apart[2.0] < 0.2
    assert apart[20.0] > 0.4


def test_ridge_stays_finite_and_unsure_of_little_data_without_a_mistake():
    X = np.array([[0.0], [0.1], [10.0], [10.1]])
    top = RidgeLOO().fit(X, [0, 0, 1, 1]).predict_proba(X).max(axis=1)
    assert np.all((top > 0.6) & (top < 0.95))  # Platt: (2 + 1) / (2 + 2) = 0.75


def test_knn_agrees_with_scikit_learn_where_both_vote_alike():
    X, y = clouds(80, 6)
    scaler = StandardScaler().fit(X)
    Q = clouds(40, 6, seed=1)[0]
    ours = KNN(k=(5,), temperature=1e9, balanced=False).fit(X, y).predict_proba(Q)
    theirs = KNeighborsClassifier(5, metric="cosine").fit(scaler.transform(X), y).predict_proba(scaler.transform(Q))
    assert np.allclose(ours, (5 * theirs + 1 / 3) / 6)


def test_knn_leave_one_out_equals_fitting_without_the_case():
    X, y = clouds(40, 5)
    Z = StandardScaler().fit_transform(X)
    model = KNN(k=(3,), balanced=False).fit(Z, y)
    losses = []
    for i in range(40):
        cosine = np.delete(Z @ Z[i] / np.linalg.norm(Z, axis=1) / np.linalg.norm(Z[i]), i)
        near = np.argsort(-cosine)[:3]
        votes = np.exp((cosine[near] - cosine[near[0]]) / 0.1)
        own = votes[np.delete(y, i)[near] == y[i]].sum()
        losses.append(-np.log((own + 1 / 3) / (votes.sum() + 1)))
    assert model.path_[3] == pytest.approx(np.mean(losses), rel=1e-6)


def test_knn_with_more_neighbours_asked_than_cases_uses_those_it_can():
    model = KNN(k=(1, 3, 50)).fit(np.array([[0.0, 1], [0, 2], [1, 0], [2, 0]]), [0, 0, 1, 1])
    assert set(model.path_) == {1, 3}


@pytest.mark.parametrize("head", HEADS.values())
def test_heads_work_in_cross_validation(head):
    X, y = clouds(90, 5, spread=0.5)
    assert cross_val_score(head(), X, y, cv=3, scoring="balanced_accuracy").mean() > 0.95


@pytest.mark.parametrize("head", [RidgeLOO, LogisticPath, KNN])
def test_a_dead_channel_changes_nothing(head: type) -> None:
    dice = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = dice.standard_normal((60, 5)) + y[:, None]
    dead = np.column_stack([X, 1e-33 * dice.standard_normal(60), 1.0 + 1e-9 * dice.standard_normal(60)])
    alive, with_dead = head().fit(X, y), head().fit(dead, y)
    assert np.allclose(alive.predict_proba(X), with_dead.predict_proba(dead), atol=1e-6)
    if hasattr(with_dead, "linear"):
        assert np.abs(with_dead.linear()[0]).max() < 100


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_scales_as_the_scaler_of_the_other_heads(weighted: bool) -> None:
    """Its own moments, and those of two domains put together, are StandardScaler's; dead and constant features are the same ones."""
    dice = np.random.default_rng(0)
    X, other = dice.normal(size=(30, 5)) * [1.0, 9.0, 1e-9, 1.0, 0.0] + [5.0, 1e4, 0.0, 0.0, 0.1], dice.normal(size=(20, 5)) + 2.0
    weights = dice.uniform(0.1, 3.0, size=30) if weighted else None
    wanted = LiveScaler().fit(X, sample_weight=weights)
    alone = RidgeLOO().fit(X, np.arange(30) % 2, weights=weights)
    assert np.allclose(alone.mean_, wanted.mean_, rtol=1e-13, atol=1e-15)
    assert np.allclose(alone.scale_, wanted.scale_, rtol=1e-12)
    assert np.isinf(alone.scale_[[2, 4]]).all()
    beside = RidgeLOO().fit(X, np.arange(30) % 2, weights=weights, beside=other)
    both = LiveScaler().fit(np.vstack([X, other])).scale_
    live = np.isfinite(wanted.scale_)
    assert np.allclose(beside.scale_[live] / beside.scale_[0], both[live] / both[0], rtol=1e-12)
    assert np.isinf(beside.scale_[~live]).all()


def test_two_classes_are_fitted_as_scikit_learn_fits_them():
    X, y = clouds(60, 12)
    codes, weights = (y == 1).astype(int), np.random.default_rng(0).uniform(0.2, 3.0, size=60)
    Z = StandardScaler().fit_transform(X)
    theirs = LogisticRegression(C=0.3, tol=1e-4, warm_start=True).fit(Z, codes, weights)
    ours = two_classes.fitted(Z, codes, weights, C=0.3, most=1000)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert np.allclose(ours.intercept_, theirs.intercept_, atol=1e-6)
    assert ours.n_iter_[0] == theirs.n_iter_[0]
    near = two_classes.fitted(Z, codes, weights, C=0.1, most=1000, near=ours)
    theirs.set_params(C=0.1).fit(Z, codes, weights)
    assert np.allclose(near.coef_, theirs.coef_, atol=1e-6)
