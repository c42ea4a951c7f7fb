"""Judging: the chosen setting of each arm meets the held-out cases once, and each arm's choosing and fitting meets folds that the search never saw.

In every fold source and setting are chosen anew, without the fold's own cases (nested selection; Varma & Simon 2006, "Bias in error estimation when
using cross-validation for model selection"). Else the best of many would be judged on the very cases that made it look best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from headstart.bench import FOLDS, Bench
from headstart.core import InputError
from headstart.evaluate import Split, interval_of_mean, interval_of_score, metric, score, share_tested
from headstart.guard import judge, resampled_t
from headstart.learner import Candidate, Fitted
from headstart.methods import METHODS, Method
from headstart.methods.method import Arm as ArmName
from headstart.result import Arm, Score, Trial, Verdict
from headstart.search import Piece
from headstart.train import OutOfTime

Kind = tuple[Any, ...]
REPEATS = 3
INNER = 4  # folds of a fold's training cases, in which sources are compared; a large budget pays for all of them
REACH = 2.0  # standard errors; a kind that trails by more is not chosen by chance
LOOPED = frozenset(kind.name for kinds in METHODS.values() for kind in kinds if issubclass(kind, Method))


@dataclass(frozen=True)
class Chosen:
    """The best trial of an arm, fitted on the whole training part, and its output on the held-out cases: (n_test, c) probabilities or (n_test, 1)."""

    trial: Trial
    candidate: Candidate
    fitted: Fitted
    output: np.ndarray


@dataclass(frozen=True)
class Judgement:
    """The verdict, the arm that ``stands`` for transfer (the baseline where none was measured), the arm to ship, and the gains by fold."""

    verdict: Verdict
    stands: Arm
    shipped: Arm
    gains: tuple[float, ...]


def fit_chosen(bench: Bench) -> dict[ArmName, Chosen]:
    """Fit the best setting of each arm on the whole training part, and predict the test part, once."""
    late = bench.begin("test", "fitting the chosen settings")
    out: dict[ArmName, Chosen] = {}
    arms: tuple[ArmName, ...] = ("baseline", "frozen", "fine-tuned")
    for arm in arms:
        trial = bench.search.best(arm)
        if trial is None:
            continue
        candidate = bench.search.candidates[trial.number]
        deadline = late if arm == "fine-tuned" else math.inf
        try:
            fitted = bench.arena.fitted(candidate, bench.train, deadline=deadline)
        except OutOfTime:
            bench.search.ran_out = True
            continue
        out[arm] = Chosen(trial, candidate, fitted, fitted.output(bench.arena.views.array(candidate.served)[bench.test]))
    return out


def judge_arms(bench: Bench, chosen: Mapping[ArmName, Chosen]) -> tuple[Arm, ...]:
    """Measure each arm on fresh folds, the same for every arm: those that cost little first. Each fold's own cases have no say in what is fitted for it.

    Only the baseline's first repeat is worth overrunning the budget: without it there is nothing to compare with.
    """
    deadline = bench.begin("judge", "judging on fresh folds", sum(FOLDS * repeats(bench, c.trial) for c in chosen.values()))
    fresh = fresh_folds(bench)
    k = len(fresh) // REPEATS
    scores: dict[ArmName, list[float]] = {name: [] for name in chosen}
    rounds = [(r, name) for r in range(REPEATS) for name, c in chosen.items() if r < repeats(bench, c.trial)]
    for repeat, name in sorted(rounds, key=lambda one: chosen[one[1]].trial.method in LOOPED):
        if len(scores[name]) == k * repeat:
            patience = math.inf if name == "baseline" and repeat == 0 else deadline
            pick = partial(best_inside, bench, name, deadline=deadline)
            scores[name] += fold_scores(bench, fresh[k * repeat : k * (repeat + 1)], pick, deadline=patience)
    share = share_tested(fresh)
    return tuple(_arm(bench, name, chosen[name], folds, share=share) for name, folds in scores.items() if folds)


def fresh_folds(bench: Bench) -> list[Split]:
    """Return the folds that arms are judged on: others than the search's, the same at every call."""
    return bench.folds(repeats=REPEATS, seed=bench.seed + 1)


