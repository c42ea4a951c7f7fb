"""Which candidate stands for adaptation, and does it beat source only? Foretold without target labels, tested with a few."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from headstart.adaptation import AdaptationVerdict, Choice, Opinion
from headstart.adapting.ground import Ground
from headstart.adapting.trying import Trials, Tried, held_score
from headstart.evaluate import interval_of_mean, metric, scale, score, share_tested, temperature
from headstart.guard import judge
from headstart.methods.method import Free
from headstart.result import Score, Verdict
from headstart.similarity.two_sample import one_thread
from headstart.train import OutOfTime
from headstart.validators import JOINT, VALIDATORS, JointValidator, Outputs, Validator, density_ratio
from headstart.validators.rule import choose

DECISIONS = {"transfer": "adapt", "do not transfer": "do not adapt", "undecided": "undecided"}
OF_NUMBERS = {
    "source": "R2 on held-out source cases",
    "importance-weighted": "R2 on held-out source cases, each weighing as many times as the target draws it likelier",
}


@dataclass(frozen=True)
class Chosen:
    """What was decided, with what is known of each candidate by name."""

    choice: Choice
    verdict: AdaptationVerdict
    said: Mapping[str, tuple[Opinion, ...]] = field(default_factory=dict)
    collapsed: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)
    target_scores: Mapping[str, tuple[Score, tuple[float, ...]]] = field(default_factory=dict)


def foretold(trials: Trials, reference: Tried, network: str, *, margin: float, deadline: float) -> Chosen:
    """Choose by the rule over validators, :func:`headstart.validators.rule.choose`, which also foretells the gain over source only.

    Numbers have no such rule: of their candidates the one with the best importance-weighted R2 on held-out source cases is named, and source only is shipped.
    """
    if not trials.ground.domains.classes:
        return _of_numbers(trials, reference, network, margin=margin)
    if not network:
        why = "the budget ended before features were made: give more"
        verdict = AdaptationVerdict("undecided", reference.name, 0.0, (-1.0, 1.0), 0.5, "forecast", why, margin)
        return Chosen(Choice("none", reference.name, why, {}), verdict)
    able = {one.name: one for one in trials.complete() if one is reference or one.entry.related}
    with one_thread():
        found = choose(_outputs(trials, list(able.values()), network, deadline=deadline), reference.name, margin=margin)
    decision, ahead = DECISIONS[found.forecast.decision], found.first != reference.name
    why = "no label of the target was used: the gain is what past pairs of domains foretell, where validators said the same"
    if not ahead:
        decision, why = "do not adapt", "no candidate is ranked above source only"
    gain = found.forecast
    low, high = (value + 0.0 for value in gain.interval)  # why 0.0: no negative zeros
    verdict = AdaptationVerdict(decision, found.candidate, gain.gain + 0.0, (low, high), gain.p_gain, "forecast", why, margin, gain.level)  # type: ignore[arg-type]
    rule = f"the best mean rank by {', '.join(found.panel)}, of candidates that have not collapsed"
    told = Choice(rule, found.first, str(found), described())
    gains = {found.first: (gain.gain, gain.interval)} if ahead else {}
    return Chosen(told, verdict, ranked(found.said), found.collapsed, gains)


def tested(trials: Trials, reference: Tried, *, margin: float) -> Chosen:
    """Choose by the score on labelled target cases that a candidate was not trained on, and test it against source only on the same cases.

    For each fold the candidate is chosen anew by the folds that test none of its cases, so that the best of many is not judged by cases that made it look best.
    """
    complete, splits, domains = trials.complete(), trials.splits, trials.ground.domains
    scores = {one.name: [score(domains.y[t], out, classes=domains.classes) for (_, t), out in zip(splits, one.folds, strict=True)] for one in complete}
    rivals, share = [one.name for one in complete if one.entry.related], share_tested(splits)
    measured = {}
    for name, values in scores.items():
        interval = interval_of_mean(values, test_share=share, cases=len(domains.known) if domains.classes else 0)
        measured[name] = Score(metric(domains.classes), float(np.mean(values)), interval, len(domains.known)), tuple(values)
    rule = "the highest score on labelled target cases that it was not trained on"
    if not rivals:
        why = "nothing but source only could be fitted"
        verdict = AdaptationVerdict("do not adapt", reference.name, 0.0, (0.0, 0.0), 0.5, "test", why, margin)
        return Chosen(Choice(rule, reference.name, why, {}), verdict, target_scores=measured)
    best = max(rivals, key=lambda name: float(np.mean(scores[name])))
    standing = [max(rivals, key=partial(_over, scores, others)) for others in apart([t for _, t in splits])]
    found = judge([scores[name][i] for i, name in enumerate(standing)], scores[reference.name], margin=margin, test_share=share)
    gains = {name: _gain(judge(scores[name], scores[reference.name], margin=margin, test_share=share)) for name in rivals}
    words = f"{best} scores {measured[best][0].value:.3f}, source only {measured[reference.name][0].value:.3f}"
    why = f"measured in {len(splits)} folds of {len(domains.known)} labelled target cases: {words}"
    ship = best if found.ship == "transfer" else reference.name
    verdict = AdaptationVerdict(DECISIONS[found.decision], ship, found.gain, found.interval, found.p_gain, "test", why, margin)  # type: ignore[arg-type]
    return Chosen(Choice(rule, best, words, {}), verdict, gains=gains, target_scores=measured)


def apart(tested: Sequence[np.ndarray]) -> list[list[int]]:
    """Return for each fold, by its tested rows, the folds that test none of them; of one fold alone itself.

    Why not all others: those of another repeat hold the same cases, by which the candidate would be chosen after all. In worlds where none of 20 is better than
    source only, 40 labelled cases in three repeats then said "adapt" in 22 %, and so they do in 7 %.

    >>> apart([np.array([0, 1]), np.array([2, 3]), np.array([0, 2]), np.array([1, 3])])
    [[1], [0], [3], [2]]
    """
    found = [[j for j, other in enumerate(tested) if not np.isin(other, rows).any()] for rows in tested]
    return [others or [i] for i, others in enumerate(found)]


def _over(scores: Mapping[str, Sequence[float]], folds: Sequence[int], name: str) -> float:
    return float(np.mean([scores[name][i] for i in folds]))


def _of_numbers(trials: Trials, reference: Tried, network: str, *, margin: float) -> Chosen:
    complete, domains = trials.complete(), trials.ground.domains
    plain = {one.name: held_score(trials.ground, one) for one in complete}
    table = {"source": plain}
    if network:
        x = trials.ground.final(network)
        even = np.full((len(domains.held), 2), 0.5)
        codes = np.zeros(len(domains.held), dtype=np.intp)
        with one_thread():
            weights = density_ratio(Outputs(even, codes, np.full((len(domains.target), 2), 0.5), x[domains.held], x[domains.target], x[domains.train]))
        table["importance-weighted"] = {one.name: weighted_r2(domains.y[domains.held], one.held[:, 0], weights) for one in complete if one.held is not None}
    rivals = [one.name for one in complete if one.entry.related]
    last = list(table.values())[-1]
    best = max(rivals, key=lambda name: last[name], default=reference.name)
    why = "no label of the target was used, and of numbers no forecast is known: label some, and say --target-labels some"
    verdict = AdaptationVerdict("undecided", reference.name, 0.0, (-1.0, 1.0), 0.5, "forecast", why, margin)
    words = f"{list(table)[-1]} {last[best]:.3f}, source only {last[reference.name]:.3f}"
    return Chosen(Choice(f"the best {list(table)[-1]} R2 on held-out source cases", best, words, OF_NUMBERS), verdict, ranked(table))


def weighted_r2(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    """Return the share of the weighted variance of y (n,) that is explained, floored at 0 as R2 is.

    >>> weighted_r2(np.array([0.0, 2.0, 9.0]), np.array([0.0, 2.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    1.0
    """
    if not weights.any():
        weights = np.ones(len(y))
    spread = np.average((y - np.average(y, weights=weights)) ** 2, weights=weights)
    return max(0.0, 1.0 - float(np.average((y - predicted) ** 2, weights=weights) / spread)) if spread > 0 else 0.0


def described() -> dict[str, str]:
    """Return, for each validator, who proposed it and where it is known to be wrong."""
    every: list[Validator | JointValidator] = [*VALIDATORS.values(), *JOINT.values()]
    return {one.name: f"{one.paper}. Limits: {one.limits}" for one in every}


def changed(one: Tried, reference: Tried) -> float:
    """Return the share of target cases whose predicted class differs from that of source only."""
    return float(np.mean(codes(one) != codes(reference)))


def codes(one: Tried) -> np.ndarray:
    """Return (m,) the class that a candidate predicts for each target case."""
    return np.zeros(0, dtype=np.intp) if one.target is None else one.target.argmax(axis=1)


def calibrated(ground: Ground, one: Tried) -> np.ndarray:
    """Return the target's probabilities (m, c) at the temperature that fits held-out source cases; of a run without its cases, at the run's."""
    if one.held is None or one.target is None:
        return np.zeros((0, ground.domains.classes))
    if ground.origin is not None:
        return scale(one.target, ground.origin.predictor.temperature) if isinstance(one.entry.candidate.method, Free) else one.target
    return scale(one.target, temperature(ground.domains.y[ground.domains.held], one.held))


def _gain(verdict: Verdict) -> tuple[float, tuple[float, float]]:
    return verdict.gain, verdict.interval


def _outputs(trials: Trials, complete: Sequence[Tried], network: str, *, deadline: float) -> dict[str, Outputs]:
    """Return what validators may see; all candidates in the same features, so that one ratio of densities serves them all."""
    domains = trials.ground.domains
    x = trials.ground.final(network)
    held, target, train = x[domains.held], x[domains.target], x[domains.train]
    plain = {
        one.name: Outputs(one.held, domains.y[domains.held], one.target, held, target, train)
        for one in complete
        if one.held is not None and one.target is not None
    }
    ratio = density_ratio(next(iter(plain.values())))
    plain = {name: dataclasses.replace(one, ratio=ratio) for name, one in plain.items()}
    try:
        back = {one.name: partial(_said, trials.back(one, deadline=deadline)) for one in complete}
    except OutOfTime:
        trials.ground.ran_out = True
        return plain
    return {name: dataclasses.replace(one, refit=back[name]) for name, one in plain.items()}


def _said(own: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return own


def ranked(table: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[Opinion, ...]]:
    """Return what each validator said of each candidate, with its rank among all."""
    names = list(dict.fromkeys(name for values in table.values() for name in values))
    return {name: tuple(_opinion(validator, values, name) for validator, values in table.items()) for name in names}


def _opinion(validator: str, values: Mapping[str, float], name: str) -> Opinion:
    if name not in values:
        return Opinion(validator, None, None)
    return Opinion(validator, float(values[name]), 1 + sum(value > values[name] for value in values.values()))
