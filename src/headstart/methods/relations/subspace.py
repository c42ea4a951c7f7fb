"""Alignment of principal subspaces: subspace alignment (Fernando et al. 2013) and the geodesic flow kernel (Gong et al. 2012)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.linalg import svd
from sklearn.base import ClassifierMixin

from headstart.core import InputError
from headstart.methods.relations.door import Domains
from headstart.methods.relations.gaussian import principal
from headstart.methods.relations.relation import Mapped

FAINT = 1e-5  # of the largest variance: a direction with less comes from an SVD, for a product of the cases with themselves squares its rounding
PARALLEL = 1e-9  # sine below which a principal direction of one domain counts as one of the other


def principal_directions(x: np.ndarray, k: int) -> np.ndarray:
    """Return (d, k') orthonormal directions of the largest variance of x (n, d), k' the smaller of k and the rank of the centred x.

    >>> principal_directions(np.array([[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]]), 2).round(6).tolist()  # the second does not exist
    [[1.0], [0.0]]
    """
    centred = x - x.mean(axis=0)
    values, rising = principal(centred, most=k)
    V = rising[:, ::-1]
    if len(values) < k or values[0] < FAINT * values[-1]:
        _, s, Vt = svd(centred, full_matrices=False)
        rank = int(np.sum(s > s.max(initial=0.0) * max(x.shape) * np.finfo(float).eps))
        V = Vt[: min(k, rank)].T
    signs = np.sign(V[np.abs(V).argmax(axis=0), np.arange(V.shape[1])])  # why: LAPACK's signs depend on the order of the rows
    directions: np.ndarray = V * signs
    return directions


def geodesic_factor(Ps: np.ndarray, Pt: np.ndarray) -> np.ndarray:
    """Return F (d, r) with F F' = the integral over t in 0..1 of Phi(t) Phi(t)', Phi the geodesic from span Ps to span Pt (Gong et al. 2012, eq. 5-6).

    For each principal angle theta the flow turns in the plane of a source direction u and the part v of its partner that is orthogonal to the source:
    Phi(t) = cos(t theta) u + sin(t theta) v, whose integral is a 2 x 2 block with the closed form below; F holds the root of each block.

    Parameters
    ----------
    Ps, Pt : (d, k) orthonormal columns

    >>> F = geodesic_factor(np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]))  # a quarter turn: means of cos^2, sin^2 are 1/2, of cos sin 1/pi
    >>> (F @ F.T).round(4).tolist()
    [[0.5, 0.3183], [0.3183, 0.5]]
    """
    U, cosine, Vt = svd(Ps.T @ Pt)
    u = Ps @ U
    partner = Pt @ Vt.T
    across = partner - u * cosine
    sine = np.linalg.norm(across, axis=0)
    theta = np.arctan2(sine, cosine)  # why: arccos loses half the digits near 0, where most angles lie
    turning = sine > PARALLEL
    v = across[:, turning] / sine[turning]
    u, still, theta = u[:, turning], u[:, ~turning], theta[turning]
    swing = np.sin(2.0 * theta) / (2.0 * theta)
    a, b, c = (1.0 + swing) / 2.0, np.sin(theta) ** 2 / (2.0 * theta), (1.0 - swing) / 2.0
    # root of [[a, b], [b, c]], by Cayley-Hamilton: (M + sqrt(det) I) / sqrt(trace + 2 sqrt(det)), and trace is 1
    det = np.sqrt(np.maximum(a * c - b * b, 0.0))
    norm = np.sqrt(1.0 + 2.0 * det)
    first, second = (u * (a + det) + v * b) / norm, (u * b + v * (c + det)) / norm
    factor: np.ndarray = np.hstack([still, first, second])
    return factor


class SubspaceAlignment(ClassifierMixin, Mapped):
    """Classify by a head on source cases in the source's principal subspace, turned towards the target's (Fernando et al. 2013).

    Source cases become x P_s (P_s' P_t), target cases x P_t, after each domain was centred; the paper's z-scoring is left to the user, for the heads of this
    package do it.

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    n_components : dimensions of both subspaces, fewer where n - 1, m - 1 or d is smaller. 200: the paper bounds it by 20 to 100 on its data sets, but with 50,
        100, 200 and 299 fourteen pairs of real domains had 55.9, 60.6, 61.2 and 61.3 % right (LOG.md)

    Attributes
    ----------
    source_, target_ : (d, k) the two maps
    means_ : the two domains' means (d,)

    Examples
    --------
    >>> source, labels = np.array([[0.0, 0.0], [1.0, 0.0], [8.0, 0.0], [9.0, 0.0]]), ["a", "a", "b", "b"]
    >>> turned = source @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + 5.0
    >>> SubspaceAlignment().fit(source, labels, turned).predict(turned).tolist()
    ['a', 'a', 'b', 'b']
    """

    name: ClassVar[str] = "subspace-alignment"
    paper: ClassVar[str] = "Fernando et al. 2013, Unsupervised visual domain adaptation using subspace alignment"
    gives_components: ClassVar[bool] = True
    limits: ClassVar[str] = "spreads along the directions are not made equal; a turn by more than a right angle is undone the wrong way round"

    def __init__(self, estimator: Any = None, *, n_components: int = 200) -> None:
        self.estimator = estimator
        self.n_components = n_components

    def _align(self, domains: Domains) -> None:
        Ps, Pt = two_subspaces(domains, self.n_components)
        self.means_ = domains.xs.mean(axis=0), domains.xt.mean(axis=0)
        self.source_, self.target_ = Ps @ (Ps.T @ Pt), Pt

    def _source(self, X: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (X - self.means_[0]) @ self.source_
        return moved

    def _seen(self, X: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (X - self.means_[1]) @ self.target_
        return moved


class GFK(ClassifierMixin, Mapped):
    """Classify by a head in the feature space of the geodesic flow kernel (Gong et al. 2012).

    All subspaces on the geodesic between the two principal subspaces count alike; their projections' inner products integrate to x' G z, in closed form.
    Cases become x G^(1/2), so that the nearest neighbour under G is the nearest in Euclidean distance.

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    n_components : dimensions of both subspaces, fewer where n - 1, m - 1 or d is smaller. 20, as in the authors' demonstration

    Attributes
    ----------
    basis_, root_ : (d, r), (r,) with G^(1/2) = basis diag(root) basis'

    Examples
    --------
    >>> source, labels = np.array([[0.0, 0.0], [1.0, 0.0], [8.0, 0.0], [9.0, 0.0]]), ["a", "a", "b", "b"]
    >>> turned = source @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    >>> GFK().fit(source, labels, turned).predict(turned).tolist()
    ['a', 'a', 'b', 'b']
    """

    name: ClassVar[str] = "gfk"
    paper: ClassVar[str] = "Gong et al. 2012, Geodesic flow kernel for unsupervised domain adaptation"
    limits: ClassVar[str] = "sees subspaces only, neither means nor spreads; one map for both domains"

    def __init__(self, estimator: Any = None, *, n_components: int = 20) -> None:
        self.estimator = estimator
        self.n_components = n_components

    def _align(self, domains: Domains) -> None:
        # why the symmetric root: F is unique up to a turn only, and heads that scale features would see which one LAPACK took
        V, root, _ = svd(geodesic_factor(*two_subspaces(domains, self.n_components)), full_matrices=False)
        self.basis_, self.root_ = V, root

    def _source(self, X: np.ndarray) -> np.ndarray:
        moved: np.ndarray = (X @ self.basis_ * self.root_) @ self.basis_.T
        return moved

    def _seen(self, X: np.ndarray) -> np.ndarray:
        return self._source(X)


def two_subspaces(domains: Domains, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return principal directions (d, k') of source and target, equally many.

    Raises
    ------
    InputError
        a domain whose cases are all equal.
    """
    Ps, Pt = principal_directions(domains.xs, k), principal_directions(domains.xt, k)
    k = min(Ps.shape[1], Pt.shape[1])
    if k == 0:
        raise InputError("All cases of one domain are equal, so it has no principal direction. Give cases that vary.")
    return Ps[:, :k], Pt[:, :k]
