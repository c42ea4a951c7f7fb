"""Gaussian processes on frozen features (scikit-learn's), the width of their kernel begun where the cases lie, and their number bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.methods.features.door import enter_fit, enter_predict
from headstart.methods.features.head import Head
from headstart.methods.features.transforms import TRANSFORMS
from headstart.methods.features.weighing import Balanced, Standardised
from headstart.methods.method import knob

# why: each step of its fit decomposes an n x n matrix, for classes several times and once for every class: 500 cases of 6 classes take seconds, 5,000 an hour
MOST_OF_CLASSES, MOST_OF_NUMBERS = 500, 1000
LOOKED_AT = 300  # cases whose distances are measured
PAPER = "Rasmussen & Williams 2006, Gaussian processes for machine learning"
LIMITS = "learns from 500 cases of classes, or 1,000 of numbers, at most: its time goes with their cube"


@dataclass(frozen=True)
class GaussianProcess(Head):
    """A Gaussian process for every class against the others; of more than 500 cases so many are drawn, classes as evenly as they allow.

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.2, 1.0], [5.0, 1.0], [5.2, 1.2]]
    >>> GaussianProcess(transform="standard").estimator(seed=0).fit(X, list("aabb")).predict([[4.0, 1.0]]).tolist()
    ['b']
    """

    name: ClassVar[str] = "gaussian-process"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    transform: str = knob("unit", choices=TRANSFORMS)

    def head(self, *, seed: int) -> Any:
        return Balanced(ProcessClassifier(), most=MOST_OF_CLASSES, seed=seed)


@dataclass(frozen=True)
class GaussianProcessRegressor(Head):
    """The same for numbers, with noise; of more than 1,000 cases so many are drawn."""

    name: ClassVar[str] = "gaussian-process"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    transform: str = knob("unit", choices=TRANSFORMS)

    def head(self, *, seed: int) -> Any:
        return Standardised(ProcessRegressor(), most=MOST_OF_NUMBERS, seed=seed)


class ProcessClassifier(ClassifierMixin, BaseEstimator):
    """scikit-learn's ``GaussianProcessClassifier`` with a Gaussian kernel whose width begins at the median distance of the cases.

    Begun at 1, scikit-learn's default, cases of many features are all equally unlike each other, and the likelihood is flat.

    Attributes
    ----------
    process_ : the fitted process
    classes_, n_features_in_ : as in scikit-learn
    """

    def fit(self, X: Any, y: Any) -> ProcessClassifier:
        """Fit on X (n, d) and y (n,)."""
        from sklearn.gaussian_process import GaussianProcessClassifier
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        X, codes = enter_fit(self, X, y)
        width = median_distance(X)
        kernel = ConstantKernel(4.0, (0.1, 1e4)) * RBF(width, (0.1 * width, 30.0 * width))
        self.process_ = GaussianProcessClassifier(kernel, random_state=0).fit(X, codes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        proba: np.ndarray = self.process_.predict_proba(X)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


class ProcessRegressor(RegressorMixin, BaseEstimator):
    """scikit-learn's ``GaussianProcessRegressor`` with a Gaussian kernel whose width begins at the median distance of the cases, and noise.

    Attributes
    ----------
    process_ : the fitted process
    n_features_in_ : as in scikit-learn
    """

    def fit(self, X: Any, y: Any) -> ProcessRegressor:
        """Fit on X (n, d) and y (n,), about 0 and 1 apart, as :class:`Standardised` makes them."""
        from sklearn.gaussian_process import GaussianProcessRegressor as Process
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        width = median_distance(X)
        kernel = ConstantKernel(1.0, (1e-2, 1e4)) * RBF(width, (0.1 * width, 30.0 * width)) + WhiteKernel(0.1, (1e-6, 10.0))
        self.process_ = Process(kernel, random_state=0).fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each row (n,)."""
        check_is_fitted(self)
        numbers: np.ndarray = self.process_.predict(validate_data(self, X, reset=False, dtype=np.float64))
        return numbers


def median_distance(X: np.ndarray) -> float:
    """Return the median distance of the first 300 cases (n, d); 1 where it is 0.

    >>> median_distance(np.array([[0.0], [1.0], [5.0]]))
    4.0
    """
    return float(np.median(pdist(X[:LOOKED_AT]))) or 1.0 if len(X) > 1 else 1.0
