"""The contract of measures: honest ones pass, and each kind of breakage that published code shows is caught and named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from headstart.contract import ContractError, check_measure, world
from headstart.result import Score
from headstart.similarity import MEASURES, architecture
from headstart.similarity.hscore import h_score
from headstart.similarity.measure import CLASSIFICATION, Evidence, Measure
from headstart.spectrum import Spectrum

XY = frozenset({"x", "y"})


def h_pinv(evidence: Evidence) -> Score:
    """The H-score as first published (Bao et al. 2019): a pseudo-inverse of the covariance, no regularisation."""
    F = np.asarray(evidence.x, dtype=np.float64)
    F = F - F.mean(axis=0)
    means = np.eye(3)[evidence.y] @ np.array([F[evidence.y == c].mean(axis=0) for c in range(3)])
    return Score("H", float(np.trace(np.linalg.pinv(F.T @ F, rcond=1e-10) @ (means.T @ means))), unit="0..2", view="feature")


def h_shrunk(evidence: Evidence) -> Score:
    """As regularised by Ibrahim et al. 2021: low for white noise, high for noise whose variances decay."""
    found = h_score(Spectrum.of(np.asarray(evidence.x)), np.eye(3)[evidence.y])
    return Score("H shrunk", found.plain, unit="0..2", view="feature")


def distance(evidence: Evidence) -> Score:
    """The energy distance (Székely & Rizzo 2013), which is 0 between equal samples, whatever their order."""
    x, xs = evidence.x.astype(np.float64), evidence.xs.astype(np.float64)
    value = 2 * cdist(x, xs).mean() - cdist(x, x).mean() - cdist(xs, xs).mean()
    return Score("energy", float(value), unit="distance", view="data", higher_is_closer=False)


def first_class_leaks(evidence: Evidence) -> Score:
    """Each class starts from what the class before it left, as alpha and beta do in one published LogME."""
    state, total = 1.0, 0.0
    for c in range(3):
        state = 0.5 * state + 1e-6 * c * float(np.mean(evidence.y == c))
        total += state
    return Score("leak", total, view="task")


def centres_in_place(evidence: Evidence) -> Score:
    evidence.x[:] -= evidence.x.mean(axis=0)
    return Score("in place", float(np.var(evidence.x)), view="feature")


def half_precision(evidence: Evidence) -> Score:
    x = evidence.x + evidence.x.dtype.type(1000.0)
    return Score("narrow", float(np.mean(x**2) - np.mean(x) ** 2), view="data")


def global_dice(evidence: Evidence) -> Score:
    return Score("dice", float(np.mean(evidence.x) + np.random.normal()), view="data")


def undeclared(evidence: Evidence) -> Score:
    return Score("sly", float(np.mean(evidence.x) - np.mean(evidence.xs)), view="data")


def declared(name: str, compute, *, needs=XY, view="data", **more) -> Measure:
    return Measure(name, view, compute, frozenset(needs), paper="-", limits="-", **more)


ENERGY = declared("energy", distance, needs={"x", "xs"}, ignores=frozenset({"rotation", "shift"}), at_identity=0.0)


def test_an_honest_distance_passes() -> None:
    check_measure(ENERGY)


BROKEN = [
    (declared("first", lambda e: Score("first", float(e.x[0, 0]), view="data"), needs={"x"}), "first: the order of target cases matters"),
    (declared("leak", first_class_leaks, view="task", kinds=CLASSIFICATION), "leak: the numbering of classes matters"),
    (declared("in place", centres_in_place, view="feature"), "in place: changes x of the evidence that it is given"),
    (declared("H", h_pinv, view="feature", kinds=CLASSIFICATION), "H: features of pure noise scored 2, informative ones 2, in 0..2"),
    (declared("H shrunk", h_shrunk, view="feature", kinds=CLASSIFICATION), "in 0..2 (classification, n=40, d=160, variances k^-1)"),
    (declared("narrow", half_precision, needs={"x"}), "narrow: that the same numbers come as float32 matters"),
    (declared("dice", global_dice, needs={"x"}), "dice: the same evidence and seed gave"),
    (replace(ENERGY, ignores=frozenset({"scale"})), "energy: a scale of the features matters"),
    (replace(ENERGY, at_identity=1.0), "where the source's data are the target's, declares 1"),
    (replace(ENERGY, name="other"), "other: its score is named 'energy'"),
    (replace(ENERGY, limits=""), "energy: declares no limits"),
    (replace(ENERGY, needs=frozenset({"x", "colour"})), "energy: needs colour, which evidence never holds"),
    (declared("nan", lambda e: Score("nan", float("nan"), view="data")), "nan: nan is not a finite number"),
    (declared("late", lambda e: Score("late", 1.0, interval=(2.0, 3.0), view="data")), "late: 1.0 is not a finite number inside its interval"),
]


@pytest.mark.parametrize(("measure", "message"), BROKEN, ids=[m.name + str(i) for i, (m, _) in enumerate(BROKEN)])
def test_a_broken_measure_is_caught_and_the_law_is_named(measure: Measure, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_measure(measure)
    assert message in str(caught.value)


def test_a_need_that_is_not_declared_shows_as_the_error_it_causes() -> None:
    with pytest.raises(TypeError):
        check_measure(declared("sly", undeclared, needs={"x"}))


def test_measures_that_do_not_need_what_is_missing_are_none() -> None:
    assert ENERGY(Evidence(x=np.zeros((3, 2)))) is None
    wide = world("regression", n=20, m=10, d=3)
    assert declared("classes", first_class_leaks, kinds=CLASSIFICATION)(wide) is None


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_worlds_hold_their_signal_and_numbers_that_float32_holds(kind) -> None:
    """Least squares of the target on the features explains it where there is signal, and about d/n of it where there is none."""
    for signal, low, high in ((3.0, 0.9, 1.0), (0.0, 0.0, 0.2)):
        evidence = world(kind, n=300, m=45, d=8, signal=signal)
        assert np.array_equal(evidence.x, evidence.x.astype(np.float32))
        target = np.eye(3)[evidence.y] if kind == "classification" else evidence.y.reshape(300, -1)
        design = np.column_stack([evidence.x, np.ones(300)])
        left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        assert low < 1 - left.var() / (target - target.mean(axis=0)).var() < high


@pytest.mark.parametrize("measure", [*MEASURES.values(), *architecture.MEASURES], ids=lambda measure: measure.name)
def test_every_measure_of_the_package_keeps_its_promises(measure: Measure) -> None:
    check_measure(measure)
