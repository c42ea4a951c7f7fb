"""The forecast itself: from measured frozen scores, one anchor run, the static prior and past tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core import InputError
from headstart.forecast.conformal import quantile_over_tasks, share_below
from headstart.forecast.effects import Effects, Group, angle, learn, score_at
from headstart.forecast.history import Past
from headstart.forecast.prior import Standing, published, standing

ANCHOR_FOLDS = 3  # an anchor run: fine-tuning by its defaults, in three folds of the training cases
FLOOR = 0.05  # radians that forecasts err by however many cases there are; adds to the sampling error of n cases
GUESS = 0.30  # radians to either side where too few tasks are known to measure it: about 25 points at .8
LEVEL = 0.90


@dataclass(frozen=True)
class Known:
    """What is known of a source before any fine-tuning: its cross-validated frozen score on the target, 0..1, and what it says of itself."""

    source: str
    frozen: float
    weights: str = ""
    parameters: int = 0
    family: str = ""
    trained_on: str = ""

    @property
    def key(self) -> str:
        """What tells one source from another: its weights, or its name where they have no hash."""
        return self.weights or self.source


@dataclass(frozen=True)
class Anchor:
    """One fine-tuning run on the target, in :data:`ANCHOR_FOLDS` folds of its training cases: which source, and its score, 0..1."""

    source: str
    score: float


@dataclass(frozen=True)
class Forecast:
    """What fine-tuning a source should reach, 0..1, on about as many test cases as past tasks had (300 in those that are shipped).

    ``interval`` should hold the measured score at ``level`` for a new task; it is measured on ``tasks`` past tasks where ``is_calibrated``, else guessed.
    ``is_promised`` asks for an anchor besides. ``p_harm`` is P(fine-tuned < no transfer), ``None`` where no baseline was given. ``why`` is for people.
    """

    source: str
    value: float
    interval: tuple[float, float]
    p_harm: float | None
    is_calibrated: bool
    is_promised: bool
    tasks: int
    why: str
    level: float = LEVEL


def forecast(
    sources: Sequence[Known],
    *,
    n: int,
    history: Sequence[Past] = (),
    anchor: Anchor | None = None,
    baseline: float | None = None,
    baseline_error: float | None = None,
    modality: str = "image",
    numbers: bool = False,
    task: str = "",
    level: float = LEVEL,
) -> tuple[Forecast, ...]:
    """Forecast the fine-tuned score of every source, in the order given.

    Without history the centre is the source's frozen score, shifted as the anchor departed from its own. Past tasks teach by how much outcomes differ
    from that: in general, by the source's frozen score, by its standing on ImageNet and its size, and for each source that they knew. Errors of tasks left
    out, each task counting once, make the interval; those of the anchor's own source are left out of it, for they are smaller.

    Parameters
    ----------
    sources : n_sources sources with their frozen scores
    n : labelled cases that were trained on
    history : rows of past tasks (:func:`headstart.forecast.past`, :func:`headstart.forecast.shipped`)
    anchor : fine-tuning of one of the sources, by its defaults; ``None``: none was made, and nothing is promised
    baseline : cross-validated score without transfer, 0..1; ``baseline_error`` is its standard error, by default that of n cases
    modality, numbers : of the task; only past tasks of the same modality, and the same of classes and numbers, are learnt from
    task : digest of the task; rows of the very same one are not learnt from
    level : of the interval

    Raises
    ------
    InputError
        scores outside 0..1, n below 1, or an anchor that is none of the sources.

    Notes
    -----
    Assumes that the target is exchangeable with the past tasks: it says nothing about one unlike all of them. Intervals hold on average over sources.

    Examples
    --------
    >>> a, b = forecast([Known("a", 0.70), Known("b", 0.80)], n=200, anchor=Anchor("b", 0.80))
    >>> round(a.value, 3), round(b.value, 3), a.is_calibrated
    (0.7, 0.8, False)
    """
    _check(sources, n, anchor, baseline)
    rows = [r for r in history if r.modality == modality and (r.classes == 0) == numbers and r.task != task]
    keys = {key: i for i, key in enumerate(sorted({r.key for r in rows if r.fine_tuned is not None}))}
    groups = _groups(rows, keys, anchored=anchor is not None)
    effects = learn(groups, sources=len(keys))
    errors = _errors(effects, groups, rows, anchored=anchor is not None)
    reach = quantile_over_tasks([np.abs(e) for e in errors.values()], level=level)
    is_calibrated = math.isfinite(reach)
    width = reach * _spread(n) if is_calibrated else GUESS
    first = None if anchor is None else next(s for s in sources if s.source == anchor.source)
    out = []
    for one in sources:
        centre, known = _expected(one, first, anchor, keys)
        middle = centre + float(known @ effects.whole)
        low, high = (float(v) for v in score_at(np.array([middle - width, middle + width])))
        p_harm = None if baseline is None else _harm(middle, errors, n, baseline, baseline_error, is_calibrated=is_calibrated)
        seen = len({r.task for r in rows if r.key == one.key and r.fine_tuned is not None})
        why = _why(one, n, anchor, len(errors), seen, is_calibrated=is_calibrated)
        value = float(score_at(middle))
        out.append(Forecast(one.source, value, (low, high), p_harm, is_calibrated, is_calibrated and anchor is not None, len(errors), why, level))
    return tuple(out)


def _check(sources: Sequence[Known], n: int, anchor: Anchor | None, baseline: float | None) -> None:
    scores = {f"frozen score of {s.source}": s.frozen for s in sources}
    scores |= {} if anchor is None else {"anchor's score": anchor.score}
    scores |= {} if baseline is None else {"baseline's score": baseline}
    bad = next((name for name, value in scores.items() if not 0.0 <= value <= 1.0), None)
    if bad is not None:
        raise InputError(f"The {bad} is {scores[bad]}; a score between 0 and 1 is needed.")
    if n < 1:
        raise InputError(f"A forecast for {n} cases cannot be made; at least 1 is needed.")
    if anchor is not None and all(s.source != anchor.source for s in sources):
        raise InputError(f"The anchor {anchor.source!r} is none of the sources. Sources: {', '.join(s.source for s in sources)}.")


def _spread(n: int) -> float:
    """Errors of forecasts are compared in this unit, radians: a floor, and the sampling error of a score on n cases."""
    return math.sqrt(FLOOR**2 + 1.0 / (4.0 * n))


def _expected(one: Known | Past, first: Known | Past | None, anchor: Anchor | None, keys: Mapping[str, int]) -> tuple[float, np.ndarray]:
    """Return the angle that is expected before anything was learnt, and what the departure from it may depend on."""
    own, frozen = _standing(one), float(angle(one.frozen))
    marks = np.zeros(len(keys))
    if one.key in keys:
        marks[keys[one.key]] += 1.0
    if first is None or anchor is None:
        return frozen, np.concatenate([[1.0, frozen - float(angle(0.8)), 0.0], own, marks])
    if first.key in keys:
        marks[keys[first.key]] -= 1.0
    apart = frozen - float(angle(first.frozen))
    moved = float(angle(anchor.score)) - float(angle(first.frozen))
    return frozen + moved, np.concatenate([[1.0, apart, moved], np.subtract(own, _standing(first)), marks])


def _standing(one: Known | Past) -> Standing:
    return standing(one.source, one.family, one.trained_on, one.parameters)


def _groups(rows: Sequence[Past], keys: Mapping[str, int], *, anchored: bool) -> list[Group]:
    """Rows of each task: one group, or one for each of its rows that may be the anchor."""
    tasks: dict[str, list[Past]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    out = []
    for name, held in tasks.items():
        tuned = [row for row in held if row.fine_tuned is not None]
        firsts = [row for row in held if row.anchor is not None] if anchored else [None]
        for first in firsts if tuned else []:
            anchor = None if first is None or first.anchor is None else Anchor(first.source, first.anchor)
            expected = [_expected(row, first, anchor, keys) for row in tuned]
            truth = np.array([angle(row.fine_tuned or 0.0) for row in tuned])
            out.append(Group(name, np.array([x for _, x in expected]), truth - [centre for centre, _ in expected], 1.0 / len(firsts)))
    return out


def _errors(effects: Effects, groups: Sequence[Group], rows: Sequence[Past], *, anchored: bool) -> dict[str, np.ndarray]:
    """Signed errors by task, in units of :func:`_spread`; with an anchor, those of the other sources."""
    n = {row.task: row.n for row in rows}
    out: dict[str, np.ndarray] = {}
    for name, parts in effects.errors(groups).items():
        tuned = [row for row in rows if row.task == name and row.fine_tuned is not None]
        firsts = [row for row in rows if row.task == name and row.anchor is not None] if anchored else [None] * len(parts)
        pairs = zip(parts, firsts, strict=True)
        kept = [error for part, first in pairs for error, row in zip(part, tuned, strict=True) if row is not first]
        if kept:
            out[name] = np.array(kept) / _spread(n[name])
    return out


def _harm(middle: float, errors: Mapping[str, np.ndarray], n: int, baseline: float, baseline_error: float | None, *, is_calibrated: bool) -> float:
    """P(fine-tuned < baseline), both as angles; the baseline's own error blurs the bound."""
    bound = float(angle(baseline)) - middle
    slope = max(math.sin(2.0 * float(angle(baseline))), 0.1)  # d score / d angle; why floored: at 0 and 1 the standard error of a score is 0
    blur = 1.0 / (2.0 * math.sqrt(n)) if baseline_error is None else baseline_error / slope
    if not is_calibrated:
        from scipy.special import ndtr

        return float(ndtr(bound / math.hypot(GUESS / 1.645, blur)))
    return share_below(list(errors.values()), bound / _spread(n), blur=blur / _spread(n))


def _why(one: Known, n: int, anchor: Anchor | None, tasks: int, seen: int, *, is_calibrated: bool) -> str:
    """What the forecast of a source rests on, in one sentence."""
    facts = [f"its frozen score {one.frozen:.3f} on {n} cases"]
    if anchor is not None:
        own = "a fine-tuning run of its own" if anchor.source == one.source else f"a fine-tuning run of {anchor.source}"
        facts.append(f"{own} ({anchor.score:.3f})")
    top1 = published(one.source, one.family, one.trained_on)
    if tasks:
        facts.append(f"{tasks} past tasks, {seen or 'none'} of them with this source")
        facts += [] if top1 is None else [f"its published ImageNet accuracy {top1:.3f}"]
    text = "Rests on " + (", ".join(facts[:-1]) + " and " if len(facts) > 1 else "") + facts[-1]
    if not is_calibrated:
        return f"{text}; too few past tasks to measure how far that errs, so the interval is a guess."
    return f"{text}." if anchor is not None else f"{text}; nothing was fine-tuned yet, so it is no promise."
