"""Heads on cases and on more cases that are made of them; every choice is made on cases alone, none of which had a part in what was made.

A made case stands beside those it was made of, so that leaving out one case at a time would leave its copies in. The penalty is therefore chosen in inner
folds of cases: what is made for a fold is made of the fold's training cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from headstart.methods.features.door import case_weights, enter_fit, one_thread
from headstart.methods.features.logistic import inner_splits
from headstart.methods.features.ridge import ALPHAS, sharpness
from headstart.methods.features.scaling import LiveScaler
from headstart.spectrum import Ridge, Spectrum

FOLDS = 5  # inner ones: a fold more or less moves no choice that is worth anything
Splits = list[tuple[np.ndarray, np.ndarray]]


class Cases(NamedTuple):
    """Features (n, d), targets (n,): class codes or numbers, and how much each case counts (n,) within its class; ``None``: alike."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None


class Enlarged(BaseEstimator, ABC):
    """Fit ridge on cases and on what is made of them, the penalty by inner folds of cases.

    Features come as (n, d), or with copies as (n, 1 + k, d), a case's own first. A subclass says in :meth:`enlarge` what is learned from.

    Attributes
    ----------
    alpha_ : the penalty with the least squared error on cases of inner folds; the largest of equals. Without inner folds (a class of one case, or of
        one group) it is chosen by leave-one-out on the cases alone
    path_ : (len(alphas),) that error
    coef_, intercept_ : (c, d), (c,) on features as they come; of numbers c is 1
    made_ : how many cases were made for the last fit
    n_features_in_ : d
    """

    alphas: tuple[float, ...]
    seed: int

    @abstractmethod
    def enlarge(self, X: np.ndarray, y: np.ndarray, dice: np.random.Generator) -> Cases:
        """Return what is learned from: cases of X (n, d) or (n, 1 + k, d) with class codes or numbers y (n,), and what is made of them."""

    def look(self, X: np.ndarray, y: np.ndarray, splits: Splits) -> None:
        """Decide on the training cases, with inner folds of them, what :meth:`enlarge` is to make."""
        return

    def _solve(self, X: np.ndarray, y: np.ndarray, Y: np.ndarray, splits: Splits, balance: np.ndarray) -> np.ndarray:
        """Set penalty and model for targets Y (n, c); return what was predicted of each case (n, c) by models that had no part in it."""
        self.look(X, y, splits)
        if splits:
            left_out = self._predicted(X, y, Y, splits)
        else:
            alone, _ = self._path(Cases(own(X), y), Y.shape[1], total=len(X))
            left_out = Y - alone.left_out(self.alphas)
        self.path_ = np.array([np.average(np.square(Y - one).mean(axis=1), weights=balance) for one in left_out])
        best = max(range(len(self.alphas)), key=lambda i: (-self.path_[i], self.alphas[i]))
        self.alpha_ = float(self.alphas[best])
        cases = self.enlarge(X, y, np.random.default_rng([self.seed, len(splits)]))
        path, scaler = self._path(cases, Y.shape[1], total=len(X))
        coef, intercept = path.solve(self.alpha_)
        self.coef_ = coef / scaler.scale_
        self.intercept_ = intercept - self.coef_ @ scaler.mean_
        self.made_ = len(cases.X) - len(X)
        chosen: np.ndarray = left_out[best]
        return chosen

    def _predicted(self, X: np.ndarray, y: np.ndarray, Y: np.ndarray, splits: Splits) -> np.ndarray:
        """Return (len(alphas), n, c): predictions of each case by the model of the fold that it is not in, for every penalty."""
        found = np.zeros((len(self.alphas), *Y.shape))
        for k, (train, test) in enumerate(splits):
            cases = self.enlarge(X[train], y[train], np.random.default_rng([self.seed, k]))
            path, scaler = self._path(cases, Y.shape[1], total=len(train))
            Z = scaler.transform(own(X[test]))
            for a, alpha in enumerate(self.alphas):
                coef, intercept = path.solve(alpha)
                found[a, test] = Z @ coef.T + intercept
        return found

    def _path(self, cases: Cases, columns: int, *, total: int) -> tuple[Ridge, LiveScaler]:
        """Return the ridge path on standardised features. Weights add up to ``total``, the number of real cases, so that a penalty means the same however
        many cases are made."""
        numbers = cases.y.dtype.kind == "f"
        codes = np.zeros(len(cases.y), dtype=np.intp) if numbers else cases.y
        weights = case_weights(codes, balanced=True, weights=cases.weights)
        Y = cases.y[:, None] if numbers else 2.0 * np.eye(columns)[codes] - 1.0
        scaler = LiveScaler().fit(cases.X, sample_weight=cases.weights)  # as a probe does, whose head this is where nothing is made
        return Spectrum.of(scaler.transform(cases.X), weights=weights * (total / len(codes))).ridge(Y), scaler

    def _linear(self, X: Any) -> np.ndarray:
        """Return (n, c) what the model says of features (n, d); of (n, 1 + k, d) the mean over a case and its copies."""
        check_is_fitted(self)
        if has_copies(X):
            return np.asarray(np.mean([self._linear(one) for one in np.moveaxis(X, 1, 0)], axis=0))
        values: np.ndarray = validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_.T + self.intercept_
        return values


