"""assess(): which source, and is it worth it? Four views of every source, a measured score and gain, and what fine-tuning should reach.

Only the training part is looked at, the one that ``transfer`` would train on with the same seed, so that its held-out cases stay unseen.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from headstart import forecast
from headstart.activations.store import default_root
from headstart.assessment import Advice, AssessedSource, Assessment, Gain, Promise
from headstart.bench import Bench, Observer, Silent, check, divide, set_up
from headstart.core import InputError, Inspection, Source, Task
from headstart.evaluate import folds, interval_of_mean, metric, share_tested
from headstart.evidence import THINGS
from headstart.guard import judge
from headstart.learner import Candidate
from headstart.looking import Onlooker, Sight, agreement, assessed, features_of, layers, naming, standard_error
from headstart.methods import SIMPLE, FineTune, Probe, ProbeRegressor
from headstart.methods.features.door import one_thread
from headstart.modality import door
from headstart.result import Score, Trial
from headstart.runs import data_sha256
from headstart.search import Clock
from headstart.unlabelled import describe, versions
from headstart.views import Views

ALONE = (
    "Groups were named, so sources are ranked by the score on folds that keep them whole. The other scores of a source leave out cases and not groups, "
    "and tests between data sets take cases as independent: where cases of a group are alike, the scores are too high and the p-values too small."
)
MOST = 2000  # cases that are looked at: the standard error of an accuracy is then a point at most
WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)  # each holds a source's features in memory
# the baselines that are tried: one of each kind, since a tuned choice among all is the run's business and costs minutes
BASELINES = {
    "image": ({"features": "handmade", "model": "svm"}, {"features": "handmade", "model": "forest", "trees": 100}),
    "text": ({"features": "words", "model": "linear"}, {"features": "chars", "model": "linear"}),
    "tabular": ({"model": "boosting"}, {"model": "linear"}),
}


def assess(
    task: Task,
    sources: Sequence[Source],
    *,
    other: Task | None = None,
    anchor: bool = False,
    seed: int = 0,
    engine: str = "auto",
    skip_unreadable: bool = False,
    observer: Observer | None = None,
) -> Assessment:
    """Assess which of the sources will help on the task, before any fine-tuning.

    Each source costs one pass over at most 2,000 inputs of the training part, from the activation store. What a head on its frozen features scores, and
    gains over no transfer on the same folds, is measured; what fine-tuning should reach is foretold from that, from the source's standing, from past tasks
    and, with ``anchor``, from one short fine-tuning run on the source that leads.

    Parameters
    ----------
    task : classification or regression of images, texts or rows; without targets the data are compared and described, and nothing is scored
    sources : what may be transferred from
    other : labelled or unlabelled data of a neighbouring domain, of the same modality, to compare the task's data with
    anchor : make the anchor run, without which no fine-tuned score is promised; it trains in three folds
    seed : decides which part is looked at, and folds; that of ``transfer``, for its held-out cases to stay unseen
    engine, skip_unreadable, observer : as in :func:`headstart.transfer`

    Returns
    -------
    Assessment, its sources best first: by the mean of three scores on cases left out, ridge in folds, ridge with each case left out, and the nearest
    neighbour. What past tasks teach ranked as well on real ones, not better (benchmarks/RESULTS.md): it makes the forecast, not the order.

    Raises
    ------
    InputError
        the task, a source, or the other data cannot be used, in one line.

    Examples
    --------
    >>> from headstart.core import Domain
    >>> assess(Task("detection", "image", Domain("d", ["a.png"])), [])
    Traceback (most recent call last):
    headstart.core.InputError: Headstart cannot assess image detection yet; it can assess classification and regression.
    """
    observer = Silent() if observer is None else observer
    began = time.monotonic()
    check(task, sources, verb="assess")
    if other is not None and other.modality != task.modality:
        raise InputError(f"{other.target.name} holds {other.modality} and {task.target.name} {task.modality}. Compare data of one kind.")
    task, inspection = _read(task, observer, skip_unreadable=skip_unreadable)
    second = None if other is None else _sampled(*_read(other, observer, skip_unreadable=skip_unreadable), seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        if task.target.y is None:
            some = _sampled(task, inspection, seed=seed)
            return describe(some, sources, second, n=len(task.target), seed=seed, engine=engine, observer=observer)
        part, part_inspection = _training_part(task, inspection, seed=seed)
        given = {"folder": Path(scratch), "clock": Clock(math.inf), "observer": observer, "seed": seed, "engine": engine}
        bench = set_up(part, part_inspection, sources, **given, share=0.0)  # type: ignore[arg-type]
        bench.search.on_trial, bench.search.journal = None, None
        return _Appraiser(bench, second, task=data_sha256(task, inspection), n=len(task.target), began=began).story(anchor=anchor)


def _read(task: Task, observer: Observer, *, skip_unreadable: bool) -> tuple[Task, Inspection]:
    reading = f"reading {THINGS[task.modality]} of {task.target.name}"
    observer.phase(reading, len(task.target))
    return door(task.modality).inspect(task, skip_unreadable=skip_unreadable, progress=lambda k: observer.advance(reading, k))


def _training_part(task: Task, inspection: Inspection, *, seed: int) -> tuple[Task, Inspection]:
    parts = divide(task, inspection, seed=seed)
    rows = parts.train
    if len(rows) > MOST:
        from sklearn.model_selection import train_test_split

        rows = np.sort(train_test_split(rows, train_size=MOST, stratify=parts.strata[rows], random_state=seed)[0])
    return replace(task, target=task.target.take(rows.tolist())), replace(inspection, digests=tuple(inspection.digests[i] for i in rows))


def _sampled(task: Task, inspection: Inspection, *, seed: int) -> tuple[Task, Inspection]:
    rows = np.arange(len(task.target))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    return replace(task, target=task.target.take(rows.tolist())), replace(inspection, digests=tuple(inspection.digests[i] for i in rows))


@dataclass
class _Appraiser:
    """The bench, the other domain, and what was measured so far."""

    bench: Bench
    other: tuple[Task, Inspection] | None
    task: str
    n: int
    began: float
    times: dict[str, float] = field(default_factory=dict)
    sights: dict[str, Sight] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)
    beside: dict[str, tuple[Task, Inspection, Views]] = field(default_factory=dict)

    def story(self, *, anchor: bool) -> Assessment:
        baseline = self._baseline()
        for name in self.bench.sources:
            self._make_features(name)
        self._see_all()
        order = sorted(self.trials, key=lambda name: (-self._signal(name), name))
        promises, run = self._foretold(order, baseline, anchor=anchor)
        told = tuple(self._told(name, baseline, promises[name]) for name in order)
        self.bench.notes += [f"{c.why}." for c in self.bench.chooser.choices.values() if c.why]
        self.bench.notes += [ALONE] if self._grouped else []
        advice, words = _advice(told, self._score(baseline), self.bench.classes)
        self.times["total"] = time.monotonic() - self.began
        task = self.bench.task
        return Assessment(
            task=task.target.name,
            kind=task.kind,
            modality=task.modality,
            metric=metric(self.bench.classes),
            labels=task.labels,
            n=self.n,
            n_used=len(task.target),
            baseline=self._score(baseline),
            baseline_method=", ".join(str(v) for v in baseline.params.values() if isinstance(v, str)),
            advice=advice,
            words=words,
            sources=told,
            anchor=run,
            agreement=agreement({name: self.sights[name] for name in order}),
            layers=layers(*((name, self.sights[name]) for name in order[:2])) if len(order) > 1 else None,
            structure="",
            unknown=(),
            notes=tuple(self.bench.notes),
            seed=self.bench.seed,
            versions=versions(),
            times=self.times,
        )

    def _baseline(self) -> Trial:
        began = time.monotonic()
        self.bench.begin("simple", "no transfer: simple models")
        template = SIMPLE[self.bench.task.modality]
        kind = "classification" if self.bench.classes else "regression"
        models = [Candidate(template(**given, kind=kind)) for given in BASELINES[self.bench.task.modality]]  # type: ignore[arg-type]
        self._measure(models)
        best = self.bench.search.best("baseline")
        if best is None:
            raise InputError(f"No simple model could be fitted to {self.bench.task.target.name}. Check its inputs.")
        self.times["baseline"] = time.monotonic() - began
        return best

    def _make_features(self, name: str) -> None:
        self.bench.begin("sources", f"features: {name}", len(self.bench.task.target))
        views = self.bench.arena.views
        views.prime(name)
        self.times[f"features.{name}"] = views.seconds[name]
        if self.other is not None:
            self.beside[name] = (*self.other, features_of(self.other, self.bench.sources[name], views))
            self.beside[name][2].prime(name)

    def _see_all(self) -> None:
        """Measure every source: its folds, and what an onlooker sees."""
        began = time.monotonic()
        bench = self.bench
        bench.observer.phase("measuring sources", len(bench.sources))
        probes = {name: Candidate(Probe() if bench.classes else ProbeRegressor(), source) for name, source in bench.sources.items()}
        self._measure(list(probes.values()))
        self.trials = {str(trial.source): trial for trial in bench.search.trials if trial.arm == "frozen"}
        onlooker = Onlooker(bench.task, bench.arena.views, bench.y, bench.seed, naming(bench.task))
        with one_thread(), ThreadPoolExecutor(WORKERS) as workers:
            looks = {name: workers.submit(_timed, onlooker, source, self.beside.get(name)) for name, source in bench.sources.items()}
            for name, one in looks.items():
                self.sights[name], seconds = one.result()
                self.times[name] = self.times[f"features.{name}"] + bench.search.seconds[self.trials[name].number] + seconds
                bench.observer.advance("measuring sources", 1)
        self.times["measuring"] = time.monotonic() - began

    def _measure(self, candidates: Sequence[Candidate]) -> None:
        """Measure candidates on the folds, several folds at once, each on one thread; then enter them as trials, in order, from the ledger."""
        search = self.bench.search
        for view in dict.fromkeys(candidate.view for candidate in candidates):
            search.arena.views.array(view)
        with one_thread(), ThreadPoolExecutor(WORKERS) as workers:
            work = [workers.submit(search.arena.fold, c, train, test, deadline=math.inf) for c in candidates for train, test in search.folds]
            for one in work:
                one.result()
        search.fixed(candidates, deadline=math.inf)

    def _foretold(self, order: Sequence[str], baseline: Trial, *, anchor: bool) -> tuple[Mapping[str, Promise], str]:
        known = [self._known(name) for name in order]
        rows = [*forecast.shipped(), *forecast.past(default_root())]
        ask = partial(
            forecast.forecast,
            known,
            n=len(self.bench.task.target),
            history=rows,
            baseline=baseline.score,
            baseline_error=standard_error(self._score(baseline)),
            modality=self.bench.task.modality,
            numbers=not self.bench.classes,
            task=self.task,
        )
        found = ask()
        run = None
        if anchor:
            run = self._anchor(self.bench.sources[order[0]])
            found = ask(anchor=run) if run is not None else found
        promises = {f.source: Promise(f.value, f.interval, f.is_promised, f.p_harm, f.tasks, f.why, f.level) for f in found}
        return promises, "" if run is None else run.source

    def _signal(self, name: str) -> float:
        """Return what sources are ranked by: the mean of the scores that are measured on cases left out, which err in different ways.

        Where groups were named it is the score on their folds alone: a case left out by itself is recognised by the others of its patient.
        """
        found = {} if self._grouped else {score.name: score.value for score in self.sights[name].scores}
        return float(np.mean([self.trials[name].score, *(found[one] for one in ("ridge", "1-NN") if one in found)]))

    @property
    def _grouped(self) -> bool:
        return self.bench.task.target.groups is not None

    def _anchor(self, source: Source) -> forecast.Anchor | None:
        """Fine-tune the source by its defaults in three folds of the training part."""
        if not source.tune_cuts:
            self.bench.notes.append(f"{source.name} cannot be fine-tuned, so that no anchor run was made and no fine-tuned score is promised.")
            return None
        began = time.monotonic()
        names = [self.bench.strata_names[c] for c in self.bench.strata]
        pairs = folds(names, groups=self.bench.groups, k=forecast.ANCHOR_FOLDS, repeats=1, seed=self.bench.seed)
        self.bench.observer.phase(f"anchor: fine-tuning {source.name}", len(pairs))
        scores = []
        for train, test in pairs:
            scores.append(self.bench.arena.score(Candidate(FineTune(), source), train, test, deadline=math.inf)[0])
            self.bench.observer.advance("anchor", 1)
        self.times["anchor"] = time.monotonic() - began
        return forecast.Anchor(source.name, float(np.mean(scores)))

    def _known(self, name: str) -> forecast.Known:
        source, trial = self.bench.sources[name], self.trials[name]
        return forecast.Known(name, trial.score, source.weights_sha256, source.parameters, source.family, source.trained_on)

    def _score(self, trial: Trial) -> Score:
        share, n = share_tested(self.bench.search.folds), len(self.bench.task.target)
        interval = interval_of_mean(trial.folds, test_share=share, cases=n if self.bench.classes else 0)
        return Score(metric(self.bench.classes), trial.score, interval=interval, n=n, view="feature")

    def _told(self, name: str, baseline: Trial, promise: Promise) -> AssessedSource:
        source, trial, sight = self.bench.sources[name], self.trials[name], self.sights[name]
        found = judge(trial.folds, baseline.folds, test_share=share_tested(self.bench.search.folds))
        gain = Gain(found.gain, found.interval, 1.0 - found.p_gain, found.folds, found.level)
        frozen = self._score(trial)
        return assessed(source, sight, why=_why(frozen, gain, promise, sight), frozen=frozen, gain=gain, fine_tuned=promise)


def _timed(onlooker: Onlooker, source: Source, other: tuple[Task, Inspection, Views] | None) -> tuple[Sight, float]:
    began = time.monotonic()
    return onlooker.look(source, other), time.monotonic() - began


def _why(frozen: Score, gain: Gain, promise: Promise, sight: Sight) -> str:
    """One sentence: what was measured, what it is worth, and where in the network it lies."""
    low, high = gain.interval
    worth = "more than chance would give" if low > 0 else "no gain" if high <= 0 else "which may be chance"
    parts = [f"Frozen features score {frozen.value:.3f}, {gain.value:+.3f} over no transfer ({low:+.3f} to {high:+.3f}): {worth}"]
    last, kept = sight.stages[-1], sight.fit.stages_kept
    if kept and last.stage not in kept:
        best = max(sight.stages, key=lambda s: s.score.value)
        parts.append(f"{best.stage} is the better place to read it ({best.score.value:.3f} against {last.score.value:.3f} at the end)")
    if promise.is_promised:
        parts.append(f"fine-tuned {promise.value:.3f} ({promise.interval[0]:.3f} to {promise.interval[1]:.3f})")
    return "; ".join(parts) + "."


def _advice(sources: Sequence[AssessedSource], baseline: Score, classes: int) -> tuple[Advice, str]:
    """Advise on the best source. It was chosen on the folds that judge it, so that its risk counts once for each source to choose from (Bonferroni)."""
    best = sources[0]
    if best.gain is None:
        return "unknown", ""
    low, high = best.gain.interval
    name = metric(classes)
    measured = f"{best.name} leads: {name} {best.frozen.value if best.frozen else 0:.3f} frozen against {baseline.value:.3f} without transfer"
    risk = f"P(gain < 0) is {best.gain.p_harm:.2f}"
    if low > 0 and best.gain.p_harm * len(sources) <= (1.0 - best.gain.level) / 2.0:
        return "transfer", f"{measured}; {risk}. Transfer from it."
    if low > 0:
        return "undecided", f"{measured}; {risk}, but the best of {len(sources)} may look as good by chance. A run chooses anew in every fold, and would tell."
    if high <= 0:
        return "do not transfer", f"{measured}; {risk}. A simple model is the better choice, unless fine-tuning or more labels change that."
    return (
        "undecided",
        f"{measured}; {risk}. With {baseline.n} labels no source can be told from no transfer; a run, or more labels, would tell.",
    )
