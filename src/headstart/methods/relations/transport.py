"""Optimal transport of source cases to the target (Courty et al. 2017): POT finds the plan, here it moves cases.

Costs are squared Euclidean distances after each domain was centred, over their mean. Centring changes no plan (it adds constants to rows and columns), and with
it ``reg`` has no unit: features in metres or millimetres, and domains near or far, get the same plan.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from headstart.core import InputError
from headstart.methods.relations.door import Domains, codes_of
from headstart.methods.relations.relation import Mapped

PAIRS = 10**8  # of source and target cases; a plan of more than that is 800 MB, and several are held at once
RANGE = 600.0  # costs over reg that exp and the scalings of Sinkhorn's iterations bear; beyond it they run on logarithms, ten times as slow
MAJORISATIONS = 10  # as in POT
INNER = 200  # Sinkhorn iterations of each but the last, as in POT; each goes on from the scalings of the one before, so that they add up
ITERATIONS = 1000
LEAST = 1e-3  # added to a class's mass in a column, as in POT: it keeps the slope of the group penalty finite
STEEPEST = 0.5 * LEAST**-0.5
FORBIDDEN = 100.0  # cost of a pair of labelled cases of two classes, in units of the largest cost


def costs(xs: np.ndarray, xt: np.ndarray) -> np.ndarray:
    """Return (n, m) squared distances of the domains, each centred, over their mean.

    Raises
    ------
    InputError
        more than 100,000,000 pairs, which need too much memory; cases that are all equal.

    >>> costs(np.array([[0.0], [2.0]]), np.array([[7.0], [9.0]])).tolist()  # 0 and 4, of mean 2
    [[0.0, 2.0], [2.0, 0.0]]
    """
    if len(xs) * len(xt) > PAIRS:
        raise InputError(f"{len(xs)} source and {len(xt)} target cases make {len(xs) * len(xt):,} pairs; {PAIRS:,} fit. Draw fewer, or use ot-linear.")
    M = euclidean_distances(xs - xs.mean(axis=0), xt - xt.mean(axis=0), squared=True)
    mean = M.mean()
    if mean == 0.0:
        raise InputError("All cases of each domain are equal, so none is nearer to one than to another. Give cases that vary.")
    scaled: np.ndarray = M / mean
    return scaled


def centres(plan: np.ndarray, xt: np.ndarray) -> np.ndarray:
    """Return (n, d): for each row of the plan (n, m) the mean of the target cases that it sends mass to (Courty et al. 2017, eq. 14).

    >>> centres(np.array([[0.25, 0.25], [0.0, 0.5]]), np.array([[0.0], [2.0]])).tolist()
    [[1.0], [2.0]]
    """
    placed: np.ndarray = (plan @ xt) / plan.sum(axis=1, keepdims=True)
    return placed


class Transported(Mapped):
    """The interface of transports: a plan between the cases of both domains, and source cases at the mean of what they are sent to.

    A source case that was not there when the plan was made moves as the nearest one that was (Ferradans et al. 2014).

    Attributes
    ----------
    plan_ : (n, m) mass from each source case to each target case, 1 in all
    moved_ : (n, d) where the source cases went
    """

    def _align(self, domains: Domains) -> None:
        M = costs(domains.xs, domains.xt)
        if len(domains.yt):
            labelled = np.flatnonzero(domains.known)
            M[:, labelled] += FORBIDDEN * M.max() * (domains.ys[:, None] != domains.yt)
        self.plan_ = self._plan(M, domains)
        if not np.all(self.plan_.sum(axis=1) > 0):
            raise InputError("Entropic transport lost source cases to rounding: reg is too small for how far they lie. Raise reg, or use ot.")
        self.cases_, self.moved_ = domains.xs, centres(self.plan_, domains.xt)

    def _source(self, X: np.ndarray) -> np.ndarray:
        if X is self.cases_:
            return self.moved_
        nearest = NearestNeighbors(n_neighbors=1).fit(self.cases_).kneighbors(X, return_distance=False).ravel()
        moved: np.ndarray = X + self.moved_[nearest] - self.cases_[nearest]
        return moved

    @abstractmethod
    def _plan(self, M: np.ndarray, domains: Domains) -> np.ndarray:
        """Return the plan (n, m) for costs (n, m)."""


def exact_plan(M: np.ndarray) -> np.ndarray:
    """Return the plan (n, m) of least cost between equal weights, exactly.

    >>> exact_plan(np.array([[0.0, 1.0], [1.0, 4.0]])).tolist()  # crossing costs 2, staying 4
    [[0.0, 0.5], [0.5, 0.0]]
    """
    import ot

    plan: np.ndarray = ot.emd([], [], M, numItermax=10**7)
    return plan


def entropic_plan(M: np.ndarray, *, reg: float) -> np.ndarray:
    """Return the plan (n, m) that minimises cost less ``reg`` times its entropy (Cuturi 2013), by at most 1,000 of Sinkhorn's iterations.

    >>> entropic_plan(np.array([[0.0, 1.0], [1.0, 0.0]]), reg=1.0).round(4).tolist()  # e / (2 e + 2) and 1 / (2 e + 2)
    [[0.3655, 0.1345], [0.1345, 0.3655]]
    """
    import ot

    M = _shifted(M)
    method = "sinkhorn" if M.max() < RANGE * reg else "sinkhorn_log"
    plan: np.ndarray = ot.sinkhorn([], [], M, reg, method=method, numItermax=ITERATIONS, stopThr=1e-9, warn=False)
    return plan


def class_plan(M: np.ndarray, codes: np.ndarray, *, reg: float, eta: float) -> np.ndarray:
    """Return the entropic plan whose columns prefer source cases of one class: a group penalty sum (mass of a class in a column)^(1/2), by ten majorisations.

    Courty et al. 2014, "Domain adaptation with regularized optimal transport", alg. 1.

    Parameters
    ----------
    codes : (n,) classes of the source cases
    eta : weight of the penalty; 0 is :func:`entropic_plan`

    >>> M = np.array([[0.0, 1.0], [0.0, 1.0], [0.1, 1.0]])
    >>> plan = class_plan(M, np.array([0, 0, 1]), reg=0.1, eta=0.0)
    >>> bool(np.allclose(plan, entropic_plan(M, reg=0.1)))
    True
    """
    M = _shifted(M)
    if M.max() + eta * STEEPEST >= RANGE * reg:
        return _on_logarithms(M, codes, reg=reg, eta=eta)
    members = np.eye(codes.max() + 1)[codes]
    slope, u = np.zeros_like(M), np.full(len(M), 1.0 / len(M))
    for left in reversed(range(MAJORISATIONS)):
        most, close = (INNER, 1e-6) if left else (ITERATIONS, 1e-9)
        K = np.exp((M + eta * slope) / -reg)
        u, v = _scalings(K, u, most=most, close=close)
        K *= u[:, None]
        K *= v
        slope = _slope(members, K)
    return K


def _scalings(K: np.ndarray, u: np.ndarray, *, most: int, close: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Sinkhorn's scalings u (n,) and v (m,) of K (n, m) from a first u on, until a column's mass is off by ``close``; looked at every tenth time.

    POT's iteration without its search of each u and v for what is not finite, which takes as long again on hundreds of cases; ``RANGE`` keeps both finite.
    """
    n, m = K.shape
    for i in range(most):
        v = 1.0 / (m * (u @ K))
        u = 1.0 / (n * (K @ v))
        if i % 10 == 0 and np.linalg.norm(v * (u @ K) - 1.0 / m) < close:
            break
    return u, v


