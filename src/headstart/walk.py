"""Progressive transfer as a walk: from no transfer towards the source, then deeper into it, by steps that are taken only where they pay.

A step is taken where the lower end of the interval of its gain, on the folds of the search, lies above 0 (``guard.judge``). No transfer is where the walk
begins, so that by more than chance it never ends below that.
"""

from __future__ import annotations

import dataclasses

from headstart.bench import Bench
from headstart.core import Source
from headstart.evaluate import share_tested
from headstart.guard import judge
from headstart.learner import Candidate
from headstart.methods.model.progressive import DEEPEST, SHARES, Progressive
from headstart.methods.model.tuned import starts
from headstart.result import Step, Trial, Verdict


def walk(bench: Bench, method: Progressive, source: Source, *, deadline: float) -> tuple[Step, ...]:
    """Walk from random weights to the source's, then let one stage more learn at a time; return the steps, which ``bench.steps`` keeps too.

    1. Origin: a = 0, every stage from random weights, every stage learns.
    2. a = .25, .5, .75, 1 at the tuning cut nearest to the output. Each is compared with the best so far, and one that is refused does not end the
       walk: between two good sets of weights there is often a bad one (Frankle et al. 2020, Linear mode connectivity).
    3. The cut moves towards the input, one stage at a time, until a step is refused. Not from a = 0, where every stage learns already.

    Refused trials count as stopped, so that the search does not choose them for a higher mean. Each step is taken wrongly in 5 % of cases at most; a walk of
    k steps errs more often than that, up to k times as often.
    """
    whole = min(len(source.stages), DEEPEST)
    nearest = min(whole, len(source.stages) - starts(source)[0])
    here = _measured(bench, dataclasses.replace(method, share=SHARES[0], last=whole), source, deadline=deadline, rival=None)
    if here is None:
        return _ended(bench, "The budget ended before the network from random weights was measured, from which the walk of 'progressive' begins.")
    bench.steps.append(_step(bench, here, source, None, "no transfer: random weights, and every stage learns"))
    for share in SHARES[1:]:
        there = _measured(bench, dataclasses.replace(method, share=share, last=nearest), source, deadline=deadline, rival=here)
        if there is None:
            return _ended(bench, f"The budget ended before the walk of 'progressive' reached a = {share:g}.")
        here = there if _pays(bench, here, there, source) else here
    for last in range(nearest + 1, whole + 1):
        if here.params["share"] == 0:
            break
        there = _measured(bench, dataclasses.replace(method, share=here.params["share"], last=last), source, deadline=deadline, rival=here)
        if there is None:
            return _ended(bench, f"The budget ended before the walk of 'progressive' let {last} stages learn.")
        if not _pays(bench, here, there, source):
            break
        here = there
    return tuple(bench.steps)


def _measured(bench: Bench, method: Progressive, source: Source, *, deadline: float, rival: Trial | None) -> Trial | None:
    """Return the trial of that member of the family, or ``None`` when there was no time for it; given up where it trails far."""
    before = len(bench.search.trials)
    bench.search.fixed([Candidate(method, source)], deadline=deadline, rival=rival)
    return bench.search.trials[-1] if len(bench.search.trials) > before else None


def _pays(bench: Bench, here: Trial, there: Trial, source: Source) -> bool:
    """Whether to step from here to there; notes the step, and takes a trial that does not pay out of the search's choice."""
    folds = len(there.folds)
    found = judge(there.folds, here.folds[:folds], test_share=share_tested(bench.search.folds))
    taken = there.status == "complete" and found.decision == "transfer"
    why = there.reason or (f"better than trial {here.number} by more than chance" if taken else f"not better than trial {here.number} by more than chance")
    if not taken:
        bench.search.decline(there, f"step not taken, {why}")
    bench.observer.say(f"step to trial {there.number}: {'taken' if taken else 'not taken'}, {why}")
    bench.steps.append(_step(bench, there, source, found if there.status == "complete" else None, why, taken=taken))
    return taken


def _step(bench: Bench, trial: Trial, source: Source, found: Verdict | None, why: str, *, taken: bool = True) -> Step:
    share, last = float(trial.params["share"]), int(trial.params["last"])
    cut = len(source.stages) - last if share else 0
    gain, reach = (None, None) if found is None else (found.gain, found.interval)
    return Step(trial.number, share, cut, ("input", *source.stages)[cut], bench.scored(trial), gain, reach, taken, why)


def _ended(bench: Bench, words: str) -> tuple[Step, ...]:
    bench.notes.append(words)
    return tuple(bench.steps)
