"""What relation-level methods have in common: two domains in, a head trained on what the method makes of them, predictions for the target.

Three interfaces. A :class:`Relation` says what its head is trained on; one that is :class:`Mapped` moves features, one that is :class:`Weighted` weighs
source cases. Without a target all three are plain training of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.metaestimators import available_if

from headstart.methods.features.door import enter_predict
from headstart.methods.relations.door import Domains, enter_domains, enter_source, fit_head, need_labels, proba_of


class Training(NamedTuple):
    """What the head is trained on: cases (n, k), targets (n,), and weights (n,) or ``None``."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None


def default_head(method: Any) -> Any:
    """Return ridge with exact leave-one-out over its penalties: for classes this package's, for numbers scikit-learn's on standardised features.

    Features are standardised by their deviations over both domains. Where a method gives components or copies, whose deviations say how much they matter, they
    are not standardised one by one.
    """
    if is_classifier(method):
        from headstart.methods.features.ridge import RidgeLOO

        return RidgeLOO(each=not method.gives_components)
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline

    from headstart.methods.features.scaling import LiveScaler

    ridge = RidgeCV(tuple(10.0**k for k in range(-3, 7)))
    return ridge if method.gives_components else make_pipeline(LiveScaler(), ridge)


def _gives_probabilities(method: Any) -> bool:
    return is_classifier(method) and hasattr(method.final(), "predict_proba")


class Relation(BaseEstimator, ABC):
    """The interface: a method learns from two domains what its head is trained on, and how a target case looks to that head.

    Attributes
    ----------
    head_ : the fitted head
    related_ : whether there was a target; without one the head was trained on X as it is
    classes_ (of classifiers), n_features_in_ : as in scikit-learn
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    limits: ClassVar[str] = ""
    needs_target_labels: ClassVar[bool] = False
    gives_components: ClassVar[bool] = False

    estimator: Any

    def fit(self, X: Any, y: Any, X_target: Any = None, y_target: Any = None) -> Self:
        """Learn from source cases X (n, d), y (n,) and target cases X_target (m, d); y_target (m,) holds ``None`` where a label is not known.

        n and m may differ, and each may be less than d. Target cases with a label join the head's training.
        """
        domains = enter_domains(self, X, y, X_target, y_target)
        self.related_ = domains is not None
        if domains is None:
            self._learn_alone(*enter_source(self, X, y))
            return self
        if self.needs_target_labels:
            need_labels(self, domains)
        self._learn(domains)
        return self

    def final(self) -> Any:
        """Return the head as it will be cloned: ``estimator``, or the default."""
        return default_head(self) if self.estimator is None else self.estimator

    def predict(self, X: Any) -> np.ndarray:
        """Return the class or number (n,) of each target case X (n, d)."""
        X = enter_predict(self, X)
        predicted: np.ndarray = self.head_.predict(self._seen(X) if self.related_ else X)
        return predicted

    @available_if(_gives_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities (n, c) of target cases X (n, d), in the order of ``classes_``."""
        X = enter_predict(self, X)
        return proba_of(self.head_, self._seen(X) if self.related_ else X, self.classes_)

    @abstractmethod
    def _learn(self, domains: Domains) -> None:
        """Fit the head on what the method makes of the two domains."""

    def _learn_alone(self, xs: np.ndarray, ys: np.ndarray) -> None:
        self.head_ = fit_head(self.final(), xs, ys)

    def _seen(self, X: np.ndarray) -> np.ndarray:
        """Return target cases X (n, d) as the head sees them."""
        return X


class Mapped(Relation):
    """The interface of methods that move features: ``adapt_source`` and ``adapt_target`` bring both domains into one space."""

    scales_over_both: ClassVar[bool] = True

    def adapt_source(self, X: Any) -> np.ndarray:
        """Return source cases X (n, d) in the space where the head learns; as they are where there was no target."""
        X = enter_predict(self, X)
        return self._source(X) if self.related_ else X

    def adapt_target(self, X: Any) -> np.ndarray:
        """Return target cases X (n, d) in the space where the head learns; as they are where there was no target."""
        X = enter_predict(self, X)
        return self._seen(X) if self.related_ else X

    def _learn(self, domains: Domains) -> None:
        self._align(domains)
        moved, yt = self._source(domains.xs), domains.yt
        seen = self._seen(domains.xt) if self.scales_over_both else None
        if len(yt):
            moved = np.vstack([moved, self._seen(domains.xt[domains.known]) if seen is None else seen[domains.known]])
        self.head_ = fit_head(self.final(), moved, np.concatenate([domains.ys, yt]), beside=seen)

    @abstractmethod
    def _align(self, domains: Domains) -> None:
        """Learn how the domains are brought together."""

    def _source(self, X: np.ndarray) -> np.ndarray:
        return X


class Weighted(Relation):
    """The interface of methods that weigh source cases by how likely the target draws them; the head's ``fit`` must take weights.

    Attributes
    ----------
    weights_ : (n,) weights of the source cases, mean 1, none negative; all 1 where there was no target
    effective_ : (sum w)^2 / sum w^2, of how many equally weighted cases the source is worth; far below n, weighing costs more than it mends
    """

    def _learn(self, domains: Domains) -> None:
        weights = self._weigh(domains)
        self._keep(weights / weights.mean())
        X, y = domains.xs, domains.ys
        weights = self.weights_
        if len(domains.yt):  # why 1: labelled target cases need no correction
            X, y = np.vstack([X, domains.xt[domains.known]]), np.concatenate([y, domains.yt])
            weights = np.concatenate([weights, np.ones(len(domains.yt))])
        self.head_ = fit_head(self.final(), X, y, weights=weights, beside=domains.xt)

    def _learn_alone(self, xs: np.ndarray, ys: np.ndarray) -> None:
        self._keep(np.ones(len(xs)))
        super()._learn_alone(xs, ys)

    def _keep(self, weights: np.ndarray) -> None:
        self.weights_ = weights
        self.effective_ = float(weights.sum() ** 2 / (weights @ weights))

    @abstractmethod
    def _weigh(self, domains: Domains) -> np.ndarray:
        """Return weights (n,) of the source cases, none negative."""