class EnlargedClassifier(ClassifierMixin, Enlarged):
    """:class:`Enlarged` for classes, which count alike, in the fit as in the choice of the penalty.

    Attributes
    ----------
    sharpness_ : inverse temperature of the softmax, fitted to what the inner folds predicted (see ``features.ridge``)
    classes_ : as in scikit-learn
    """

    def __init__(self, *, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        self.alphas = alphas
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit on X (n, d) or (n, 1 + k, d) and y (n,); rows that share a value of ``groups`` (n,) share an inner fold."""
        X, copies = _entered(X)
        flat, codes = enter_fit(self, X, y)
        with one_thread():
            Y = 2.0 * np.eye(len(self.classes_))[codes] - 1.0
            weights = case_weights(codes, balanced=True)
            splits = inner_splits(codes, groups, folds=FOLDS, seed=self.seed)
            decision = self._solve(flat if copies is None else copies, codes, Y, splits, weights)
            self.sharpness_ = sharpness(decision, codes, weights)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the fitted targets (n, c), about -1..1, or for two classes (n,) that of the second."""
        decision = self._linear(X)
        return decision if len(self.classes_) > 2 else decision[:, 1]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        decision = self._linear(X)
        proba: np.ndarray = softmax(self.sharpness_ * decision, axis=1)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


class EnlargedRegressor(RegressorMixin, Enlarged):
    """:class:`Enlarged` for numbers."""

    def __init__(self, *, alphas: tuple[float, ...] = ALPHAS, seed: int = 0) -> None:
        self.alphas = alphas
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit on X (n, d) or (n, 1 + k, d) and y (n,); rows that share a value of ``groups`` (n,) share an inner fold."""
        X, copies = _entered(X)
        flat, numbers = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        numbers = np.asarray(numbers, dtype=np.float64)
        units = np.arange(len(flat)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        k = min(FOLDS, len(np.unique(units)))
        splits = [] if k < 2 else list(GroupKFold(k, shuffle=True, random_state=self.seed).split(flat, groups=units))
        with one_thread():
            self._solve(flat if copies is None else copies, numbers, numbers[:, None], splits, np.ones(len(flat)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each row (n,)."""
        numbers: np.ndarray = self._linear(X)[:, 0]
        return numbers


def own(X: np.ndarray) -> np.ndarray:
    """Return the features of the cases themselves (n, d), of (n, d) or (n, 1 + k, d)."""
    return X[:, 0] if X.ndim == 3 else X


def has_copies(X: Any) -> bool:
    """Whether X is an array (n, 1 + k, d)."""
    return len(getattr(X, "shape", ())) == 3


def _entered(X: Any) -> tuple[Any, np.ndarray | None]:
    """Return the cases' own features, and all with those of copies where they come with some."""
    if not has_copies(X):
        return X, None
    copies = check_array(X, dtype=np.float64, allow_nd=True)
    return own(copies), copies
