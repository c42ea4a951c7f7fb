"""Who proposes what is tried next: one word for each way, over one space, through Optuna.

What a proposer says follows from its seed and from what it was told, so that a run that goes on asks the same questions again.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from headstart.core import InputError
from headstart.learner import Candidate
from headstart.result import Trial
from headstart.spaces import Space

WORDS = {
    "random": "draws at random",
    "grid": "every point of a grid, of each method on each source one in turn",
    "bayes": "known-good settings first, then TPE (Bergstra et al. 2011); every third another source's probe, then at random",
    "gp": "known-good settings first, then a Gaussian process (Rasmussen & Williams 2006); every third another source's probe, then at random",
    "halving": "as bayes; a candidate goes on from fold to fold only while it is in the best third (Li et al. 2020, ASHA)",
    "hyperband": "as halving, over brackets that give up early or late (Li et al. 2018; with TPE Falkner et al. 2018)",
}
BLIND = frozenset({"random", "grid"})  # neither told of what is known nor of what was found
BY_FOLDS = frozenset({"halving", "hyperband"})
STARTUP = 10  # trials that TPE and the Gaussian process are told of before they have a say; Optuna's own default
BLINDLY = 3  # one of so many proposals is drawn at random, so that what is known or modelled cannot mislead a search by more (Falkner et al. 2018, sec. 3.1)
ETA = 3  # one of so many goes on to the next rung (Li et al. 2018, sec. 2.2: 3 or 4)
ATTEMPTS = 16
BOUNDED = 128  # attempts where bounds may leave little of the space: a refused candidate costs a count of its weights, or the fit of one head


@dataclass(frozen=True)
class Proposal:
    """A candidate that was proposed, and the study's trial that waits for its score; without one nothing is learnt from it. A probe is never given up."""

    candidate: Candidate
    study: optuna.Study | None = None
    asked: optuna.Trial | None = None
    is_probe: bool = False

    def give_up(self, scores: Sequence[float]) -> str:
        """Hear the scores of the folds so far; say why the others are not worth it, or "". The mean so far is what rungs compare."""
        if self.asked is None:
            return ""
        self.asked.report(math.fsum(scores) / len(scores), step=len(scores))
        return f"not in the best third of those that ran {len(scores)} fold{'s' * (len(scores) > 1)}" if self.asked.should_prune() else ""

    def done(self, trial: Trial | None) -> None:
        """Hear how it ended; ``None``: it was not tried."""
        if self.study is None or self.asked is None:
            return
        if trial is None:
            self.study.tell(self.asked, state=TrialState.FAIL)
        elif trial.status == "complete":
            self.study.tell(self.asked, trial.score)
        else:
            self.study.tell(self.asked, state=TrialState.PRUNED)


