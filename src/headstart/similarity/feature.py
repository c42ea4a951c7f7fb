"""The feature view: how well features of a frozen source tell the target, judged on cases left out or by evidence, before any training.

All measures of one source share one decomposition of its features (two, where classes differ in size) and one table of neighbours.
"""

from __future__ import annotations

import numpy as np

from headstart.core import InputError
from headstart.result import Score
from headstart.similarity.hscore import h_score
from headstart.similarity.intervals import LEVEL, explained, mean_share, share
from headstart.similarity.logme import logme_of_spectrum
from headstart.similarity.measure import CLASSIFICATION, Evidence, Ignores, Measure
from headstart.similarity.neighbours import credit, leave_one_out_votes
from headstart.similarity.probes import BALANCED, R2, left_out, rated, ridge_credit, ridge_errors
from headstart.spectrum import Spectrum, class_weights

XY = frozenset({"x", "y"})
ALL: frozenset[Ignores] = frozenset({"rotation", "scale", "shift"})
NEIGHBOURS = (1, 20)


def ridge(evidence: Evidence) -> Score:
    """Balanced accuracy, or R2, of left-out cases: ridge regression in which every class weighs the same."""
    y = _y(evidence)
    value, interval = rated(evidence.shared(credit_left_out), y, evidence.kind)
    return Score("ridge", value, interval=interval, n=len(y), unit=_unit(evidence), view="feature")


def ridge_accuracy(evidence: Evidence) -> Score:
    """Share of left-out cases that ridge regression names right, every case weighing the same."""
    right = ridge_credit(evidence.shared(_spectrum), _y(evidence))
    value, interval = share(right)
    return Score("ridge accuracy", value, interval=interval, n=len(right), unit="accuracy, 0..1", view="feature")


def nearest(evidence: Evidence) -> Score:
    """What the nearest other case tells."""
    return _neighbours(evidence, "1-NN", 0)


def twenty_nearest(evidence: Evidence) -> Score:
    """What the twenty nearest other cases tell, nearer ones more."""
    return _neighbours(evidence, "20-NN", 1)


def log_evidence(evidence: Evidence) -> Score:
    """LogME of the classes, labels, or standardised numbers."""
    columns = evidence.shared(_columns)
    columns = columns[:, np.ptp(columns, axis=0) > 0.0]
    if evidence.kind == "regression":
        columns = columns / columns.std(axis=0)
    value = logme_of_spectrum(evidence.shared(_spectrum), columns).value
    return Score("LogME", value, n=len(columns), unit="nats per case", view="feature")


def h(evidence: Evidence) -> Score:
    """The regularised H-score, adjusted for chance."""
    found = h_score(evidence.shared(_spectrum), evidence.shared(_columns))
    return Score("H-score", found.value, n=len(_y(evidence)), unit=f"squared canonical correlations, 0..{found.bound}", view="feature")


def best_stage(evidence: Evidence) -> Score:
    """The score of the stage that is probed best, in an interval that holds every stage's at once."""
    y, kind = _y(evidence), evidence.kind
    level = 1.0 - (1.0 - LEVEL) / len(evidence.stages)
    outcomes = [evidence.shared(credit_left_out) if x is evidence.x else left_out(x, y, kind) for x in evidence.stages.values()]
    value, interval = max(rated(outcome, y, kind, level=level) for outcome in outcomes)
    return Score("best stage", value, interval=interval, n=len(y), unit=_unit(evidence), view="feature")


def _neighbours(evidence: Evidence, name: str, which: int) -> Score:
    y, votes = _y(evidence), evidence.shared(_votes)[which]
    if evidence.kind == "classification":
        others = np.maximum(np.bincount(y) - np.eye(votes.shape[1])[y], 1.0)  # of each class, without the case itself
        value, interval = mean_share(credit(votes / others, y), y)
    else:
        value, interval = explained(evidence.shared(_columns) - votes, evidence.shared(_columns))
    return Score(name, value, interval=interval, n=len(y), unit=_unit(evidence), view="feature")


def _unit(evidence: Evidence) -> str:
    return BALANCED if evidence.kind == "classification" else R2


