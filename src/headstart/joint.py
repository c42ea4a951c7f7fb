"""The joint search: sources x methods x their hyperparameters x how training treats the data, in one space and under one budget.

The cheap comes first. Sources are ordered before anything is trained, by what a ridge says of cases left out one by one. The first of them is probed, and
settings that have done well elsewhere are tried on it, heads on stored activations before what trains; every third trial is the probe of another source. Where
that beats the leader's, the other source leads from there on. It can be stopped at any time: the best so far is what goes on to be judged.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headstart.bench import Bench
from headstart.core import Source
from headstart.journal import JOURNAL_FILE, best_of
from headstart.learner import Candidate, with_params
from headstart.methods import METHODS, Closed, Discriminative, FineTune, Method, Probe, ProbeRegressor, space
from headstart.methods.features.probe import NEIGHBOURS
from headstart.plan import PROCEDURES, feasible, probe_of
from headstart.proposing import BLIND, BLINDLY, BY_FOLDS, Proposal, Proposer
from headstart.result import RankedSource
from headstart.search import hopeless
from headstart.spaces import Space
from headstart.terms import Terms
from headstart.train import OutOfTime

PRIOR = 5  # settings of a past run that are tried first
WALK = ((0, 4), (1, 4), (0, 2), (1, 1))  # (back, span) of a probe: how far before the last stage, and how many stages
# the order in which defaults are tried: each adds most to the best so far on thirteen tasks (Feurer et al. 2022, sec. 3; benchmarks/search.py --order)
PORTFOLIO = ("discriminative", "stages", "logistic", "head2toe", "gaussian", "interpolate", "lda", "mlp", "fine-tune", "smote", "ridge", "qda")
AT_ONCE = 2  # known-good settings before the first that trains
# where no method is named: what a trial of costs seconds
EVERYTHING = (*(kinds[0] for kinds in METHODS.values() if kinds[0].arm == "frozen"), Discriminative, FineTune)
SECONDS_A_TRIAL = 8.0  # of the budget, where no number of trials is named


def searched(bench: Bench, ranked: Sequence[RankedSource], methods: Sequence[type[Closed | Method]], terms: Terms, *, probes: Sequence[Candidate] = ()) -> None:
    """Search the joint space of the sources as the terms say, until trials, time or space end; Ctrl-C ends the search and not the run.

    ``ranked`` are the sources that were probed, the first of them leads; ``probes`` are first probes of others, in the order in which they come in between.
    Those that are left when the trials are spent are run after them, so that every source is measured.
    """
    if not ranked:
        return
    leads = bench.sources[ranked[0].name]
    templates = _templates(bench, methods, leads)
    names = [*(one.name for one in ranked), *(probe.source.name for probe in probes if probe.source is not None)]
    sources = {name: bench.sources[name] for name in names}
    field = Space({m.name: m for m in templates if type(m) not in PROCEDURES}, sources, bench.arena.settings, bench.classes)
    proposer = Proposer(terms.search, field, bench.seed, len(bench.search.folds))
    bench.search.space = field
    deadline = bench.begin("fine-tune", f"searching {len(field.templates)} methods on {len(sources)} sources by {terms.search}")
    for method in templates:
        if type(method) in PROCEDURES:
            PROCEDURES[type(method)](bench, method, leads, deadline)
    done = [(c, t) for c, t in zip(bench.search.candidates, bench.search.trials, strict=True) if t.arm != "baseline" and t.status != "excluded"]
    for candidate, trial in done:
        proposer.hear(candidate, trial)
    wanted = max(0, (terms.trials or bench.count(per=SECONDS_A_TRIAL, low=8, high=200)) - len(done))
    if terms.search not in BLIND:
        _warm(bench, proposer, terms, leads, probes, wanted, deadline)
    try:
        _spend(bench, proposer, wanted, deadline, ranked[0].probe.value)
        bench.search.fixed(probes, deadline=deadline)
    except KeyboardInterrupt:
        bench.search.ran_out = True
        bench.notes.append(f"The search was stopped by hand after {len(bench.search.trials)} trials; the best of them was judged.")
    if left := [probe.source.name for probe in probes if probe.source is not None and bench.search.tried(probe) is None]:
        bench.notes.append(f"The search ended before these sources were probed, so they are not ranked: {', '.join(left)}.")


def _warm(bench: Bench, proposer: Proposer, terms: Terms, leads: Source, probes: Sequence[Candidate], wanted: int, deadline: float) -> None:
    """Let the proposer begin with what is known, and the runner with what will be tried whatever is found meanwhile."""
    prior, known = list(_prior(terms, proposer.space, leads)), list(known_good(proposer.space, leads))
    proposer.first(prior, asked_for=True)
    proposer.first(known)
    proposer.between(probes)
    if terms.search in BY_FOLDS:
        return
    # why so few of them: the probe that then comes may hand the others over to its own source
    known = known[: BLINDLY - 1] if probes else known[: math.ceil(wanted * (1 - 1 / BLINDLY))]
    # why those: their features are stored and nothing gives them up
    sure = [c for c in (*prior, *known)[:wanted] if isinstance(c.method, Closed) and c.method.level != "data"]
    bench.search.ahead([*sure, *probes], deadline=deadline)


def _spend(bench: Bench, proposer: Proposer, count: int, deadline: float, leading: float) -> None:
    """Try what is proposed. Where a probe beats the ``leading`` one, what is known is tried on its source from there on, from the first setting on."""
    for proposal in _proposals(bench, proposer, count, deadline):
        if not bench.search.attempt(proposal.candidate, deadline=deadline, give_up=_Patience(bench, proposer.word, proposal)):
            proposal.done(None)
            return
        trial = bench.search.trials[-1]
        proposal.done(trial)
        if proposal.is_probe:
            proposer.hear(proposal.candidate, trial)
            if trial.folds and trial.score > leading and proposal.candidate.source is not None:
                leading = trial.score
                proposer.instead(list(known_good(proposer.space, proposal.candidate.source)))


def _proposals(bench: Bench, proposer: Proposer, count: int, deadline: float) -> Iterator[Proposal]:
    """Yield up to ``count`` proposals in their order. One that is blind to what was found proposes as far ahead as the runner can work."""
    search, waiting = bench.search, list[Proposal]()
    # why not with bounds: what breaks one is told to the proposer before it goes on
    reach = -(-bench.arena.runner.width // len(search.folds)) if proposer.word in BLIND and search.sieve is None else 1
    bars = None if search.sieve is None else partial(search.refused, deadline=deadline)

    begun = list[dict[str, Any]]()

    def known(one: Candidate) -> bool:
        begun.extend(by_own_name(c).describe() for c in search.candidates[len(begun) :])  # why kept: one proposal may ask a hundred times
        wanted = by_own_name(one).describe()
        return wanted in begun or any(by_own_name(proposal.candidate).describe() == wanted for proposal in waiting) or proposer.keeps(one)

    for left in range(count, 0, -1):
        try:
            while len(waiting) < min(reach, left) and (proposal := proposer.propose(known, barred=bars)) is not None:
                waiting.append(proposal)
                search.ahead([proposal.candidate], deadline=deadline)
        except OutOfTime:
            search.ran_out = True
            return
        if not waiting:
            return
        yield waiting.pop(0)


@dataclass(frozen=True)
class _Patience:
    """When a trial is given up: "halving" and "hyperband" ask Optuna; "bayes" and "gp" give up what trains and trails the best trial so far by far."""

    bench: Bench
    word: str
    proposal: Proposal

    def __call__(self, scores: Sequence[float]) -> str:
        if self.word in BLIND:
            return ""
        why = self.proposal.give_up(scores)
        if self.word in BY_FOLDS:
            return why
        trains = isinstance(self.proposal.candidate.method, Method)
        return hopeless(scores, self.bench.search.best("frozen", "fine-tuned")) if trains else ""


def known_good(field: Space, leads: Source) -> Iterator[Candidate]:
    """Yield settings that have done well elsewhere, on the source whose probe leads: methods by their defaults and probes of earlier and more stages, in turn.

    Two on stored activations come first, as they cost next to nothing; then what trains and has often paid; what is dear and has not comes last.
    """
    methods = list(field.templates.values())
    probe = next((m for m in methods if isinstance(m, Probe | ProbeRegressor)), None)
    ordered = sorted((m for m in methods if m is not probe), key=_place)
    cheap, pays, dear = ([Candidate(m, leads) for m in ordered if _cost(m, leads) == cost] for cost in (0, 1, 2))
    walk: list[Candidate] = []
    if probe is not None:
        walk += [Candidate(with_params(probe, {"back": back, "span": span}), leads) for back, span in WALK]
        walk += [Candidate(with_params(probe, {"head": head, "span": 2}), leads) for head in space(probe)["head"].choices[1:]]
    turns = [one for pair in itertools.zip_longest(cheap, walk) for one in pair if one is not None]
    yield from (*turns[:AT_ONCE], *pays, *turns[AT_ONCE:], *dear)


def by_own_name(candidate: Candidate) -> Candidate:
    """Return a probe as its head by the head's own name, on standardised features: one model, which a search need not try twice. Others stay as they are."""
    probe = candidate.method
    if not isinstance(probe, Probe | ProbeRegressor):
        return candidate
    named = next(kind for kind in METHODS[probe.head] if ("numbers" in kind.needs) == isinstance(probe, ProbeRegressor))
    same = {"back": probe.back, "span": probe.span, "transform": "standard", "neighbours": NEIGHBOURS}
    return dataclasses.replace(candidate, method=with_params(named(), {name: value for name, value in same.items() if name in space(named())}))


