"""The heads of a probe by name, so that they can be asked for with any transform: ridge, logistic regression, nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headstart.methods.features.head import Head
from headstart.methods.features.knn import KNN
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.features.probe import ALPHAS
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import knob

RIDGE = "Rifkin & Lippert 2007, Notes on regularized least squares"
NEIGHBOURS = "Wu et al. 2018, Unsupervised feature learning via non-parametric instance discrimination"
LINEAR_LIMITS = "cannot move the features towards the task"


@dataclass(frozen=True)
class Ridge(Head):
    """Ridge regression to the classes, its penalty by exact leave-one-out.

    Examples
    --------
    >>> Ridge(transform="whiten").estimator(seed=0).fit([[0.0, 1.0], [1.0, 0.0], [8.0, 1.0], [9.0, 0.0]], [0, 0, 1, 1]).predict([[7.0, 0.5]]).tolist()
    [1]
    """

    name: ClassVar[str] = "ridge"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = RIDGE
    limits: ClassVar[str] = LINEAR_LIMITS

    def head(self, *, seed: int) -> Any:
        return RidgeLOO(each=self.transform != "pca")  # why: a component's deviation says how much it matters


@dataclass(frozen=True)
class RidgeRegressor(Head):
    """The same for numbers."""

    name: ClassVar[str] = "ridge"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = RIDGE
    limits: ClassVar[str] = LINEAR_LIMITS

    def head(self, *, seed: int) -> Any:
        from sklearn.linear_model import RidgeCV

        return RidgeCV(ALPHAS)


@dataclass(frozen=True)
class Logistic(Head):
    """Multinomial logistic regression, its strength by inner cross-validation.

    Examples
    --------
    >>> Logistic().estimator(seed=0).fit([[0.0], [1.0], [8.0], [9.0]], [0, 0, 1, 1]).predict([[7.0]]).tolist()
    [1]
    """

    name: ClassVar[str] = "logistic"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = "Kornblith et al. 2019, Do better ImageNet models transfer better?"
    limits: ClassVar[str] = LINEAR_LIMITS

    def head(self, *, seed: int) -> Any:
        return LogisticPath(seed=seed)


@dataclass(frozen=True)
class Neighbours(Head):
    """The nearest cases by cosine; how many is chosen by leave-one-out.

    Examples
    --------
    >>> Neighbours().estimator(seed=0).fit([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]], [0, 0, 1, 1]).predict([[0.0, 2.0]]).tolist()
    [0]
    """

    name: ClassVar[str] = "knn"
    needs: ClassVar[frozenset[str]] = frozenset({"classes"})
    paper: ClassVar[str] = NEIGHBOURS
    limits: ClassVar[str] = "learns nothing of which features matter"

    def head(self, *, seed: int) -> Any:
        return KNN()


@dataclass(frozen=True)
class NeighboursRegressor(Head):
    """The same for numbers: the mean of the nearest cases by distance, nearer ones weighing more.

    Parameters
    ----------
    neighbours : how many
    """

    name: ClassVar[str] = "knn"
    needs: ClassVar[frozenset[str]] = frozenset({"numbers"})
    paper: ClassVar[str] = NEIGHBOURS
    limits: ClassVar[str] = "learns nothing of which features matter"

    neighbours: int = knob(5, choices=(3, 5, 10))

    def head(self, *, seed: int) -> Any:
        from sklearn.neighbors import KNeighborsRegressor

        return KNeighborsRegressor(self.neighbours, weights="distance")
