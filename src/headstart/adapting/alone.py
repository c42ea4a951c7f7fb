"""The steps of an adaptation whose source is a finished run: its model as it is, what can be done to that with the target alone, the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headstart.adaptation import SOURCE_ONLY, Adaptation, AdaptationVerdict, Choice, Labels, Warned
from headstart.adapting import choosing, oddities
from headstart.adapting.choosing import Chosen
from headstart.adapting.differences import Features
from headstart.adapting.ground import Ground
from headstart.adapting.moving import EM, AsItIs, BlackBox, ByEntropy, ByInformation, OwnMoments, Statistics, keeps_moments
from headstart.adapting.origin import Origin, is_batchnorm
from headstart.adapting.story import Asked, described
from headstart.adapting.telling import Outcome, findings
from headstart.adapting.trying import TARGET_ONLY, Entry, Trials, Tried, target_splits
from headstart.learner import Candidate
from headstart.methods import SIMPLE, Probe, ProbeRegressor
from headstart.methods.method import Free
from headstart.methods.model.tuned import is_norm
from headstart.similarity.two_sample import one_thread
from headstart.train import OutOfTime
from headstart.validators import evaluate_alone
from headstart.validators.panel import Sight, collapsed, effective, first

PER = {ByEntropy: 30.0, ByInformation: 60.0}  # seconds of budget from which on a method that trains is tried; the others cost a pass at most
FROM = (0,)  # the run, the only source


def story(ground: Ground, asked: Asked, warned: Sequence[Warned]) -> Adaptation:
    """Try, choose, judge; return what was found, with the model to ship."""
    domains, origin = ground.domains, ground.origin
    if origin is None:
        raise ValueError("this story starts from a finished run")
    sides = domains.sides()
    ground.observer.say(described(sides, domains, asked.labels))
    splits = target_splits(ground) if asked.labels == "some" else []
    network = _primed(ground)
    trials = Trials(ground, splits)
    plain = Entry(SOURCE_ONLY, Candidate(AsItIs(origin.start), _source(ground)), FROM, related=False)
    trials.run([plain], deadline=ground.begin("source only", "source only", 1))
    reference = trials.refer()
    entries = [*moves(ground, origin), *_labelled(ground, asked.labels)]
    cheap = [entry for entry in entries if type(entry.candidate.method) not in PER]
    trials.run(cheap, deadline=ground.begin("closed", "what costs a pass at most", len(cheap)))
    if costly := [entry for entry in entries if entry not in cheap]:
        trials.run(costly, deadline=ground.begin("deep", "trained adaptation", len(costly)))
    ground.begin("choose", "choosing")
    chosen = choosing.tested(trials, reference, margin=asked.margin) if asked.labels == "some" else unseen(trials, reference, margin=asked.margin)
    nowhere = None if not network else Features(ground.final(network)[:0], ground.final(network), domains.source, f"final features of {network}")
    odd = [*warned, *oddities.of_sides(domains.task, sides)]
    told = {network: "that of the run"} if network else {}
    ground.notes.append(f"The source is a run, without its cases: its model (SHA-256 {origin.sha256[:16]}...) is all that was gone on from.")
    if network and origin.net() is None:
        ground.notes.append(f"{network} was left as it is: what the run fitted on it is no linear layer on its final features, so that no gradient reaches it.")
    outcome = Outcome(ground, trials, reference, chosen, network, told, nowhere, None, tuple(odd))
    return findings(outcome, asked.labels, asked.read_labels, asked.command, asked.data)


def moves(ground: Ground, origin: Origin) -> list[Entry]:
    """Return what can be done to the run's model, the cheap and the safe first.

    Of any classifier the class shares are corrected, by the likeliest ones and by the run's own confusions. Where the model keeps its source's moments they
    are exchanged for the target's. Where it is a network, or a linear head on one, norms take the target's statistics (AdaBN), learn to be sure (TENT), or the
    stages below the classifier do (SHOT).
    """
    classes, start, heat = ground.domains.classes, origin.start, origin.predictor.temperature
    found: list[Free] = []
    if classes:
        found.append(EM(start, heat, classes))
        found += [BlackBox(start, heat, classes, origin.confusion)] if origin.confusion else []
    found += [OwnMoments(start)] if keeps_moments(start.model) else []
    if net := origin.net(is_batchnorm):
        found.append(Statistics(net))
    if classes and ground.clock.budget >= PER[ByEntropy] and (net := origin.net(is_norm)):
        found.append(ByEntropy(net))
    if classes and ground.clock.budget >= PER[ByInformation] and (net := origin.net()):
        found.append(ByInformation(net))
    return [Entry(one.name, Candidate(one, _source(ground)), FROM, related=True) for one in found]


def unseen(trials: Trials, reference: Tried, *, margin: float) -> Chosen:
    """Name the candidate with the best mean rank by the validators of the panel that need no source case, and ship source only: undecided.

    The rule: class correlation, whose class shares are those that the run wrote down, and agreement; candidates that predict few classes are out. It names a
    candidate and ships none, for the evidence is too weak. On the 19 past pairs of domains, of correcting shares and scaling alone the two would have picked
    1.6 points above source only (95 % interval -0.8 to +4.0), and been worse in one of six. Of those that go on training too few pairs are measured, and these
    make predictions sure, which is what class correlation takes for good. Numbers have no validator at all: no candidate is named.
    """
    ground, counts = trials.ground, trials.ground.domains.counted
    targets = {one.name: one.target for one in trials.complete() if one.target is not None}
    why = "no case of the source and no label of the target was there to judge by: label some, and say --target-labels some"
    verdict = AdaptationVerdict("undecided", reference.name, 0.0, (-1.0, 1.0), 0.5, "forecast", why, margin)
    if not ground.domains.classes or not counts.sum():
        return Chosen(Choice("none: of numbers no validator is known that needs no source case", reference.name, why, {}), verdict)
    leading, seen = ranked_first(targets, reference.name, counts)
    words = f"{leading} leads by {', '.join(seen.panel)}, which is too little evidence to ship it" if leading != reference.name else "source only leads"
    rule = f"the best mean rank by {', '.join(seen.panel)}, of candidates that have not collapsed; none is shipped by it"
    limits = {name: text for name, text in choosing.described().items() if name in seen.said}
    return Chosen(Choice(rule, leading, words, limits), verdict, choosing.ranked(seen.said), collapsed(seen))


def ranked_first(targets: Mapping[str, np.ndarray], baseline: str, counts: np.ndarray) -> tuple[str, Sight]:
    """Return the candidate of the best mean rank by the panel's validators that need no source case, and what the rule saw.

    Parameters
    ----------
    targets : of each candidate the probabilities (m, c) of the target's cases
    baseline : the model as it is
    counts : (c,) cases of each class that the source had
    """
    with one_thread():
        said = evaluate_alone(targets, counts)
    guess = {name: p.argmax(axis=1) for name, p in targets.items()}
    varied = {name: effective(np.bincount(codes, minlength=len(counts))) for name, codes in guess.items()}
    differs = {name: float(np.mean(codes != guess[baseline])) for name, codes in guess.items()}
    seen = Sight(baseline, said, varied, effective(counts), differs)
    return first(seen, seen.panel), seen


def _primed(ground: Ground) -> str:
    """Make the features of the run's network, where it stands on one; return its name."""
    for name in ground.networks:
        ground.begin("features", f"features: {name}", len(ground.domains.items))
        try:
            ground.views.prime(name)
        except OutOfTime:
            ground.ran_out = True
            return ""
        return name
    return ""


def _source(ground: Ground) -> Any:
    return next(iter(ground.networks.values()), None)


def _labelled(ground: Ground, labels: Labels) -> list[Entry]:
    """Return what learns from the target's labels alone, where it has some: whether the run is of use at all."""
    if labels == "none":
        return []
    source, classes = _source(ground), ground.domains.classes
    if source is not None:
        return [Entry(TARGET_ONLY, Candidate(Probe() if classes else ProbeRegressor(), source), (), related=True)]
    simple = SIMPLE[ground.domains.task.modality](kind="classification" if classes else "regression")
    return [Entry(TARGET_ONLY, Candidate(simple), (), related=True)]
