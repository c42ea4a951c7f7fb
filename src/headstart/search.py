"""Search: spend a budget on candidates, and write every finished piece down.

Each method is one Optuna study in ``journal.sqlite``; each fold's probabilities are one file in ``folds/``, named by the content that made them.
A run that was killed replays its decisions and computes only what is missing. Processes that run the same command share the folds: what one is
at work on, the others leave to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from headstart.bounds import Bounds, Refusal
from headstart.core import Source
from headstart.evaluate import balanced_accuracy, r2, score
from headstart.journal import Journal, distribution
from headstart.keeping import Settings
from headstart.learner import Candidate, Fitted, learn, with_params
from headstart.ledger import Busy, Ledger
from headstart.methods.method import Arm, Closed, Method, space
from headstart.result import Trial
from headstart.spaces import Space
from headstart.train import PLAIN, OutOfTime
from headstart.views import Views

HOPELESS = ((1, 0.10), (2, 0.03))
ATTEMPTS = 16
PARTS = 5  # of one validation split, so that two settings can be told apart by the spread of their difference


@dataclass
class Clock:
    """The user's budget in seconds. ``spent`` is what earlier, interrupted calls had already used well."""

    budget: float
    spent: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def used(self) -> float:
        """Seconds used so far."""
        return self.spent + time.monotonic() - self.began

    def deadline(self, share: float) -> float:
        """Return the ``time.monotonic`` at which that share of the budget is used."""
        return self.began + self.budget * share - self.spent

    def late(self, share: float, *, need: float = 0.0) -> bool:
        """Whether ``need`` more seconds would pass that share of the budget."""
        return self.used() + need > self.budget * share


Piece = tuple[Candidate, np.ndarray, np.ndarray]  # a fold: what is fitted, on which rows, and which rows it then predicts


class Runner(Protocol):
    """Where folds are computed. The ledger holds the same bytes wherever that is."""

    @property
    def width(self) -> int:
        """How many folds are at work at once."""

    def ahead(self, arena: Arena, pieces: Iterable[Piece], *, deadline: float) -> None:
        """Begin folds that will be asked for soon, where others than this process can do so; what is stored or in other hands is passed over."""

    def outcome(self, arena: Arena, piece: Piece, *, deadline: float, patience: float) -> tuple[np.ndarray, float]:
        """Return what :meth:`Ledger.outcome` does. Raises ``OutOfTime``, and ``Busy`` where another process has not finished it within ``patience`` seconds."""


class Here:
    """Computes folds in this process, one after another."""

    width = 1

    def ahead(self, arena: Arena, pieces: Iterable[Piece], *, deadline: float) -> None: ...

    def outcome(self, arena: Arena, piece: Piece, *, deadline: float, patience: float) -> tuple[np.ndarray, float]:
        return arena.ledger.outcome(arena.key(piece), partial(arena.made, piece, deadline=deadline), patience=patience)