def _on_logarithms(M: np.ndarray, codes: np.ndarray, *, reg: float, eta: float) -> np.ndarray:
    members = np.eye(codes.max() + 1)[codes]
    slope = np.zeros_like(M)
    for _ in range(MAJORISATIONS):
        plan = entropic_plan(M + eta * slope, reg=reg)
        slope = _slope(members, plan)
    return plan


def _slope(members: np.ndarray, plan: np.ndarray) -> np.ndarray:
    """Return (n, m) the slope of the group penalty at a plan, no more than ``STEEPEST``; ``members`` (n, c) is one-hot."""
    slope: np.ndarray = members @ (0.5 * (members.T @ plan + LEAST) ** -0.5)
    return slope


def _shifted(M: np.ndarray) -> np.ndarray:
    """Return costs less a constant on each row and column, which changes no plan; what is left underflows less."""
    M = M - M.min(axis=1, keepdims=True)
    shifted: np.ndarray = M - M.min(axis=0)
    return shifted


class OT(ClassifierMixin, Transported):
    """Classify by a head on source cases moved by exact optimal transport (Courty et al. 2017).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out

    Attributes
    ----------
    plan_, moved_ : (n, m), (n, d)

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> OT().fit(source, labels, source + 100.0).adapt_source(source).ravel().tolist()
    [100.0, 101.0, 108.0, 109.0]
    """

    name: ClassVar[str] = "ot"
    paper: ClassVar[str] = "Courty et al. 2017, Optimal transport for domain adaptation"
    limits: ClassVar[str] = "harms where the classes' shares differ between the domains; n m pairs in memory; fits the target's noise"

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def _plan(self, M: np.ndarray, domains: Domains) -> np.ndarray:
        return exact_plan(M)


