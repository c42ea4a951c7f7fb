"""The plan: what is tried, in which order. Cheap before dear, the likely before the merely possible.

What it decides depends on the data, the seed and the budget that was named, never on how fast the machine was.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headstart.activations.gain import TRAINING, work_of
from headstart.bench import FOLDS, SHARES, Bench
from headstart.core import Backbone, InputError, Source
from headstart.learner import Candidate, with_params
from headstart.methods import METHODS, SIMPLE, Closed, Distil, FineTune, FineTuneAll, Method, Probe, ProbeRegressor, Progressive, Scratch, space
from headstart.methods.features.door import one_thread
from headstart.methods.features.stages import Stages
from headstart.methods.needs import unmet
from headstart.modality.text import cut_off
from headstart.result import RankedSource, Trial, counted
from headstart.similarity.feature import ridge
from headstart.similarity.measure import Evidence
from headstart.sources import twin
from headstart.train import OutOfTime
from headstart.walk import walk

SHALLOW = 2
PER_SECOND = 1e6  # parameters that a second of budget pays for: loading a network cannot be broken off, and must not eat the budget
DEEPER_FROM = 240.0  # seconds of budget from which fine-tuning is also tried from an earlier cut
LONGER_FROM = 600.0  # seconds of budget from which it is also tried for more steps: 1.3 points at 100 of a class, on the four tasks that the default was set on
LOOKED_AT = 2000  # cases that order sources before anything is trained: the standard error of an accuracy is then a point at most
LONGER = 200  # steps; with 400 nothing more was gained there (LOG.md)
# the whole network is tuned too where folds, judging and the fit on all cases take at most this share of the budget, at so many operations a second
SHARE_WHOLE = 0.5
OPERATIONS = 1e11  # two cores of a server reach .9 to 1.6e11 in training (EfficientNet-Lite0, SqueezeNet); counted, so that every machine plans alike
MOST_WHOLE = 4000  # cases; their inputs are held in memory, 600 MB for 1,000 images of 224 pixels


def without_transfer(bench: Bench) -> None:
    """Tune the classical models on simple features: each model on each feature, then what TPE proposes."""
    deadline = bench.begin("simple", "no transfer: simple models")
    template = SIMPLE[bench.task.modality](kind=_kind(bench))
    bench.search.fixed([Candidate(m) for m in _grid(template)], deadline=deadline)
    bench.search.propose(template, [None], count=bench.count(per=30, low=2, high=10), deadline=deadline)
    if bench.search.best("baseline") is None:
        if not bench.search.ran_out and (nearest := bench.search.none_fits("baseline")):
            raise InputError(f"No model without transfer fits, and without one no gain can be measured. {nearest} Raise the bound, in another --out.")
        spent = f"The budget of {bench.clock.budget:g} s ended before one baseline was measured"
        raise InputError(f"{spent}. Give more, such as --budget 5m, in another --out.")


def _kind(bench: Bench) -> Literal["classification", "regression"]:
    return "classification" if bench.classes else "regression"


def _grid(template: Closed) -> list[Closed]:
    """Every model on every kind of feature, in the order in which the method lists its choices."""
    spaces = space(template)
    axes = {name: spaces[name].choices for name in ("features", "model") if name in spaces}
    return [dataclasses.replace(template, **dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]  # type: ignore[type-var]


def rank(bench: Bench) -> tuple[RankedSource, ...]:
    """Probe each source's final features; the order of the sources is the order of those scores."""
    probes = []
    for probe in _primed(bench):
        probes.append(probe)
        bench.search.fixed([probe], deadline=bench.clock.deadline(SHARES["frozen"]))
    return ranked(bench, probes)


def lead(bench: Bench) -> tuple[Candidate, ...]:
    """Return the first probe of each source, the one that promises most first, and run that one alone: a search need not measure all before it begins.

    What a source promises is what a ridge on its stored features says of training cases left out one by one: of all scores that ask for no training, the one
    that ranked sources best over 17 real targets (benchmarks/RESULTS.md, "Which source? Ranking").
    """
    probes = list(_primed(bench))
    if len(probes) > 1:
        promises = [_promise(bench, probe) for probe in probes]
        order = sorted(range(len(probes)), key=lambda i: -promises[i])
        probes = [probes[i] for i in order]
        told = ", ".join(f"{probes[place].source.name} {promises[i]:.3f}" for place, i in enumerate(order))  # type: ignore[union-attr]
        bench.observer.say(f"Sources by what a ridge says of cases left out one by one: {told}")
    bench.search.fixed(probes[:1], deadline=bench.clock.deadline(SHARES["frozen"]))
    return tuple(probes)


