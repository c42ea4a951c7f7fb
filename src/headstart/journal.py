"""The journal: finished trials as Optuna studies in one SQLite file, which ``optuna-dashboard`` opens while a run goes on or after it.

A run never reads its own journal: what goes on after a kill is replayed from the ledger. Another run may start from its best settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from headstart.core import InputError
from headstart.methods.method import Knob
from headstart.result import Trial

JOURNAL_FILE = "journal.sqlite"


@dataclass(frozen=True)
class Journal:
    """Where finished trials are written; ``metric`` is what they are scored by."""

    path: Path
    metric: str
    _studies: dict[str, optuna.Study] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def in_folder(cls, folder: Path, *, metric: str) -> Journal:
        """Return the journal of a run's folder, and make the folder. Raises ``InputError`` where it cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}). Choose another --out, or free space and rights there.") from None
        return cls(folder / JOURNAL_FILE, metric)

    @property
    def storage(self) -> str:
        """Its address for Optuna."""
        return f"sqlite:///{self.path.resolve()}"

    def write(self, trial: Trial, *, study: str, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], seconds: float) -> None:
        """Write a finished trial into a study, once: ``params`` with their distributions, the mean score after each fold, and what else was found."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with FileLock(self.path.with_suffix(".lock")):
            known = self._study(study)
            if any(t.user_attrs.get("number") == trial.number for t in known.get_trials(deepcopy=False)):
                return
            attributes = {
                "number": trial.number,
                "arm": trial.arm,
                "method": trial.method,
                "source": trial.source,
                "settings": dict(trial.params),
                "folds": list(trial.folds),
                "status": trial.status,
                "reason": trial.reason,
                "seconds": seconds,
            }
            means = {k: sum(trial.folds[:k]) / k for k in range(1, len(trial.folds) + 1)}
            state = TrialState.COMPLETE if trial.status == "complete" else TrialState.PRUNED if trial.folds else TrialState.FAIL
            given: dict[str, Any] = {"params": dict(params), "distributions": dict(distributions), "intermediate_values": means, "user_attrs": attributes}
            known.add_trial(create_trial(state=state, value=trial.score if trial.folds else None, **given))

    def _study(self, name: str) -> optuna.Study:
        """Return the study of that name, opened or made once: opening a storage takes longer than a probe."""
        if name not in self._studies:
            known = optuna.create_study(study_name=name, storage=self.storage, direction="maximize", load_if_exists=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                known.set_metric_names([self.metric])
            self._studies[name] = known
        return self._studies[name]


def best_of(path: Path, *, count: int) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return method, source and settings of a journal's best complete trials on sources, the best first, each settings once.

    Raises
    ------
    InputError
        there is no journal at that path.
    """
    if not path.exists():
        raise InputError(f"{path.parent} holds no journal of a run ({path.name} is missing). Give the --out folder of a run as --prior.")
    storage = f"sqlite:///{path.resolve()}"
    trials = [t for name in optuna.get_all_study_names(storage) for t in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)]
    found = sorted(
        (t for t in trials if t.state is TrialState.COMPLETE and t.user_attrs.get("source")), key=lambda t: (-(t.value or 0.0), t.user_attrs["number"])
    )
    out: list[tuple[str, str | None, dict[str, Any]]] = []
    for about in (t.user_attrs for t in found):
        one = (about["method"], about["source"], dict(about["settings"]))
        if one not in out:
            out.append(one)
    return out[:count]


def distribution(knob: Knob) -> BaseDistribution:
    """Return Optuna's distribution of a knob.

    >>> distribution(Knob(low=1e-3, high=1.0, log=True))
    FloatDistribution(high=1.0, log=True, low=0.001, step=None)
    """
    return CategoricalDistribution(knob.choices) if knob.choices else FloatDistribution(knob.low, knob.high, log=knob.log)