class _Entropic(Transported):
    """What both forms share: the weight of the entropy."""

    def __init__(self, estimator: Any = None, *, reg: float = 0.05) -> None:
        self.estimator = estimator
        self.reg = reg


class EntropicOT(ClassifierMixin, _Entropic):
    """Classify by a head on source cases moved by entropic optimal transport (Courty et al. 2017).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    reg : weight of the entropy, in units of the mean cost; 0.05 spreads a case over few others. Large, every case goes to the target's mean

    Attributes
    ----------
    plan_, moved_ : (n, m), (n, d)

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> EntropicOT(reg=0.01).fit(source, labels, source + 100.0).predict([[101.0], [108.0]]).tolist()
    ['a', 'b']
    """

    name: ClassVar[str] = "ot-entropic"
    paper: ClassVar[str] = OT.paper
    limits: ClassVar[str] = "harms where the classes' shares differ between the domains; n m pairs in memory"

    def _plan(self, M: np.ndarray, domains: Domains) -> np.ndarray:
        return entropic_plan(M, reg=self.reg)


class EntropicOTRegressor(RegressorMixin, _Entropic):
    """:class:`EntropicOT` for numbers; labelled target cases join the head's training and do not bind the plan.

    Examples
    --------
    >>> x = np.arange(4.0)[:, None]
    >>> EntropicOTRegressor(reg=0.001).fit(x, x.ravel(), x + 100.0).predict([[102.0]]).round(1).tolist()
    [2.0]
    """

    name: ClassVar[str] = "ot-entropic"
    paper: ClassVar[str] = OT.paper
    limits: ClassVar[str] = "harms where the targets are spread differently in the two domains; n m pairs in memory"

    def _plan(self, M: np.ndarray, domains: Domains) -> np.ndarray:
        return entropic_plan(costs(domains.xs, domains.xt), reg=self.reg)


class ClassOT(ClassifierMixin, Transported):
    """Classify by a head on source cases moved so that a target case gets its mass from one class (Courty et al. 2014, 2017).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    reg : weight of the entropy, in units of the mean cost; as in :class:`EntropicOT`
    eta : weight of the group penalty, likewise; 0.1, POT's default

    Attributes
    ----------
    plan_, moved_ : (n, m), (n, d)

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> ClassOT().fit(source, labels, source + 100.0).predict([[101.0], [108.0]]).tolist()
    ['a', 'b']
    """

    name: ClassVar[str] = "ot-class"
    paper: ClassVar[str] = OT.paper
    limits: ClassVar[str] = "harms where the classes' shares differ between the domains; n m pairs in memory, ten plans' time"

    def __init__(self, estimator: Any = None, *, reg: float = 0.05, eta: float = 0.1) -> None:
        self.estimator = estimator
        self.reg = reg
        self.eta = eta

    def _plan(self, M: np.ndarray, domains: Domains) -> np.ndarray:
        return class_plan(M, codes_of(self.classes_, domains.ys), reg=self.reg, eta=self.eta)
