"""Heads that are tried by name: against brute force, scikit-learn and planted truth; saved without pickle; a user's own among them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError, Source
from headstart.export import _head
from headstart.learner import word_for_groups
from headstart.methods import METHODS, Closed, space
from headstart.methods.features.discriminant import GaussianClasses, ShrunkLDA
from headstart.methods.features.gaussian_process import MOST_OF_CLASSES, GaussianProcess, ProcessClassifier, ProcessRegressor
from headstart.methods.features.head import Head
from headstart.methods.features.own import OwnHead, own_heads
from headstart.methods.features.plain import Logistic
from headstart.methods.features.prototype import Prototypes
from headstart.methods.features.random_features import KernelFeatures
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.features.stages import NumbersOnStages, RidgeOnStages
from headstart.methods.features.transforms import TRANSFORMS, Components, SignedRoot, after
from headstart.methods.features.weighing import Balanced, Standardised

NAMED = [kind for kinds in METHODS.values() for kind in kinds if issubclass(kind, Closed) and kind.level == "feature" and kind.name != "frozen + head"]
CLASSES = [kind for kind in NAMED if "classes" in kind.needs]
NUMBERS = [kind for kind in NAMED if "numbers" in kind.needs]
ESTIMATORS = [
    Prototypes(),
    Prototypes(metric="cosine"),
    ShrunkLDA(),
    GaussianClasses(),
    Balanced(GaussianNB()),
    Balanced(KNeighborsClassifier(1)),
    Standardised(Ridge()),
    KernelFeatures(components=8),
    KernelFeatures(kind="nystroem", components=8),
    SignedRoot(),
    Components(),
    Components(whiten=True),
    RidgeOnStages(),
    NumbersOnStages(),
    ProcessClassifier(),
    ProcessRegressor(),
]


def clouds(n: int, d: int, *, classes: int = 3, seed: int = 0, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds, the first class twice as large as the others, with unlike units per feature."""
    rng = np.random.default_rng(seed)
    y = np.maximum(np.arange(n) % (classes + 1) - 1, 0)
    X = 2.0 * np.random.default_rng(99).normal(size=(classes, d))[y] + spread * rng.normal(size=(n, d))
    return X * np.linspace(0.5, 3.0, d) + 1.0, y


@pytest.mark.filterwarnings("ignore:The optimal value found for dimension:sklearn.exceptions.ConvergenceWarning")  # of processes; the heads mute it
@parametrize_with_checks(ESTIMATORS)
def test_every_estimator_of_ours_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.name)
def test_every_named_head_learns_classes_repeats_itself_and_is_saved_without_pickle(kind: type[Closed], tmp_path: Path) -> None:
    X, y = clouds(90, 6)
    new, truth = clouds(90, 6, seed=1)
    model = kind().estimator(seed=3).fit(X, y)  # type: ignore[call-arg]
    proba = model.predict_proba(new)
    assert proba.shape == (90, 3)
    assert np.allclose(proba.sum(axis=1), 1.0)
    assert np.mean(proba.argmax(axis=1) == truth) > 0.8  # chance 0.5
    assert np.array_equal(kind().estimator(seed=3).fit(X, y).predict_proba(new), proba)  # type: ignore[call-arg]
    skops.io.dump(model, tmp_path / "head.skops")
    assert np.array_equal(_head(tmp_path / "head.skops").predict_proba(new), proba)


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda k: k.name)
def test_every_named_head_for_numbers_learns_them_in_any_unit_and_is_saved_without_pickle(kind: type[Closed], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(2, 120, 3))
    y, truth = (1e4 + 100.0 * (x[:, 0] + 0.5 * x[:, 1]) for x in (X, new))
    model = kind().estimator(seed=3).fit(X, y)  # type: ignore[call-arg]
    found = model.predict(new)
    assert 1.0 - np.mean((found - truth) ** 2) / truth.var() > 0.7
    assert np.array_equal(kind().estimator(seed=3).fit(X, y).predict(new), found)  # type: ignore[call-arg]
    skops.io.dump(model, tmp_path / "head.skops")
    assert np.array_equal(_head(tmp_path / "head.skops").predict(new), found)


