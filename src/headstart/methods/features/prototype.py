"""Heads for few shots: a case belongs to the class whose mean is nearest (Snell et al. 2017, "Prototypical networks for few-shot learning"), or points its way.

Both are linear, have nothing to fit but one temperature and one shrinkage, and those follow from leaving each case out of its own class's mean, in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from headstart.methods.features.door import case_weights, enter_fit, enter_predict
from headstart.methods.features.head import Head
from headstart.methods.features.ridge import sharpness
from headstart.methods.features.transforms import TRANSFORMS
from headstart.methods.method import knob

SHRINKS = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Prototype(Head):
    """The nearest class mean, means shrunk towards their own mean.

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.2, 1.0], [5.0, 1.0], [5.2, 1.2]]
    >>> Prototype().estimator(seed=0).fit(X, [0, 0, 1, 1]).predict([[4.0, 1.0]]).tolist()
    [1]
    """

    name: ClassVar[str] = "prototype"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Snell et al. 2017, Prototypical networks for few-shot learning"
    limits: ClassVar[str] = "all classes are balls of one size; with many cases a fitted head is better"

    def head(self, *, seed: int) -> Any:
        return Prototypes()


@dataclass(frozen=True)
class Cosine(Head):
    """The class mean with the smallest angle, between cases of length 1.

    Examples
    --------
    >>> X = [[1.0, 0.0], [9.0, 1.0], [0.0, 1.0], [1.0, 9.0]]
    >>> Cosine(transform="none").estimator(seed=0).fit(X, ["a", "a", "b", "b"]).predict([[100.0, 20.0]]).tolist()
    ['a']
    """

    name: ClassVar[str] = "cosine"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Chen et al. 2019, A closer look at few-shot classification"
    limits: ClassVar[str] = "sees directions, not lengths; with many cases a fitted head is better"

    transform: str = knob("unit", choices=TRANSFORMS)

    def head(self, *, seed: int) -> Any:
        return Prototypes(metric="cosine")


class Prototypes(ClassifierMixin, BaseEstimator):
    """Classify by squared distance from class means, or by the cosine with them.

    Classes weigh alike, whatever their sizes. The mean of class k is m_k, shrunk to (1 - s) m_k + s m, where m is the mean of all m_k. For every s each
    case is compared with the means that would be there without it, and s and the temperature are those with the least log loss of these comparisons.
    Cases that are alone in their class have no part in that; where all are, s is the first and probabilities are as sharp as the means are apart.

    Parameters
    ----------
    metric : "euclidean", or "cosine": cases and means are divided by their lengths
    shrinks : candidates for s, 0..1 (excluded), of distances; for directions 0 is the only one

    Attributes
    ----------
    shrink_ : the s that was chosen, the larger of equals
    path_ : left-out log loss in nats for every s, classes weighing alike; ``None`` where every class has one case
    means_ : (c, d) the shrunk means, or directions of length 1
    sharpness_ : factor on the decisions
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> head = Prototypes(shrinks=(0.0,)).fit([[0.0], [2.0], [10.0], [12.0]], ["a", "a", "b", "b"])
    >>> head.predict([[4.0], [7.0]]).tolist(), head.means_.ravel().tolist()
    (['a', 'b'], [1.0, 11.0])
    """

    def __init__(self, *, metric: str = "euclidean", shrinks: tuple[float, ...] = SHRINKS) -> None:
        self.metric = metric
        self.shrinks = shrinks

    def fit(self, X: Any, y: Any) -> Prototypes:
        """Fit on X (n, d) and y (n,)."""
        X, codes = enter_fit(self, X, y)
        X = self._lengths(X)
        told = np.bincount(codes)[codes] > 1
        shrinks = self.shrinks if self.metric == "euclidean" else (0.0,)  # towards the mean is towards no direction
        tried = [self._tried(self._left_out(X, codes, shrink)[told], codes[told]) for shrink in shrinks] if told.any() else []
        best = min(range(len(tried)), key=lambda i: (tried[i][0], -shrinks[i]), default=0)
        self.path_ = np.array([loss for loss, _ in tried]) if tried else None
        self.shrink_ = float(shrinks[best])
        self.means_ = self._lengths(_shrunk(_means(X, codes), self.shrink_))
        self.sharpness_ = tried[best][1] if tried else 1.0 / _unit(self._decision(self.means_))
        return self

    def _tried(self, decision: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
        """Return the log loss of decisions (n, c) at their best temperature, and the factor on them that it is."""
        unit, weights = _unit(decision), case_weights(codes, balanced=True)
        factor = sharpness(decision / unit, codes, weights) / unit
        loss = -np.average(log_softmax(factor * decision, axis=1)[np.arange(len(codes)), codes], weights=weights)
        return float(loss), factor

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (n, c), or for two classes (n,) the logit of the second."""
        logits: np.ndarray = self._logits(X)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        proba: np.ndarray = softmax(self._logits(X), axis=1)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of the nearest mean for each row (n,)."""
        logits = self._logits(X)
        most: np.ndarray = self.classes_[logits.argmax(axis=1)]
        return most

    def _logits(self, X: Any) -> np.ndarray:
        X = enter_predict(self, X)
        logits: np.ndarray = self.sharpness_ * self._decision(self._lengths(X))
        return logits

    def _decision(self, X: np.ndarray) -> np.ndarray:
        """Return (n, c): cosines, or half the squared distances, negative and short of |x|^2 / 2, which is the same for all classes."""
        decision: np.ndarray = X @ self.means_.T
        return decision if self.metric == "cosine" else decision - np.square(self.means_).sum(axis=1) / 2

    def _left_out(self, X: np.ndarray, codes: np.ndarray, shrink: float) -> np.ndarray:
        """Return (n, c) decisions of each case by the means without it; 0 shift for a case that is alone in its class.

        Without case i its class's mean moves by (m_k - x_i) / (n_k - 1), and the mean of the c means by a c-th of that.
        """
        means, rows = _means(X, codes), np.arange(len(X))
        c = len(means)
        shift = (means[codes] - X) / np.maximum(np.bincount(codes)[codes] - 1, 1)[:, None]
        shrunk = _shrunk(means, shrink)
        if self.metric == "cosine":
            decision: np.ndarray = X @ self._lengths(means).T
            own = self._lengths(means[codes] + shift)
            decision[rows, codes] = np.einsum("ij,ij->i", X, own)
            return decision
        moved = X - shrink * shift / c
        decision = moved @ shrunk.T - np.square(shrunk).sum(axis=1) / 2
        own = shrunk[codes] + (1.0 - shrink) * shift
        decision[rows, codes] = np.einsum("ij,ij->i", moved, own) - np.square(own).sum(axis=1) / 2
        return decision

    def _lengths(self, X: np.ndarray) -> np.ndarray:
        if self.metric != "cosine":
            return X
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        unit: np.ndarray = X / np.where(norms > 0, norms, 1.0)
        return unit


def _unit(decision: np.ndarray) -> float:
    """Return the mean deviation of decisions (n, c) over the classes of a case, as their unit; 1 where it is 0."""
    return float(decision.std(axis=1).mean()) or 1.0


def _means(X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    sums = np.zeros((codes.max() + 1, X.shape[1]))
    np.add.at(sums, codes, X)
    means: np.ndarray = sums / np.bincount(codes)[:, None]
    return means


def _shrunk(means: np.ndarray, shrink: float) -> np.ndarray:
    shrunk: np.ndarray = (1.0 - shrink) * means + shrink * means.mean(axis=0)
    return shrunk
