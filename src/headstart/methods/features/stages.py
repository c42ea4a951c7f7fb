"""Which stages of a frozen source are worth laying side by side: chosen one after another by the exact leave-one-out error of a ridge on them.

Features of a middle stage help where the target is unlike the source; all of them at once drown few cases. Forward selection of whole stages stands between.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import RidgeCV
from sklearn.utils import resample
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.core import InputError, Source
from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.probe import ALPHAS
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import Arm, Closed, Level, View, knob
from headstart.spectrum import Spectrum

LOOKED = 600  # cases by which stages are chosen, where more would cost the cube of them: a second for a network of two thousand features
PAPER = "Efroymson 1960, Multiple regression analysis"
LIMITS = "whole stages only, and a stage that helps beside another alone is not seen"


@dataclass(frozen=True)
class Stages(Closed):
    """A ridge on the stages that forward selection takes.

    Parameters
    ----------
    most : stages that are taken at most

    Examples
    --------
    >>> Stages().view(Source("s", stages=("stem", "a", "b"))).cuts
    (1, 2, 3)
    """

    name: ClassVar[str] = "stages"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    most: int = knob(4, choices=(1, 2, 4, 8))

    def view(self, source: Source | None) -> View:
        return _view(source)

    def estimator(self, *, seed: int) -> Any:
        return RidgeOnStages(most=self.most, random_state=seed)


@dataclass(frozen=True)
class StagesRegressor(Stages):
    """The same for numbers.

    Parameters
    ----------
    most : as in :class:`Stages`
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})

    def estimator(self, *, seed: int) -> Any:
        return NumbersOnStages(most=self.most, random_state=seed)


class RidgeOnStages(ClassifierMixin, BaseEstimator):
    """Choose stages, and fit a ridge to classes on them.

    Parameters
    ----------
    most : stages that are taken at most
    cases : by which stages are chosen at most, drawn from all with every class's share, where X has more rows and columns; the ridge is fitted on all
    random_state : of that draw

    Attributes
    ----------
    chosen_ : places of the stages, in the order in which they were taken
    path_ : left-out error after each was taken, falling
    kept_ : (k,) columns of the chosen stages, rising
    head_ : the ridge on them
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[5.0, 0.0], [3.0, 1.0], [4.0, 0.2], [5.0, 7.0], [3.0, 8.0], [4.0, 9.0]])
    >>> RidgeOnStages().fit(X, ["a", "a", "a", "b", "b", "b"], widths=(1, 1)).chosen_
    [1]
    """

    def __init__(self, *, most: int = 4, cases: int = LOOKED, random_state: int = 0) -> None:
        self.most = most
        self.cases = cases
        self.random_state = random_state

    def fit(self, X: Any, y: Any, widths: Any = None) -> RidgeOnStages:
        """Fit on X (n, d) and y (n,); ``widths`` are the numbers of columns of the stages, which lie side by side; ``None``: there is one."""
        X, codes = enter_fit(self, X, y)
        rows = _looked_at(X, codes, most=self.cases, seed=self.random_state)
        weights, Y = case_weights(codes[rows], balanced=True), 2.0 * np.eye(len(self.classes_))[codes[rows]] - 1.0
        with one_thread():
            self.chosen_, self.path_, self.kept_ = taken(LiveScaler().fit_transform(X[rows]), Y, weights, widths, most=self.most)
        self.head_ = RidgeLOO().fit(X[:, self.kept_], codes)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the ridge's decisions (n, c), or for two classes (n,) that of the second."""
        X = enter_predict(self, X)
        decision: np.ndarray = self.head_.decision_function(X[:, self.kept_])
        return decision

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        proba: np.ndarray = self.head_.predict_proba(X[:, self.kept_])
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


class NumbersOnStages(RegressorMixin, BaseEstimator):
    """Choose stages, and fit a ridge to numbers on them.

    Parameters
    ----------
    most, cases, random_state : as in :class:`RidgeOnStages`

    Attributes
    ----------
    chosen_, path_, kept_, n_features_in_ : as in :class:`RidgeOnStages`
    scaler_, head_ : the standardisation of all columns, and the ridge on those that were chosen
    """

    def __init__(self, *, most: int = 4, cases: int = LOOKED, random_state: int = 0) -> None:
        self.most = most
        self.cases = cases
        self.random_state = random_state

    def fit(self, X: Any, y: Any, widths: Any = None) -> NumbersOnStages:
        """Fit on X (n, d) and y (n,); ``widths`` as in :class:`RidgeOnStages`."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        with one_thread():
            self.scaler_ = LiveScaler().fit(X)
            Z, rows = self.scaler_.transform(X), _looked_at(X, None, most=self.cases, seed=self.random_state)
            self.chosen_, self.path_, self.kept_ = taken(Z[rows], np.asarray(y, dtype=np.float64)[rows, None], np.ones(len(rows)), widths, most=self.most)
            self.head_ = RidgeCV(ALPHAS).fit(Z[:, self.kept_], y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each row (n,)."""
        check_is_fitted(self)
        Z = self.scaler_.transform(validate_data(self, X, reset=False, dtype=np.float64))
        numbers: np.ndarray = self.head_.predict(Z[:, self.kept_])
        return numbers


def taken(Z: np.ndarray, Y: np.ndarray, weights: np.ndarray, widths: Any, *, most: int) -> tuple[list[int], list[float], np.ndarray]:
    """Return the stages that forward selection takes, the left-out error after each, and their columns.

    Each time that one is taken with which the mean squared left-out error of a ridge, at its best penalty, is least; it ends where none lowers it.
    """
    widths = (Z.shape[1],) if widths is None else tuple(int(w) for w in widths)
    if sum(widths) != Z.shape[1] or min(widths) < 1:
        raise InputError(f"widths={widths} add up to {sum(widths)}, but X has {Z.shape[1]} columns. Give the width of every stage.")
    bounds = np.cumsum((0, *widths))
    columns = [np.arange(a, b) for a, b in pairwise(bounds)]
    chosen: list[int] = []
    path: list[float] = []
    while len(chosen) < min(most, len(columns)):
        errors = {i: _error(Z[:, np.concatenate([columns[j] for j in (*chosen, i)])], Y, weights) for i in range(len(columns)) if i not in chosen}
        best = min(errors, key=lambda i: (errors[i], i))
        if path and errors[best] >= path[-1]:
            break
        chosen.append(best)
        path.append(errors[best])
    return chosen, path, np.sort(np.concatenate([columns[i] for i in chosen]))


def _looked_at(X: np.ndarray, codes: np.ndarray | None, *, most: int, seed: int) -> np.ndarray:
    """Return the rows of X (n, d) by which stages are chosen: all, or of many cases with many columns so many, of every class its share."""
    if most < 2:
        raise InputError(f"cases={most} cannot choose stages, as one is always left out. Give two or more.")
    if min(X.shape) <= most:
        return np.arange(len(X))
    return np.sort(resample(np.arange(len(X)), replace=False, n_samples=most, stratify=codes, random_state=seed))


def _error(Z: np.ndarray, Y: np.ndarray, weights: np.ndarray) -> float:
    """Return the least mean squared left-out error over the penalties."""
    residuals = Spectrum.of(Z, weights=weights).ridge(Y).left_out(ALPHAS)
    return min(float(np.average(np.square(r).mean(axis=1), weights=weights)) for r in residuals)


def _view(source: Source | None) -> View:
    if source is None:
        raise ValueError("choosing stages needs a source")
    return View("pooled", source.name, source.levels)
