"""Labels that spread from source to target along a graph of near cases (Zhou et al. 2004), then a head on the target's cases."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import splu
from sklearn.base import ClassifierMixin
from sklearn.neighbors import NearestNeighbors

from headstart.methods.relations.door import Domains, codes_of, fit_head
from headstart.methods.relations.relation import Relation


def neighbour_graph(X: np.ndarray, k: int) -> csr_array:
    """Return symmetric affinities (n, n): exp(-|a - b|^2 / (2 width^2)) where one is among the other's k nearest, width the median of those distances.

    >>> neighbour_graph(np.array([[0.0], [1.0], [2.0]]), 1).toarray().round(4).tolist()  # all at the width: exp(-1/2)
    [[0.0, 0.6065, 0.0], [0.6065, 0.0, 0.6065], [0.0, 0.6065, 0.0]]
    """
    n, k = len(X), min(k, len(X) - 1)
    far, near = NearestNeighbors(n_neighbors=k).fit(X).kneighbors()
    apart = far[far > 0]
    width = float(np.median(apart)) if len(apart) else 1.0
    W = csr_array((np.exp(-np.square(far / width).ravel() / 2.0), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return csr_array(W.maximum(W.T))


def spread(W: csr_array, Y: np.ndarray, *, alpha: float) -> np.ndarray:
    """Return (1 - alpha) (I - alpha D^(-1/2) W D^(-1/2))^(-1) Y, (n, c): where labels Y come to rest (Zhou et al. 2004, eq. 4).

    >>> spread(csr_array(np.array([[0.0, 1.0], [1.0, 0.0]])), np.array([[1.0], [0.0]]), alpha=0.5).round(4).tolist()  # 0.5 / 0.75 and half of that
    [[0.6667], [0.3333]]
    """
    root = diags_array(1.0 / np.sqrt(np.maximum(W.sum(axis=1), np.finfo(float).tiny)))
    system = eye_array(len(Y)) - alpha * (root @ W @ root)
    rested: np.ndarray = (1.0 - alpha) * splu(system.tocsc()).solve(Y)
    return rested


class LabelPropagation(ClassifierMixin, Relation):
    """Classify the target by a head on its own cases, with the labels that reach them along near cases of both domains (Zhou et al. 2004).

    Each class starts with the same mass in all, spread over its labelled cases. A target case that no label reaches joins no training.

    Parameters
    ----------
    estimator : the head, trained on target cases and the labels that came to rest there; ``None``: ridge with leave-one-out
    k : neighbours in the graph of both domains, 10
    alpha : share of a case's label that it takes from its neighbours; 0.99, as published

    Attributes
    ----------
    pseudo_labels_ : (m,) the labels that reached the target cases, known ones as given
    confidence_ : (m,) share of the largest in all that reached a case, 0 where none did

    Examples
    --------
    >>> source, labels = np.array([[0.0], [9.0]]), ["a", "b"]
    >>> LabelPropagation(k=1).fit(source, labels, [[1.0], [2.1], [3.3], [8.0], [6.9], [5.7]]).pseudo_labels_.tolist()
    ['a', 'a', 'a', 'b', 'b', 'b']
    """

    name: ClassVar[str] = "propagation"
    paper: ClassVar[str] = "Zhou et al. 2004, Learning with local and global consistency"
    limits: ClassVar[str] = "the domains must touch; classes must be clusters; distances are those of the features as they come"

    def __init__(self, estimator: Any = None, *, k: int = 10, alpha: float = 0.99) -> None:
        self.estimator = estimator
        self.k = k
        self.alpha = alpha

    def _learn(self, domains: Domains) -> None:
        n, c = len(domains.xs), len(self.classes_)
        Y = np.zeros((n + len(domains.xt), c))
        Y[:n] = np.eye(c)[codes_of(self.classes_, domains.ys)]
        Y[n:][domains.known] = np.eye(c)[codes_of(self.classes_, domains.yt)]
        mass = spread(neighbour_graph(domains.both, self.k), Y / Y.sum(axis=0), alpha=self.alpha)[n:]
        total = mass.sum(axis=1)
        reached = total > np.finfo(float).eps * Y.sum()
        self.confidence_ = np.where(reached, mass.max(axis=1) / np.where(reached, total, 1.0), 0.0)
        self.pseudo_labels_ = self.classes_[mass.argmax(axis=1)]
        self.pseudo_labels_[domains.known] = domains.yt
        use = reached | domains.known
        if len(np.unique(self.pseudo_labels_[use])) < 2:  # why: a head needs two classes; the source has them
            self.head_ = fit_head(self.final(), np.vstack([domains.xs, domains.xt[use]]), np.concatenate([domains.ys, self.pseudo_labels_[use]]))
            return
        self.head_ = fit_head(self.final(), domains.xt[use], self.pseudo_labels_[use])
