"""Boosting over two domains: source cases that the target's few labels contradict lose weight (Dai et al. 2007; for numbers, Pardoe & Stone 2010)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from headstart.methods.features.door import enter_predict
from headstart.methods.relations.door import Domains, codes_of, fit_head
from headstart.methods.relations.relation import Relation

LEAST = 1e-3  # error that a round is taken to have at least: the log of its odds is the weight of its vote


class _Boosted(Relation):
    """What both forms share: rounds over the pooled cases, of which the last half decide."""

    needs_target_labels: ClassVar[bool] = True

    def __init__(self, estimator: Any = None, *, rounds: int = 20) -> None:
        self.estimator = estimator
        self.rounds = rounds

    def _learn(self, domains: Domains) -> None:
        n = len(domains.xs)
        X = np.vstack([domains.xs, domains.xt[domains.known]])
        y = np.concatenate([domains.ys, domains.yt])
        falling = 1.0 / (1.0 + np.sqrt(2.0 * np.log(n) / self.rounds))
        weights = np.full(len(X), 1.0 / len(X))
        self.heads_, votes = [], []
        for _ in range(self.rounds):
            weights = weights / weights.sum()
            head = fit_head(self.final(), X, y, weights=weights)
            wrong = self._wrong(head.predict(X), y, n)
            error = float(weights[n:] @ wrong[n:] / weights[n:].sum())
            odds = self._odds(max(error, LEAST))
            if odds >= 1.0:
                break
            self.heads_.append(head)
            votes.append(-np.log(odds))
            weights = weights * np.concatenate([falling ** wrong[:n], odds ** -wrong[n:]])
            if error == 0.0 and wrong[:n].max() == 0.0:
                break
        if not self.heads_:  # why: no round beat chance on the target; what is known without boosting is all there is
            self.heads_, votes = [fit_head(self.final(), X, y)], [1.0]
        late = len(self.heads_) // 2
        self.heads_, self.votes_ = self.heads_[late:], np.array(votes[late:])
        self.weights_ = weights[:n] / weights[:n].max()

    def _learn_alone(self, xs: np.ndarray, ys: np.ndarray) -> None:
        self.heads_, self.votes_, self.weights_ = [fit_head(self.final(), xs, ys)], np.ones(1), np.ones(len(xs))

    @abstractmethod
    def _wrong(self, predicted: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
        """Return how wrong each of the n source and the target cases is, 0..1."""

    @abstractmethod
    def _odds(self, error: float) -> float:
        """Return beta of an error on the target, less than 1 where it is better than chance."""


class TrAdaBoost(ClassifierMixin, _Boosted):
    """Classify by boosting in which wrong target cases gain weight and wrong source cases lose it (Dai et al. 2007).

    For c classes a round's odds are error / ((1 - error)(c - 1)), as in SAMME (Zhu et al. 2009), which for two classes are the published ones. Needs labels of
    some target cases; those without a label are not used.

    Parameters
    ----------
    estimator : trained in every round, its ``fit`` takes weights; ``None``: ridge with leave-one-out, not balanced, for weights are the matter here
    rounds : at most; it stops where a round is no better than chance on the target. 20: the paper's 100 change little on small data

    Attributes
    ----------
    heads_, votes_ : the later half of the rounds, and the weights of their votes
    weights_ : (n,) of the source cases in the end, 1 for the one that fits best

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> TrAdaBoost().fit(x, y, x, [0, 0, 1, None]).predict([[0.5], [8.5]]).tolist()
    [0, 1]
    """

    name: ClassVar[str] = "tradaboost"
    paper: ClassVar[str] = "Dai et al. 2007, Boosting for transfer learning"
    limits: ClassVar[str] = "needs labelled target cases; source cases that lose their weight never get it back"

    def final(self) -> Any:
        """Return the head as it will be cloned in each round."""
        from headstart.methods.features.ridge import RidgeLOO

        return RidgeLOO(balanced=False) if self.estimator is None else self.estimator

    def predict(self, X: Any) -> np.ndarray:
        """Return the class (n,) with the most votes."""
        proba = self.predict_proba(X)
        most: np.ndarray = self.classes_[proba.argmax(axis=1)]
        return most

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return each class's share of the votes (n, c), in the order of ``classes_``; a confidence, not calibrated. Without a target, the head's own."""
        X = enter_predict(self, X)
        if not self.related_ and hasattr(self.heads_[0], "predict_proba"):
            own: np.ndarray = self.heads_[0].predict_proba(X)
            return own
        votes = sum(vote * np.eye(len(self.classes_))[codes_of(self.classes_, head.predict(X))] for head, vote in zip(self.heads_, self.votes_, strict=True))
        shares: np.ndarray = votes / self.votes_.sum()
        return shares

    def _wrong(self, predicted: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
        wrong: np.ndarray = (predicted != y).astype(float)
        return wrong

    def _odds(self, error: float) -> float:
        return error / max((1.0 - error) * (len(self.classes_) - 1), LEAST)


class TrAdaBoostR2(RegressorMixin, _Boosted):
    """:class:`TrAdaBoost` for numbers (Pardoe & Stone 2010): a case is as wrong as its error over the largest one; the weighted median decides.

    Parameters
    ----------
    estimator : trained in every round, its ``fit`` takes weights; ``None``: ridge
    rounds : at most; it stops where a round's mean error on the target is half of the largest or more

    Attributes
    ----------
    heads_, votes_, weights_ : as in :class:`TrAdaBoost`

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> TrAdaBoostR2().fit(x, x.ravel(), x, [0.0, None, None, 3.0, 4.0, None]).predict([[2.0]]).round(1).tolist()
    [2.0]
    """

    name: ClassVar[str] = "tradaboost"
    paper: ClassVar[str] = "Pardoe & Stone 2010, Boosting for regression transfer"
    limits: ClassVar[str] = TrAdaBoost.limits

    def predict(self, X: Any) -> np.ndarray:
        """Return the weighted median (n,) of the rounds' predictions."""
        X = enter_predict(self, X)
        each = np.stack([head.predict(X) for head in self.heads_], axis=1)
        order = each.argsort(axis=1, kind="stable")
        reached = self.votes_[order].cumsum(axis=1)
        middle = (reached >= self.votes_.sum() / 2.0).argmax(axis=1)
        median: np.ndarray = np.take_along_axis(each, np.take_along_axis(order, middle[:, None], axis=1), axis=1).ravel()
        return median

    def _wrong(self, predicted: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
        missed = np.abs(predicted - y)
        largest = missed.max()
        wrong: np.ndarray = missed / largest if largest > 0 else missed
        return wrong

    def _odds(self, error: float) -> float:
        return error / max(1.0 - error, LEAST)
