"""Gaussian classes: linear discriminants with a shrunk covariance (scikit-learn's), and quadratic ones, regularised as by Friedman (1989)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from headstart.methods.features.door import enter_fit, enter_predict, one_thread
from headstart.methods.features.head import Head
from headstart.methods.features.prototype import Prototypes
from headstart.methods.method import knob


@dataclass(frozen=True)
class LDA(Head):
    """Linear discriminants; all classes have one covariance and weigh alike.

    Parameters
    ----------
    shrinkage : of the covariance towards its diagonal's mean, 0..1; "auto" is that of Ledoit and Wolf (2004)

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.2, 1.1], [5.0, 1.0], [5.2, 1.2]]
    >>> LDA().estimator(seed=0).fit(X, ["a", "a", "b", "b"]).predict([[4.0, 1.0]]).tolist()
    ['b']
    """

    name: ClassVar[str] = "lda"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Ledoit & Wolf 2004, A well-conditioned estimator for large-dimensional covariance matrices"
    limits: ClassVar[str] = "one covariance for all classes"

    shrinkage: str | float = knob("auto", choices=("auto", 0.1, 0.5, 0.9))

    def head(self, *, seed: int) -> Any:
        return ShrunkLDA(shrinkage=self.shrinkage)


@dataclass(frozen=True)
class QDA(Head):
    """Quadratic discriminants: each class has a covariance of its own, as far as its cases bear one.

    Parameters
    ----------
    pooled, spherical : as in :class:`GaussianClasses`

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.2, 1.1], [0.1, 0.8], [5.0, 1.0], [5.2, 1.2], [9.0, 5.0]]
    >>> QDA().estimator(seed=0).fit(X, list("aaabbb")).predict([[7.0, 2.0]]).tolist()
    ['b']
    """

    name: ClassVar[str] = "qda"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Friedman 1989, Regularized discriminant analysis"
    limits: ClassVar[str] = "probabilities are far too sure of themselves before calibration"

    transform: str = knob("pca", choices=("pca", "whiten"))
    pooled: float = knob(0.5, choices=(0.1, 0.5, 0.9))
    spherical: float = knob(0.1, choices=(0.01, 0.1, 0.5))

    def head(self, *, seed: int) -> Any:
        return GaussianClasses(pooled=self.pooled, spherical=self.spherical)


class ShrunkLDA(ClassifierMixin, BaseEstimator):
    """scikit-learn's linear discriminants with a shrunk covariance, classes weighing alike; nearest class means where no class has two cases.

    Parameters
    ----------
    shrinkage : as in :class:`LDA`

    Attributes
    ----------
    fitted_ : ``LinearDiscriminantAnalysis``, or :class:`Prototypes`: what is left of it where there is no spread to learn from
    classes_, n_features_in_ : as in scikit-learn
    """

    def __init__(self, *, shrinkage: str | float = "auto") -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> ShrunkLDA:
        """Fit on X (n, d) and y (n,)."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        X, codes = enter_fit(self, X, y)
        c = len(self.classes_)
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.shrinkage, priors=np.full(c, 1.0 / c))
        with one_thread(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Only one sample available")  # of a class of one case, whose covariance counts as 0
            self.fitted_ = (lda if len(X) > c else Prototypes()).fit(X, codes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        proba: np.ndarray = self.fitted_.predict_proba(X)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most


class GaussianClasses(ClassifierMixin, BaseEstimator):
    """A Gaussian for every class, its covariance mixed with that of all classes and with a ball (Friedman 1989, eq. 16 to 18). Classes weigh alike.

    scikit-learn's ``QuadraticDiscriminantAnalysis`` knows the ball only, and refuses a class of one case; here such a class has the others' shape.

    Parameters
    ----------
    pooled : share of the scatter of all classes, above 0 to 1; 1 makes the boundaries linear
    spherical : share of the ball of the same total variance, 0..1

    Attributes
    ----------
    means_ : (c, d)
    roots_ : (c, d, d) with ``roots_[k].T @ roots_[k]`` the inverse covariance of class k
    log_volumes_ : (c,) half the log determinants of the covariances
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> GaussianClasses().fit([[0.0], [1.0], [10.0], [30.0]], ["a", "a", "b", "b"]).predict([[0.5], [15.0]]).tolist()
    ['a', 'b']
    """

    def __init__(self, *, pooled: float = 0.5, spherical: float = 0.1) -> None:
        self.pooled = pooled
        self.spherical = spherical

    def fit(self, X: Any, y: Any) -> GaussianClasses:
        """Fit on X (n, d) and y (n,). Memory and time go with c d^2 and c d^3, so d is to be small, as after "pca"."""
        X, codes = enter_fit(self, X, y)
        with one_thread():
            counts = np.bincount(codes)
            self.means_ = np.stack([X[codes == k].mean(axis=0) for k in range(len(counts))])
            centred = X - self.means_[codes]
            scatters = np.stack([centred[codes == k].T @ centred[codes == k] for k in range(len(counts))])
            mixed = (1.0 - self.pooled) * scatters + self.pooled * scatters.sum(axis=0)
            covariances = mixed / ((1.0 - self.pooled) * counts + self.pooled * len(X))[:, None, None]
            size = np.trace(covariances, axis1=1, axis2=2) / X.shape[1]
            size = np.where(size > 0, size, 1.0)  # why: where every class has one case, nothing is known of any shape, and the nearest mean wins
            covariances = (1.0 - self.spherical) * covariances + self.spherical * size[:, None, None] * np.eye(X.shape[1])
            values, vectors = np.linalg.eigh(covariances)
            values = np.maximum(values, 1e-10 * size[:, None])
            self.roots_ = vectors.transpose(0, 2, 1) / np.sqrt(values)[:, :, None]
            self.log_volumes_ = np.log(values).sum(axis=1) / 2
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        proba: np.ndarray = softmax(self._densities(X), axis=1)
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        densities = self._densities(X)
        most: np.ndarray = self.classes_[densities.argmax(axis=1)]
        return most

    def _densities(self, X: Any) -> np.ndarray:
        """Return (n, c) log densities, short of a constant."""
        X = enter_predict(self, X)
        with one_thread():
            lengths = [np.square((X - mean) @ root.T).sum(axis=1) for mean, root in zip(self.means_, self.roots_, strict=True)]
        densities: np.ndarray = -0.5 * np.stack(lengths, axis=1) - self.log_volumes_
        return densities
