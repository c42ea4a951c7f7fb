"""Draw more cases of every class with the scatter that a source's labelled cases have within their classes (distribution calibration)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.utils.validation import check_array

from headstart.methods.data.gaussian import GaussianRidge, class_means, square_root
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.method import knob


class CalibratedRidge(GaussianRidge):
    """Ridge on cases and on draws from a normal law of each class, whose scatter is mostly the source's.

    Parameters
    ----------
    times : draws of a class for each of its cases
    prior : how many cases the source's scatter counts for beside the target's own, n: prior / (prior + n) of the scatter is the source's
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    Labels of the source enter as groups alone: they need not be the target's.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [7.0], [8.0]]), ["a", "a", "b", "b"]
    >>> CalibratedRidge(times=2).fit(X, y, X_source=np.array([[0.0], [2.0], [8.0], [6.0]]), y_source=[0, 0, 1, 1]).made_
    8
    """

    def __init__(self, *, times: int = 10, prior: float = 100.0, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(times=times, alphas=alphas, seed=seed)
        self.prior = prior

    def fit(self, X: Any, y: Any, groups: Any = None, X_source: Any = None, y_source: Any = None) -> Self:
        """Fit on X (n, d) and y (n,), and the source's X_source (m, d) with any codes y_source (m,)."""
        self._scatter = None
        if X_source is not None:
            lent, codes = check_array(X_source, dtype=np.float64), np.unique(y_source, return_inverse=True)[1]
            self._scatter = ledoit_wolf(lent - class_means(lent, codes)[codes], assume_centered=True)[0]
        fitted = super().fit(X, y, groups)
        self._scatter = None  # why: d x d numbers that nothing predicts with
        return fitted

    def root(self, differences: np.ndarray) -> np.ndarray:
        if self._scatter is None:
            return super().root(differences)
        own = ledoit_wolf(differences, assume_centered=True)[0]
        share = self.prior / (self.prior + len(differences))
        return square_root(share * self._scatter + (1.0 - share) * own)


@dataclass(frozen=True)
class Calibrated(OnFeatures):
    """Draw more cases of every class from a normal law with the class's mean and the scatter within classes of a source's labelled cases.

    Parameters
    ----------
    times : draws for each case
    prior : how many cases the source's scatter counts for beside the target's own
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> sorted(Calibrated.needs)
    ['classes', 'source.labels']
    """

    name: ClassVar[str] = "calibrated"
    needs: ClassVar[frozenset[str]] = frozenset({"source.labels", "classes"})
    paper: ClassVar[str] = "Yang et al. 2021, Free lunch for few-shot learning: distribution calibration"
    limits: ClassVar[str] = "cases must differ within classes in both domains alike"

    times: int = knob(10, choices=(4, 10, 30))
    prior: float = knob(100.0, choices=(10.0, 100.0, 1000.0))

    def estimator(self, *, seed: int) -> Any:
        return CalibratedRidge(times=self.times, prior=self.prior, seed=seed)
