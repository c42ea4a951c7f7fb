"""Support vector machines with probabilities that heed balance, and one with a Gaussian kernel whose matrix is made once.

libsvm makes each row of the kernel by a plain loop, anew for every inner fold: of 1,600 cases with 2,000 features that is nine tenths of its time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning

from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.scaling import LiveScaler

ROWS = 1024  # rows of the kernel of new cases that are held at once
FOLDS = 3
TOLERANCE = 1e-5  # of libsvm; its own, 1e-3, lets the unit of the features show in the fifth digit of a probability


class KernelSVM(ClassifierMixin, BaseEstimator):
    """Support vectors by a Gaussian kernel on standardised features; Platt's sigmoid makes probabilities (Platt 1999).

    The decision is that of scikit-learn's ``SVC(gamma="scale", class_weight="balanced")`` on the same features. The sigmoid is fitted on
    three inner folds, whose kernel is a part of the same matrix: standardisation and the width of the kernel are those of all training cases, which
    look at no target. Memory is 8 n^2 bytes: 800 MB at 10,000 cases.

    Parameters
    ----------
    C : what a training case on the wrong side costs; 3 is the middle of the usual path .3, 3, 30
    balanced : classes weigh the same; the metric of this package is balanced accuracy
    seed : decides the inner folds

    Attributes
    ----------
    gamma_ : 1 / (d times the variance of the standardised features), which makes the mean exponent 2
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> KernelSVM().fit(X, ["a", "a", "a", "b", "b", "b"]).predict([[1.5], [8.5]]).tolist()
    ['a', 'b']
    """

    def __init__(self, *, C: float = 3.0, balanced: bool = True, seed: int = 0) -> None:
        self.C = C
        self.balanced = balanced
        self.seed = seed

    def fit(self, X: Any, y: Any) -> KernelSVM:
        """Fit on X (n, d) and y (n,)."""
        from sklearn.svm import SVC

        X, codes = enter_fit(self, X, y)
        with one_thread():
            self._scaler = LiveScaler().fit(X)
            Z = self._scaler.transform(X)
            self.gamma_ = 1.0 / (Z.shape[1] * (float(Z.var()) or 1.0))
            svm = SVC(C=self.C, kernel="precomputed", tol=TOLERANCE)
            self._model = Platt(svm, balanced=self.balanced, seed=self.seed).fit(_gaussian(Z, Z, self.gamma_), codes)
            self._support = self._model.fitted.support_
            self._vectors, self._cases = Z[self._support], len(Z)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        Z = self._scaler.transform(X)
        with one_thread():
            parts = [self._model.predict_proba(self._kernel(Z[i : i + ROWS])) for i in range(0, len(Z), ROWS)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes_)))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most

    def _kernel(self, Z: np.ndarray) -> np.ndarray:
        """Return (m, n) kernel of new cases with the training cases; 0 for those that are no support vectors, which nothing reads."""
        kernel = np.zeros((len(Z), self._cases))
        kernel[:, self._support] = _gaussian(Z, self._vectors, self.gamma_)
        return kernel


class Platt(ClassifierMixin, BaseEstimator):
    """A support vector machine with probabilities: Platt's sigmoid on decisions of three inner folds, and one final machine on all cases (Platt 1999).

    With ``balanced`` both weigh the classes alike. A sigmoid that does not, behind a machine that does, takes the balance back: a class of 1 in 16
    is then never predicted.

    Parameters
    ----------
    machine : scikit-learn's ``SVC`` or ``LinearSVC``, without class weights of its own
    balanced, seed : as in :class:`KernelSVM`
    """

    def __init__(self, machine: Any, *, balanced: bool = True, seed: int = 0) -> None:
        self.machine = machine
        self.balanced = balanced
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Platt:
        """Fit on X (n, d), dense, sparse or a kernel, and y (n,)."""
        from sklearn.calibration import CalibratedClassifierCV

        self.classes_, codes = np.unique(y, return_inverse=True)
        weights = {"sample_weight": case_weights(codes, balanced=True)} if self.balanced else {}
        model = CalibratedClassifierCV(self.machine, cv=InnerFolds(FOLDS, self.seed), ensemble=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a machine that stops at its limit of steps is judged like any other
            self._calibrated = model.fit(X, y, **weights)
        return self

    @property
    def fitted(self) -> Any:
        """The final machine."""
        return self._calibrated.calibrated_classifiers_[0].estimator

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        return np.asarray(self._calibrated.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        most: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return most


class InnerFolds:
    """Stratified folds, fewer where the smallest class is smaller; a class of one case is predicted by a model that saw it.

    >>> [len(test) for _, test in InnerFolds(3, 0).split(np.zeros((5, 1)), [0, 0, 0, 1, 1])]
    [3, 2]
    """

    def __init__(self, k: int, seed: int) -> None:
        self.k = k
        self.seed = seed

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (training rows, test rows)."""
        from sklearn.model_selection import StratifiedKFold

        k = self.get_n_splits(X, y)
        rows = np.arange(len(y))
        if k < 2:
            return iter([(rows, rows)])
        splits: Iterator[tuple[np.ndarray, np.ndarray]] = StratifiedKFold(k, shuffle=True, random_state=self.seed).split(rows, y)
        return splits

    def get_n_splits(self, X: Any, y: Any, groups: Any = None) -> int:
        """Return how many folds there are for these targets."""
        return min(self.k, int(np.unique(np.asarray(y), return_counts=True)[1].min()))


def _gaussian(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """Return exp(-gamma |a - b|^2), (n, m), in place of one matrix product."""
    kernel: np.ndarray = a @ b.T
    kernel *= 2.0
    kernel -= np.einsum("ij,ij->i", a, a)[:, None]
    kernel -= np.einsum("ij,ij->i", b, b)
    np.minimum(kernel, 0.0, out=kernel)
    kernel *= gamma
    np.exp(kernel, out=kernel)
    return kernel
