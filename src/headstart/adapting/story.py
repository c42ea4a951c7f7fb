"""The steps of an adaptation in order: features, source only, what is odd, closed-form methods, the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.adaptation import Adaptation, AdaptationVerdict, Choice, Distance, Labels, Side, Warned
from headstart.adapting import choosing, differences, oddities
from headstart.adapting.choosing import Chosen
from headstart.adapting.domains import Domains
from headstart.adapting.ground import Ground, choose_network
from headstart.adapting.telling import Outcome, findings
from headstart.adapting.trying import Trials, Tried, closed, deep, held_score, source_heads, target_splits
from headstart.evidence import THINGS


@dataclass(frozen=True)
class Asked:
    """What was asked of the run, beside its data and its budget; ``data`` is the hash of the data."""

    labels: Labels
    read_labels: bool
    margin: float
    command: str
    data: str


def story(ground: Ground, asked: Asked, warned: Sequence[Warned]) -> Adaptation:
    """Try, choose, judge; return what was found, with the model to ship."""
    domains = ground.domains
    sides = domains.sides()
    ground.observer.say(described(sides, domains, asked.labels))
    splits = target_splits(ground) if asked.labels == "some" else []
    network, networks = choose_network(ground)
    if network:
        ground.observer.say(f"Features of {network}: {networks[network]}.")
    trials = Trials(ground, splits)
    heads = source_heads(ground, network)
    trials.run(heads, deadline=ground.begin("source only", "source only", len(heads)))
    reference = trials.refer()
    ground.observer.say(f"Source only: {reference.entry.head}, {held_score(ground, reference):.3f} on held-out source cases.")
    first = differences.before(ground, network) if network else None
    apart = None if first is None else differences.distance(ground, first, choosing.codes(reference) if domains.classes else None)
    if apart is not None:
        ground.observer.say(f"The domains lie apart: a classifier tells them with AUC {apart.auc.value:.3f} (p = {apart.auc_p:.3f}).")
    odd = [*warned, *oddities.of_sides(domains.task, sides), *oddities.of_channels(ground)]
    same = _alike(sides, apart) if asked.labels == "none" else oddities.repeated(domains)
    chosen = nothing_to_do(reference, same, margin=asked.margin) if same else _chosen(ground, trials, reference, network, asked)
    return findings(
        Outcome(ground, trials, reference, chosen, network, networks, first, apart, tuple(odd)), asked.labels, asked.read_labels, asked.command, asked.data
    )


def _chosen(ground: Ground, trials: Trials, reference: Tried, network: str, asked: Asked) -> Chosen:
    entries = closed(ground, reference, network, asked.labels)
    trials.run(entries, deadline=ground.begin("closed", "closed-form adaptation", len(entries)))
    looped = deep(ground, reference, network, asked.labels)
    if looped:
        trials.run(looped, deadline=ground.begin("deep", "trained adaptation", len(looped)))
    deadline = ground.begin("choose", "choosing")
    if asked.labels == "some":
        return choosing.tested(trials, reference, margin=asked.margin)
    return choosing.foretold(trials, reference, network, margin=asked.margin, deadline=deadline)


def _alike(sides: Sequence[Side], apart: Distance | None) -> str:
    if apart is None:
        return oddities.identical(sides, (0.0, 1.0), 0.0, 0.0)
    return oddities.identical(sides, apart.auc.interval or (0.0, 1.0), apart.auc_p, apart.mmd_p)


def nothing_to_do(reference: Tried, why: str, *, margin: float) -> Chosen:
    """Return the decision where the domains are the same."""
    verdict = AdaptationVerdict("nothing to do", reference.name, 0.0, (0.0, 0.0), 0.5, "none", why, margin)
    return Chosen(Choice("none: the domains are the same", reference.name, why, {}), verdict)


def described(sides: Sequence[Side], domains: Domains, labels: Labels) -> str:
    """Say in a few lines what was found."""
    things = THINGS[domains.task.modality]
    lines = []
    for side in sides:
        is_target = side is sides[-1]
        counts = ", ".join(f"{name} {n}" for name, n in side.strata.items())
        what = f" in {len(side.strata)} classes ({counts})" if domains.classes else f" with targets ({counts})"
        if is_target:
            what = f", {side.labelled} of them labelled ({counts})" if labels == "some" else ", taken as unlabelled"
        facts = "".join(f"; {title.lower()} {words}" for title, words in side.facts.items())
        held = "" if is_target else f" {side.held_out} are held out."
        lost = f" {len(side.unreadable)} unreadable left out." if side.unreadable else ""
        lines.append(f"{'Target' if is_target else 'Source'} {side.name}: {side.n} {things}{what}{facts}.{held}{lost}")
    return "\n".join(lines)
