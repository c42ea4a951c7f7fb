"""Nearest neighbours by cosine of standardised features; how many is chosen by leave-one-out.

Neighbours vote with weight exp(cosine / temperature), as in Wu et al. 2018 ("Unsupervised feature learning via non-parametric instance
discrimination", sec. 3.4), and one vote shared by all classes keeps probabilities off 0 and 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from headstart.methods.features.door import case_weights, enter_fit, enter_predict, one_thread
from headstart.methods.features.scaling import LiveScaler

ROWS = 1024  # rows of the similarity matrix held at once
RESOLUTION = 1e-8  # cosines closer than this are equal, and the earlier training case goes first


class KNN(ClassifierMixin, BaseEstimator):
    """Classify by the labels of the k most similar training cases.

    Parameters
    ----------
    k : candidate numbers of neighbours; those above n - 1 are left out, and 1 is used where none is left
    temperature : of the votes, in units of cosine (-1..1); 0.1 lets a neighbour that is 0.1 less similar count 1/e as much
    balanced : votes are divided by the frequency of their class, and the choice of k weighs classes alike; the metric of this package is
        balanced accuracy

    Attributes
    ----------
    k_ : the chosen number: least mean leave-one-out log loss, the larger of equals
    path_ : dict from each k that was tried to its leave-one-out log loss in nats, weighted
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]])
    >>> KNN().fit(X, ["up", "up", "right", "right"]).predict([[0.0, 2.0]]).tolist()
    ['up']
    """

    def __init__(self, *, k: tuple[int, ...] = (1, 3, 5, 10, 20), temperature: float = 0.1, balanced: bool = True) -> None:
        self.k = k
        self.temperature = temperature
        self.balanced = balanced

    def fit(self, X: Any, y: Any) -> KNN:
        """Store X (n, d) and y (n,), and choose k."""
        X, codes = enter_fit(self, X, y)
        with one_thread():
            self._scaler = LiveScaler().fit(X)
            self._cases, self._codes = _unit(self._scaler.transform(X)), codes
            self._weights = case_weights(codes, balanced=self.balanced)
            ks = sorted({k for k in self.k if k <= len(X) - 1}) or [1]
            similar, who = self._neighbours(self._cases, k=ks[-1], leave_own=True)
            rows = np.arange(len(X))
            proba = {k: self._vote(similar[:, :k], who[:, :k]) for k in ks}
            self.path_ = {k: float(-np.average(np.log(p[rows, codes]), weights=self._weights)) for k, p in proba.items()}
            self.k_ = max(ks, key=lambda k: (-self.path_[k], k))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``, strictly between 0 and 1."""
        X = enter_predict(self, X)
        return self._vote(*self._neighbours(_unit(self._scaler.transform(X)), k=self.k_))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most

    def _neighbours(self, rows: np.ndarray, *, k: int, leave_own: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return cosine and index (m, k) of the k nearest training cases, nearest first."""
        order = np.arange(len(self._cases)) * (RESOLUTION / (2 * len(self._cases)))
        similar, who = np.empty((len(rows), k)), np.empty((len(rows), k), dtype=np.intp)
        for start in range(0, len(rows), ROWS):
            here = slice(start, start + ROWS)
            cosine = rows[here] @ self._cases.T
            # why: BLAS rounds a row differently in batches of other sizes; rounding and ranking by index makes ties the same for all
            key = np.round(cosine / RESOLUTION) * RESOLUTION - order
            if leave_own:
                own = np.arange(len(key))
                key[own, start + own] = -np.inf
            near = np.argpartition(-key, k - 1, axis=1)[:, :k]
            near = np.take_along_axis(near, np.argsort(-np.take_along_axis(key, near, axis=1), axis=1), axis=1)
            similar[here], who[here] = np.take_along_axis(cosine, near, axis=1), near
        return similar, who

    def _vote(self, similar: np.ndarray, who: np.ndarray) -> np.ndarray:
        """Return (m, c) smoothed shares of the votes; the nearest neighbour's vote weighs 1 before balancing."""
        votes = np.exp((similar - similar[:, :1]) / self.temperature) * self._weights[who]
        c = len(self.classes_)
        counts = np.stack([(votes * (self._codes[who] == j)).sum(axis=1) for j in range(c)], axis=1)
        shares: np.ndarray = (counts + 1.0 / c) / (counts.sum(axis=1, keepdims=True) + 1.0)
        return shares


def _unit(Z: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(Z, axis=1, keepdims=True)
    unit: np.ndarray = Z / np.where(norms > 0.0, norms, 1.0)
    return unit
