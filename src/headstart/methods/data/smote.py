"""The SMOTE family, by imbalanced-learn: rare classes are filled up with points between neighbours, in feature space."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from headstart.core import InputError
from headstart.methods.data.enlarged import Cases, EnlargedClassifier
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import knob

NEIGHBOURS = 5  # as published; fewer where a class has fewer


def installed() -> None:
    """Raise ``InputError`` where imbalanced-learn is missing."""
    if find_spec("imblearn") is None:
        raise InputError("Method 'smote' needs imbalanced-learn, which is not installed. Install it: pip install 'headstart[imbalance]'.")


class SmoteRidge(EnlargedClassifier):
    """Ridge on cases and on what a sampler of imbalanced-learn makes of them; neighbours are those of standardised features.

    Parameters
    ----------
    kind : "smote" (Chawla et al. 2002), "borderline" (of cases at the border; Han et al. 2005) or "adasyn" (more where others are near; He et al. 2008)
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    A class of one case has no neighbours and is left as it is; so are all where the sampler finds nothing to make.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0], [7.0], [9.0]]), ["a", "a", "a", "a", "b", "b"]
    >>> SmoteRidge().fit(X, y).made_
    2
    """

    def __init__(self, *, kind: str = "smote", alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(alphas=alphas, seed=seed)
        self.kind = kind

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        counts = np.bincount(y)
        wanted = {int(c): int(counts.max()) for c in np.flatnonzero(counts > 1) if counts[c] < counts.max()}
        if not wanted:
            return Cases(X, y)
        scaler = LiveScaler().fit(X)
        spread = np.where(np.isfinite(scaler.scale_), scaler.scale_, 1.0)
        sampler = _sampler(self.kind, min(NEIGHBOURS, *(int(counts[c]) - 1 for c in wanted)), wanted, int(dice.integers(2**31)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # why: the family says in words what made_ says as a number
                more, codes = sampler.fit_resample((X - scaler.mean_) / spread, y)
        except (ValueError, RuntimeError):  # ADASYN and borderline: no case of a rare class lies near others
            return Cases(X, y)
        return Cases(np.vstack([X, more[len(X) :] * spread + scaler.mean_]), np.asarray(codes))


def _sampler(kind: str, k: int, wanted: dict[int, int], seed: int) -> Any:
    from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE

    shared = {"sampling_strategy": wanted, "random_state": seed}
    if kind == "adasyn":
        return ADASYN(n_neighbors=k, **shared)
    return (BorderlineSMOTE if kind == "borderline" else SMOTE)(k_neighbors=k, **shared)


@dataclass(frozen=True)
class Smote(OnFeatures):
    """Fill rare classes up with points between neighbours, in feature space.

    Parameters
    ----------
    kind : "smote", "borderline" or "adasyn"
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> Smote(kind="adasyn").estimator(seed=0).kind
    'adasyn'
    """

    name: ClassVar[str] = "smote"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Chawla et al. 2002, SMOTE: synthetic minority over-sampling technique"
    limits: ClassVar[str] = "does nothing for classes of one size; a head that weighs classes alike, as all here do, has most of it already"

    kind: str = knob("smote", choices=("smote", "borderline", "adasyn"))

    def estimator(self, *, seed: int) -> Any:
        installed()
        return SmoteRidge(kind=self.kind, seed=seed)