def _cost(method: Closed | Method, source: Source) -> int:
    """0 for a trial on stored features or a table's columns; for training, and for passes for copies of every input, 1 where it has often paid, else 2."""
    more = source.modality != "tabular" if isinstance(method, Method) else bool(method.view(source).copies)
    return more * (1 if method.name in PORTFOLIO else 2)


def _place(method: Closed | Method) -> int:
    return PORTFOLIO.index(method.name) if method.name in PORTFOLIO else len(PORTFOLIO)


def _templates(bench: Bench, methods: Sequence[type[Closed | Method]], leads: Source) -> list[Closed | Method]:
    """Return the methods with their defaults, for classes or numbers as the task asks, and a probe in any case."""
    probe = probe_of(bench)
    return [probe, *(m for m in feasible(bench, methods, leads) if m.name != probe.name)]


def _prior(terms: Terms, field: Space, leads: Source) -> Iterator[Candidate]:
    """Yield the best settings of a past run, on their source where it is here, else on the one that leads."""
    if terms.prior is None:
        return
    for method, source, settings in best_of(Path(terms.prior) / JOURNAL_FILE, count=PRIOR):
        template: Any = field.templates.get(method)
        if template is not None and set(settings) >= set(space(template)):
            params = {f"{method}.{k}": settings.get(k, getattr(field.settings, k, None)) for k in field.knobs(method)}
            found = field.candidate({"method": method, "source": source if source in field.sources else leads.name, **params})
            if found is not None:
                yield found
