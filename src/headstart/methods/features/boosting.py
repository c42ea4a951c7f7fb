"""Gradient boosting of trees on principal components of features (scikit-learn's histogram version)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.methods.features.head import Head
from headstart.methods.features.weighing import Balanced, Standardised
from headstart.methods.method import knob

PAPER = "Friedman 2001, Greedy function approximation: a gradient boosting machine"
LIMITS = "one tree for every class and step: the slowest head where classes are many"


@dataclass(frozen=True)
class Boosting(Head):
    """Boosted trees. They see principal components, because a split of one of a thousand alike features says little, and all must be looked at.

    Parameters
    ----------
    rate : learning rate
    leaf : least cases in a leaf; of 20, scikit-learn's default, no tree of 39 cases has a split

    Examples
    --------
    >>> X = [[float(i), 1.0] for i in range(20)]
    >>> Boosting().estimator(seed=0).fit(X, [0] * 10 + [1] * 10).predict([[3.0, 1.0], [17.0, 1.0]]).tolist()
    [0, 1]
    """

    name: ClassVar[str] = "boosting"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = PAPER
    limits: ClassVar[str] = LIMITS

    transform: str = knob("pca", choices=("pca", "whiten"))
    rate: float = knob(0.1, low=0.02, high=0.3, log=True)
    leaf: int = knob(5, choices=(2, 5, 20))

    def head(self, *, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return Balanced(HistGradientBoostingClassifier(learning_rate=self.rate, min_samples_leaf=self.leaf, early_stopping=False, random_state=seed))


@dataclass(frozen=True)
class BoostingRegressor(Boosting):
    """The same for numbers.

    Parameters
    ----------
    rate, leaf : as in :class:`Boosting`
    """

    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})

    def head(self, *, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor

        return Standardised(HistGradientBoostingRegressor(learning_rate=self.rate, min_samples_leaf=self.leaf, early_stopping=False, random_state=seed))
