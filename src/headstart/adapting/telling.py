"""From what was tried and chosen to what is told: the findings as plain numbers, and the model that is shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.adaptation import Adaptation, Candidacy, Distance, Labels, Side, Warned
from headstart.adapting import choosing, differences, oddities
from headstart.adapting.choosing import Chosen
from headstart.adapting.ground import Ground
from headstart.adapting.strangers import unknown_classes, untested
from headstart.adapting.trying import Trials, Tried
from headstart.choice import PLAIN, told
from headstart.evaluate import interval_of_score, metric, reach, score, temperature
from headstart.export import Predictor
from headstart.learner import Fitted
from headstart.methods.method import Free
from headstart.result import Score
from headstart.runs import provenance_of
from headstart.similarity.two_sample import auc_interval, classifier, one_thread, pool

PAIRED = 400  # cases of a source and of the target by which it is told how far they are apart


@dataclass(frozen=True)
class Outcome:
    """What the steps of a run left: candidates, the choice, the network with what is known of each, features and distance before, and what is odd."""

    ground: Ground
    trials: Trials
    reference: Tried
    chosen: Chosen
    network: str
    networks: Mapping[str, str]
    first: differences.Features | None
    apart: Distance | None
    odd: tuple[Warned, ...]

    @property
    def best(self) -> Tried:
        """The candidate that stands for adaptation."""
        return next(one for one in self.trials.tried if one.name == self.chosen.choice.candidate)


def findings(outcome: Outcome, labels: Labels, read_labels: bool, command: str, data: str) -> Adaptation:
    """Return what was found, with the model to ship."""
    ground, domains = outcome.ground, outcome.ground.domains
    ground.begin("evidence", "drawing the evidence")
    fitted = outcome.trials.fit(outcome.best.entry)
    sides = _sides(outcome)
    return Adaptation(
        task=domains.names[-1],
        kind=domains.task.kind,
        modality=domains.task.modality,
        metric=metric(domains.classes),
        labels=domains.task.labels,
        sources=sides[:-1],
        target=sides[-1],
        target_labels=labels,
        network=outcome.network,
        networks=outcome.networks,
        verdict=outcome.chosen.verdict,
        choice=outcome.chosen.choice,
        candidates=tuple(_candidacy(outcome, one, labels, read_labels) for one in outcome.trials.tried),
        nearest_source=min(sides[:-1], key=lambda s: s.apart.value if s.apart else 1.0).name,
        **_pictured(outcome, fitted, read_labels),
        scored=read_labels and bool(domains.hidden),
        provenance=provenance_of(data, ground.networks, command=command, seed=ground.seed, budget=ground.clock.budget, made_by=told(ground.chooser.choices)),
        stopped_by="budget" if ground.ran_out else "plan",
        notes=(
            *ground.notes,
            *(f"{c.why}." for c in ground.chooser.choices.values() if c.why),
            *_about_open_set(outcome),
            *_about_labels(outcome, read_labels),
        ),
        times={**{f"fit.{name}": s for name, s in ground.seconds.items()}, "total": ground.clock.used()},
        source_free=ground.origin is not None,
        model=_predictor(outcome, fitted),
    )


def _pictured(outcome: Outcome, fitted: Fitted, read_labels: bool) -> dict[str, Any]:
    """Return what a report draws: distances, shares, moves, confidences, the map, and what is odd."""
    ground, reference, best, first = outcome.ground, outcome.reference, outcome.best, outcome.first
    classes = ground.domains.classes
    odd, estimated = oddities.of_classes(ground, reference) if classes else ([], {})
    known = outcome.network and len(ground.domains.train)
    odd += unknown_classes(ground, reference, outcome.network) if known and outcome.chosen.verdict.method != "none" else []
    last = first if first is None or best is reference else differences.after(ground, best, fitted)
    codes = choosing.codes(best) if classes else None
    moved, moves = differences.moves(outcome.trials, reference, best, first.target, _shown(outcome, read_labels)) if classes and first is not None else ((), ())
    return {
        "before": outcome.apart,
        "after": outcome.apart if outcome.apart is None or last is None or last is first else differences.distance(ground, last, codes),
        "rates": differences.rates(ground, reference, best, estimated) if classes else (),
        "moved": moved,
        "moves": moves,
        "confidence": differences.confidence(ground, reference, best) if classes else None,
        "map": None if first is None or last is None else differences.domain_map(ground, first, last, reference, best),
        "warned": (*outcome.odd, *odd),
    }


def _sides(outcome: Outcome) -> tuple[Side, ...]:
    """Return the domains; of each source also how well a classifier tells it from the target."""
    domains = outcome.ground.domains
    sides = domains.sides()
    if not outcome.network or domains.recorded is not None:
        return sides
    x = outcome.ground.final(outcome.network)
    out = []
    for k, side in enumerate(sides[:-1]):
        with one_thread():
            both = pool(x[domains.target], x[domains.domain == k], seed=outcome.ground.seed, most=PAIRED)
            auc = float(classifier(both, both.labellings(0))[0])
        interval = auc_interval(auc, both.n, both.m, folds=5)
        told = Score("domain classifier", auc, interval, both.n + both.m, unit="AUC, .5..1", view="data", higher_is_closer=False)
        out.append(dataclasses.replace(side, apart=told))
    return (*out, sides[-1])


def _candidacy(outcome: Outcome, one: Tried, labels: Labels, read_labels: bool) -> Candidacy:
    domains, chosen, source = outcome.ground.domains, outcome.chosen, one.entry.candidate.source
    bare = Candidacy(
        name=one.name,
        method=one.entry.method,
        level=one.entry.level,
        params=one.entry.candidate.params,
        network="" if source is None else source.name,
        sources=tuple(domains.names[k] for k in one.entry.sources),
        status=one.status,
        reason=one.reason,
    )
    if one.held is None or one.target is None:
        return bare
    own = np.isin(domains.domain[domains.held], one.entry.sources or np.arange(len(domains.names)))
    gain, interval = chosen.gains.get(one.name, (None, None))
    target_score, folds = chosen.target_scores.get(one.name, (None, ()))
    return dataclasses.replace(
        bare,
        source_score=_on_source(outcome, one, own),
        said=chosen.said.get(one.name, ()),
        changed=choosing.changed(one, outcome.reference) if domains.classes else None,
        gain=gain,
        interval=interval,
        measured=labels == "some" and gain is not None,
        target_score=target_score,
        folds=folds,
        scored=_on_hidden(outcome, one.target) if read_labels else None,
        collapsed=chosen.collapsed.get(one.name, ""),
    )


def _on_source(outcome: Outcome, one: Tried, own: np.ndarray) -> Score | None:
    """Score on held-out source cases, those of the domains that it learned from; without any, what the run measured of the model that it shipped."""
    domains, origin = outcome.ground.domains, outcome.ground.origin
    if origin is not None:
        return origin.score if one is outcome.reference else None
    return _scored(outcome, domains.held[own], domains.y[domains.held][own], one.held[own]) if one.held is not None else None


def _on_hidden(outcome: Outcome, output: np.ndarray) -> Score | None:
    """Score on labels that nothing was allowed to see before; cases of classes that no source has are left out."""
    domains = outcome.ground.domains
    place = {int(row): i for i, row in enumerate(domains.target)}
    pairs = [(place[row], value) for row, value in domains.hidden.items() if value is not None]
    if not pairs:
        return None
    rows, values = zip(*pairs, strict=True)
    return _scored(outcome, domains.target[list(rows)], np.array(values), output[list(rows)])


def _scored(outcome: Outcome, rows: np.ndarray, y: np.ndarray, output: np.ndarray) -> Score:
    domains = outcome.ground.domains
    classes, groups = domains.classes, None if domains.groups is None else domains.groups[rows]
    interval = interval_of_score(y, output, classes=classes, groups=groups, seed=outcome.ground.seed)
    return Score(metric(classes), score(y, output, classes=classes), interval=interval, n=len(y))


def _shown(outcome: Outcome, read_labels: bool) -> dict[int, int]:
    """Return class codes of target cases by their place, as far as they may be shown: learned from, or read at the end."""
    domains = outcome.ground.domains
    place = {int(row): i for i, row in enumerate(domains.target)}
    known = {place[int(row)]: int(domains.y[row]) for row in domains.known}
    hidden = domains.hidden.items() if read_labels else ()
    return known | {place[row]: int(value) for row, value in hidden if value is not None}


def _about_open_set(outcome: Outcome) -> list[str]:
    why = "" if outcome.chosen.verdict.method == "none" else untested(outcome.ground)
    return [why] if why else []


def _about_labels(outcome: Outcome, read_labels: bool) -> list[str]:
    domains = outcome.ground.domains
    if not domains.hidden:
        return []
    n, name = len(domains.hidden), domains.names[-1]
    if not read_labels:
        return [f"{name} has {n} labels; they were not read. --target-labels some learns from them, --score reads them once at the end."]
    foreign = sum(value is None for value in domains.hidden.values())
    unknown = f" {foreign} of them are of classes that no source has, and count for nothing." if foreign else ""
    return [f"{n} labels of {name} were read once at the end, to score; they chose nothing.{unknown}"]


def _predictor(outcome: Outcome, fitted: Fitted) -> Predictor:
    ground, domains = outcome.ground, outcome.ground.domains
    one = outcome.best if outcome.chosen.verdict.ship == outcome.best.name else outcome.reference
    model = fitted if one is outcome.best else outcome.trials.fit(one.entry)
    if ground.origin is not None and isinstance(one.entry.candidate.method, Free):
        return ground.origin.predictor.moved(model.model, model.candidate.served)
    source = one.entry.candidate.source
    y, output = domains.y[domains.held], one.held
    if not len(domains.held) and one.folds:  # why folds: of a model that learned from the target's labels nothing else is left that it did not see
        y, output = np.concatenate([domains.y[tested] for _, tested in outcome.trials.splits]), np.concatenate(one.folds)
    heat = temperature(y, output) if domains.classes and output is not None else 1.0
    width = reach(y, output[:, 0]) if not domains.classes and output is not None else 0.0
    engine = ground.views.engine(source) if source is not None and source.name in ground.chooser.choices else PLAIN
    return Predictor.of(model, domains.task, temperature=heat, reach=width, engine=engine)
