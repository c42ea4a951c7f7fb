"""What every measure must obey, as checks that an outside author runs on their own: ``check_measure(measure)``.

Each law is tried on small seeded worlds, one per kind of target, with more and with fewer cases than features. The laws are those that
published code was found to break: scores that depend on the numbering of classes, and scores that rise with noise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace

import numpy as np
from scipy.special import softmax

from headstart.result import Score
from headstart.similarity.measure import Evidence, Ignores, Kind, Measure

SAME = 1e-10  # relative; why so small: a leak from one class to the next moved a published score by 1e-6
ROUNDED = 1e-6  # relative; a rotated or shifted matrix holds other roundings, which a condition number may magnify
IDENTICAL = 1e-7  # absolute; the root of a squared distance that rounding left at 1e-15
SHAPES = ((60, 45, 8), (30, 40, 70))  # n, m, d: more cases than features, then fewer; m below n, then above
WIDE = (40, 160)  # n, d of the noise: four features a case fit any labels
DECAYS = (0.0, 1.0)  # variances of white noise, and 1/k as networks have them: shrinkage towards white cures the first alone
DRAWS = 5  # of noise and of signal
TOP = 0.75  # of the declared range: noise that scores above this is praised

LABELS, SOURCE_LABELS = ("ant", "bee", "cow"), ("bee", "cow", "dog", "eel")
CASES, SOURCE_CASES = ("x", "y", "theta"), ("xs", "ys")
RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")


class ContractError(AssertionError):
    """A measure or a method broke a law: which one, which law, on what, and for a measure with the two numbers."""


def check_measure(measure: Measure) -> None:
    """Raise unless the measure obeys every law that applies to it. Takes about as long as 100 scores of 60 cases.

    - The declaration is whole: known needs, at least one kind, a paper and limits.
    - It gives a finite score under its own name and view, inside its interval, for n above and below m and d, from its declared needs alone.
    - ``None`` where a need is missing, and for other kinds of target where it needs ``y``.
    - The order of cases and the numbering of classes never matter, nor their names where it does not need them (1e-10, relative).
    - What it ``ignores`` does not matter; features of float32 score as the same numbers in float64.
    - Its value is ``at_identity`` where the source's data are the target's.
    - The same seed gives the same value, whatever the global generators hold; the evidence stays as it was.
    - Of the feature view, read from x or the stages and y: features of pure noise, four a case, white or with variances 1/k, score below
      informative ones in every draw, and not in the top quarter of the range that the unit declares ("0..1"; a quarter of it must lie between too).

    Raises
    ------
    ContractError
        the first law that is broken, in one line.

    Examples
    --------
    >>> def first(evidence):
    ...     return Score("first", float(evidence.x[0, 0]), view="data")
    >>> check_measure(Measure("first", "data", first, frozenset({"x"}), paper="-", limits="-"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    headstart.contract.ContractError: first: the order of target cases matters (classification, n=60, m=45, d=8): ... became ...
    """
    _declaration(measure)
    worlds = list(_worlds(measure))
    if not worlds:
        raise ContractError(f"{measure.name}: no world of the contract holds all that it needs ({', '.join(sorted(measure.needs))}), so nothing was checked.")
    for where, evidence in worlds:
        for law in LAWS:
            law(measure, evidence, where)
    if measure.view == "feature" and "y" in measure.needs and measure.needs & {"x", "stages"} and not measure.needs & {"xs", "theta"}:
        for kind in sorted({evidence.kind for _, evidence in worlds}):
            for decay in DECAYS:
                _noise_scores_low(measure, kind, decay)


def world(kind: Kind, *, n: int, m: int, d: int, signal: float = 1.0, decay: float = 0.0, seed: int = 0) -> Evidence:
    """Return evidence that holds every field: features that carry ``signal`` of the target, and a source that lies nearby.

    The variance of the k-th feature falls as k^-decay. Numbers are those that float32 holds exactly. Regression has no ``labels``.

    >>> world("classification", n=60, m=45, d=8).x.shape
    (60, 8)
    """
    rng = np.random.default_rng(seed)
    y, spread = _target(kind, n, len(LABELS), rng)
    ys, source_spread = _target(kind, m, len(SOURCE_LABELS), rng)
    loading, scale = rng.normal(size=(len(SOURCE_LABELS), d)), np.arange(1, d + 1) ** (-0.5 * decay)
    x = scale * (signal * spread @ loading[: spread.shape[1]] + rng.normal(size=(n, d))) + 1.0
    xs = scale * (signal * source_spread @ loading[: source_spread.shape[1]] + rng.normal(size=(m, d))) + 1.3
    theta = softmax(signal * spread @ rng.normal(size=(spread.shape[1], len(SOURCE_LABELS))) + rng.normal(size=(n, len(SOURCE_LABELS))), axis=1)
    early = 0.3 * x[:, : d // 2] + rng.normal(size=(n, d // 2))
    x = _float32(x)
    stages = {"stem": _float32(scale * rng.normal(size=(n, d))), "body": _float32(early), "top": x}
    labels = () if kind == "regression" else LABELS
    return Evidence(x, y, kind, _float32(xs), ys, _float32(theta), labels, SOURCE_LABELS, stages, seed)


def _target(kind: Kind, n: int, c: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the target and what of it enters the features: (n, c) or (n, 1), centred. Class sizes differ."""
    if kind == "regression":
        y = rng.normal(size=n)
        return y, y[:, None]
    if kind == "multilabel":
        both = (rng.uniform(size=(n, c)) < np.linspace(0.3, 0.6, c)).astype(np.int64)
        both[:2] = [[0] * c, [1] * c]
        return both, 2.0 * both - 1.0
    codes = rng.permutation(np.r_[np.arange(c).repeat(4), rng.choice(c, size=n - 4 * c, p=np.arange(1, c + 1) / (c * (c + 1) / 2))])
    return codes, 2.0 * np.eye(c)[codes]


def _float32(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32).astype(np.float64)


def _worlds(measure: Measure) -> Iterator[tuple[str, Evidence]]:
    kinds: list[Kind] = sorted(measure.kinds) if "y" in measure.needs else ["classification"]
    for kind in kinds:
        for n, m, d in SHAPES:
            evidence = world(kind, n=n, m=m, d=d)
            if all(evidence.holds(what) for what in measure.needs):
                yield f"{kind}, n={n}, m={m}, d={d}", evidence


def _declaration(measure: Measure) -> None:
    unknown = measure.needs - {f.name for f in fields(Evidence)}
    if unknown:
        raise ContractError(f"{measure.name}: needs {', '.join(sorted(unknown))}, which evidence never holds.")
    for what in ("name", "needs", "kinds", "paper", "limits"):
        if not getattr(measure, what):
            raise ContractError(f"{measure.name or 'a measure'}: declares no {what}.")


def _score(measure: Measure, evidence: Evidence, where: str) -> Score:
    """Compute on a copy, so that nothing which an earlier call kept can answer."""
    score = measure(replace(evidence))
    if score is None:
        raise ContractError(f"{measure.name}: gives None although nothing that it needs is missing ({where}).")
    return score


def _unchanged(measure: Measure, before: Evidence, after: Evidence, *, law: str, where: str, tolerance: float = SAME) -> None:
    a, b = _score(measure, before, where).value, _score(measure, after, where).value
    if not abs(a - b) <= tolerance * max(1.0, abs(a)):
        raise ContractError(f"{measure.name}: {law} matters ({where}): {a:.12g} became {b:.12g}.")


def _well_formed(measure: Measure, evidence: Evidence, where: str) -> None:
    bare = Evidence(kind=evidence.kind, seed=evidence.seed, **{what: getattr(evidence, what) for what in measure.needs})
    for given in (evidence, bare):
        score = _score(measure, given, where)
        if (score.name, score.view) != (measure.name, measure.view):
            raise ContractError(f"{measure.name}: its score is named {score.name!r} of view {score.view!r}, not {measure.view!r} ({where}).")
        low, high = score.interval or (score.value, score.value)
        if not (np.isfinite([low, score.value, high]).all() and low <= score.value <= high):
            raise ContractError(f"{measure.name}: {score.value} is not a finite number inside its interval {score.interval} ({where}).")


def _missing_is_none(measure: Measure, evidence: Evidence, where: str) -> None:
    nothing = Evidence()
    for what in sorted(measure.needs):
        if measure(replace(evidence, **{what: getattr(nothing, what)})) is not None:
            raise ContractError(f"{measure.name}: scores without {what}, which it needs ({where}).")


def _order_of_cases(measure: Measure, evidence: Evidence, where: str) -> None:
    rng = np.random.default_rng(1)
    for names in (CASES, SOURCE_CASES):
        rows = rng.permutation(len(getattr(evidence, names[0])))
        shuffled = replace(evidence, **{what: getattr(evidence, what)[rows] for what in names})
        if names is CASES:
            shuffled = replace(shuffled, stages={name: a[rows] for name, a in evidence.stages.items()})
        _unchanged(measure, evidence, shuffled, law=f"the order of {'target' if names is CASES else 'source'} cases", where=where)


def _numbering_of_classes(measure: Measure, evidence: Evidence, where: str) -> None:
    if evidence.kind != "regression":
        order = np.array([2, 0, 1])  # class c gets the number order[c]
        back = np.argsort(order)
        renumbered = replace(evidence, y=_renumber(evidence.y, order), labels=tuple(LABELS[i] for i in back))
        _unchanged(measure, evidence, renumbered, law="the numbering of classes", where=where)
        if "labels" not in measure.needs:
            _unchanged(measure, evidence, replace(evidence, labels=("rye", "elm", "fir")), law="a name of a class", where=where)
    order = np.array([3, 0, 2, 1])
    back = np.argsort(order)
    ys = evidence.ys if evidence.kind == "regression" else _renumber(evidence.ys, order)
    renumbered = replace(evidence, ys=ys, theta=_columns(evidence.theta, back), source_labels=tuple(SOURCE_LABELS[i] for i in back))
    _unchanged(measure, evidence, renumbered, law="the numbering of the source's classes", where=where)


def _renumber(y: np.ndarray | None, order: np.ndarray) -> np.ndarray | None:
    """Give class c the number order[c], or its column that place."""
    if y is None:
        return None
    return _columns(y, np.argsort(order)) if y.ndim == 2 else order[y]


def _columns(a: np.ndarray | None, which: np.ndarray) -> np.ndarray | None:
    return None if a is None else a[:, which]


def _declared_invariances(measure: Measure, evidence: Evidence, where: str) -> None:
    for name in sorted(measure.ignores):
        law = f"a {name} of the features"
        _unchanged(measure, evidence, _with_features(evidence, CHANGES[name]), law=law, where=where, tolerance=ROUNDED)


def _rotate(a: np.ndarray) -> np.ndarray:
    d = a.shape[1]
    turned: np.ndarray = a @ np.linalg.qr(np.random.default_rng([1, d]).normal(size=(d, d)))[0]
    return turned


def _shift(a: np.ndarray) -> np.ndarray:
    d = a.shape[1]
    return a + 10.0 * np.random.default_rng([2, d]).normal(size=d)


CHANGES: Mapping[Ignores, Callable[[np.ndarray], np.ndarray]] = {"rotation": _rotate, "scale": lambda a: 37.0 * a, "shift": _shift}


def _precision(measure: Measure, evidence: Evidence, where: str) -> None:
    narrow = _with_features(evidence, lambda a: a.astype(np.float32))
    _unchanged(measure, evidence, narrow, law="that the same numbers come as float32", where=where, tolerance=ROUNDED)


def _with_features(evidence: Evidence, change: Callable[[np.ndarray], np.ndarray]) -> Evidence:
    """Change the features of target, source and stages; those of the same width alike."""
    x, xs = (None if a is None else change(a) for a in (evidence.x, evidence.xs))
    return replace(evidence, x=x, xs=xs, stages={name: change(a) for name, a in evidence.stages.items()})


def _identity(measure: Measure, evidence: Evidence, where: str) -> None:
    if measure.at_identity is None or evidence.x is None or evidence.y is None:
        return
    rows = np.random.default_rng(3).permutation(len(evidence.x))
    twin = replace(evidence, xs=evidence.x[rows], ys=evidence.y[rows], source_labels=evidence.labels)
    value = _score(measure, twin, where).value
    if not abs(value - measure.at_identity) <= IDENTICAL:
        raise ContractError(f"{measure.name}: gives {value:.12g} where the source's data are the target's, declares {measure.at_identity:g} ({where}).")


def _repeats(measure: Measure, evidence: Evidence, where: str) -> None:
    state = np.random.get_state()
    try:
        values = []
        for seed in (1, 2):
            np.random.seed(seed)
            values.append(_score(measure, evidence, where).value)
    finally:
        np.random.set_state(state)
    if values[0] != values[1]:
        raise ContractError(f"{measure.name}: the same evidence and seed gave {values[0]!r}, then {values[1]!r} ({where}).")


def _evidence_stays(measure: Measure, evidence: Evidence, where: str) -> None:
    before = {name: a.copy() for name, a in _arrays(evidence)}
    _score(measure, evidence, where)
    for name, a in _arrays(evidence):
        if not (a.dtype == before[name].dtype and np.array_equal(a, before[name])):
            raise ContractError(f"{measure.name}: changes {name} of the evidence that it is given ({where}).")


def _arrays(evidence: Evidence) -> Iterator[tuple[str, np.ndarray]]:
    for f in fields(evidence):
        value = getattr(evidence, f.name)
        if isinstance(value, np.ndarray):
            yield f.name, value
    yield from ((f"stage {name}", a) for name, a in evidence.stages.items())


def _noise_scores_low(measure: Measure, kind: Kind, decay: float) -> None:
    n, d = WIDE
    where = f"{kind}, n={n}, d={d}, variances k^-{decay:g}"
    informative, noise = (
        [_score(measure, world(kind, n=n, m=n, d=d, signal=signal, decay=decay, seed=s), where) for s in range(DRAWS)] for signal in (1.0, 0.0)
    )
    sign = 1.0 if informative[0].higher_is_closer else -1.0
    best, worst = max(sign * s.value for s in noise), min(sign * s.value for s in informative)
    too_high, gap = np.inf, 0.0
    if declared := RANGE.search(noise[0].unit):
        low, high = sorted(sign * float(end) for end in declared.groups())
        too_high, gap = low + TOP * (high - low), (1.0 - TOP) * (high - low)
    if not (best < worst and best <= too_high and worst - best >= gap):
        raise ContractError(
            f"{measure.name}: features of pure noise scored {sign * best:.6g}, informative ones {sign * worst:.6g}, in {noise[0].unit} ({where}); "
            "where features outnumber cases it must be regularised, or judged on cases left out."
        )


LAWS: tuple[Callable[[Measure, Evidence, str], None], ...] = (
    _evidence_stays,
    _well_formed,
    _missing_is_none,
    _repeats,
    _order_of_cases,
    _numbering_of_classes,
    _declared_invariances,
    _precision,
    _identity,
)
