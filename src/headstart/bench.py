"""The bench: what every step of a run works on, who hears of it, and how the budget is shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from headstart.choice import Chooser
from headstart.core import Inspection, Source, Task
from headstart.evaluate import Split, folds
from headstart.search import Arena, Clock, Search
from headstart.train import OutOfTime

FOLDS = 5
# the share of the budget that is used up when a step must end; what a step leaves over, the next ones have
SHARES = {"simple": 0.22, "sources": 0.50, "frozen": 0.58, "scratch": 0.68, "fine-tune": 0.80, "test": 0.86, "judge": 0.94, "evidence": 0.97}


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
class Bench:
    """What every step works on. ``train`` and ``test`` are row numbers of the task's inputs; splits are stratified by ``strata`` (n,)."""

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
    strata: np.ndarray
    strata_names: tuple[str, ...]
    chooser: Chooser
    notes: list[str] = field(default_factory=list)
    limit: float = math.inf

    @property
    def classes(self) -> int:
        """How many classes the task has; 0 for regression."""
        return len(self.task.labels)

    def begin(self, step: str, name: str, total: int | None = None) -> float:
        """Announce a step and return its deadline, a ``time.monotonic``; views that are still being made then give up."""
        self.observer.phase(name, total)
        self.limit = SHARES[step]
        return self.clock.deadline(self.limit)

    def progress(self, label: str, k: int) -> None:
        """Hear of finished inputs; raises ``OutOfTime`` past the step's deadline."""
        self.observer.advance(label, k)
        if self.clock.late(self.limit):
            raise OutOfTime

    def count(self, *, per: float, low: int, high: int) -> int:
        """How many pieces of work the budget pays for: one per so many seconds, within bounds; the same on every machine."""
        return max(low, min(high, int(self.clock.budget // per)))

    def folds(self, *, repeats: int, seed: int) -> list[Split]:
        """Return repeated stratified folds of the training part, groups whole, as row numbers of the task's inputs."""
        groups = None if self.groups is None else self.groups[self.train]
        names = [self.strata_names[c] for c in self.strata[self.train]]
        pairs = folds(names, groups=groups, k=FOLDS, repeats=repeats, seed=seed)
        return [(self.train[a], self.train[b]) for a, b in pairs]
