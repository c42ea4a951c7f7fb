"""Draw more cases of every class from a normal law: the class's own mean, and a scatter that all classes share, or that a source lends.

The scatter of few cases is mostly chance. Shrunk over all classes it is better; that of a source's many labelled cases, in the same features, is better still,
for how the cases of one class differ is much the same in neighbouring domains (distribution calibration, Yang et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from sklearn.covariance import ledoit_wolf

from headstart.methods.data.enlarged import Cases, EnlargedClassifier
from headstart.methods.data.placed import OnFeatures
from headstart.methods.features.ridge import ALPHAS
from headstart.methods.method import knob


class GaussianRidge(EnlargedClassifier):
    """Ridge on cases and on draws from a normal law of each class.

    Parameters
    ----------
    times : draws of a class for each of its cases
    copula : keep each feature's own law: draws have the dependence of a normal law and, feature by feature, the quantiles of the cases' differences from
        their class's mean (a Gaussian copula)
    alphas, seed : as in :class:`~headstart.methods.data.enlarged.EnlargedClassifier`

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> GaussianRidge(times=3).fit(X, ["a", "a", "a", "b", "b", "b"]).made_
    18
    """

    def __init__(self, *, times: int = 10, copula: bool = False, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        super().__init__(alphas=alphas, seed=seed)
        self.times = times
        self.copula = copula

    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        means = class_means(X, y)
        codes = np.repeat(y, self.times)
        differences = X - means[y]
        if self.copula:
            drawn = copula(differences, len(codes), dice)
        else:
            drawn = dice.normal(size=(len(codes), X.shape[1])) @ self.root(differences).T
        return Cases(np.vstack([X, means[codes] + drawn]), np.concatenate([y, codes]))

    def root(self, differences: np.ndarray) -> np.ndarray:
        """Return R (d, d) with R R' the scatter within classes, of what cases differ from their class's mean (n, d)."""
        return square_root(ledoit_wolf(differences, assume_centered=True)[0])


def class_means(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (c, d) means by class code; 0 for a code that no case has.

    >>> class_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 2])).ravel().tolist()
    [2.0, 0.0, 5.0]
    """
    indicator = np.eye(y.max() + 1)[y]
    means: np.ndarray = indicator.T @ X / np.maximum(indicator.sum(axis=0), 1)[:, None]
    return means


def square_root(scatter: np.ndarray) -> np.ndarray:
    """Return R (d, r) with R R' = scatter (d, d), which may be singular.

    >>> R = square_root(np.array([[4.0, 0.0], [0.0, 0.0]]))
    >>> (R @ R.T).round(6).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    values, vectors = np.linalg.eigh(scatter)
    root: np.ndarray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def copula(differences: np.ndarray, m: int, dice: np.random.Generator) -> np.ndarray:
    """Return m draws (m, d) whose features have the quantiles of ``differences`` (n, d), and the dependence of their normal scores, shrunk.

    >>> drawn = copula(np.array([[0.0], [0.0], [1.0]]), 1000, np.random.default_rng(0))
    >>> bool((drawn == 0.0).mean() > 0.45), bool(drawn.min() >= 0.0), bool(0.99 < drawn.max() <= 1.0)
    (True, True, True)
    """
    n = len(differences)
    scores = ndtri(rankdata(differences, axis=0) / (n + 1))
    dependence = ledoit_wolf(scores, assume_centered=True)[0]
    normal = dice.normal(size=(m, len(dependence))) @ square_root(dependence).T
    places = ndtr(normal / np.sqrt(np.maximum(np.diag(dependence), np.finfo(float).tiny))) * (n - 1)
    ordered = np.sort(differences, axis=0)
    low = np.clip(np.floor(places).astype(np.intp), 0, n - 1)
    high = np.minimum(low + 1, n - 1)
    columns = np.arange(differences.shape[1])
    drawn: np.ndarray = ordered[low, columns] + (places - low) * (ordered[high, columns] - ordered[low, columns])
    return drawn


@dataclass(frozen=True)
class Gaussian(OnFeatures):
    """Draw more cases of every class from a normal law with the class's mean and a scatter that all classes share.

    Parameters
    ----------
    times : draws for each case
    copula : keep the law of each feature, and take the dependence alone as normal
    back, span : as in :class:`~headstart.methods.features.probe.Probe`

    Examples
    --------
    >>> Gaussian(times=4).estimator(seed=0).times
    4
    """

    name: ClassVar[str] = "gaussian"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Yang et al. 2021, Free lunch for few-shot learning: distribution calibration"
    limits: ClassVar[str] = "heavy tails and classes of several kinds are no normal law; much of what it does a ridge penalty does as well"

    times: int = knob(10, choices=(4, 10, 30))
    copula: bool = knob(False, choices=(False, True))

    def estimator(self, *, seed: int) -> Any:
        return GaussianRidge(times=self.times, copula=self.copula, seed=seed)
