"""What every relation-level method promises: scikit-learn's checks, two domains at the door, and laws that hold whatever the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from headstart.core import InputError
from headstart.methods.features import RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.relations import JPDA, KMM, REGRESSIONS, RELATIONS, Mapped, Relation, Weighted
from headstart.methods.relations.relation import default_head

CLASSIFIERS, REGRESSORS = list(RELATIONS.values()), list(REGRESSIONS.values())
EVERY = CLASSIFIERS + REGRESSORS
SHAPES = [(40, 25, 6), (25, 40, 6), (14, 12, 30)]  # n > m, n < m, both less than d


@parametrize_with_checks([method() for method in EVERY])
def test_every_method_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def domains(n: int, m: int, d: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two classes two and a half deviations apart along every feature; the target is turned a little and moved."""
    dice = np.random.default_rng(seed)
    ys, yt = np.arange(n) % 2, np.arange(m) % 2
    turn = np.linalg.qr(np.eye(d) + 0.1 * dice.normal(size=(d, d)))[0]
    turn = turn * np.sign(np.diag(turn))
    xs = dice.normal(size=(n, d)) + 2.5 * ys[:, None] - 1.25
    xt = (dice.normal(size=(m, d)) + 2.5 * yt[:, None] - 1.25) @ turn + 0.3
    return xs, ys, xt, yt


def some(yt: np.ndarray, *, step: int = 3) -> list[Any]:
    """Every third label, None elsewhere."""
    return [label if i % step == 0 else None for i, label in enumerate(yt.tolist())]


def fitted(method: type[Relation], xs: np.ndarray, ys: np.ndarray, xt: np.ndarray, yt: np.ndarray) -> Any:
    return method().fit(xs, ys, xt, some(yt) if method.needs_target_labels else None)


@pytest.mark.parametrize("method", EVERY)
def test_every_method_names_its_paper_and_its_limits(method: type[Relation]) -> None:
    assert method.name
    assert method.limits
    assert any(year in method.paper for year in map(str, range(1995, 2027)))
    assert {**RELATIONS, **REGRESSIONS}[method.name].name == method.name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", CLASSIFIERS)
def test_a_small_shift_is_survived_in_any_shape(method: type[Relation], shape: tuple[int, int, int]) -> None:
    xs, ys, xt, yt = domains(*shape)
    names = np.array(["dog", "cat"])[ys]
    model = fitted(method, xs, names, xt, np.array(["dog", "cat"])[yt])
    proba = model.predict_proba(xt)
    assert np.mean(model.predict(xt) == np.array(["dog", "cat"])[yt]) > 0.8
    assert np.allclose(proba.sum(axis=1), 1.0)
    assert np.all(proba >= 0)
    assert model.classes_.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("method", REGRESSORS)
def test_numbers_are_regressed_across_a_small_shift(method: type[Relation]) -> None:
    dice = np.random.default_rng(0)
    xs, xt, slope = dice.normal(size=(60, 3)), dice.normal(size=(40, 3)) + 0.2, np.array([1.0, -2.0, 0.5])
    model = method().fit(xs, xs @ slope, xt, some(xt @ slope) if method.needs_target_labels else None)
    assert model.score(xt, xt @ slope) > 0.7


@pytest.mark.parametrize("method", EVERY)
def test_without_a_target_it_is_plain_training(method: type[Relation]) -> None:
    xs, ys, xt, _ = domains(30, 20, 4)
    y = ys if method in CLASSIFIERS else xs @ np.arange(4.0)
    plain = method()
    head = plain.final().fit(xs, y)
    assert np.array_equal(plain.fit(xs, y).predict(xt), head.predict(xt))
    if isinstance(plain, Mapped):
        assert np.array_equal(plain.adapt_source(xs), xs)
        assert np.array_equal(plain.adapt_target(xt), xt)
    if isinstance(plain, Weighted):
        assert np.array_equal(plain.weights_, np.ones(30))
        assert plain.effective_ == pytest.approx(30)


@pytest.mark.parametrize("method", EVERY)
def test_the_same_input_gives_the_same_bytes_and_nothing_is_written_into_it(method: type[Relation]) -> None:
    xs, ys, xt, yt = domains(30, 20, 4)
    y, t = (ys, yt) if method in CLASSIFIERS else (xs @ np.arange(4.0), xt @ np.arange(4.0))
    kept = [a.copy() for a in (xs, y, xt, t)]
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first, second = (fitted(method, xs, y, xt, t).predict(xt).tobytes() for _ in range(2))
    assert first == second
    assert all(np.array_equal(a, b) for a, b in zip((xs, y, xt, t), kept, strict=True))
    assert np.array_equal(np.random.get_state()[1], state)


# why not kliep and density-ratio, bbse: their folds, and KLIEP's centres, are drawn by row
ORDERLY = [method for method in CLASSIFIERS if method.name not in {"kliep", "density-ratio", "bbse"}]


@pytest.mark.parametrize("method", ORDERLY)
def test_the_order_of_cases_does_not_matter(method: type[Relation]) -> None:
    xs, ys, xt, yt = domains(30, 20, 4)
    dice = np.random.default_rng(1)
    i, j = dice.permutation(30), dice.permutation(20)
    labels = np.array(some(yt), dtype=object) if method.needs_target_labels else None
    one = method().fit(xs, ys, xt, labels)
    other = method().fit(xs[i], ys[i], xt[j], None if labels is None else labels[j])
    assert np.allclose(one.predict_proba(xt), other.predict_proba(xt), atol=1e-6)