def ranked(bench: Bench, probes: Sequence[Candidate]) -> tuple[RankedSource, ...]:
    """Return the sources in the order of their first probes, those that were run."""
    tried = (bench.search.tried(probe) for probe in probes)
    rows = sorted((t for t in tried if t is not None and t.folds), key=lambda t: (-t.score, t.number))
    return tuple(_ranked(bench, t, place) for place, t in enumerate(rows, 1))


def _promise(bench: Bench, probe: Candidate) -> float:
    """Return what a ridge says of training cases left out one by one, of :data:`LOOKED_AT` where there are more."""
    rows = bench.train
    if len(rows) > LOOKED_AT:
        rows = np.sort(np.random.default_rng(bench.seed).choice(rows, LOOKED_AT, replace=False))
    y = bench.y[rows]
    if np.ptp(y) == 0:  # why: of one class or value nothing can be told, and the probes will
        return 0.0
    with one_thread():  # why: sums of several threads differ in their last bits from one run to the next
        evidence = Evidence(x=np.asarray(bench.arena.views.array(probe.view))[rows], y=y, kind=_kind(bench))
        return float(ridge(evidence).value)


def _primed(bench: Bench) -> Iterator[Candidate]:
    """Make the features of one source after another and yield its first probe; note which are left out, and what is known of each."""
    found = False
    for place, (name, source) in enumerate(bench.sources.items()):
        if place and source.parameters > bench.clock.budget * PER_SECOND:
            least = f"{source.parameters / PER_SECOND:.0f} s"
            bench.notes.append(f"{name} was not tried: its {counted(source.parameters)} parameters ask for a budget of {least} or more.")
            continue
        bench.begin("sources", f"features: {name}", len(bench.task.target))
        try:
            probe = _first_probe(bench, source)
            if probe is None:
                continue
            bench.arena.views.prime(name)
        except OutOfTime:
            bench.search.ran_out = True
            bench.notes.append(f"The budget ended while features of {name} were made; sources from there on were not tried.")
            break
        account = source.backbone.loaded
        if account is not None and not account.whole:
            bench.notes.append(f"Weights of {name}: {account}.")
        if bench.task.modality == "text" and (long := cut_off(bench.task.target.x, source.backbone)):
            most = source.backbone.preprocess.max_length  # type: ignore[union-attr]
            bench.notes.append(f"{long} of {len(bench.task.target)} texts are longer than the {most} tokens that {name} reads; the rest of them was cut off.")
        found = True
        yield probe
    if not found and (nearest := bench.search.none_fits("frozen")):
        bench.notes.append(f"No source fits. {nearest}")


def _first_probe(bench: Bench, source: Source) -> Candidate | None:
    """Return the probe that ranks a source: of its final features, or where they break a bound of the first earlier ones that do not; ``None``: none do."""
    probe = probe_of(bench)
    earlier = (with_params(probe, {"back": back}) for back in space(probe)["back"].choices)
    limit = bench.clock.deadline(SHARES["sources"])
    return next((one for one in (Candidate(method, source) for method in earlier) if not bench.search.refused(one, deadline=limit)), None)


def _ranked(bench: Bench, trial: Trial, place: int) -> RankedSource:
    source = bench.sources[trial.source or ""]
    back = trial.params["back"]
    features = f"frozen {source.dim}-dimensional features" if not back else f"frozen features {back} stage{'s' * (back > 1)} before its last, within the bounds"
    why = f"rank {place}: ridge on its {features}, trained on {source.trained_on}"
    return RankedSource(source.name, bench.scored(trial), source.parameters, source.dim, source.licence, why)