@pytest.mark.parametrize("kind", NAMED, ids=lambda k: k.__name__)
def test_every_named_head_declares_itself_whole(kind: type[Closed]) -> None:
    made = kind()  # type: ignore[call-arg]
    assert METHODS[kind.name][[k.needs for k in METHODS[kind.name]].index(kind.needs)] is kind
    assert kind.paper
    assert kind.limits
    assert all(getattr(made, name) in k.choices if k.choices else k.low <= getattr(made, name) <= k.high for name, k in space(made).items())
    assert made.view(Source("s", stages=("a", "b", "c"))).cuts[-1] == 3


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: k.name)
@pytest.mark.parametrize("y", [[0, 1, 2], [0, 0, 0, 1, 2]], ids=["one of each", "two alone"])
def test_classes_of_one_case_are_learnt_as_well(kind: type[Closed], y: list[int]) -> None:
    X = 9.0 * np.eye(3)[y] + 0.1 * np.random.default_rng(0).normal(size=(len(y), 3))
    model = kind().estimator(seed=0).fit(X, np.array(y))  # type: ignore[call-arg]
    assert np.isfinite(model.predict_proba(X)).all()
    if kind.name in {"ridge", "logistic", "lda", "qda", "prototype", "cosine"}:  # nothing to choose that so few cases could choose badly
        assert np.array_equal(model.predict(X), y)


def test_groups_reach_the_inner_folds_of_a_head_behind_a_transform() -> None:
    """Thirty random cases, ten copies each, random labels: only memory of a copy can beat chance."""
    rng = np.random.default_rng(0)
    X, y, who = rng.normal(size=(30, 40)).repeat(10, axis=0), rng.permutation(np.arange(30) % 2).repeat(10), np.arange(30).repeat(10)
    model = Logistic(transform="whiten").estimator(seed=0)
    model.fit(X, y, **{word_for_groups(model): who})
    assert np.nanmin(model.steps[-1][1].path_) > 0.6  # chance: log 2 = 0.693


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_is_learnt_from_the_training_cases_alone_and_each_case_is_seen_by_itself(transform: str) -> None:
    X, y = clouds(60, 5)
    new = clouds(40, 5, seed=1)[0]
    model = after(transform, RidgeLOO()).fit(X, y)
    alone = np.vstack([model.predict_proba(row[None]) for row in new])
    assert np.allclose(model.predict_proba(new), alone, atol=1e-12)
    assert np.allclose(model.predict_proba(np.vstack([new, 1e6 * new]))[:40], alone, atol=1e-12)


def test_whitened_training_cases_have_the_identity_as_covariance_and_unit_ones_length_one() -> None:
    X, _ = clouds(60, 5)
    Z = after("whiten", StandardScaler(with_mean=False, with_std=False)).fit_transform(X)
    assert np.allclose(np.cov(Z.T), np.eye(5), atol=1e-9)
    assert np.allclose(np.linalg.norm(after("unit", StandardScaler(with_mean=False, with_std=False)).fit_transform(X), axis=1), 1.0)


def test_a_copied_feature_is_no_component_of_its_own() -> None:
    X, _ = clouds(40, 3)
    assert Components(whiten=True).fit_transform(np.hstack([X, X])).shape == (40, 3)


def test_prototypes_without_shrinkage_predict_what_scikit_learns_nearest_centroid_predicts() -> None:
    X, y = clouds(80, 4)
    new = clouds(200, 4, seed=1)[0]
    assert np.array_equal(Prototypes(shrinks=(0.0,)).fit(X, y).predict(new), NearestCentroid().fit(X, y).predict(new))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_left_out_losses_of_prototypes_are_those_of_prototypes_fitted_without_the_case(metric: str) -> None:
    X, y = clouds(24, 3)
    for shrink in (0.0, 0.4) if metric == "euclidean" else (0.0,):
        model = Prototypes(metric=metric, shrinks=(shrink,)).fit(X, y)
        assert model.path_ is not None
        loss = np.zeros(24)
        for i in range(24):
            means = np.stack([model._lengths(np.delete(X, i, 0)[np.delete(y, i) == k]).mean(axis=0) for k in range(3)])
            means = (1 - shrink) * means + shrink * means.mean(axis=0)
            x = model._lengths(X[i : i + 1])[0]
            unit = means / np.linalg.norm(means, axis=1, keepdims=True)
            decision = unit @ x if metric == "cosine" else -np.square(x - means).sum(axis=1) / 2
            loss[i] = -log_softmax(model.sharpness_ * decision)[y[i]]
        assert model.path_[0] == pytest.approx(np.mean([loss[y == k].mean() for k in range(3)]), rel=1e-9)


