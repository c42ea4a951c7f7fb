"""The test of an adaptation by labelled target cases says "adapt" by chance no more often than it states, however many candidates there were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from headstart.adaptation import SOURCE_ONLY, AdaptationVerdict
from headstart.adapting import choosing
from headstart.adapting.trying import Trials, Tried
from headstart.evaluate import folds


def null(rng: np.random.Generator, *, n: int, rivals: int) -> AdaptationVerdict:
    """Return the verdict where source only and every rival are right on a labelled case with the same probability, each by itself."""
    y = np.arange(n) % 2
    splits = folds([str(c) for c in y], k=5, repeats=3, seed=int(rng.integers(1_000_000_000)))

    def candidate(name: str) -> Any:
        p = np.eye(2)[np.where(rng.random(n) < 0.7, y, 1 - y)]
        return SimpleNamespace(name=name, entry=SimpleNamespace(related=name != SOURCE_ONLY), folds=tuple(p[t] for _, t in splits))

    every = [candidate(name) for name in (SOURCE_ONLY, *(f"rival {k}" for k in range(rivals)))]
    ground = SimpleNamespace(domains=SimpleNamespace(y=y, classes=2, known=np.arange(n)))
    trials = SimpleNamespace(complete=lambda: every, splits=splits, ground=ground)
    return choosing.tested(cast(Trials, trials), cast(Tried, every[0]), margin=0.0).verdict


def test_the_best_of_twenty_that_are_worth_nothing_is_not_found_better_by_the_folds_that_chose_it() -> None:
    rng = np.random.default_rng(0)
    verdicts = [null(rng, n=40, rivals=20) for _ in range(200)]
    assert abs(np.mean([v.gain for v in verdicts])) < 0.03  # .11 when other repeats' folds chose too
    assert np.mean([v.decision == "adapt" for v in verdicts]) <= 0.09  # 5 % are stated, and 200 worlds show them as up to 9 %; .22 then
