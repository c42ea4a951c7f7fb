"""Weights of source cases for covariate shift: the labels' law given the features is the same in both domains, the features' law is not.

Estimators on the density ratios of :mod:`headstart.methods.relations.ratios`, for classes and for numbers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from headstart.methods.relations.components import median_gamma
from headstart.methods.relations.door import Domains
from headstart.methods.relations.ratios import chosen, classified, kliep, mean_matching, neighbours
from headstart.methods.relations.relation import Weighted


class _MeanMatching(Weighted):
    def __init__(self, estimator: Any = None, *, gamma: float | None = None, upper: float = 1000.0, slack: float | None = None) -> None:
        self.estimator = estimator
        self.gamma = gamma
        self.upper = upper
        self.slack = slack

    def _weigh(self, domains: Domains) -> np.ndarray:
        xs, xt = domains.xs, domains.xt
        self.gamma_ = median_gamma(domains.both) if self.gamma is None else self.gamma
        slack = 1.0 - 1.0 / np.sqrt(len(xs)) if self.slack is None else self.slack
        return mean_matching(xs, xt, gamma=self.gamma_, upper=self.upper, slack=slack)


class KMM(ClassifierMixin, _MeanMatching):
    """Classify by a head on source cases weighed by kernel mean matching (Huang et al. 2007).

    Parameters
    ----------
    estimator : the head, whose ``fit`` takes weights; ``None``: ridge with leave-one-out, which is then importance-weighted
    gamma : of the kernel exp(-gamma |a - b|^2); ``None``: 1 / (2 median distance^2)
    upper : largest weight before scaling to mean 1; 1,000, as published
    slack : how far the mean weight may lie from 1; ``None``: 1 - 1 / sqrt(n), as published

    Attributes
    ----------
    weights_, effective_, gamma_

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), ["a", "a", "b", "b"]
    >>> KMM(slack=0.0).fit(source, labels, [[1.0], [2.0], [1.0], [2.0]]).weights_.round(1).tolist()
    [0.0, 2.0, 2.0, 0.0]
    """

    name: ClassVar[str] = "kmm"
    paper: ClassVar[str] = "Huang et al. 2007, Correcting sample selection bias by unlabeled data"
    limits: ClassVar[str] = "covariate shift on overlapping domains; costs n^3, so some 5,000 source cases"


class KMMRegressor(RegressorMixin, _MeanMatching):
    """:class:`KMM` for numbers.

    Examples
    --------
    >>> KMMRegressor(slack=0.0).fit([[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0], [[1.0], [2.0], [1.0], [2.0]]).weights_.round(1).tolist()
    [0.0, 2.0, 2.0, 0.0]
    """

    name: ClassVar[str] = "kmm"
    paper: ClassVar[str] = KMM.paper
    limits: ClassVar[str] = KMM.limits


class _Importance(Weighted):
    def __init__(self, estimator: Any = None, *, gamma: float | None = None, n_centres: int = 100, seed: int = 0) -> None:
        self.estimator = estimator
        self.gamma = gamma
        self.n_centres = n_centres
        self.seed = seed

    def _weigh(self, domains: Domains) -> np.ndarray:
        weights, self.gamma_ = kliep(domains.xs, domains.xt, gamma=self.gamma, n_centres=self.n_centres, seed=self.seed)
        return weights


class KLIEP(ClassifierMixin, _Importance):
    """Classify by a head on source cases weighed by the Kullback-Leibler importance estimation procedure (Sugiyama et al. 2008).

    The ratio is a sum of Gaussian kernels on target cases, fitted to be likely for the target. In many dimensions kernels of every width see either nothing or
    everything, and the weights are then poor.

    Parameters
    ----------
    estimator : the head, whose ``fit`` takes weights; ``None``: ridge with leave-one-out, which is then importance-weighted
    gamma : of the kernel; ``None``: of five around the median distance the one that is likeliest for target cases held out
    n_centres : target cases that carry a kernel; 100, as published
    seed : draws the centres and the folds

    Attributes
    ----------
    weights_, effective_, gamma_

    Examples
    --------
    >>> source, labels = np.array([[0.0], [0.1], [5.0], [5.1]]), ["a", "b", "a", "b"]
    >>> KLIEP(gamma=1.0).fit(source, labels, [[0.0], [0.1], [0.0], [0.1]]).weights_.round(1).tolist()
    [2.0, 2.0, 0.0, 0.0]
    """

    name: ClassVar[str] = "kliep"
    paper: ClassVar[str] = "Sugiyama et al. 2008, Direct importance estimation with model selection and its application to covariate shift adaptation"
    limits: ClassVar[str] = "covariate shift on overlapping domains of few dimensions"


class KLIEPRegressor(RegressorMixin, _Importance):
    """:class:`KLIEP` for numbers.

    Examples
    --------
    >>> KLIEPRegressor(gamma=1.0).fit([[0.0], [0.1], [5.0], [5.1]], [0.0, 1.0, 2.0, 3.0], [[0.0], [0.1], [0.0]]).weights_.round(1).tolist()
    [2.0, 2.0, 0.0, 0.0]
    """

    name: ClassVar[str] = "kliep"
    paper: ClassVar[str] = KLIEP.paper
    limits: ClassVar[str] = KLIEP.limits


class _Discriminated(Weighted):
    def __init__(self, estimator: Any = None, *, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def _weigh(self, domains: Domains) -> np.ndarray:
        return classified(domains.xs, domains.xt, seed=self.seed)


class DensityRatio(ClassifierMixin, _Discriminated):
    """Classify by a head on source cases weighed by the odds that a classifier of domains gives them (Bickel et al. 2007).

    Parameters
    ----------
    estimator : the head, whose ``fit`` takes weights; ``None``: ridge with leave-one-out, which is then importance-weighted
    seed : shuffles the folds by which the domain classifier's strength is chosen

    Attributes
    ----------
    weights_, effective_

    Examples
    --------
    >>> x, y = np.arange(20.0)[:, None], np.arange(20) % 2
    >>> weights = DensityRatio().fit(x, y, x + 10.0).weights_
    >>> bool(np.all(np.diff(weights) > 0))
    True
    """

    name: ClassVar[str] = "density-ratio"
    paper: ClassVar[str] = "Bickel et al. 2007, Discriminative learning for differing training and test distributions"
    limits: ClassVar[str] = "covariate shift on overlapping domains; the log ratio is linear in the features"


class DensityRatioRegressor(RegressorMixin, _Discriminated):
    """:class:`DensityRatio` for numbers.

    Examples
    --------
    >>> x = np.arange(20.0)[:, None]
    >>> bool(np.all(np.diff(DensityRatioRegressor().fit(x, x.ravel(), x + 10.0).weights_) > 0))
    True
    """

    name: ClassVar[str] = "density-ratio"
    paper: ClassVar[str] = DensityRatio.paper
    limits: ClassVar[str] = DensityRatio.limits


class _Neighbours(Weighted):
    def __init__(self, estimator: Any = None, *, prior: float = 1.0) -> None:
        self.estimator = estimator
        self.prior = prior

    def _weigh(self, domains: Domains) -> np.ndarray:
        return neighbours(domains.xs, domains.xt, prior=self.prior)


class NearestNeighbourWeights(ClassifierMixin, _Neighbours):
    """Classify by a head on source cases weighed by how many target cases lie nearest to them (Loog 2012).

    Parameters
    ----------
    estimator : the head, whose ``fit`` takes weights; ``None``: ridge with leave-one-out, which is then importance-weighted
    prior : added to every count, so that no source case is lost; 1, as published

    Attributes
    ----------
    weights_, effective_

    Examples
    --------
    >>> NearestNeighbourWeights().fit([[0.0], [10.0]], ["a", "b"], [[1.0], [8.0], [9.0], [9.0]]).weights_.round(2).tolist()  # 1 + 1 and 3 + 1
    [0.67, 1.33]
    """

    name: ClassVar[str] = "nn-weights"
    paper: ClassVar[str] = "Loog 2012, Nearest neighbor-based importance weighting"
    limits: ClassVar[str] = "covariate shift; distances are those of the features as they come"


class NearestNeighbourRegressor(RegressorMixin, _Neighbours):
    """:class:`NearestNeighbourWeights` for numbers.

    Examples
    --------
    >>> NearestNeighbourRegressor().fit([[0.0], [10.0]], [1.0, 2.0], [[1.0], [8.0], [9.0], [9.0]]).weights_.round(2).tolist()
    [0.67, 1.33]
    """

    name: ClassVar[str] = "nn-weights"
    paper: ClassVar[str] = NearestNeighbourWeights.paper
    limits: ClassVar[str] = NearestNeighbourWeights.limits


class InstanceSelection(ClassifierMixin, Weighted):
    """Classify by a head on those source cases that are among the k nearest of a target case (Turhan et al. 2009).

    Parameters
    ----------
    estimator : the head, whose ``fit`` takes weights; ``None``: ridge with leave-one-out
    k : nearest source cases that each target case selects; 10, as published

    Attributes
    ----------
    selected_ : (n,) whether a source case was; of each class at least the nearest
    weights_, effective_ : the same as weights

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [2.0], [50.0]]), ["a", "a", "b", "b"]
    >>> InstanceSelection(k=1).fit(source, labels, [[0.2], [1.9]]).selected_.tolist()
    [True, False, True, False]
    """

    name: ClassVar[str] = "selection"
    paper: ClassVar[str] = "Turhan et al. 2009, On the relative value of cross-company and within-company data for defect prediction"
    limits: ClassVar[str] = "keeps the source's cases where the target is; distances are those of the features as they come"

    def __init__(self, estimator: Any = None, *, k: int = 10) -> None:
        self.estimator = estimator
        self.k = k

    def _weigh(self, domains: Domains) -> np.ndarray:
        self.selected_ = chosen(domains.xs, domains.xt, k=self.k, classes=np.unique(domains.ys, return_inverse=True)[1])
        return self.selected_.astype(np.float64)