def frozen(
    bench: Bench, ranked: Sequence[RankedSource], methods: Sequence[type[Closed | Method]] = (), heads: Sequence[Closed] = (), *, more: bool = False
) -> None:
    """Walk from the final features of the best source to earlier and wider ones, then try other heads there, then what TPE proposes.

    Each of ``methods`` that is of the frozen arm, and of a user's own ``heads``, is tried by its defaults on the source and the stages that lead by then,
    and proposals are made from its space too. With ``more``, which is where no method was named, a ridge on the stages that it chooses is tried too, once.
    """
    if not ranked:
        return
    deadline = bench.begin("frozen", "frozen features + head")
    best = bench.sources[ranked[0].name]
    probe = probe_of(bench)
    depths = [with_params(probe, {"back": b, "span": s}) for b, s in ((1, 1), (2, 1), (0, 2), (0, 4), (1, 4))]
    bench.search.fixed([Candidate(p, best) for p in depths], deadline=deadline)
    top = bench.search.best("frozen")
    if top is not None:
        leads = bench.sources[top.source or ""]
        others = [with_params(probe, {**dict(top.params), "head": h}) for h in space(probe)["head"].choices]
        bench.search.fixed([Candidate(p, leads) for p in others], deadline=deadline)
        if more and bench.task.modality != "tabular" and len(leads.levels) > 1:
            bench.search.fixed([Candidate(method, leads) for method in feasible(bench, [Stages], leads)], deadline=deadline)
        named = [_placed(m, top) for m in (*feasible(bench, [m for m in methods if m.arm == "frozen"], leads), *heads)]
        bench.search.fixed([Candidate(method, leads) for method in named], deadline=deadline)
        for method in named:
            bench.search.propose(method, [leads], count=bench.count(per=20 * (1 + len(named)), low=4, high=24), deadline=deadline)
    tried = [bench.sources[r.name] for r in ranked]
    bench.search.propose(probe, tried, count=bench.count(per=20, low=4, high=24), deadline=deadline)


def _placed(method: Closed | Method, probe: Trial) -> Closed | Method:
    """Return the method on features from where the leading probe has them, if that is its choice: a gain is then that of the method, not of another place."""
    return with_params(method, {name: value for name, value in probe.params.items() if name in ("back", "span") and name in space(method)})


def probe_of(bench: Bench) -> Probe | ProbeRegressor:
    """Return a head on frozen features, with its defaults, for classes or for numbers as the task asks."""
    return Probe() if bench.classes else ProbeRegressor()


def from_scratch(bench: Bench) -> None:
    """Train the best source's architecture from random weights; given up after a fold that trails the simple models far."""
    top = bench.search.best("frozen")
    source = bench.sources[top.source or ""] if top is not None else next(iter(bench.sources.values()))
    if source.recipe.get("library", "onnx") == "onnx":
        bench.notes.append(f"{source.name} comes without its architecture, so it was not trained from random weights; the baseline is a simple model.")
        return
    deadline = bench.begin("scratch", f"no transfer: {source.name} from random weights")
    template, rival = Scratch(_Twin(source), "" if source.modality == "image" else source.name), bench.search.best("baseline")
    bench.search.fixed([Candidate(template)], deadline=deadline, rival=rival)
    bench.search.propose(template, [None], count=bench.count(per=300, low=0, high=6), deadline=deadline, rival=rival)


def fine_tuned(bench: Bench, methods: Sequence[type[Closed | Method]] = (FineTune,), *, more: bool = False) -> None:
    """Tune the best source by those methods that tune, each first by its defaults, then longer, then deeper, then as TPE proposes.

    Several methods share the proposals. With ``more``, which is where no method was named, those of :func:`besides` are tried too, once.
    """
    top = bench.search.best("frozen")
    if top is None:
        return
    source = bench.sources[top.source or ""]
    able = feasible(bench, [m for m in methods if m.arm == "fine-tuned"], source)
    if not source.tune_cuts or not able:
        return
    deadline = bench.begin("fine-tune", "fine-tuning from stored activations")
    apart = [method for method in able if type(method) in PROCEDURES]
    able = [method for method in able if type(method) not in PROCEDURES]
    # why: without a rival the defaults are never given up, so that a report has a fine-tuned arm wherever time allows
    bench.search.fixed([Candidate(method, source) for method in able], deadline=deadline)
    for method in apart:
        PROCEDURES[type(method)](bench, method, source, deadline)
    if more:
        bench.search.fixed([Candidate(method, source) for method in besides(bench, source)], deadline=deadline, rival=top)
    if bench.clock.budget >= LONGER_FROM:
        longer = [Candidate(with_params(m, {"steps": LONGER}), source) for m in able if "steps" in space(m) and LONGER in space(m)["steps"].choices]
        bench.search.fixed(longer, deadline=deadline, rival=top)
    if bench.clock.budget >= DEEPER_FROM or source.modality == "tabular":
        deeper = [Candidate(with_params(method, {"depth": 1}), source) for method in able if "depth" in space(method)]
        bench.search.fixed(deeper, deadline=deadline, rival=top)
    for method in able:
        bench.search.propose(method, [source], count=bench.count(per=60 * len(able), low=2, high=20) - 2, deadline=deadline, rival=top)


