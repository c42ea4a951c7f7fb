"""Contenders: each method on each source against no transfer, on the judging folds, and what is left of each claim when all are counted.

The verdict speaks of choosing and fitting as a whole. Who asks which of several sources or methods helps makes several claims at once; Holm's step-down
keeps the chance of any false one at the stated level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from headstart.bench import Bench
from headstart.evaluate import Split, share_tested
from headstart.guard import holm, judge
from headstart.judging import LOOPED, REPEATS, fold_scores, fresh_folds, repeats
from headstart.result import Arm, Contender, Trial

LEVEL = 0.90
LEAST = 2  # folds that give an interval

Key = tuple[str, str]


def contest(bench: Bench, arms: Sequence[Arm], *, margin: float) -> tuple[Contender, ...]:
    """Return every method on every source that was tried, the largest gain first; those that the budget left fewer than two folds are left out.

    A contender's setting is chosen anew in each fold, without the fold's cases, as an arm's is; the baseline is the one that the arms were judged
    against. Closed-form contenders are measured first, each repeat of the folds in turn for all of them.
    """
    baseline = next(a for a in arms if a.name == "baseline")
    firsts: dict[Key, Trial] = {}
    for trial in bench.search.trials:
        if trial.arm != "baseline" and trial.status == "complete":
            firsts.setdefault((trial.method, trial.source or ""), trial)
    scores = _measured(bench, firsts, most=len(baseline.folds))
    share = share_tested(fresh_folds(bench))
    keys = [key for key, folds in scores.items() if len(folds) >= LEAST]
    found = [judge(scores[key], baseline.folds[: len(scores[key])], margin=margin, test_share=share, level=LEVEL) for key in keys]
    adjusted = holm([1.0 - one.p_gain for one in found])
    rows = [
        Contender(*key, one.gain, one.interval, 1.0 - one.p_gain, p, one.folds, p <= (1.0 - LEVEL) / 2.0)
        for key, one, p in zip(keys, found, adjusted, strict=True)
    ]
    return tuple(sorted(rows, key=lambda one: -one.gain))


def _measured(bench: Bench, firsts: dict[Key, Trial], *, most: int) -> dict[Key, list[float]]:
    """Return the fold scores of each contender, as many as there is time for."""
    deadline = bench.begin("judge", "each source and method by itself")
    fresh = fresh_folds(bench)
    k, fresh = len(fresh) // REPEATS, fresh[:most]
    scores: dict[Key, list[float]] = {key: [] for key in firsts}
    rounds = [(trial.method in LOOPED, r, key) for key, trial in firsts.items() for r in range(repeats(bench, trial))]
    for _, repeat, key in sorted(rounds, key=lambda one: one[:2]):
        if len(scores[key]) == k * repeat:
            pick = partial(_setting, bench, key)
            scores[key] += fold_scores(bench, fresh[k * repeat : k * (repeat + 1)], pick, deadline=deadline)
    return scores


def _setting(bench: Bench, key: Key, fold: Split) -> Trial | None:
    return bench.search.best("frozen", "fine-tuned", without=fold[1], among=lambda trial: (trial.method, trial.source or "") == key)