def test_prototypes_take_the_shrinkage_with_the_least_loss_which_leaves_their_mean_where_it_is() -> None:
    X, y = clouds(60, 5)
    model = Prototypes().fit(X, y)
    assert model.path_ is not None
    assert model.shrink_ == Prototypes().shrinks[int(np.argmin(model.path_))]
    assert np.allclose(model.means_.mean(axis=0), Prototypes(shrinks=(0.0,)).fit(X, y).means_.mean(axis=0))


def test_lda_is_that_of_scikit_learn_with_equal_priors() -> None:
    X, y = clouds(60, 5)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(3, 1 / 3)).fit(X, y)
    assert np.allclose(ShrunkLDA().fit(X, y).predict_proba(X), theirs.predict_proba(X))


def test_gaussian_classes_follow_friedmans_formula_and_are_linear_where_all_is_pooled() -> None:
    X, y = clouds(50, 3)
    model = GaussianClasses(pooled=0.3, spherical=0.2).fit(X, y)
    scatters = [len(X[y == k]) * np.cov(X[y == k].T, bias=True) for k in range(3)]
    counts = np.bincount(y)
    for k in range(3):
        mixed = (0.7 * scatters[k] + 0.3 * sum(scatters)) / (0.7 * counts[k] + 0.3 * 50)
        mixed = 0.8 * mixed + 0.2 * np.trace(mixed) / 3 * np.eye(3)
        assert np.allclose(model.roots_[k].T @ model.roots_[k], np.linalg.inv(mixed))
        assert model.log_volumes_[k] == pytest.approx(np.linalg.slogdet(mixed)[1] / 2)
    pooled = GaussianClasses(pooled=1.0, spherical=0.0).fit(X, y)
    lda = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(3, 1 / 3), covariance_estimator=Pooled(sum(scatters) / 50)).fit(X, y)
    assert np.allclose(pooled.predict_proba(X), lda.predict_proba(X), atol=1e-9)


class Pooled(BaseEstimator):
    """A covariance that is known."""

    def __init__(self, known: Any = None) -> None:
        self.known = known

    def fit(self, X: Any) -> Pooled:
        self.covariance_ = self.known
        return self