# invariant by definition to a rotation of both domains, with a head that is, too
ROUND = [
    "subspace-alignment",
    "gfk",
    "tca",
    "jda",
    "bda",
    "jpda",
    "ot",
    "ot-entropic",
    "ot-class",
    "ot-linear",
    "kmm",
    "nn-weights",
    "selection",
    "propagation",
]


@pytest.mark.parametrize("name", ROUND)
def test_turning_both_domains_alike_changes_nothing(name: str) -> None:
    xs, ys, xt, _ = domains(40, 30, 5)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    head = KNeighborsClassifier(1) if issubclass(RELATIONS[name], Mapped) else LogisticRegression()
    one = RELATIONS[name](estimator=head).fit(xs, ys, xt)
    other = RELATIONS[name](estimator=head).fit(xs @ turn, ys, xt @ turn)
    assert np.array_equal(one.predict(xt), other.predict(xt @ turn))
    if isinstance(one, Weighted):
        assert np.allclose(one.weights_, other.weights_, atol=1e-6)


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_labels_of_target_cases_are_taken_with_none_where_there_is_none(method: type[Relation]) -> None:
    xs, ys, xt, yt = domains(40, 30, 5)
    assert np.mean(method().fit(xs, ys, xt, some(yt)).predict(xt) == yt) > 0.8


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize(
    ("target", "labels", "message"),
    [
        (np.ones((5, 3)), None, r"^X has 4 columns but X_target has 3\. Give both domains the same features, in the same order\.$"),
        (np.ones((1, 4)), None, r"^X_target holds 1 case; a domain needs at least 2\. Add cases\.$"),
        (np.ones((5, 4)), [None], r"^X_target holds 5 cases but y_target 1 labels\. Give one for each, None where it is not known\.$"),
        (None, [None], r"^y_target came without X_target\. Give the target's cases, too\.$"),
        (np.full((5, 4), np.nan), None, r"contains NaN"),
    ],
)
def test_bad_targets_are_refused_in_one_line(method: type[Relation], target: Any, labels: Any, message: str) -> None:
    xs, ys, _, _ = domains(20, 10, 4)
    with pytest.raises(ValueError, match=message):
        method().fit(xs, ys, target, labels)


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_one_class_and_unknown_classes_are_refused_in_one_line(method: type[Relation]) -> None:
    xs, ys, xt, _ = domains(20, 10, 4)
    with pytest.raises(InputError, match=rf"^y holds only one class, '0'; {method.__name__} needs at least 2\. Add cases of another class\.$"):
        method().fit(xs, np.zeros(20, dtype=int), xt)
    with pytest.raises(InputError, match=r"^y_target holds class '7', which y lacks\. Add source cases of it, or leave those target cases out\.$"):
        method().fit(xs, ys, xt, [7] + [None] * 9)


@pytest.mark.parametrize("method", [m for m in EVERY if m.needs_target_labels])
def test_methods_that_need_target_labels_say_so(method: type[Relation]) -> None:
    xs, ys, xt, _ = domains(20, 10, 4)
    with pytest.raises(InputError, match=rf"^{method.__name__} learns from labelled target cases, and there are none\."):
        method().fit(xs, ys, xt)


def test_a_head_that_takes_no_weights_is_refused_where_cases_are_weighed() -> None:
    xs, ys, xt, _ = domains(20, 10, 4)
    with pytest.raises(InputError, match=r"^KNeighborsClassifier takes no weights of cases"):
        KMM(KNeighborsClassifier(1)).fit(xs, ys, xt)


def test_an_unknown_kernel_is_refused() -> None:
    xs, ys, xt, _ = domains(20, 10, 4)
    with pytest.raises(InputError, match=r"^There is no kernel 'cubic'\. Say 'linear' or 'rbf'\.$"):
        JPDA(kernel="cubic").fit(xs, ys, xt)


def test_default_heads_are_ridges() -> None:
    assert isinstance(default_head(KMM()), RidgeLOO)
    head = default_head(REGRESSIONS["kmm"]())
    assert type(head) is type(make_pipeline(LiveScaler()))
    assert isinstance(head[-1], RidgeCV)


def test_weights_of_a_ridge_are_those_of_cases_that_are_there_twice() -> None:
    """Its penalty fixed, the fit with weight 2 is the fit with two copies; the choice of the penalty is not, and is left out."""
    xs, ys, _, _ = domains(20, 10, 4)
    weights = np.where(np.arange(20) < 5, 2.0, 1.0)
    twice = np.concatenate([np.arange(20), np.arange(5)])
    one = RidgeLOO(alphas=(3.0,), balanced=False).fit(xs, ys, weights=weights)
    # weights have mean 1, so the penalty that is meant for 25 cases becomes that for 20
    other = RidgeLOO(alphas=(3.0 * 25 / 20,), balanced=False).fit(xs[twice], ys[twice])
    assert np.allclose(one.coef_, other.coef_, atol=1e-10)
    assert np.allclose(one.intercept_, other.intercept_, atol=1e-10)
