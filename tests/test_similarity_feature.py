"""The feature view: every measure keeps the contract, and its number is that of refitting, of scikit-learn or of a planted truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from threadpoolctl import threadpool_limits

from headstart.contract import world
from headstart.core import InputError
from headstart.similarity.feature import MEASURES
from headstart.similarity.hscore import h_score
from headstart.similarity.measure import Evidence, Measure
from headstart.similarity.neighbours import TEMPERATURE, credit, leave_one_out_votes
from headstart.similarity.probes import STRENGTHS, ridge_credit, ridge_errors, stage_curve
from headstart.spectrum import Spectrum, class_weights

BY_NAME = {measure.name: measure for measure in MEASURES}
SHAPES = [(40, 7), (24, 60)]


def clouds(n: int, d: int, *, classes: int = 3, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds of unlike size around class means, on features of unlike scale and mean."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.integers(0, classes + 2, n), classes - 1)
    y[: 2 * classes] = np.arange(classes).repeat(2)
    return (rng.normal(size=(classes, d))[y] + spread * rng.normal(size=(n, d))) * rng.uniform(0.5, 2.0, d) + 3.0, y


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_other_sources_change_no_score(measure: Measure) -> None:
    worlds = [world("classification", n=40, m=30, d=d, seed=d) for d in (6, 70)]
    alone = measure(world("classification", n=40, m=30, d=6, seed=6))
    together = [measure(evidence) for evidence in (*worlds, worlds[0])]
    assert together[0] == together[2] == alone


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [True, False])
def test_ridge_names_the_class_that_a_refit_without_the_case_names(shape: tuple[int, int], weighted: bool) -> None:
    x, y = clouds(*shape)
    w = class_weights(y) if weighted else np.ones(len(y))
    spectrum = Spectrum.of(x, weights=w if weighted else None)
    Y = np.eye(3)[y]
    penalties = STRENGTHS * spectrum.values.mean()
    left_out = np.array([[_refit(np.delete(x, i, 0), np.delete(Y, i, 0), np.delete(w, i), a, x[i]) for i in range(len(x))] for a in penalties])
    errors = np.average(np.square(Y - left_out).sum(axis=2), axis=1, weights=w)
    others = (w @ Y - w[:, None] * Y) / (w.sum() - w)[:, None]  # the mean target, which a refitted intercept knows
    named = (left_out[errors.argmin()] - others + np.average(Y, axis=0, weights=w)).argmax(axis=1)
    assert np.array_equal(ridge_credit(spectrum, y), named == y)
    measured = BY_NAME["ridge" if weighted else "ridge accuracy"](Evidence(x=x, y=y)).value
    assert measured == pytest.approx(balanced_accuracy_score(y, named) if weighted else np.mean(named == y))


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_errors_are_those_of_refits_without_the_case(shape: tuple[int, int]) -> None:
    x, _ = clouds(*shape)
    rng = np.random.default_rng(1)
    y = x[:, :3] @ rng.normal(size=(3, 2)) + rng.normal(size=(len(x), 2)) * [1.0, 30.0]
    spectrum = Spectrum.of(x)
    penalties = STRENGTHS * spectrum.values.mean()
    every = np.ones(len(x) - 1)
    left_out = np.array([[_refit(np.delete(x, i, 0), np.delete(y, i, 0), every, a, x[i]) for i in range(len(x))] for a in penalties])
    best = np.square((y - left_out) / y.std(axis=0)).sum(axis=(1, 2)).argmin()
    assert np.allclose(ridge_errors(spectrum, y), (y - left_out)[best], rtol=1e-6, atol=1e-6)


def _refit(X: np.ndarray, Y: np.ndarray, w: np.ndarray, alpha: float, x: np.ndarray) -> np.ndarray:
    """Predict x by weighted ridge with a free intercept, through the smaller system."""
    mean, y_mean = np.average(X, axis=0, weights=w), np.average(Y, axis=0, weights=w)
    S, T = np.sqrt(w)[:, None] * (X - mean), np.sqrt(w)[:, None] * (Y - y_mean)
    u, s, vt = np.linalg.svd(S, full_matrices=False)
    return y_mean + ((x - mean) @ vt.T * (s / (s**2 + alpha))) @ (u.T @ T)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_neighbours_vote_as_scikit_learn_has_them_vote_without_the_case(k: int) -> None:
    x, y = clouds(40, 6, spread=2.0)
    ours = leave_one_out_votes(x, np.eye(3)[y], ks=(k,), by_angle=True)[0]
    z = x - x.mean(axis=0)
    for i in range(0, 40, 4):
        rest = np.arange(40) != i
        theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / TEMPERATURE))
        assert np.allclose(theirs.fit(z[rest], y[rest]).predict_proba(z[[i]])[0], ours[i], atol=1e-12)


def test_neighbours_regress_as_scikit_learn_does_without_the_case() -> None:
    x, _ = clouds(30, 5)
    y = x[:, :2] ** 2
    ours = leave_one_out_votes(x, y, ks=(20,), by_angle=False)[0]
    z = x - x.mean(axis=0)
    z /= np.sqrt(np.mean(np.sum(z**2, axis=1)))
    for i in range(0, 30, 3):
        rest = np.arange(30) != i
        theirs = KNeighborsRegressor(20, algorithm="brute", weights=lambda distance: np.exp(-(distance**2) / 2 / TEMPERATURE))
        assert np.allclose(theirs.fit(z[rest], y[rest]).predict(z[[i]])[0], ours[i], atol=1e-10)


def test_neighbours_do_not_depend_on_the_blocks_they_are_compared_in(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(50, 6)
    whole = leave_one_out_votes(x, np.eye(3)[y], ks=(1, 20), by_angle=True)
    monkeypatch.setattr("headstart.similarity.neighbours.HELD", 50 * 7)
    assert np.allclose(leave_one_out_votes(x, np.eye(3)[y], ks=(1, 20), by_angle=True), whole, atol=1e-12)


def test_neighbours_that_tie_share_the_place() -> None:
    """Two copies of a case, of unlike class, are the nearest of a third: half a vote each, and half a point."""
    x = np.array([[1.0, 0.0], [1.0, 0.01], [1.0, 0.01], [-1.0, 0.0], [-1.0, 0.3], [-1.0, -0.32]])
    y = np.array([0, 0, 1, 1, 1, 1])
    votes = leave_one_out_votes(x, np.eye(2)[y], ks=(1,), by_angle=True)[0]
    assert votes[0].tolist() == [0.5, 0.5]
    assert credit(votes, y)[0] == 0.5


def test_a_rare_class_is_not_outvoted_by_its_size() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 25])
    x = rng.normal(size=(325, 3)) + 1.2 * y[:, None]
    scores = {name: BY_NAME[name](Evidence(x=x, y=y)).value for name in ("ridge", "20-NN")}
    recall = np.mean(leave_one_out_votes(x, np.eye(2)[y], ks=(20,), by_angle=True)[0].argmax(axis=1)[300:] == 1)
    assert recall < 0.55
    assert min(scores.values()) > 0.7


@pytest.mark.parametrize("name", ["ridge", "1-NN", "20-NN"])
def test_a_target_of_numbers_that_features_hold_is_explained(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, size=(400, 2))
    score = BY_NAME[name](Evidence(x=x, y=x @ [1.0, 2.0], kind="regression"))
    assert score.value > {"ridge": 0.999, "1-NN": 0.97, "20-NN": 0.97}[name]
    assert score.unit == "R2, 0..1"


def test_more_cases_narrow_the_interval_and_digits_are_told_apart() -> None:
    x, y = load_digits(return_X_y=True)
    for name in ("ridge", "ridge accuracy", "1-NN", "20-NN"):
        few, many = (BY_NAME[name](Evidence(x=x[:n], y=y[:n])) for n in (150, 900))
        assert many.value > 0.9
        assert many.interval[1] - many.interval[0] < 0.6 * (few.interval[1] - few.interval[0])


def test_the_curve_over_stages_finds_where_the_target_appears() -> None:
    rng = np.random.default_rng(0)
    x, y = clouds(120, 10, spread=0.3)
    stages = {"stem": rng.normal(size=(120, 30)), "middle": x + 6.0 * rng.normal(size=x.shape), "top": x}
    curve = stage_curve(stages, y, "classification")
    assert list(curve) == ["stem", "middle", "top"]
    assert curve["stem"].interval[0] < 1 / 3 < curve["stem"].interval[1]
    assert curve["stem"].value < curve["middle"].value < curve["top"].value > 0.95
    best = BY_NAME["best stage"](Evidence(y=y, stages=stages))
    assert best.value == curve["top"].value
    assert best.interval[0] < curve["top"].interval[0]  # it pays for the choice among three


@pytest.mark.parametrize("d", [5, 200])
def test_features_that_tell_nothing_score_chance(d: int) -> None:
    """Mean over 30 worlds of two classes, 20 cases each: 0.5, give or take 3 standard errors of 0.08 / sqrt(30). R2 is floored at 0."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    scores = {
        name: [BY_NAME[name](Evidence(x=rng.normal(size=(40, d)), y=y)).value for _ in range(30)] for name in ("ridge", "ridge accuracy", "1-NN", "20-NN")
    }
    for name, each in scores.items():
        assert abs(np.mean(each) - 0.5) < 0.045, name
    assert BY_NAME["ridge"](Evidence(x=np.ones((40, 3)), y=y)).value == 0.5


