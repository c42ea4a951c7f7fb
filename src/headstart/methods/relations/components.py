"""Components that both domains share: transfer component analysis (Pan et al. 2011), and what its kin in :mod:`headstart.methods.relations.joint` have of it.

Published numbers are those of the linear form on features, and of directions of unit length; see :mod:`headstart.methods.relations.whitening`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.base import ClassifierMixin
from sklearn.metrics.pairwise import rbf_kernel

from headstart.core import InputError
from headstart.methods.relations.door import Domains
from headstart.methods.relations.relation import Mapped
from headstart.methods.relations.whitening import leading, marginal, of_unit_norm

NEAR = 1e-4  # squared distance of two cases over their squared lengths, below which a product of the cases loses digits of it
MANY = 2  # such pairs, for each case
MEDIAN_OF = 1000  # cases, evenly spaced, whose pairs give the median distance


def median_gamma(X: np.ndarray) -> float:
    """Return 1 / (2 median^2) of the distances between cases of X that differ: the usual width of a Gaussian kernel.

    >>> median_gamma(np.array([[0.0], [1.0], [3.0]]))  # distances 1, 2 and 3
    0.125
    """
    rows = np.unique(np.linspace(0, len(X) - 1, min(len(X), MEDIAN_OF)).astype(int))
    apart = _apart(X[rows])
    apart = apart[apart > 0]
    if len(apart) == 0:
        raise InputError("All cases are equal, so no distance between two of them can serve as a width. Give cases that vary.")
    return float(1.0 / (2.0 * np.median(apart)))


def _apart(X: np.ndarray) -> np.ndarray:
    """Return the squared distances (n (n - 1) / 2,) of all pairs, each exact to 1e-12 of itself, by one product: a tenth of the time of pair after pair.

    Pairs so near that the product's rounding shows are measured one by one, so that equal cases are 0 apart; where they are many, all are.
    """
    Z = X - X.mean(axis=0)
    square = np.einsum("ij,ij->i", Z, Z)
    apart = Z @ Z.T
    apart *= -2.0
    apart += square[:, None]
    apart += square
    pairs: np.ndarray = squareform(apart, checks=False)
    if pairs.min(initial=np.inf) >= 2.0 * NEAR * square.max(initial=0.0):
        return pairs
    one, other = np.triu_indices(len(X), 1)
    near = np.flatnonzero(pairs < NEAR * (square[one] + square[other]))
    if len(near) > MANY * len(X):
        return np.asarray(pdist(X, "sqeuclidean"))
    pairs[near] = np.square(X[one[near]] - X[other[near]]).sum(axis=1)
    return pairs


class Components(Mapped):
    """The interface of maps into shared components: one matrix for both domains, learnt by :meth:`_align`.

    Attributes
    ----------
    components_ : (d, k) the map, of unit length in each column; with a Gaussian kernel (n + m, k), on kernel values with the training cases
    """

    gives_components: ClassVar[bool] = True

    kernel: str
    gamma: float | None
    unit: bool

    def _lifted(self, domains: Domains) -> np.ndarray:
        """Return what directions are sought in: the features, or kernel values with every training case."""
        if self.kernel == "linear":
            return domains.both
        if self.kernel != "rbf":
            raise InputError(f"There is no kernel {self.kernel!r}. Say 'linear' or 'rbf'.")
        self.cases_ = domains.both
        self.gamma_ = median_gamma(self.cases_) if self.gamma is None else self.gamma
        lifted: np.ndarray = rbf_kernel(self.cases_, gamma=self.gamma_)
        return lifted

    def _place(self, lifted: np.ndarray) -> np.ndarray:
        placed: np.ndarray = lifted @ self.components_
        if self.unit:
            lengths = np.linalg.norm(placed, axis=1, keepdims=True)
            placed = placed / np.where(lengths > 0, lengths, 1.0)
        return placed

    def _source(self, X: np.ndarray) -> np.ndarray:
        return self._place(X if self.kernel == "linear" else rbf_kernel(X, self.cases_, gamma=self.gamma_))

    def _seen(self, X: np.ndarray) -> np.ndarray:
        return self._source(X)


class TCA(ClassifierMixin, Components):
    """Classify by a head on the components that bring the domains' means together and keep variance (Pan et al. 2011).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    n_components : how many, no more than the rank. ``None``: 100, as in Long et al. 2013, but at most half of the rank, for all of them on few cases put every
        case equally far from every other
    ridge : price of a direction's length; 0.1, as published for cases of unit length. Those of others are taken into account, so that it has no unit
    kernel : "linear" (the published numbers) or "rbf", which costs (n + m)^3
    gamma : of exp(-gamma |a - b|^2); ``None``: 1 / (2 median distance^2)
    unit : scale each case to unit length in the end, as JDA does; the published numbers of TCA are without

    Attributes
    ----------
    components_ : (d, k), or (n + m, k) with a Gaussian kernel

    Examples
    --------
    >>> source, labels = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 8.0], [0.0, 9.0]]), ["a", "a", "b", "b"]
    >>> model = TCA(n_components=1).fit(source, labels, source + [5.0, 0.0])  # the first feature tells the domains apart, the second the classes
    >>> abs(model.components_.ravel()).round(2).tolist(), model.predict([[5.0, 7.0]]).tolist()
    ([0.0, 1.0], ['b'])
    """

    name: ClassVar[str] = "tca"
    paper: ClassVar[str] = "Pan et al. 2011, Domain adaptation via transfer component analysis"
    limits: ClassVar[str] = "makes means equal, and not those of classes; ridge and components are not chosen by it"

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_components: int | None = None,
        ridge: float = 0.1,
        kernel: str = "linear",
        gamma: float | None = None,
        unit: bool = False,
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.ridge = ridge
        self.kernel = kernel
        self.gamma = gamma
        self.unit = unit

    def _align(self, domains: Domains) -> None:
        pull = of_unit_norm(marginal(len(domains.xs), len(domains.xt))[:, None])
        self.components_ = leading(self._lifted(domains), pull, ridge=self.ridge, k=self.n_components)