def verdict(bench: Bench, arms: Sequence[Arm], *, margin: float) -> Judgement:
    """Judge transfer against the baseline, on the folds that both have.

    Which transfer arm stands for transfer is chosen anew in each fold, as its setting is; where that one was not measured, the fold does not count.
    """
    by_name = {a.name: a for a in arms}
    baseline = by_name["baseline"]
    rivals = [by_name[name] for name in ("frozen", "fine-tuned") if name in by_name]
    if not rivals:
        why = "No transfer fits the bounds" if bench.search.none_fits("frozen", "fine-tuned") else "The budget ended before any transfer was measured"
        bench.notes.append(f"{why}, so nothing is known of its gain.")
        return Judgement(Verdict("undecided", "baseline", 0.0, (-1.0, 1.0), 0.5, margin, 0), baseline, baseline, ())
    best = preferred(bench, rivals)
    fresh = fresh_folds(bench)[: min(len(best.folds), len(baseline.folds))]
    standing = [preferred(bench, rivals, inside=fold) for fold in fresh]
    measured = [(one.folds[i], baseline.folds[i]) for i, one in enumerate(standing) if i < len(one.folds)]
    if not measured:
        measured = list(zip(best.folds, baseline.folds, strict=False))
    found = judge([a for a, _ in measured], [b for _, b in measured], margin=margin, test_share=share_tested(fresh))
    return Judgement(found, best, best if found.ship == "transfer" else baseline, tuple(a - b for a, b in measured))


def best_inside(bench: Bench, arm: ArmName, fold: Split, *, deadline: float) -> Trial | None:
    """Return what is chosen for a fold without its test cases: first the kind, see :func:`kind_inside`, then that kind's setting."""
    try:
        kind = None if arm == "fine-tuned" else kind_inside(bench, arm, fold, deadline=deadline)
    except OutOfTime:
        if arm != "baseline":
            raise
        bench.search.ran_out, kind = True, None  # without a baseline there is nothing to compare with, so it is chosen by what is at hand
    return bench.search.best(arm, without=fold[1], among=lambda t: of(kind)(t) or t.method in LOOPED)


def preferred(bench: Bench, rivals: Sequence[Arm], *, inside: Split | None = None) -> Arm:
    """Return frozen features or fine-tuning: the expected one, unless the other was better on the search folds by more than a standard error of the difference.

    The one-standard-error rule (Breiman et al. 1984, sec. 3.4.3): where folds cannot tell two models apart, what is known of other tasks does. Of texts and
    tables that is the simpler one, which is also judged on more folds. Of images it is fine-tuning: on four tasks that chose nothing it
    gained 14, 8 and 5 points over frozen features at 5, 20 and 100 of each class (LOG.md, 2026-11-29), and three folds of 5 of each class can tell no such
    gain. No judging fold's score is looked at.
    ``inside`` a fold its test cases have no say, and where its training cases
    would have named another source, that source was not fine-tuned.
    """
    if len(rivals) < 2:
        return rivals[0]
    simple, deep = rivals
    if inside is None:
        sides = [bench.search.scores(bench.search.trials[one.trial], without=np.zeros(0, dtype=np.intp)) for one in rivals]
    else:
        kind = kind_inside(bench, "frozen", inside, deadline=math.inf)
        trials = [bench.search.best(one.name, without=inside[1], among=of(kind)) for one in rivals]
        sides = [bench.search.scores(trial, without=inside[1]) for trial in trials if trial is not None]
    if len(sides) < 2 or len(sides[0]) < 2:
        return simple
    mean, error, _ = resampled_t(np.subtract(sides[1], sides[0]), test_share=share_tested(bench.search.folds))
    leads = mean >= -error if leans_deep(bench) else mean > error
    return deep if leads else simple


def leans_deep(bench: Bench) -> bool:
    """Return whether fine-tuning is expected to win where folds cannot tell: for images."""
    return bench.task.modality == "image"


def kind_of(trial: Trial) -> Kind:
    """Return what a trial is a setting of: its source; without one, the baseline's features and model."""
    return (trial.method, trial.params.get("features"), trial.params.get("model")) if trial.arm == "baseline" else (trial.source,)


def of(kind: Kind | None) -> Callable[[Trial], bool]:
    """Return whether a trial is of that kind; ``None``: of any."""
    return lambda trial: kind in (None, kind_of(trial))


def kind_inside(bench: Bench, arm: ArmName, fold: Split, *, deadline: float) -> Kind | None:
    """Return the source, or the kind of baseline, that does best in folds of the fold's training cases alone; ``None`` where they are too few to divide.

    What the search predicted of other cases does not do for this: its models were fitted with the fold's own cases, and among 24 sources of noise that
    alone kept two fifths of the flattery. Settings of one kind are alike, and for them it does. A source stands for itself by its first probe, a kind of
    baseline by its best setting; of these the budget pays for two to all, see :func:`_baselines`.
    """
    train, test = fold
    key = (arm, train.tobytes())
    if key not in bench.kinds:
        found = [t for t in bench.search.trials if t.arm == arm and t.status == "complete" and t.method not in LOOPED]
        firsts = [next(t for t in found if kind_of(t) == kind) for kind in dict.fromkeys(map(kind_of, found))]
        stand = _baselines(bench, firsts, test) if arm == "baseline" else firsts
        bench.kinds[key] = _best_kind(bench, stand, train, deadline=deadline)
    kind: Kind | None = bench.kinds[key]
    return kind


