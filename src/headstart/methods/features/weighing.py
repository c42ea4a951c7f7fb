"""A library's estimator, fitted as heads are: classes weigh alike, numbers are standardised, and where its time grows too fast, on part of the cases."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread


class Balanced(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier with probabilities, fitted so that classes weigh alike.

    Where its ``fit`` takes no ``sample_weight``, cases of smaller classes are there several times, as nearly as whole numbers allow. That a fit stopped at
    its limit of steps is not warned of: it is then a more regularised model, and is judged like any other.

    Parameters
    ----------
    estimator : unfitted; it is cloned
    most : cases that it is fitted on, drawn from classes as evenly as they allow; ``None``: all
    seed : decides which are drawn

    Attributes
    ----------
    fitted_ : the estimator, fitted on class codes
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> Balanced(GaussianNB()).fit([[0.0], [1.0], [9.0]], ["a", "a", "b"]).fitted_.class_prior_.tolist()
    [0.5, 0.5]
    """

    def __init__(self, estimator: Any, *, most: int | None = None, seed: int = 0) -> None:
        self.estimator = estimator
        self.most = most
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Balanced:
        """Fit on X (n, d) and y (n,)."""
        X, codes = enter_fit(self, X, y)
        rows = np.arange(len(X)) if self.most is None or len(X) <= self.most else _evenly(codes, self.most, seed=self.seed)
        weights: dict[str, Any] = {}
        if has_fit_parameter(self.estimator, "sample_weight"):
            weights = {"sample_weight": case_weights(codes[rows], balanced=True)}
        elif self.most is None:
            counts = np.bincount(codes)
            rows = np.repeat(rows, np.maximum(1, np.round(counts.max() / counts).astype(int))[codes])
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.fitted_ = clone(self.estimator).fit(X[rows], codes[rows], **weights)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        with one_thread():
            proba: np.ndarray = self.fitted_.predict_proba(X)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


class Standardised(RegressorMixin, BaseEstimator):
    """A scikit-learn regressor, fitted to targets of mean 0 and deviation 1, so that its penalties and widths mean the same in every unit.

    Parameters
    ----------
    estimator, most, seed : as in :class:`Balanced`, but drawn without regard to targets

    Attributes
    ----------
    fitted_ : the estimator
    centre_, spread_ : mean and deviation of the targets; a deviation of 0 counts as 1
    n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> from sklearn.svm import SVR
    >>> Standardised(SVR(C=100.0)).fit([[0.0], [1.0], [2.0]], [1000.0, 1010.0, 1020.0]).predict([[1.0]]).round(0).tolist()
    [1010.0]
    """

    def __init__(self, estimator: Any, *, most: int | None = None, seed: int = 0) -> None:
        self.estimator = estimator
        self.most = most
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Standardised:
        """Fit on X (n, d) and y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        if self.most is not None and len(X) > self.most:
            rows = np.sort(np.random.default_rng(self.seed).choice(len(X), self.most, replace=False))
            X, y = X[rows], y[rows]
        self.centre_, self.spread_ = float(np.mean(y)), float(np.std(y)) or 1.0
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.fitted_ = clone(self.estimator).fit(X, (y - self.centre_) / self.spread_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each row (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        with one_thread():
            numbers: np.ndarray = self.centre_ + self.spread_ * self.fitted_.predict(X)
        return numbers


def _evenly(codes: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """Return so many rows, rising: of every class as many as of the others, or all that it has; at least one of each.

    >>> _evenly(np.array([0, 0, 0, 0, 1]), 3, seed=0)[-1]
    np.int64(4)
    """
    order = np.random.default_rng(seed).permutation(len(codes))
    turn = np.empty(len(codes), dtype=np.intp)
    for k in range(codes.max() + 1):
        own = order[codes[order] == k]
        turn[own] = np.arange(len(own))
    rows: np.ndarray = np.sort(order[np.argsort(turn[order], kind="stable")][: max(most, codes.max() + 1)])
    return rows