def test_forward_selection_takes_the_stages_that_hold_the_planted_signal_and_stops() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    stages = [rng.normal(size=(200, width)) for width in (3, 5, 4, 6)]
    stages[1][:, :1] += 3.0 * (y[:, None] % 2)
    stages[3][:, :1] += 3.0 * (y[:, None] // 2)
    X, widths = np.hstack(stages), (3, 5, 4, 6)
    model = RidgeOnStages().fit(X, y, widths=widths)
    assert sorted(model.chosen_) == [1, 3]
    assert model.path_ == sorted(model.path_, reverse=True)
    assert model.kept_.tolist() == [*range(3, 8), *range(12, 18)]
    assert NumbersOnStages(most=1).fit(X, stages[1][:, 0] * 5.0, widths=widths).chosen_ == [1]
    assert np.allclose(RidgeOnStages().fit(X, y).predict_proba(X), RidgeLOO().fit(X, y).predict_proba(X))  # one stage
    with pytest.raises(InputError, match=r"^widths=\(3, 5\) add up to 8, but X has 18 columns. Give the width of every stage.$"):
        RidgeOnStages().fit(X, y, widths=(3, 5))


def test_of_many_cases_with_many_columns_some_of_each_class_choose_the_stages_and_all_fit_the_ridge() -> None:
    rng = np.random.default_rng(0)
    y = np.where(np.arange(120) < 100, "often", "seldom")
    X, widths = rng.normal(size=(120, 60)), (30, 30)
    X[:, 30] += 2.0 * (y == "seldom")
    few = RidgeOnStages(cases=50).fit(X, y, widths=widths)
    assert few.chosen_[0] == 1
    assert RidgeOnStages(cases=59).fit(X, y, widths=widths).path_ != RidgeOnStages(cases=60).fit(X, y, widths=widths).path_  # of 60 columns all cases choose
    assert np.allclose(few.predict_proba(X), RidgeLOO().fit(X[:, few.kept_], y).predict_proba(X[:, few.kept_]))
    assert few.path_ == RidgeOnStages(cases=50).fit(X, y, widths=widths).path_
    with pytest.raises(InputError, match=r"^cases=1 cannot choose stages, as one is always left out. Give two or more.$"):
        RidgeOnStages(cases=1).fit(X, y, widths=widths)


@pytest.mark.parametrize("kind", ["fourier", "nystroem"])
def test_random_features_come_near_the_gaussian_kernel(kind: str) -> None:
    X, _ = clouds(60, 4)
    Z = KernelFeatures(kind=kind, components=4000).fit_transform(X)
    assert np.abs(Z @ Z.T - RBF(np.sqrt(2 * X.var()))(X)).max() < 0.1


def test_classes_weigh_alike_by_weights_or_by_repeated_cases() -> None:
    X, y = np.array([[0.0], [0.1], [0.2], [1.0]]), np.array([0, 0, 0, 1])
    assert Balanced(GaussianNB()).fit(X, y).fitted_.class_prior_.tolist() == [0.5, 0.5]
    assert Balanced(KNeighborsClassifier(4)).fit(X, y).fitted_._fit_X.ravel().tolist() == [0.0, 0.1, 0.2, 1.0, 1.0, 1.0]


def test_a_gaussian_process_learns_from_500_cases_at_most_and_the_rare_class_is_among_them() -> None:
    y = np.repeat([0, 1], [900, 60])
    X = np.random.default_rng(0).normal(size=(960, 2)) + 6.0 * y[:, None]
    head = Balanced(KNeighborsClassifier(1), most=MOST_OF_CLASSES, seed=0).fit(X, y)
    assert np.bincount(head.fitted_._y).tolist() == [440, 60]
    assert GaussianProcess().head(seed=0).most == MOST_OF_CLASSES


def test_a_users_own_estimator_is_a_head_named_as_it_is_written_and_seeded() -> None:
    first, second = own_heads([LogisticRegression(C=3), make_pipeline(StandardScaler(), LinearSVC())], classes=2)
    assert (first.name, second.name.startswith("Pipeline(steps=[('standardscaler'")) == ("LogisticRegression(C=3)", True)
    assert second.estimator(seed=5).machine.get_params()["linearsvc__random_state"] == 5
    X, y = clouds(60, 4, classes=2)
    expected = LogisticRegression(C=3, random_state=0).fit(X, y).predict_proba(X)
    assert np.array_equal(first.estimator(seed=0).fit(X, y).predict_proba(X), expected)
    assert second.estimator(seed=0).fit(X, y).predict_proba(X).shape == (60, 2)  # LinearSVC has none of its own
    whitened = dataclasses.replace(first, transform="whiten").estimator(seed=0)
    assert [type(step).__name__ for _, step in whitened.steps] == ["LiveScaler", "Components", "LogisticRegression"]
    assert isinstance(first, Head)


@pytest.mark.parametrize(
    ("given", "classes", "words"),
    [
        ([Ridge()], 2, "heads holds Ridge(), which is no scikit-learn classifier. Give unfitted classifiers, such as LogisticRegression()."),
        ([LogisticRegression()], 0, "heads holds LogisticRegression(), which is no scikit-learn regressor. Give unfitted regressors, such as Ridge()."),
        (["lda"], 2, "heads holds 'lda', which is no scikit-learn classifier. Give unfitted classifiers, such as LogisticRegression()."),
        ([GaussianNB(), GaussianNB()], 2, "heads holds GaussianNB() twice. Give each once."),
    ],
)
def test_what_is_no_head_is_said_in_one_line(given: list[Any], classes: int, words: str) -> None:
    with pytest.raises(InputError) as told:
        own_heads(given, classes=classes)
    assert str(told.value) == words


class Mine(ClassifierMixin, BaseEstimator):
    """A class that no library has."""

    def fit(self, X: Any, y: Any) -> Mine:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), len(self.classes_)), 1.0 / len(self.classes_))


def test_a_class_of_ones_own_is_loaded_only_where_it_is_trusted_by_name(tmp_path: Path) -> None:
    path, name = tmp_path / "head.skops", f"{Mine.__module__}.Mine"
    skops.io.dump(OwnHead(given=Mine()).estimator(seed=0).fit(*clouds(9, 2)), path)
    with pytest.raises(InputError, match=rf"asks for code that Headstart did not write there \({name}\).*headstart.load\(folder, trusted=\['{name}'\]\)"):
        _head(path)
    assert isinstance(_head(path, trusted=[name]), Mine)