@dataclass
class Proposer:
    """Proposes candidates of the space, one after another.

    Parameters
    ----------
    word : one of :data:`WORDS`
    folds : that each candidate has; the resource of "halving" and "hyperband", from one fold to all

    Raises
    ------
    InputError
        the word gives up between folds, and there is one fold.
    """

    word: str
    space: Space
    seed: int
    folds: int
    _asked_for: deque[Candidate] = field(default_factory=deque, init=False, repr=False)
    _known: deque[Candidate] = field(default_factory=deque, init=False, repr=False)
    _probes: deque[Candidate] = field(default_factory=deque, init=False, repr=False)
    _turn: int = field(default=0, init=False, repr=False)
    _study: optuna.Study = field(init=False, repr=False)
    _informed: optuna.samplers.BaseSampler = field(init=False, repr=False)
    _grid: Iterator[Candidate] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.word in BY_FOLDS and self.folds < 2:
            raise InputError(f"--search {self.word} gives up between folds, and there is one. Take --folds 5, or --search bayes.")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if self.word == "halving":
            pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ETA)
        elif self.word == "hyperband":
            pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self.folds, reduction_factor=ETA)
        # why a name: Hyperband draws a trial's bracket from it, and one of Optuna's own is new in every process
        self._study = optuna.create_study(study_name="joint", direction="maximize", sampler=self._sampler(), pruner=pruner)
        self._informed = self._study.sampler
        self._grid = self.space.grid()

    def hear(self, candidate: Candidate, trial: Trial) -> None:
        """Take in a trial that someone else proposed."""
        params = self.space.params(candidate)
        if params is None or not trial.folds or self.word in BLIND:
            return
        full = self._filled(params)
        known = {name: one for name, one in self.space.distributions().items() if name in full}
        self._study.add_trial(optuna.trial.create_trial(params=full, distributions=known, value=trial.score))

    def first(self, candidates: Sequence[Candidate], *, asked_for: bool = False) -> None:
        """Propose those before what is modelled, in that order; what is not of the space is passed over. Between those ``asked_for`` none is blind."""
        queue = self._asked_for if asked_for else self._known
        queue.extend(one for one in candidates if self.space.params(one) is not None)

    def instead(self, candidates: Sequence[Candidate]) -> None:
        """Propose those in place of the known ones that are left, for what is known is known of another source."""
        self._known.clear()
        self.first(candidates)

    def between(self, probes: Sequence[Candidate]) -> None:
        """Propose the probes of other sources in place of blind draws, in that order, while there are any."""
        self._probes.extend(probes)

    def keeps(self, candidate: Candidate) -> bool:
        """Whether the candidate is a probe whose turn is to come."""
        wanted = candidate.describe() if self._probes else None
        return any(probe.describe() == wanted for probe in self._probes)

    def propose(self, refused: Callable[[Candidate], bool], *, barred: Callable[[Candidate], bool] | None = None) -> Proposal | None:
        """Return the next candidate that is not refused; ``None`` where none was found, as in a space that is used up.

        One that is ``barred`` breaks a bound. It is told as bad as the worst so far, so that the proposer learns to keep away from its like (the death penalty;
        Coello 2002), and many are asked for before the space counts as used up.
        """
        breaks = barred or (lambda candidate: False)
        if self.word == "grid":
            return next((Proposal(candidate) for candidate in self._grid if not refused(candidate) and not breaks(candidate)), None)
        queue = self._asked_for or self._known
        blind = self.word in BLIND or (not self._asked_for and self._turn % BLINDLY == BLINDLY - 1)
        self._turn += queue is self._known
        if blind and self._probes:  # why: it does what a blind draw does, keeping what is known from misleading, and is needed in any case
            return Proposal(self._probes.popleft(), is_probe=True)
        while queue and not blind:
            if not refused(one := queue.popleft()) and (params := self.space.params(one)) is not None:
                self._study.enqueue_trial(self._filled(params))
                break
        if self.word not in BLIND:
            self._study.sampler = optuna.samplers.RandomSampler(seed=self._number(f"blind {self._turn}")) if blind else self._informed
        return self._asked(refused, breaks, attempts=BOUNDED if barred else ATTEMPTS)

    def _asked(self, refused: Callable[[Candidate], bool], breaks: Callable[[Candidate], bool], *, attempts: int) -> Proposal | None:
        patience = 1 if self.word == "gp" else ATTEMPTS  # why: a Gaussian process that learnt nothing new says the same again, and takes long over it
        for attempt in range(patience + attempts):
            if attempt == patience:  # why: a proposer that is sure of itself says the same again and again
                self._study.sampler = optuna.samplers.RandomSampler(seed=self._number(f"again {len(self._study.trials)}"))
            asked = self._study.ask(self.space.distributions() if self.word == "gp" else {})
            candidate = self.space.candidate(asked.params if self.word == "gp" else self.space.suggest(asked))
            if candidate is not None and not refused(candidate):
                if breaks(candidate):
                    self._study.tell(asked, min((t.value for t in self._study.get_trials(deepcopy=False) if t.value is not None), default=0.0))
                    continue
                if attempt >= patience:
                    self._study.sampler = self._informed = self._sampler(f" {len(self._study.trials)}")
                return Proposal(candidate, self._study, asked)
            self._study.tell(asked, state=TrialState.FAIL)
        return None

    def _filled(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return parameters for Optuna. A Gaussian process needs the same ones in every trial, so it is given defaults of those that do not count."""
        if self.word != "gp":
            return params
        defaults = {}
        for name, template in self.space.templates.items():
            for k in self.space.knobs(name):
                defaults[f"{name}.{k}"] = getattr(template if hasattr(template, k) else self.space.settings, k)
        return defaults | params

    def _sampler(self, turn: str = "") -> optuna.samplers.BaseSampler:
        seed = self._number(self.word + turn)
        if self.word == "gp":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP, deterministic_objective=True)
        return optuna.samplers.RandomSampler(seed=seed) if self.word in BLIND else optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)

    def _number(self, text: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{text}".encode()).digest()[:4], "big")
