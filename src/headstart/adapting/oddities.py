"""What is odd about two domains, each by a test: unknown classes, absent classes, other shares, too few cases, grey beside colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from headstart.adaptation import Side, Warned
from headstart.adapting.choosing import codes
from headstart.adapting.domains import Domains
from headstart.adapting.ground import Ground
from headstart.adapting.trying import Tried
from headstart.core import Task
from headstart.methods.relations.label_shift import likeliest_shares

SURE = 0.01  # p from which on a test is told
DRAWS = 200
ABSENT = 0.10  # of a class's share in the source: a class whose estimated share in the target lies below that for sure looks absent
FEW = 50  # cases of a domain below which everything said of it is loose
RARE = 0.05  # share of a class
ALIKE = 0.60  # upper end of the domain classifier's AUC below which two domains that no test tells apart count as the same
GREY = 0.9  # share of grey images from which on a domain counts as grey
SMALLEST_P = 1e-9  # a probability of 0 counts as this


def identical(sides: Sequence[Side], auc: tuple[float, float], p: float, mmd_p: float) -> str:
    """Say that there is nothing to do, where it is so: every target case lies in the source, or no test tells the domains apart though it could.

    ``auc`` is the interval of the domain classifier's AUC.
    """
    target = sides[-1]
    if target.shared == target.n:
        return f"Every case of {target.name} lies in the source, by its content: there is nothing to adapt to."
    if min(p, mmd_p) > 0.05 and auc[1] < ALIKE:
        tests = f"domain classifier AUC at most {auc[1]:.2f}, p = {p:.2f}; MMD p = {mmd_p:.2f}"
        return f"No test tells the domains apart ({tests}): there is nothing to adapt to."
    return ""


def repeated(domains: Domains) -> str:
    """Say that there is nothing to do where every target case lies in the source, and each known label is the one that it has there.

    Domains that no test tells apart may still label alike cases otherwise, which labels of the target show; so those are no reason here.
    """
    source = {domains.digests[i]: domains.y[i] for i in domains.source}
    if not all(domains.digests[i] in source for i in domains.target) or any(source[domains.digests[i]] != domains.y[i] for i in domains.known):
        return ""
    return f"Every case of {domains.names[-1]} lies in the source, by its content, with the same label where it has one: there is nothing to adapt to."


def of_sides(task: Task, sides: Sequence[Side]) -> list[Warned]:
    """Return what the counts alone tell: small domains, rare classes, cases that lie in both domains."""
    out = []
    for side in sides:
        if side.n < FEW:
            out.append(Warned("tiny", f"{side.name} has {side.n} cases: with fewer than {FEW} every number about it is loose."))
    for side in sides[:-1]:
        rare = [label for label, n in side.strata.items() if task.labels and n < RARE * side.n]
        if rare:
            out.append(Warned("imbalance", f"In {side.name} fewer than {RARE:.0%} of the cases are {', '.join(rare)}.", tuple(rare)))
    target = sides[-1]
    if target.shared and (target.shared < target.n or target.labelled):
        out.append(Warned("shared cases", f"{target.shared} of {target.n} cases of {target.name} lie in the source too, by their content."))
    return out


def of_channels(ground: Ground) -> list[Warned]:
    """Return whether some domains are grey and others in colour; both are read as colours."""
    domains = ground.domains
    if domains.task.modality != "image":
        return []
    from headstart.modality.image import frames

    share = [np.mean([f.is_grey for f in frames([domains.items[int(i)] for i in np.flatnonzero(domains.domain == k)])]) for k in range(len(domains.names))]
    grey = [name for name, s in zip(domains.names, share, strict=True) if s >= GREY]
    colour = [name for name, s in zip(domains.names, share, strict=True) if s <= 1 - GREY]
    if not (grey and colour):
        return []
    words = f"Images of {', '.join(grey)} are grey, those of {', '.join(colour)} are in colour: grey ones are read as colours with equal channels."
    return [Warned("channels", words, test="channels equal within rounding, in up to 200 images of each domain")]


def of_classes(ground: Ground, reference: Tried) -> tuple[list[Warned], dict[int, tuple[float, float, float]]]:
    """Return whether the target predicts in other shares than the source, or not at all; and each class's estimated share in the target with a 90 % interval.

    Shares are those of the greatest likelihood (EM, Saerens et al. 2002) under source only's calibrated probabilities, the interval a bootstrap over target and
    held-out cases. They are right where classes look alike in both domains, and the domains' distance says how far that may be doubted.
    """
    domains, c = ground.domains, ground.domains.classes
    held, y = reference.held, domains.y[domains.held]
    if held is None or reference.target is None:
        return [], {}
    found = codes(reference)
    out = []
    if len(np.unique(found)) == 1:
        name = domains.task.labels[int(found[0])]
        out.append(Warned("one class", f"Source only calls every case of {domains.names[-1]} {name}: one class, or too far away to tell any.", (name,)))
    if not len(held):
        return out, {}
    estimated = _shares(held, y, reference.target, seed=ground.seed)
    mine, theirs = np.bincount(held.argmax(axis=1), minlength=c), np.bincount(found, minlength=c)
    seen = mine + theirs > 0
    p = float(stats.chi2_contingency(np.array([mine[seen], theirs[seen]])).pvalue) if seen.sum() > 1 else 1.0
    source = np.bincount(domains.y[domains.source], minlength=c) / len(domains.source)
    absent = [k for k in range(c) if estimated[k][2] < ABSENT * source[k]]
    if absent:
        names = tuple(domains.task.labels[k] for k in absent)
        most = max(estimated[k][2] for k in absent)
        words = f"Source only finds no {', no '.join(names)} in {domains.names[-1]} (at most {most:.1%} each): absent, or too unlike the source's to be seen."
        out.append(Warned("partial", words, names, "shares of greatest likelihood, bootstrapped"))
    if p < SURE:
        moved = sorted(range(c), key=lambda k: -abs(estimated[k][0] - source[k]))[:3]
        parts = ", ".join(f"{domains.task.labels[k]} {source[k]:.0%} -> {estimated[k][0]:.0%}" for k in moved)
        words = f"Classes are predicted in other shares than on held-out source cases; estimated {parts}. Classes differ in number, or look different there."
        out.append(Warned("label shift", words, tuple(domains.task.labels[k] for k in moved), "chi-squared of predicted classes", p))
    return out, estimated


def _shares(held: np.ndarray, y: np.ndarray, target: np.ndarray, *, seed: int) -> dict[int, tuple[float, float, float]]:
    rng, c = np.random.default_rng(seed), held.shape[1]
    given = (np.bincount(y, minlength=c) + 0.5) / (len(y) + 0.5 * c)

    def shares(rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
        correct = bias_corrected(held[rows], y[rows])
        return likeliest_shares(correct(target[asked]), given, steps=200, tolerance=1e-6)

    point = shares(np.arange(len(held)), np.arange(len(target)))
    drawn = [shares(rng.integers(0, len(held), len(held)), rng.integers(0, len(target), len(target))) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return {k: (float(point[k]), float(min(low[k], point[k])), float(max(high[k], point[k]))) for k in range(c)}


def bias_corrected(proba: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what calibrates probabilities (m, c) by a temperature and a factor for each class, fitted to held-out probabilities (n, c) of classes y (n,).

    Bias-corrected temperature scaling (Alexandari et al. 2020): a temperature alone leaves the classes' shares wrong, which estimates of shares then inherit. A
    weak penalty, that of one case, keeps factors finite where a class has no held-out case.

    >>> correct = bias_corrected(np.array([[0.5, 0.5]] * 4), np.array([0, 0, 0, 1]))
    >>> correct(np.array([[0.5, 0.5]])).round(1).tolist()
    [[0.7, 0.3]]
    """
    logs, c = np.log(np.maximum(proba, SMALLEST_P)), proba.shape[1]
    truth = np.eye(c)[y]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(theta[0]) * logs + theta[1:]
        p = softmax(z, axis=1)
        residual = (p - truth) / len(y)
        value = -float(np.sum(truth * log_softmax(z, axis=1))) / len(y) + float(theta @ theta) / (2 * len(y))
        return value, np.concatenate([[np.exp(theta[0]) * np.sum(residual * logs)], residual.sum(axis=0)]) + theta / len(y)

    found = minimize(loss, np.zeros(c + 1), jac=True, method="L-BFGS-B").x

    def correct(other: np.ndarray) -> np.ndarray:
        calibrated: np.ndarray = softmax(np.exp(found[0]) * np.log(np.maximum(other, SMALLEST_P)) + found[1:], axis=1)
        return calibrated

    return correct