def besides(bench: Bench, source: Source) -> list[Method]:
    """Return what else tunes images where no method was named and the budget pays for it.

    LP-FT, which on narrow networks holds what a head that starts from zeros loses in 50 steps (CIFAR's ResNet-20 on USPS: 6 to 13 points; LOG.md), and the
    whole network.
    """
    if source.modality != "image":
        return []
    careful = [FineTune()] if bench.clock.budget >= LONGER_FROM else []
    return [*careful, *([FineTuneAll()] if pays_for_whole(bench, source) else [])]


def pays_for_whole(bench: Bench, source: Source) -> bool:
    """Return whether the budget pays for tuning every stage of the source: in the search's folds, in one repeat of the judging ones, and on all cases."""
    if len(bench.task.target) > MOST_WHOLE or unmet(FineTuneAll, source, classes=bench.classes):
        return False
    fits = len(bench.search.folds) + FOLDS + 1
    return fits * seconds_of_whole(source, batch=bench.arena.settings.batch) <= SHARE_WHOLE * bench.clock.budget


def seconds_of_whole(source: Source, *, batch: int) -> float:
    """Return what one training of every stage takes on two cores, by counted operations; ``batch`` cases a step."""
    return FineTuneAll().steps * batch * TRAINING * sum(work_of(source.backbone)) / OPERATIONS


def _walked(bench: Bench, method: Closed | Method, source: Source, deadline: float) -> None:
    if not isinstance(method, Progressive):
        return
    try:
        # why asked here: all members of the family are of one size, and a walk has no words for a step that may not be tried
        fits = not bench.search.refused(Candidate(method, source), deadline=deadline)
    except OutOfTime:
        bench.search.ran_out = True
        return
    if fits:
        walk(bench, method, source, deadline=deadline)


def distilled(bench: Bench, method: Closed | Method, source: Source, deadline: float) -> None:
    """Teach smaller sources what the largest one knows that its own probe shows to know more; the best student first, each by the method's defaults."""
    pairs = _teachers(bench)
    if not pairs:
        names = ", ".join(bench.sources)
        bench.notes.append(f"Method {method.name!r} needs a larger source whose probe beats a smaller one's; of {names} none does. Name more with --source.")
        return
    for student, teacher in pairs[: bench.count(per=120, low=1, high=3)]:
        knows = max((t for t in bench.search.trials if t.source == teacher.name and t.status == "complete" and t.arm != "baseline"), key=lambda t: t.score)
        taught = dataclasses.replace(method, teacher=(bench.search.candidates[knows.number].method, teacher))  # type: ignore[type-var]
        bench.notes.append(f"{teacher.name} ({knows.method}) taught {student.name} by distillation.")
        bench.search.fixed([Candidate(taught, student)], deadline=deadline)


def _teachers(bench: Bench) -> list[tuple[Source, Source]]:
    """Return (student, teacher) of every source that a larger one beats by its probe, the student with the best probe first."""
    probes = {t.source or "": t.score for t in reversed(bench.search.trials) if t.arm == "frozen" and t.folds}  # reversed: of each source the first trial stays
    ranked = [bench.sources[name] for name in sorted(probes, key=lambda name: -probes[name])]
    pairs = []
    for student in (s for s in ranked if s.tune_cuts):
        able = [t for t in ranked if t.parameters > student.parameters and probes[t.name] > probes[student.name]]
        if able:
            pairs.append((student, max(able, key=lambda t: t.parameters)))
    return pairs


# tried in a way of their own
PROCEDURES: dict[type[Closed | Method], Callable[[Bench, Closed | Method, Source, float], None]] = {Progressive: _walked, Distil: distilled}


def feasible(bench: Bench, methods: Sequence[type[Closed | Method]], source: Source) -> list[Closed | Method]:
    """Return those of the methods, for classes or numbers as the task asks, that source and task have what it takes for; say of others what is missing."""
    able: list[Closed | Method] = []
    for first in methods:
        kinds = [kind for kind in METHODS[first.name] if not unmet(kind, source, classes=bench.classes)]
        if kinds:
            method = kinds[0]()
            able.append(method.suited(source) if isinstance(method, Method) else method)
        else:
            bench.notes.append(unmet(first, source, classes=bench.classes))
    return able


@dataclass(frozen=True)
class _Twin:
    """Makes a source's architecture with random weights; of a transformer for text its first two layers, which is what a CPU can train.

    On hundreds of texts, depth from random weights helps nobody: such a network is a bag of words that learns its own embedding.
    """

    source: Source

    @property
    def recipe(self) -> dict[str, Any]:
        """What builds it, as plain values."""
        return {**self.source.recipe, **({"layers": SHALLOW} if self.source.modality == "text" else {})}

    def __call__(self, seed: int) -> Backbone:
        return twin(self.recipe, seed=seed)
