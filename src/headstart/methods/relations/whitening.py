"""The eigenproblem behind TCA, JDA and their kin, solved once for all of them in coordinates where its constraint is the identity.

They all seek directions A that keep variance and bring weighted means of cases together: minimise tr(A' (X' M X + lambda I) A) under A' X' H X A = I,
H the centring. Every M here is E E' or E E' - R R' with few columns. With H X = U s V', the unknown is an orthonormal Q in A = W Q, W = V / s:

    (W' X' M X W + lambda W' W) Q = Q phi.

X is decomposed once for all steps, and directions in which no case varies are left out. Where there is one step, and nothing is to be kept apart,
:func:`leading` needs one decomposition in place of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svd

from headstart.core import InputError

ALL_EQUAL = "All cases of both domains are equal, so there is no direction to keep. Give cases that vary."
MOST = 100  # directions, where none are asked for
NOTHING = 1e-10  # of the largest eigenvalue of X'HX (1e-5 of the largest deviation); what lies below is rounding


@dataclass(frozen=True)
class Whitened:
    """Cases in coordinates that have the identity as scatter.

    Parameters
    ----------
    W : (d, r) the map into those coordinates
    spread : (r,) square roots of the scatter's eigenvalues: the deviation of X along each, times sqrt(n)
    length : mean squared length of a case: the unit of ``ridge``
    Z : (n, r) cases in those coordinates, not centred: the columns of E need not sum to 0
    """

    W: np.ndarray
    spread: np.ndarray
    length: float
    Z: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray) -> Whitened:
        """Decompose X (n, d); costs n d min(n, d).

        Raises
        ------
        InputError
            all cases are equal.
        """
        centred = X - X.mean(axis=0)
        # why products: their rounding is a 1e-16th of the largest eigenvalue, far below NOTHING, and an SVD takes several times as long
        wide = X.shape[1] > X.shape[0]
        values, vectors = eigh(centred @ centred.T if wide else centred.T @ centred, driver="evd")
        live = values > NOTHING * max(values[-1], 0.0)
        if not live.any():
            raise InputError(ALL_EQUAL)
        s, V = np.sqrt(values[live]), vectors[:, live]
        V = centred.T @ V / s if wide else V
        W = V / s
        return cls(W, s, float(np.square(X).sum(axis=1).mean()), X @ W)

    def directions(self, pull: np.ndarray, *, ridge: float, k: int | None, push: np.ndarray | None = None) -> np.ndarray:
        """Return A (d, k'): for M = E E' - R R' the k directions of least cost, each of unit length, the best first.

        Unit length is what the published code of JDA and TCA works with, and its published numbers rest on it; A' X' H X A = I differs by a factor for each
        direction, which gives the directions of little variance the same weight as those of much and loses half of the accuracy.

        Parameters
        ----------
        pull : E (n, p): differences between weighted means, brought together
        ridge : lambda, positive: the price of a direction's length, for cases of unit length; others pay in proportion to their mean squared length
        k : how many directions, no more than the rank; ``None``: 100, or half of the rank where that is less
        push : R (n, q), such differences to be kept apart
        """
        F = self.Z.T @ pull
        cost = F @ F.T + ridge * self.length * np.diag(self.spread**-2.0)
        if push is not None:
            G = self.Z.T @ push
            cost -= G @ G.T
        _, Q = eigh(cost, subset_by_index=[0, _count(k, len(self.spread)) - 1])
        return _of_unit_length(self.W @ Q)


def leading(X: np.ndarray, pull: np.ndarray, *, ridge: float, k: int | None) -> np.ndarray:
    """Return what ``Whitened.of(X).directions(pull, ridge=ridge, k=k)`` does, without a whitening: one decomposition, and exact for faint directions.

    The columns of ``pull`` must sum to 0, as those of :func:`marginal` do.
    With N = X' E E' X + lambda I, whose inverse and root are those of the identity but for few columns, A = N^(-1/2) Q for the leading eigenvectors Q of
    N^(-1/2) X' H X N^(-1/2), or where n < d A = N^(-1) X' H U for those of H X N^(-1) X' H.

    Raises
    ------
    InputError
        all cases are equal.
    """
    centred = X - X.mean(axis=0)
    price = ridge * float(np.einsum("ij,ij->", X, X)) / len(X)
    F, size, _ = svd(centred.T @ pull, full_matrices=False)
    if X.shape[1] > X.shape[0]:
        C = centred @ F
        C *= size / np.sqrt(price + size**2)  # N^(-1) = (I - F s^2 / (lambda + s^2) F') / lambda
        values, Q = eigh(centred @ centred.T - C @ C.T, driver="evd", overwrite_a=True, check_finite=False)
        Q = Q[:, _last(values, k)]
        return _of_unit_length(centred.T @ Q - F @ ((size / np.sqrt(price + size**2))[:, None] * (C.T @ Q)))
    less = 1.0 - np.sqrt(price / (price + size**2))  # N^(-1/2) = (I - F less F') / sqrt(lambda)
    narrow = centred - (centred @ F * less) @ F.T
    values, Q = eigh(narrow.T @ narrow, driver="evd", overwrite_a=True, check_finite=False)
    Q = Q[:, _last(values, k)]
    return _of_unit_length(Q - F @ (less[:, None] * (F.T @ Q)))


def _last(values: np.ndarray, k: int | None) -> np.ndarray:
    """Return the places of the largest eigenvalues, the largest first."""
    rank = int(np.count_nonzero(values > NOTHING * max(values[-1], 0.0)))
    if rank == 0:
        raise InputError(ALL_EQUAL)
    return len(values) - 1 - np.arange(_count(k, rank))


def _count(k: int | None, rank: int) -> int:
    return min(MOST, (rank + 1) // 2) if k is None else min(k, rank)


def _of_unit_length(A: np.ndarray) -> np.ndarray:
    """Return the columns of A at length 1, the largest entry of each positive."""
    A = A / np.linalg.norm(A, axis=0)
    directions: np.ndarray = A * np.sign(A[np.abs(A).argmax(axis=0), np.arange(A.shape[1])])
    return directions


def marginal(n: int, m: int) -> np.ndarray:
    """Return (n + m,) weights whose inner product with the cases is the source's mean less the target's.

    >>> marginal(2, 1).tolist()
    [0.5, 0.5, -1.0]
    """
    return np.concatenate([np.full(n, 1.0 / n), np.full(m, -1.0 / m)])


def conditional(source: np.ndarray, target: np.ndarray, c: int) -> np.ndarray:
    """Return (n + m, c) weights: of each class the source's mean less the target's; 0 for a class that one of the domains lacks.

    >>> conditional(np.array([0, 0, 1]), np.array([0]), 2).tolist()
    [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0], [-1.0, 0.0]]
    """
    S, T = np.eye(c)[source], np.eye(c)[target]
    ns, nt = S.sum(axis=0), T.sum(axis=0)
    shared = (ns > 0) & (nt > 0)
    S, T = S * (shared / np.maximum(ns, 1.0)), T * (shared / np.maximum(nt, 1.0))
    return np.vstack([S, 0.0 - T])  # why 0.0: no negative zeros


def of_unit_norm(pull: np.ndarray) -> np.ndarray:
    """Return E / |E E'|_F^(1/2), from the small product E'E, which has the same norm.

    >>> E = of_unit_norm(np.array([[3.0, 0.0], [0.0, 1.0]]))
    >>> round(float(np.linalg.norm(E @ E.T)), 6)
    1.0
    """
    scaled: np.ndarray = pull / np.sqrt(np.linalg.norm(pull.T @ pull))
    return scaled