def _x(evidence: Evidence) -> np.ndarray:
    return np.asarray(evidence.x)


def _y(evidence: Evidence) -> np.ndarray:
    """Class codes 0..c-1 without gaps; else the target as it is."""
    y = np.asarray(evidence.y)
    if np.all(y == y[:1]):
        raise InputError(f"The target is the same in all {len(y)} cases; at least two classes or values are needed. Add cases that differ.")
    return np.unique(y, return_inverse=True)[1] if evidence.kind == "classification" else y


def _columns(evidence: Evidence) -> np.ndarray:
    """Return the target as (n, c) numbers: one-hot classes, zeros and ones, or one column."""
    y = _y(evidence)
    columns: np.ndarray = np.eye(int(y.max()) + 1)[y] if evidence.kind == "classification" else y.astype(np.float64).reshape(len(y), -1)
    return columns


def _spectrum(evidence: Evidence) -> Spectrum:
    return Spectrum.of(_x(evidence))


def _balanced_spectrum(evidence: Evidence) -> Spectrum:
    weights = class_weights(_y(evidence))
    return evidence.shared(_spectrum) if np.all(weights == 1.0) else Spectrum.of(_x(evidence), weights=weights)


def credit_left_out(evidence: Evidence) -> np.ndarray:
    """Return what the ridge makes of left-out cases: credit of classes (n,), else errors (n, c). Ask for it by ``evidence.shared``."""
    if evidence.kind == "classification":
        return ridge_credit(evidence.shared(_balanced_spectrum), _y(evidence))
    return ridge_errors(evidence.shared(_spectrum), evidence.shared(_columns))


def _votes(evidence: Evidence) -> np.ndarray:
    return leave_one_out_votes(_x(evidence), evidence.shared(_columns), ks=NEIGHBOURS, by_angle=evidence.kind != "regression")


MEASURES: tuple[Measure, ...] = (
    Measure(
        "ridge",
        "feature",
        ridge,
        XY,
        paper="Allen 1974; Rifkin & Lippert 2007",
        limits="Reads frozen features linearly, where fine-tuning may reach more; a little optimistic, as the penalty is chosen on the same left-out cases.",
        ignores=ALL,
    ),
    Measure(
        "ridge accuracy",
        "feature",
        ridge_accuracy,
        XY,
        paper="Allen 1974; Rifkin & Lippert 2007",
        limits="As ridge; where one class is common, naming it always scores high.",
        kinds=CLASSIFICATION,
        ignores=ALL,
    ),
    Measure(
        "1-NN",
        "feature",
        nearest,
        XY,
        paper="Cover & Hart 1967",
        limits="Copies of a case answer for each other: remove duplicates first. In many dimensions it sees local noise; as R2 it is below a trend's.",
        ignores=ALL,
    ),
    Measure(
        "20-NN",
        "feature",
        twenty_nearest,
        XY,
        paper="Wu et al. 2018, sec. 3.4",
        limits="Copies of a case answer for each other: remove duplicates first. Classes with fewer than 20 cases are outvoted by distance alone.",
        ignores=ALL,
    ),
    Measure(
        "LogME",
        "feature",
        log_evidence,
        XY,
        paper="You et al. 2021, with an intercept and right for n < d",
        limits="Ranks sources of one target; its unit depends on the target, so it does not compare targets and has no interval. Treats classes as numbers.",
        ignores=ALL,
    ),
    Measure(
        "H-score",
        "feature",
        h,
        XY,
        paper="Bao et al. 2019, regularised as in Ibrahim et al. 2021, less its mean over random labels",
        limits="In-sample, and no interval: what chance reaches is taken off, but where cases are few little room is left, and the score is rough.",
        ignores=ALL,
    ),
    Measure(
        "best stage",
        "feature",
        best_stage,
        frozenset({"stages", "y"}),
        paper="Alain & Bengio 2016",
        limits="The best of several is optimistic on small targets; its interval pays for that. Stages are read after pooling, which hides what lies where.",
        ignores=ALL,
    ),
)
