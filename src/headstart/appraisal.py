"""assess(): which source, and is it worth it? Four views of every source, a measured score and gain, and what fine-tuning should reach.

Only the training part is looked at, the one that ``transfer`` would train on with the same seed, so that its held-out cases stay unseen.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
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
from headstart.looking import Sight, agreement, assessed, features_of, layers, look, naming, standard_error
from headstart.methods import SIMPLE, FineTune, Probe, ProbeRegressor
from headstart.modality import door
from headstart.result import Score, Trial
from headstart.runs import data_sha256
from headstart.search import Clock
from headstart.similarity.label_names import Embed
from headstart.unlabelled import describe, versions

MOST = 2000  # cases that are looked at: the standard error of an accuracy is then a point at most
# the baselines that are tried: one of each kind, since a tuned choice among all is the run's business and costs minutes
BASELINES = {
    "image": ({"features": "handmade", "model": "svm"}, {"features": "handmade", "model": "forest"}),
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
    Assessment, its sources best first.

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
        bench.search.on_trial = None
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
    embed: Embed | None = None

    def story(self, *, anchor: bool) -> Assessment:
        baseline = self._baseline()
        self.embed = naming(self.bench.task)
        for name in self.bench.sources:
            self._see(name)
        order = sorted(self.trials, key=lambda name: (-self.trials[name].score, name))
        promises, run = self._foretold(order, baseline, anchor=anchor)
        order.sort(key=lambda name: (-promises[name].value, name))
        told = tuple(self._told(name, baseline, promises[name]) for name in order)
        self.bench.notes += [f"{c.why}." for c in self.bench.chooser.choices.values() if c.why]
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
        models = [template(**given, kind=kind) for given in BASELINES[self.bench.task.modality]]  # type: ignore[arg-type]
        self.bench.search.fixed([Candidate(m) for m in models], deadline=math.inf)
        best = self.bench.search.best("baseline")
        if best is None:
            raise InputError(f"No simple model could be fitted to {self.bench.task.target.name}. Check its inputs.")
        self.times["baseline"] = time.monotonic() - began
        return best

    def _see(self, name: str) -> None:
        began, source = time.monotonic(), self.bench.sources[name]
        self.bench.begin("sources", f"features: {name}", len(self.bench.task.target))
        views = self.bench.arena.views
        views.prime(name)
        self.times[f"features.{name}"] = views.seconds[name]
        self.bench.observer.phase(f"measuring {name}", None)
        self.bench.search.fixed([Candidate(Probe() if self.bench.classes else ProbeRegressor(), source)], deadline=math.inf)
        self.trials[name] = self.bench.search.trials[-1]
        other = None if self.other is None else (*self.other, features_of(self.other, source, views))
        self.sights[name] = look(source, views, self.bench.task, self.bench.y, other=other, embed=self.embed, seed=self.bench.seed)
        self.times[name] = time.monotonic() - began

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
            lead = max(found, key=lambda f: f.value).source
            run = self._anchor(self.bench.sources[lead])
            found = ask(anchor=run) if run is not None else found
        promises = {f.source: Promise(f.value, f.interval, f.is_promised, f.p_harm, f.tasks, f.why, f.level) for f in found}
        return promises, "" if run is None else run.source

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
        share = share_tested(self.bench.search.folds)
        return Score(
            metric(self.bench.classes), trial.score, interval=interval_of_mean(trial.folds, test_share=share), n=len(self.bench.task.target), view="feature"
        )

    def _told(self, name: str, baseline: Trial, promise: Promise) -> AssessedSource:
        source, trial, sight = self.bench.sources[name], self.trials[name], self.sights[name]
        found = judge(trial.folds, baseline.folds, test_share=share_tested(self.bench.search.folds))
        gain = Gain(found.gain, found.interval, 1.0 - found.p_gain, found.folds, found.level)
        frozen = self._score(trial)
        return assessed(source, sight, why=_why(frozen, gain, promise, sight), frozen=frozen, gain=gain, fine_tuned=promise)


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
    best = sources[0]
    if best.gain is None:
        return "unknown", ""
    low, high = best.gain.interval
    name = metric(classes)
    measured = f"{best.name} leads: {name} {best.frozen.value if best.frozen else 0:.3f} frozen against {baseline.value:.3f} without transfer"
    risk = f"P(gain < 0) is {best.gain.p_harm:.2f}"
    if low > 0:
        return "transfer", f"{measured}; {risk}. Transfer from it."
    if high <= 0:
        return "do not transfer", f"{measured}; {risk}. A simple model is the better choice, unless fine-tuning or more labels change that."
    return (
        "undecided",
        f"{measured}; {risk}. With {baseline.n} labels no source can be told from no transfer; a run, or more labels, would tell.",
    )
