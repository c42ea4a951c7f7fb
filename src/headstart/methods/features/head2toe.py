"""Head2Toe: features are picked from all stages of a frozen source, and a linear head is fitted on those alone (Evci et al. 2022).

Where the target is unlike the source, what it asks for may lie in a middle stage, as a few features among thousands. A feature's relevance is the norm of
its weights for all classes in a linear model of all features; a share of the most relevant is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import RidgeCV
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.core import InputError, Source
from headstart.methods.features.door import enter_fit, enter_predict, one_thread
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.features.scaling import LiveScaler
from headstart.methods.method import Arm, Closed, Level, View, knob

ALPHAS = tuple(10.0**k for k in range(-3, 7))  # ridge penalties for numbers, as of a probe
PAPER = "Evci et al. 2022, Head2Toe: utilizing intermediate representations for better transfer learning"
LIMITS = "of two features that say the same, each has half the relevance; picking on few cases is noisy"


@dataclass(frozen=True)
class Head2Toe(Closed):
    """A linear head on the most relevant features of all stages.

    Features are the stages' activations, averaged over positions (the paper keeps a few windows), each stage's divided by their norm in each case. The
    linear model that relevance is read from is a ridge on standardised features, its penalty by leave-one-out: in closed form, where the paper trains with
    a group lasso by gradient steps, its penalty so small (1e-5) that the order of the norms matters and not which of them are 0. Features are picked
    in every ``fit``, so that no case of a fold's other side takes part.

    Parameters
    ----------
    keep : share of the features that are kept, 0..1; 1 keeps all. Where few features tell nearly everything, one in a hundred serves
    head : "ridge" (closed-form leave-one-out) or "logistic" (whole L2 path, cross-validated), on those kept

    Examples
    --------
    >>> Head2Toe().view(Source("s", stages=("stem", "a", "b"))).cuts
    (1, 2, 3)
    """

    name: ClassVar[str] = "head2toe"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    keep: float = knob(0.2, choices=(0.01, 0.05, 0.2, 1.0))
    head: str = knob("ridge", choices=("ridge", "logistic"))

    def view(self, source: Source | None) -> View:
        return _view(source)

    def estimator(self, *, seed: int) -> Any:
        return HeadOnRelevant(keep=self.keep, head=self.head, seed=seed)


@dataclass(frozen=True)
class Head2ToeRegressor(Closed):
    """The same for numbers.

    Parameters
    ----------
    keep : as in :class:`Head2Toe`
    """

    name: ClassVar[str] = "head2toe"
    arm: ClassVar[Arm] = "frozen"
    level: ClassVar[Level] = "feature"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    keep: float = knob(0.2, choices=(0.01, 0.05, 0.2, 1.0))

    def view(self, source: Source | None) -> View:
        return _view(source)

    def estimator(self, *, seed: int) -> Any:
        return RidgeOnRelevant(keep=self.keep)


class HeadOnRelevant(ClassifierMixin, BaseEstimator):
    """Keep the most relevant features, and fit a head on them.

    Parameters
    ----------
    keep : share of the d features, above 0 to 1; at least one is kept
    head : "ridge" or "logistic"
    seed : shuffles the inner folds of "logistic"

    Attributes
    ----------
    relevance_ : (d,) norm of each standardised feature's weights for all classes, 0 or more
    kept_ : indices of the features that are kept, rising; of equally relevant ones the first
    head_ : the head, fitted on them
    classes_, n_features_in_ : as in scikit-learn

    Examples
    --------
    >>> X = np.array([[5.0, 0.0], [5.1, 1.0], [5.0, 0.2], [5.1, 7.0], [5.0, 8.0], [5.1, 9.0]])
    >>> HeadOnRelevant(keep=0.5).fit(X, ["a", "a", "a", "b", "b", "b"]).kept_.tolist()
    [1]
    """

    def __init__(self, *, keep: float = 1.0, head: str = "ridge", seed: int = 0) -> None:
        self.keep = keep
        self.head = head
        self.seed = seed

    def fit(self, X: Any, y: Any, groups: Any = None) -> HeadOnRelevant:
        """Fit on X (n, d) and y (n,); rows that share a value of ``groups`` (n,) share an inner fold of "logistic"."""
        X, codes = enter_fit(self, X, y)
        with one_thread():
            self.relevance_ = np.linalg.norm(RidgeLOO().fit(LiveScaler().fit_transform(X), codes).coef_, axis=0)
        self.kept_ = most(self.relevance_, share=self.keep)
        kept = _columns(X, self.kept_)
        self.head_ = RidgeLOO().fit(kept, codes) if self.head == "ridge" else LogisticPath(seed=self.seed).fit(kept, codes, groups)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the head's decisions (n, c), or for two classes (n,) that of the second."""
        X = enter_predict(self, X)
        decision: np.ndarray = self.head_.decision_function(_columns(X, self.kept_))
        return decision

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) in the order of ``classes_``."""
        X = enter_predict(self, X)
        proba: np.ndarray = self.head_.predict_proba(_columns(X, self.kept_))
        return proba

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        proba = self.predict_proba(X)
        most_probable: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most_probable


class RidgeOnRelevant(RegressorMixin, BaseEstimator):
    """Keep the features with the largest standardised weights, and fit a ridge on them; both penalties by leave-one-out.

    Parameters
    ----------
    keep : share of the d features, above 0 to 1; at least one is kept

    Attributes
    ----------
    relevance_, kept_, n_features_in_ : as in :class:`HeadOnRelevant`
    scaler_, head_ : the standardisation, and the ridge on the features that are kept

    Examples
    --------
    >>> model = RidgeOnRelevant(keep=0.5).fit([[0.0, 5.0], [1.0, 5.1], [2.0, 5.1], [3.0, 5.0]], [1.0, 3.0, 5.0, 7.0])
    >>> model.kept_.tolist(), model.predict([[1.5, 9.9]]).round(2).tolist()
    ([0], [4.0])
    """

    def __init__(self, *, keep: float = 1.0) -> None:
        self.keep = keep

    def fit(self, X: Any, y: Any) -> RidgeOnRelevant:
        """Fit on X (n, d) and y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        with one_thread():
            self.scaler_ = LiveScaler().fit(X)
            Z = self.scaler_.transform(X)
            self.relevance_ = np.abs(RidgeCV(ALPHAS).fit(Z, y).coef_)
            self.kept_ = most(self.relevance_, share=self.keep)
            self.head_ = RidgeCV(ALPHAS).fit(_columns(Z, self.kept_), y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return a number for each row (n,)."""
        check_is_fitted(self)
        Z = self.scaler_.transform(validate_data(self, X, reset=False, dtype=np.float64))
        numbers: np.ndarray = self.head_.predict(_columns(Z, self.kept_))
        return numbers


def most(relevance: np.ndarray, *, share: float) -> np.ndarray:
    """Return the indices, rising, of that share of the features (d,) with the largest relevance, rounded up; of equals the first.

    Raises
    ------
    InputError
        the share is not above 0 and at most 1.

    >>> most(np.array([0.0, 3.0, 1.0, 3.0]), share=0.25).tolist(), most(np.array([0.0, 3.0, 1.0, 3.0]), share=0.75).tolist()
    ([1], [1, 2, 3])
    """
    if not 0.0 < share <= 1.0:
        raise InputError(f"keep={share:g} is out of range. Give a share above 0 and up to 1.")
    count = int(np.ceil(share * len(relevance)))
    kept: np.ndarray = np.sort(np.argsort(-relevance, kind="stable")[:count])
    return kept


def _columns(X: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return those columns, laid out row by row, so that all of them give the bits that X itself gives."""
    return np.ascontiguousarray(X[:, which])


def _view(source: Source | None) -> View:
    if source is None:
        raise ValueError("Head2Toe needs a source")
    return View("unit", source.name, source.levels)