@pytest.mark.parametrize("name", ["ridge", "20-NN", "LogME"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_target_that_never_varies_is_refused_in_one_line(name: str, kind: str) -> None:
    with pytest.raises(InputError, match=r"^The target is the same in all 5 cases; at least two classes or values are needed\. Add cases that differ\.$"):
        BY_NAME[name](Evidence(x=np.eye(5), y=np.ones(5, dtype=int), kind=kind))


def test_shrinkage_of_the_h_score_is_that_of_scikit_learn() -> None:
    for shape in SHAPES:
        x, y = clouds(*shape)
        spectrum = Spectrum.of(x)
        ours, theirs = (h_score(spectrum, np.eye(3)[y], shrinkage=a) for a in (None, ledoit_wolf_shrinkage(x)))
        assert ours.plain == pytest.approx(theirs.plain, rel=1e-10)


def test_all_measures_of_a_source_take_little_time() -> None:
    """About 0.3 s on one idle core, and 1.3 s at four times the numbers (benchmarks/RESULTS.md); the bound allows for a busy machine."""
    x, y = clouds(1000, 640, classes=10, spread=8.0)
    evidence = Evidence(x=x.astype(np.float32), y=y)
    start = time.process_time()
    with threadpool_limits(limits=1):
        assert sum(measure(evidence) is not None for measure in MEASURES) == len(MEASURES) - 1  # no stages
    assert time.process_time() - start < 2.0
