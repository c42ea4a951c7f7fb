"""The story on one page: look at the data, measure no transfer, rank sources, try methods, judge, ship what helps.

Decisions depend on the inputs, the seed and the budget that was named, never on how fast the machine was; the clock only ends a run early.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart import crew, doctor, evidence, plan, train
from headstart.activations.store import default_root
from headstart.bench import Bench, Observer, Silent, check, set_up
from headstart.bounds import Bounds
from headstart.choice import PLAIN, told
from headstart.contenders import contest
from headstart.core import InputError, Source, Task
from headstart.evaluate import metric, reach, share_tested, temperature
from headstart.export import Predictor, read_result
from headstart.forecast import Past, record
from headstart.gauge import Gauge, measured_front
from headstart.joint import EVERYTHING, searched
from headstart.judging import Chosen, Judgement, fit_chosen, fresh_folds, judge_arms, verdict
from headstart.keeping import Settings
from headstart.lending import named
from headstart.methods import Closed, Discriminative, FineTune, Method, tuners
from headstart.methods.features.own import OwnHead, classes_of, own_heads
from headstart.methods.method import Arm as ArmName
from headstart.methods.method import View
from headstart.methods.needs import unlent
from headstart.modality import door
from headstart.outlook import outlook
from headstart.proposing import BLIND
from headstart.result import Arm, Contender, CurvePoint, Found, Outlook, RankedSource, Result
from headstart.runners import opened
from headstart.runs import Run, checked_margin, data_sha256, full_disk_explained, parse_budget, provenance
from headstart.search import Clock, Runner
from headstart.terms import Terms
from headstart.train import OutOfTime

# what tunes the weights where no method is named: on images rates that fall by stage did better than LP-FT at all of three label budgets; on texts they did by
# up to ten points, or worse by five, and folds are asked (RESULTS.md, LOG.md)
DEFAULT: dict[str, tuple[type[Closed | Method], ...]] = {"image": (Discriminative,), "text": (Discriminative, FineTune), "tabular": (FineTune,)}


def transfer(
    task: Task,
    sources: Sequence[Source],
    *,
    budget: str | float,
    seed: int,
    out: str | Path | None = None,
    skip_unreadable: bool = False,
    margin: float = 0.0,
    engine: str = "auto",
    methods: Sequence[str] | None = None,
    heads: Sequence[Any] = (),
    settings: Settings = train.PLAIN,
    search: str | Terms = "",
    bounds: Bounds | None = None,
    runner: str | Runner = "here",
    address: str = "auto",
    observer: Observer | None = None,
    command: str = "",
) -> Result:
    """Transfer from the best of the sources to the task, and say whether it helped.

    Parameters
    ----------
    task : classification of images, texts or rows of a table, or regression of texts or rows
    sources : what may be transferred from
    budget : seconds, or text such as "90s", "5m", "2h"; the call ends within 1.1 times of it
    seed : decides splits, initial weights and proposals
    out : folder for the journal, so that a killed run goes on; ``None`` works in a temporary folder
    skip_unreadable : leave out inputs that cannot be read, instead of refusing
    margin : smallest gain in balanced accuracy, or in R2, 0..1, that is worth a transfer; 0, the default, asks for any gain at all
    engine : what runs frozen stages, one of ``activations.engines.ENGINES``. "auto", the default, takes the fastest whose features agree with those of
        PyTorch in float32 (see ``choice``); with fewer than 5,000 inputs, where measuring is not paid back, it takes PyTorch in float32
    methods : names of the methods to try on the best source, such as ("lp-ft", "l2-sp"): those that tune its weights, or learn from its frozen features in
        another way than a probe; ``None``: rates that fall by stage on images, LP-FT on texts and tables (``headstart methods`` lists them).
        Baselines and a probe are measured in any case
    heads : your own scikit-learn classifiers, or regressors where the target is numbers, unfitted: each is tried on the best source's frozen features, with
        transforms and stages proposed as for any head. Classes of your own must be importable, and trusted by name when the run is read again: see ``load``
    settings : how networks are trained, whatever the method: averages of weights, early stopping, balance, mixing
    search : who proposes what is tried, one of ``proposing.WORDS`` such as "bayes": sources, methods, their hyperparameters and how training treats the data
        are then one space (:mod:`headstart.joint`). :class:`Terms` says more: trials, folds, a past run to start from. "", the default, follows the
        plan: the best source, probes, then fine-tuning
    bounds : most size, memory and latency of the final model; what breaks one is left out before it is trained, baselines as well. The result then has
        Pareto's front of score, size and latency; ``Bounds()`` asks for the front alone. ``None``, the default: neither, and nothing is measured for it
    runner : where folds are computed: "here", in this process, or "ray", on a Ray cluster; or a :class:`headstart.runners.cluster.OnRay` that is
        open, which says more. The same inputs, seed and plan give the same result; a machine that dies costs what it was at
    address : of the cluster's head, such as "10.0.0.1:6379"; "auto", the default, is the cluster that this machine is part of
    observer : hears of progress
    command : how to repeat the run, for the report

    Returns
    -------
    Result, with the shipped model.

    Raises
    ------
    InputError
        the task, a source, a method, the budget, the margin, the runner or the folder cannot be used, or nothing without transfer fits the bounds, in one
        line.

    Examples
    --------
    >>> from headstart.core import Domain
    >>> transfer(Task("detection", "image", Domain("d", ["a.png"])), [], budget="5m", seed=0)
    Traceback (most recent call last):
    headstart.core.InputError: Headstart cannot transfer to image detection yet; it can to classification and regression.
    """
    seconds, margin = parse_budget(budget), checked_margin(margin)
    crew.ready(settings)
    clock = Clock(seconds)
    observer = Silent() if observer is None else observer
    check(task, sources)
    bare = next((s for s in sources if not s.recipe), None)
    if out is not None and bare is not None:
        raise InputError(f"Source {bare.name!r} could not be saved with the model, for nothing says how to build it. Give from_module a factory.")
    terms, own = search if isinstance(search, Terms) else Terms(search=search), own_heads(heads, classes=len(task.labels))
    if terms.search and own:
        raise InputError("Heads of your own are tried by the plan, not by a search. Leave out heads, or search.")
    chosen = tuners(methods) if methods is not None else EVERYTHING if terms.search else DEFAULT[task.modality]
    if methods is not None and (why := unlent(chosen, sources)):
        raise InputError(why)
    reading = f"reading {evidence.THINGS[task.modality]}"
    with tempfile.TemporaryDirectory() as scratch, opened(runner, address=address, settings=settings, say=observer.say) as where:
        observer.phase(reading, len(task.target))
        task, inspection = door(task.modality).inspect(task, skip_unreadable=skip_unreadable, progress=lambda k: observer.advance(reading, k))
        run = Run(Path(out) if out is not None else Path(scratch))
        about = {"budget": seconds, "seed": seed, "margin": margin, "engine": engine, "methods": _named(methods, chosen, own)}
        about |= {"bounds": None if bounds is None else bounds.plain()}
        run.claim(task, inspection, [named(s) for s in sources], **about, settings=settings.changed(), terms=terms.changed())  # type: ignore[arg-type]
        if run.finished:
            observer.say(f"This run is finished; its result is read from {run.folder}.")
            return read_result(run.folder, trusted=classes_of(own))
        with full_disk_explained(run.folder):
            how = {"seed": seed, "engine": engine, "settings": settings, "divisions": terms.divisions, "runner": where}
            bench = set_up(task, inspection, sources, folder=run.folder, clock=clock, observer=observer, **how)  # type: ignore[arg-type]
            gauge = None if bounds is None else Gauge.of(bounds, bench, run.folder)
            result = _story(bench, methods=chosen, more=methods is None, heads=own, terms=terms, margin=margin, command=command)
            if out is not None:
                with run.alone():
                    if run.finished:  # why: another process that ran the same command was first, and its files are whole
                        return read_result(run.folder)
                    result.save(run.folder)
                for ledger in (bench.arena.ledger, *([] if gauge is None else [gauge.kept])):
                    shutil.rmtree(ledger.locks, ignore_errors=True)
        return result


def _named(methods: Sequence[str] | None, chosen: Sequence[type[Closed | Method]], own: Sequence[OwnHead]) -> list[str] | None:
    """Return the names of what the user asked to be tried; ``None`` where nothing was."""
    asked = [] if methods is None else [method.name for method in chosen]
    return [*asked, *(head.name for head in own)] or None


def _story(bench: Bench, *, methods: Sequence[type[Closed | Method]], more: bool, heads: Sequence[Closed], terms: Terms, margin: float, command: str) -> Result:
    found = evidence.found(bench.task, bench.inspection, strata=bench.strata, names=bench.strata_names, groups=bench.groups, train=bench.train, test=bench.test)
    bench.observer.say(evidence.describe(found, kind=bench.task.kind))
    _look_over(bench)
    plan.without_transfer(bench)
    if terms.search and terms.search not in BLIND and not any(method in plan.PROCEDURES for method in methods):
        probes = plan.lead(bench)
        plan.from_scratch(bench)
        searched(bench, plan.ranked(bench, probes), methods, terms, probes=probes[1:])
        ranked = plan.ranked(bench, probes)
    elif terms.search:
        ranked = plan.rank(bench)
        plan.from_scratch(bench)
        searched(bench, ranked, methods, terms)
    else:
        ranked = plan.rank(bench)
        plan.frozen(bench, ranked, methods, heads, more=more)
        plan.from_scratch(bench)
        plan.fine_tuned(bench, methods, more=more)
    chosen = fit_chosen(bench)
    arms = judge_arms(bench, chosen)
    judged = verdict(bench, arms, margin=margin)
    field = contest(bench, arms, margin=margin)
    _remember(bench, arms, ranked)
    return _result(bench, found, ranked, chosen, arms, judged, field, command=command)


def _look_over(bench: Bench) -> None:
    """Note what is suspicious in the data, as far as that costs next to nothing."""
    bench.begin("simple", "looking the data over")
    try:
        squares = bench.arena.views.array(View("pixels"))[: doctor.MOST] if bench.task.modality == "image" else None
    except OutOfTime:
        return
    bench.notes += doctor.notes(bench.task, bench.inspection, squares)


def _remember(bench: Bench, arms: Sequence[Arm], ranked: Sequence[RankedSource]) -> None:
    """Keep what each source reached, so that later assessments on this machine foretell better."""
    baseline = next(a for a in arms if a.name == "baseline")
    tuned = {a.source: a.test.value for a in arms if a.name == "fine-tuned"}
    task = data_sha256(bench.task, bench.inspection)
    rows = []
    for name, frozen in ((one.name, one.probe.value) for one in ranked):
        source = bench.sources[name]
        about = {"parameters": source.parameters, "family": source.family, "trained_on": source.trained_on, "modality": source.modality}
        scores = {"frozen": frozen, "fine_tuned": tuned.get(name), "baseline": baseline.cv.value}
        rows.append(Past(task, source.name, source.weights_sha256, n=len(bench.train), classes=bench.classes, **scores, **about))  # type: ignore[arg-type]
    record(default_root(), rows)


def _result(
    bench: Bench,
    found: Found,
    ranked: Sequence[RankedSource],
    chosen: Mapping[ArmName, Chosen],
    arms: Sequence[Arm],
    judged: Judgement,
    field: tuple[Contender, ...],
    *,
    command: str,
) -> Result:
    answer, winner = judged.verdict, judged.shipped
    bench.begin("evidence", "drawing the evidence")
    bench.notes += [f"{c.why}." for c in bench.chooser.choices.values() if c.why]
    model, output = chosen[winner.name].fitted, chosen[winner.name].output
    unseen = _unseen(bench, chosen[winner.name])
    labels, truth = bench.task.labels, bench.y[bench.test]
    heat = temperature(*unseen) if labels else 1.0
    width = 0.0 if labels else reach(unseen[0], unseen[1][:, 0])
    pair: tuple[ArmName, ArmName] = ("frozen", "baseline")
    sides = [chosen[name].candidate if name in chosen else None for name in pair]
    curve = evidence.curve(bench.arena, sides, bench.folds(repeats=1, seed=bench.seed + 1), strata=bench.strata, clock=bench.clock)
    return Result(
        task=bench.task.target.name,
        kind=bench.task.kind,
        metric=metric(bench.classes),
        labels=labels,
        verdict=answer,
        found=found,
        sources=tuple(ranked),
        trials=tuple(bench.search.trials),
        arms=tuple(arms),
        shipped=winner.name,
        curve=curve,
        confusion=evidence.confusion(labels, truth, output) if labels else None,
        scatter=None if labels else evidence.scatter(truth, output),
        mistakes=evidence.mistakes(bench.task, bench.test, truth, output, temperature=heat),
        map=evidence.feature_map(bench.arena, bench.sources, ranked, bench.train, strata=bench.strata, labels=bench.strata_names, clock=bench.clock),
        calibration=evidence.calibration(truth, output, temperature=heat) if labels else None,
        coverage=None if labels else evidence.coverage(truth, output, reach=width),
        provenance=provenance(
            bench.task, bench.inspection, bench.sources, command=command, seed=bench.seed, budget=bench.clock.budget, made_by=told(bench.chooser.choices)
        ),
        stopped_by="budget" if bench.search.ran_out else "plan",
        notes=tuple(bench.notes),
        walk=tuple(bench.steps),
        settings=bench.arena.settings.changed() or {},
        outlook=_outlook(bench, judged, curve),
        contenders=field,
        **measured_front(bench.search),
        times=_times(bench),
        cases=evidence.cases(bench.task, bench.train, groups=bench.groups),
        model=Predictor.of(model, bench.task, temperature=heat, reach=width, engine=_engine(bench, chosen[winner.name])),
    )


def _outlook(bench: Bench, judged: Judgement, curve: Sequence[CurvePoint]) -> Outlook:
    given = {"test_share": share_tested(fresh_folds(bench)), "n": len(bench.task.target), "trained": len(bench.train)}
    return outlook(judged.verdict, judged.gains, curve, **given, of_curve=judged.stands.name == "frozen")  # type: ignore[arg-type]


def _engine(bench: Bench, chosen: Chosen) -> str:
    source = chosen.candidate.source
    return bench.arena.views.engine(source) if source is not None and source.name in bench.chooser.choices else PLAIN


def _times(bench: Bench) -> dict[str, float]:
    trials = {f"trial.{n}": s for n, s in bench.search.seconds.items()}
    features = {f"features.{n}": s for n, s in bench.arena.views.seconds.items()}
    return {**trials, **features, "total": bench.clock.used()}


def _unseen(bench: Bench, chosen: Chosen) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and out-of-fold outputs of the search folds, which are all in the ledger: what temperature and intervals are fitted on."""
    parts = [bench.arena.fold(chosen.candidate, a, b, deadline=time.monotonic() + 60)[0] for a, b in bench.search.folds]
    return np.concatenate([bench.y[b] for _, b in bench.search.folds]), np.concatenate(parts)