@dataclass(frozen=True)
class Arena:
    """Where candidates are measured: views, class codes or numbers ``y`` (n,), identical folds for all, and the ledger.

    ``classes`` is 0 for regression; ``settings`` are those of what is trained by the loop; ``runner`` says where folds are computed.
    """

    views: Views
    y: np.ndarray
    classes: int
    ledger: Ledger
    seed: int
    groups: np.ndarray | None = None
    settings: Settings = PLAIN
    runner: Runner = field(default_factory=Here, repr=False, compare=False)

    def fitted(self, candidate: Candidate, rows: np.ndarray, *, deadline: float) -> Fitted:
        """Return the candidate fitted on those rows. Raises ``OutOfTime``."""
        given = {"classes": self.classes, "seed": self.seed, "groups": self.groups, "settings": candidate.settings or self.settings}
        return learn(candidate, self.views, rows, self.y, **given, deadline=deadline)  # type: ignore[arg-type]

    def fold(self, candidate: Candidate, train: np.ndarray, test: np.ndarray, *, deadline: float) -> tuple[np.ndarray, float]:
        """Return the probabilities (n_test, c), or numbers (n_test, 1), of one fold and the seconds they took. Raises ``OutOfTime``."""
        try:
            patience = -1.0 if deadline == np.inf else max(0.0, deadline - time.monotonic())
            return self.runner.outcome(self, (candidate, train, test), deadline=deadline, patience=patience)
        except Busy:
            raise OutOfTime from None

    def idle_score(self, candidate: Candidate, train: np.ndarray, test: np.ndarray, *, deadline: float) -> tuple[float, float]:
        """Return what :meth:`score` does; raises ``Busy`` at once where another process is at work on that fold."""
        output, seconds = self.runner.outcome(self, (candidate, train, test), deadline=deadline, patience=0.0)
        return score(self.y[test], output, classes=self.classes), seconds

    def ahead(self, pieces: Iterable[Piece], *, deadline: float) -> None:
        """Let the runner begin folds that will be asked for soon."""
        self.runner.ahead(self, pieces, deadline=deadline)

    def key(self, piece: Piece) -> dict[str, Any]:
        """Return everything that determines a fold, as plain values."""
        candidate, train, test = piece
        groups = None if self.groups is None else self.groups[train].tolist()
        rows = [[self.views.digests[i] for i in train], self.y[train].tolist(), groups, [self.views.digests[i] for i in test]]
        key = {"candidate": candidate.describe(), "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(), "seed": self.seed}
        return key | ({"settings": changed} if candidate.settings is None and (changed := self.settings.changed()) else {})

    def made(self, piece: Piece, *, deadline: float) -> np.ndarray:
        """Return the output of a fold, computed in this process. Raises ``OutOfTime``."""
        candidate, train, test = piece
        if time.monotonic() > deadline:
            raise OutOfTime
        return self.fitted(candidate, train, deadline=deadline).output(self.views.array(candidate.served)[test])

    def score(self, candidate: Candidate, train: np.ndarray, test: np.ndarray, *, deadline: float) -> tuple[float, float]:
        """Return the score of one fold, 0..1, and the seconds it took."""
        output, seconds = self.fold(candidate, train, test, deadline=deadline)
        return score(self.y[test], output, classes=self.classes), seconds


class Sieve(Protocol):
    """Says which candidates are not tried, for they break the user's ``bounds``."""

    bounds: Bounds

    def refusal(self, candidate: Candidate, *, deadline: float) -> Refusal | None:
        """Say why a candidate is left out, or ``None``. Raises ``OutOfTime``."""


@dataclass
class Search:
    """Trials of all arms on one arena, in the order in which they ran; with a joint ``space`` what is of it is journalled together."""

    arena: Arena
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    journal: Journal | None
    on_trial: Callable[[Trial], None] | None = None
    trials: list[Trial] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    space: Space | None = None
    sieve: Sieve | None = None
    refusals: dict[int, Refusal] = field(default_factory=dict)
    ran_out: bool = False
    _predicted: dict[int, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def best(self, *arms: Arm, without: np.ndarray | None = None, among: Callable[[Trial], bool] = lambda trial: True) -> Trial | None:
        """Return the complete trial with the highest mean score, ``among`` those that are asked for; the earlier one of equals.

        Scores of cases among the rows ``without`` have no say; models of the search that were fitted with them do.
        """
        complete = [t for t in self.trials if t.arm in arms and t.status == "complete" and among(t)]
        if without is None:
            return max(complete, key=lambda t: (t.score, -t.number), default=None)
        return max(complete, key=lambda t: (float(np.mean(self.scores(t, without=without))), -t.number), default=None)

    def scores(self, trial: Trial, *, without: np.ndarray) -> tuple[float, ...]:
        """Return a complete trial's score in each search fold, on the cases that are not among the rows ``without``; a fold of no others is left out.

        Nothing is fitted: what the search predicted out of fold is scored again. Of one validation split, :data:`PARTS` parts are scored.
        """
        if trial.number not in self._predicted:
            outputs = [self.arena.fold(self.candidates[trial.number], a, b, deadline=np.inf)[0] for a, b in self.folds]
            self._predicted[trial.number] = [o.argmax(axis=1) if self.arena.classes else o[:, 0] for o in outputs]
        measure = balanced_accuracy if self.arena.classes else r2
        asked = np.ones(len(self.arena.y), dtype=bool)
        asked[without] = False
        step = PARTS if len(self.folds) == 1 else 1
        parts = [(b[i::step], found[i::step]) for (_, b), found in zip(self.folds, self._predicted[trial.number], strict=True) for i in range(step)]
        kept = [(rows[asked[rows]], found[asked[rows]]) for rows, found in parts]
        return tuple(measure(self.arena.y[rows], found) for rows, found in kept if len(rows))

    def fixed(self, candidates: Iterable[Candidate], *, deadline: float, rival: Trial | None = None) -> None:
        """Try those candidates in that order; settings already tried are passed over."""
        candidates = list(candidates)
        if rival is None:  # why: against a rival most of them may be given up after a fold
            self.ahead(candidates, deadline=deadline)
        for candidate in candidates:
            if self.tried(candidate) is None and not self.attempt(candidate, deadline=deadline, give_up=lambda scores: hopeless(scores, rival)):
                return

    def ahead(self, candidates: Iterable[Candidate], *, deadline: float) -> None:
        """Let the runner begin all folds of candidates that will be tried soon; with bounds none, for whether they will be tried is not known yet."""
        if self.sieve is not None:
            return
        self.arena.ahead(((c, *fold) for c in candidates if self.tried(c) is None for fold in self.folds), deadline=deadline)

    def propose(self, template: Closed | Method, sources: Sequence[Source | None], *, count: int, deadline: float, rival: Trial | None = None) -> None:
        """Try up to ``count`` settings that TPE (Bergstra et al. 2011) proposes from the method's own space and the sources."""
        made = 0
        for turn in range(count if self.sieve is None else ATTEMPTS * count):
            candidate = self._ask(template, sources, turn=turn) if made < count else None
            if candidate is None or not self.attempt(candidate, deadline=deadline, give_up=lambda scores: hopeless(scores, rival)):
                return
            made += self.trials[-1].status != "excluded"

    def decline(self, trial: Trial, reason: str) -> None:
        """Keep a trial out of what :meth:`best` chooses from, and say why."""
        self.trials[trial.number] = dataclasses.replace(trial, status="stopped", reason=reason)

    def _ask(self, template: Closed | Method, sources: Sequence[Source | None], *, turn: int) -> Candidate | None:
        """Ask TPE, seeded by the turn and told of every finished trial, so that a resumed run asks the same questions."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        spaces = {name: distribution(k) for name, k in space(template).items()}
        named = {"none" if s is None else s.name: s for s in sources}
        spaces["source"] = optuna.distributions.CategoricalDistribution(tuple(named))
        seed = int.from_bytes(hashlib.sha256(f"{self.arena.seed}/{template.name}/{turn}".encode()).digest()[:4], "big")
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4))
        worst = min((trial.score for trial in self.trials if trial.folds), default=0.0)
        for trial, candidate in zip(self.trials, self.candidates, strict=True):
            if candidate.method.name == template.name and (trial.source or "none") in named:
                params = {**dict(trial.params), "source": trial.source or "none"}
                # why: what breaks a bound has no score, and is told as bad as the worst, so that TPE keeps away from its like
                study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=trial.score if trial.folds else worst))
        for _ in range(ATTEMPTS):
            params = dict(study.ask(spaces).params)
            candidate = Candidate(with_params(template, {k: v for k, v in params.items() if k != "source"}), named[params["source"]])
            if self.tried(candidate) is None:
                return candidate
        return None

    def tried(self, candidate: Candidate) -> Trial | None:
        """Return the trial of those settings, or ``None``."""
        wanted = candidate.describe()
        return next((trial for trial, one in zip(self.trials, self.candidates, strict=True) if one.describe() == wanted), None)

    def attempt(self, candidate: Candidate, *, deadline: float, give_up: Callable[[Sequence[float]], str]) -> bool:
        """Run one trial and keep it; return whether there was time for it.

        ``give_up`` is asked after each fold but the last, in their order, with the scores so far, and says why the others are not worth it, or "".
        One that breaks a bound is not run: see :meth:`refused`.
        """
        try:
            if self.refused(candidate, deadline=deadline):
                return True
            scores, spent, reason = self._run(candidate, deadline=deadline, give_up=give_up)
        except OutOfTime:
            self.ran_out = True
            return False
        self.seconds[len(self.trials)] = spent
        self._keep(candidate, scores, "stopped" if reason else "complete", reason)
        return True

    def refused(self, candidate: Candidate, *, deadline: float) -> bool:
        """Whether the candidate breaks a bound; it is then kept among the trials as "excluded", once, with the reason. Raises ``OutOfTime``."""
        found = None if self.sieve is None else self.sieve.refusal(candidate, deadline=deadline)
        if found is not None and self.tried(candidate) is None:
            self.refusals[len(self.trials)] = found
            self._keep(candidate, (), "excluded", found.why)
        return found is not None

    def none_fits(self, *arms: Arm) -> str:
        """Say which of the excluded candidates of those arms comes nearest to the bounds; "" where none was excluded."""
        left = [trial for trial in self.trials if trial.number in self.refusals and trial.arm in arms]
        if self.sieve is None or not left:
            return ""
        one = min(left, key=lambda trial: self.refusals[trial.number].excess)
        words = ", ".join(f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in one.params.items())
        return f"The {self.sieve.bounds.superlative} is {one.method}{f' on {one.source}' if one.source else ''} ({words}): {one.reason}."

    def _keep(self, candidate: Candidate, scores: Sequence[float], status: Literal["complete", "stopped", "excluded"], reason: str) -> None:
        source = None if candidate.source is None else candidate.source.name
        trial = Trial(len(self.trials), candidate.arm, candidate.method.name, source, candidate.params, tuple(scores), status, reason)
        self.trials.append(trial)
        self.candidates.append(candidate)
        self._journal(trial, candidate, self.seconds.get(trial.number, 0.0))
        if self.on_trial is not None:
            self.on_trial(trial)

    def _run(self, candidate: Candidate, *, deadline: float, give_up: Callable[[Sequence[float]], str]) -> tuple[list[float], float, str]:
        """Return scores in the folds' order up to where the trial was given up, the seconds they took, and why. Folds in other processes' hands come last."""
        known: dict[int, tuple[float, float]] = {}
        scores: list[float] = []
        reason = ""
        self.arena.ahead(((candidate, *fold) for fold in self.folds), deadline=deadline)
        while len(scores) < len(self.folds) and not reason:
            if len(scores) in known:
                scores.append(known[len(scores)][0])
                reason = give_up(scores) if len(scores) < len(self.folds) else ""
                continue
            for k in (k for k in range(len(self.folds)) if k not in known):
                with contextlib.suppress(Busy):
                    known[k] = self.arena.idle_score(candidate, *self.folds[k], deadline=deadline)
                    break
            else:
                known[len(scores)] = self.arena.score(candidate, *self.folds[len(scores)], deadline=deadline)
        return scores, sum(known[k][1] for k in range(len(scores))), reason

    def _journal(self, trial: Trial, candidate: Candidate, seconds: float) -> None:
        """Write the finished trial into the study of the joint space, or of its method where it is not of that; without a journal nothing is written."""
        if self.journal is None:
            return
        joint = None if self.space is None else self.space.params(candidate)
        if self.space is not None and joint is not None:
            study, params, known = "joint", joint, self.space.distributions(trial.method)
        else:
            study, known = trial.method, {name: distribution(k) for name, k in space(candidate.method).items()}
            params = {name: value for name, value in trial.params.items() if name in known}
        self.journal.write(trial, study=study, params=params, distributions=known, seconds=seconds)


def hopeless(scores: Sequence[float], rival: Trial | None) -> str:
    """Say why a trial is not worth its other folds: it trails the rival on the same folds by more than the margin for that many folds."""
    if rival is None or not scores:
        return ""
    k = len(scores)
    gap = float(np.mean(rival.folds[:k]) - np.mean(scores))
    margin = next((m for folds, m in reversed(HOPELESS) if k >= folds), np.inf)
    return f"{gap:.3f} behind trial {rival.number} after {k} of its folds" if gap > margin else ""