def _baselines(bench: Bench, firsts: Sequence[Trial], test: np.ndarray) -> list[Trial]:
    """Return the best setting of each kind of baseline, best first, by the search's cases outside ``test``.

    Left out are kinds that trail by more than ``REACH`` standard errors of the difference, which no chance would have chosen, and what the budget does not
    pay for: it pays for a kind per 150 s, at least two. Baselines that are trained in the loop cost too much: they meet the winner by what the search
    predicted.
    """
    stand = [t for one in firsts if (t := bench.search.best("baseline", without=test, among=of(kind_of(one)))) is not None]
    scores = {t.number: np.array(bench.search.scores(t, without=test)) for t in stand}
    ranked = sorted(stand, key=lambda t: (-scores[t.number].mean(), t.number))[: bench.count(per=150, low=2, high=len(stand))]
    if len(ranked) < 2 or len(scores[ranked[0].number]) < 2:
        return ranked
    share, best = share_tested(bench.search.folds), scores[ranked[0].number]
    behind = {t.number: resampled_t(best - scores[t.number], test_share=share) for t in ranked}
    return [t for t in ranked if behind[t.number][0] <= REACH * behind[t.number][1]]


def _best_kind(bench: Bench, stand: Sequence[Trial], train: np.ndarray, *, deadline: float) -> Kind | None:
    """Return the kind of the trial that does best in folds of those rows."""
    if len(stand) < 2:
        return kind_of(stand[0]) if stand else None
    try:
        inner = bench.folds(repeats=1, seed=bench.seed + 2, rows=train, k=INNER)[: bench.count(per=150, low=1, high=INNER)]
    except InputError:
        return None

    bench.arena.ahead([(bench.search.candidates[t.number], a, b) for t in stand for a, b in inner], deadline=deadline)

    def score(trial: Trial) -> float:
        candidate = bench.search.candidates[trial.number]
        return float(np.mean([bench.arena.score(candidate, a, b, deadline=deadline)[0] for a, b in inner]))

    return kind_of(max(stand, key=lambda t: (score(t), -t.number)))


def repeats(bench: Bench, trial: Trial) -> int:
    """Return on how many repeats of the folds a trial is judged: trained nets on fewer where the budget is small."""
    return bench.count(per=600, low=1, high=REPEATS) if trial.method in LOOPED else REPEATS


def fold_scores(bench: Bench, pairs: Sequence[Split], pick: Callable[[Split], Trial | None], *, deadline: float) -> list[float]:
    """Return the score in each fold of the setting that is picked for it; fewer where there is none, or no time."""
    scores: list[float] = []
    width = bench.arena.runner.width
    for part in (pairs[i : i + width] for i in range(0, len(pairs), width)):
        pieces: list[Piece] = []
        try:
            for fold in part:
                if (trial := pick(fold)) is None:
                    break
                pieces.append((bench.search.candidates[trial.number], *fold))
        except OutOfTime:
            bench.search.ran_out = True
        bench.arena.ahead(pieces, deadline=deadline)
        try:
            for piece in pieces:
                scores.append(bench.arena.score(*piece, deadline=deadline)[0])
                bench.observer.advance("judging on fresh folds", 1)
        except OutOfTime:
            bench.search.ran_out = True
            break
        if len(pieces) < len(part):
            break
    return scores


def _arm(bench: Bench, name: ArmName, chosen: Chosen, scores: Sequence[float], *, share: float) -> Arm:
    truth, trial = bench.y[bench.test], chosen.trial
    name_of_metric = metric(bench.classes)
    groups, cases = None if bench.groups is None else bench.groups[bench.test], len(bench.train) if bench.classes else 0
    interval = interval_of_score(truth, chosen.output, classes=bench.classes, groups=groups, seed=bench.seed)
    cv = Score(name_of_metric, float(np.mean(scores)), interval=interval_of_mean(scores, test_share=share, cases=cases), n=len(bench.train))
    test = Score(name_of_metric, score(truth, chosen.output, classes=bench.classes), interval=interval, n=len(truth))
    return Arm(name, trial.number, trial.method, trial.source, trial.params, cv, test, tuple(scores))
