"""Which candidate stands for adaptation, and does it beat source only? Foretold without target labels, tested with a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headstart.adaptation import AdaptationVerdict, Choice, Opinion
from headstart.adapting.ground import Ground
from headstart.adapting.trying import Trials, Tried, held_score
from headstart.evaluate import interval_of_mean, metric, scale, score, share_tested, temperature
from headstart.guard import judge
from headstart.result import Score, Verdict

DRAWS = 100  # of target cases and of candidates, for the interval of a forecast
FALLS_BEHIND = 0.10  # of the score on held-out source cases: what loses more there has unlearned the classes
FEW = 0.5  # of the classes that source only predicts in effect; a candidate that predicts fewer has collapsed
VALIDATORS = {
    "source": "the score on held-out source cases",
    "agreement": "share of target cases on which another candidate says the same, mean over the others",
}
RULE = f"the highest agreement on the target, of the candidates that lose no more than {FALLS_BEHIND:.2f} on held-out source cases and have not collapsed"


@dataclass(frozen=True)
class Chosen:
    """What was decided, with what is known of each candidate by name."""

    choice: Choice
    verdict: AdaptationVerdict
    said: Mapping[str, tuple[Opinion, ...]] = field(default_factory=dict)
    collapsed: Mapping[str, str] = field(default_factory=dict)
    gains: Mapping[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)
    target_scores: Mapping[str, tuple[Score, tuple[float, ...]]] = field(default_factory=dict)


def foretold(ground: Ground, trials: Trials, reference: Tried, *, margin: float) -> Chosen:
    """Choose by the rule over validators, and foretell the gain over source only from what the other candidates say of the cases that change."""
    complete = trials.complete()
    said = _opinions(ground, complete)
    collapsed = {one.name: why for one in complete if (why := _collapsed(one, reference))}
    values = {one.name: {o.validator: o.value for o in said[one.name]} for one in complete}
    floor = (values[reference.name]["source"] or 0.0) - FALLS_BEHIND
    able = [one for one in complete if one.entry.related and one.name not in collapsed and (values[one.name]["source"] or 0.0) >= floor]
    gains = {one.name: _forecast(ground, one, reference, complete) for one in complete if one is not reference}
    if not able:
        why = "No candidate keeps the score on held-out source cases and the variety of classes that source only has."
        verdict = AdaptationVerdict("do not adapt", reference.name, 0.0, (0.0, 0.0), 0.5, "forecast", why, margin)
        return Chosen(Choice(RULE, reference.name, why, VALIDATORS), verdict, said, collapsed, gains)
    best = max(able, key=lambda one: values[one.name]["agreement"] or 0.0)
    gain, interval = gains[best.name]
    low, high = interval
    decided = "adapt" if low > margin else "do not adapt" if high <= margin else "undecided"
    spread = max((high - low) / (2 * 1.645), 1e-12)
    p_gain = _normal((gain - margin) / spread)
    why = "foretold from what the other candidates say of the target cases that change, for no label of the target was used"
    verdict = AdaptationVerdict(decided, best.name if gain > margin else reference.name, gain, interval, p_gain, "forecast", why, margin)  # type: ignore[arg-type]
    agreed = values[best.name]["agreement"] or 0.0
    return Chosen(Choice(RULE, best.name, f"agreement {agreed:.3f}, the highest of {len(able)}", VALIDATORS), verdict, said, collapsed, gains)


def tested(ground: Ground, trials: Trials, reference: Tried, *, margin: float) -> Chosen:
    """Choose by the score on labelled target cases that a candidate was not trained on, and test it against source only on the same cases.

    In each fold the candidate is chosen anew by the other folds, so that the best of many is not judged by the cases that made it look best.
    """
    complete, splits = trials.complete(), trials.splits
    said = _opinions(ground, complete)
    collapsed = {one.name: why for one in complete if (why := _collapsed(one, reference))}
    y, classes = ground.domains.y, ground.domains.classes
    scores = {one.name: [score(y[test], out, classes=classes) for (_, test), out in zip(splits, one.folds, strict=True)] for one in complete}
    rivals = [one.name for one in complete if one.entry.related]
    share = share_tested(splits)
    measured = {}
    for name, values in scores.items():
        measured[name] = Score(metric(classes), float(np.mean(values)), interval_of_mean(values, test_share=share), len(ground.domains.known)), tuple(values)
    if not rivals:
        why = "Nothing but source only could be fitted."
        verdict = AdaptationVerdict("do not adapt", reference.name, 0.0, (0.0, 0.0), 0.5, "test", why, margin)
        return Chosen(Choice("none", reference.name, why, VALIDATORS), verdict, said, collapsed, target_scores=measured)
    best = max(rivals, key=lambda name: float(np.mean(scores[name])))
    standing = [max(rivals, key=lambda name, i=i: float(np.mean(np.delete(scores[name], i)))) for i in range(len(splits))]  # type: ignore[misc]
    found = judge([scores[name][i] for i, name in enumerate(standing)], scores[reference.name], margin=margin, test_share=share)
    gains = {name: _gain(judge(scores[name], scores[reference.name], margin=margin, test_share=share)) for name in rivals}
    rule = "the highest score on labelled target cases that it was not trained on"
    why = f"{best} scores {measured[best][0].value:.3f}, source only {measured[reference.name][0].value:.3f}, on {len(splits)} folds of labelled target cases"
    decided = {"transfer": "adapt", "do not transfer": "do not adapt"}.get(found.decision, found.decision)
    ship = best if found.ship == "transfer" else reference.name
    verdict = AdaptationVerdict(decided, ship, found.gain, found.interval, found.p_gain, "test", why, margin)  # type: ignore[arg-type]
    return Chosen(Choice(rule, best, why, VALIDATORS), verdict, said, collapsed, gains, measured)


def _gain(verdict: Verdict) -> tuple[float, tuple[float, float]]:
    return verdict.gain, verdict.interval


def changed(one: Tried, reference: Tried) -> float:
    """Return the share of target cases whose predicted class differs from that of source only."""
    return float(np.mean(codes(one) != codes(reference)))


def codes(one: Tried) -> np.ndarray:
    """Return (m,) the class that a candidate predicts for each target case."""
    return np.zeros(0, dtype=np.intp) if one.target is None else one.target.argmax(axis=1)


def calibrated(ground: Ground, one: Tried) -> np.ndarray:
    """Return the target's probabilities (m, c) at the temperature that fits held-out source cases."""
    if one.held is None or one.target is None:
        return np.zeros((0, ground.domains.classes))
    return scale(one.target, temperature(ground.domains.y[ground.domains.held], one.held))


def _opinions(ground: Ground, complete: Sequence[Tried]) -> dict[str, tuple[Opinion, ...]]:
    source = {one.name: held_score(ground, one) for one in complete}
    table = {"source": source}
    if ground.domains.classes:
        labels = np.array([codes(one) for one in complete])
        same = (labels[:, None, :] == labels[None, :, :]).mean(axis=2)
        others = max(1, len(complete) - 1)
        table["agreement"] = {one.name: float((same[i].sum() - 1.0) / others) for i, one in enumerate(complete)}
    else:
        numbers = np.array([one.target[:, 0] for one in complete if one.target is not None])
        near = 1.0 - np.abs(numbers[:, None] - numbers[None, :]).mean(axis=2) / (float(numbers.std()) or 1.0)
        table["agreement"] = {one.name: float((near[i].sum() - 1.0) / max(1, len(complete) - 1)) for i, one in enumerate(complete)}
    return {one.name: tuple(Opinion(name, values[one.name], _rank(values, one.name)) for name, values in table.items()) for one in complete}


def _rank(values: Mapping[str, float], name: str) -> int:
    return 1 + sum(value > values[name] for value in values.values())


def _collapsed(one: Tried, reference: Tried) -> str:
    """Say why predictions look degenerate: they name far fewer classes, in effect, than those of source only."""
    if one.target is None or one.target.shape[1] == 1:
        return ""
    mine, theirs = (_effective(codes(o), o.target.shape[1]) for o in (one, reference) if o.target is not None)
    return f"predicts {mine:.1f} classes in effect where source only predicts {theirs:.1f}" if mine < FEW * theirs else ""


def _effective(labels: np.ndarray, classes: int) -> float:
    """Return exp of the entropy of the predicted classes: of how many equally frequent classes they are worth."""
    share = np.bincount(labels, minlength=classes) / len(labels)
    return float(np.exp(-np.sum(share[share > 0] * np.log(share[share > 0]))))


def _forecast(ground: Ground, one: Tried, reference: Tried, complete: Sequence[Tried]) -> tuple[float, tuple[float, float]]:
    """Return the gain in balanced accuracy if each target case's class is drawn as the other candidates say, with a 90 % interval over cases and candidates.

    For numbers nothing is foretold: gain 0, interval -1 to 1.
    """
    others = [calibrated(ground, o) for o in complete if o is not one and o is not reference] if ground.domains.classes else []
    if not others:
        return 0.0, (-1.0, 1.0)
    said, mine, theirs = np.stack(others), codes(one), codes(reference)
    rng = np.random.default_rng(ground.seed)
    draws = []
    for _ in range(DRAWS):
        members, rows = rng.integers(0, len(said), len(said)), rng.integers(0, len(mine), len(mine))
        belief = said[members][:, rows].mean(axis=0)
        draws.append(_recall(belief, mine[rows]) - _recall(belief, theirs[rows]))
    belief = said.mean(axis=0)
    gain = _recall(belief, mine) - _recall(belief, theirs)
    # why twice: candidates err alike, which the draws cannot see
    low, high = (gain + 2.0 * (float(np.quantile(draws, q)) - gain) for q in (0.05, 0.95))
    return gain, (min(gain, max(-1.0, low)), max(gain, min(1.0, high)))


def _recall(belief: np.ndarray, labels: np.ndarray) -> float:
    """Return the balanced accuracy of labels (m,) that is expected where classes are drawn from belief (m, c)."""
    right = np.bincount(labels, weights=belief[np.arange(len(labels)), labels], minlength=belief.shape[1])
    mass = belief.sum(axis=0)
    return float(np.mean(right[mass > 0] / mass[mass > 0]))


def _normal(z: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(z))
