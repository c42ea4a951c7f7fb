"""Alignment of two Gaussians: correlation alignment (Sun et al. 2016) and the linear optimal transport between them.

Both move source cases so that they have the target's mean and covariance. Many maps do; CORAL whitens and colours again, optimal transport moves least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import eigh, qr, svd
from sklearn.base import ClassifierMixin, RegressorMixin

from headstart.channels import is_dead
from headstart.methods.relations.door import Domains
from headstart.methods.relations.relation import Mapped

NOTHING = 1e-12  # of the largest eigenvalue; what lies below is rounding


@dataclass(frozen=True)
class Covariance:
    """A covariance plus ``reg`` times the identity, by its eigenvectors: its powers act on rows without a (d, d) matrix where n < d.

    Parameters
    ----------
    values : (r,) eigenvalues of the covariance, positive
    vectors : (d, r)
    reg : added to every eigenvalue, 0 or more
    """

    values: np.ndarray
    vectors: np.ndarray
    reg: float

    @classmethod
    def of(cls, x: np.ndarray, *, reg: float, ddof: int) -> Covariance:
        """Decompose the covariance of x (n, d), which divides by n - ddof."""
        centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - ddof)
        if len(x) < x.shape[1]:
            _, s, Vt = svd(centred, full_matrices=False)
            values, vectors = s**2, Vt.T
        else:
            values, vectors = eigh(centred.T @ centred)
        live = values > NOTHING * values.max(initial=0.0)
        return cls(values[live], vectors[:, live], reg)

    def power(self, x: np.ndarray, exponent: float) -> np.ndarray:
        """Return the rows of x (n, d) times (C + reg I)^exponent; without ``reg``, of the pseudo-inverse where negative (Sun et al. 2016, theorem 1)."""
        outside = self.reg**exponent if self.reg > 0 else 0.0
        along = (x @ self.vectors) * ((self.values + self.reg) ** exponent - outside)
        out: np.ndarray = along @ self.vectors.T + outside * x
        return out


@dataclass(frozen=True)
class Coral:
    """The map of :func:`coral`, applied to rows by calling it."""

    source: Covariance
    target: Covariance
    means: tuple[np.ndarray, np.ndarray]
    scales: tuple[np.ndarray, np.ndarray]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = self.target.power(self.source.power((x - self.means[0]) / self.scales[0], -0.5), 0.5)
        moved: np.ndarray = z * self.scales[1] + self.means[1]
        return moved


def coral(xs: np.ndarray, xt: np.ndarray, *, reg: float = 1.0, scale: bool = True) -> Coral:
    """Return the map x -> m_t + (x - m_s) (C_s + reg I)^(-1/2) (C_t + reg I)^(1/2) (Sun et al. 2016, alg. 1), covariances dividing by n - 1.

    With ``scale`` each domain's features are first divided by their deviations, as in the paper, so that ``reg`` is in units of a variance of 1. The paper
    leaves the means at 0 after z-scoring both domains; here the target keeps its place and the source is moved to it, which is the same up to a shift.

    >>> coral(np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]]), reg=0.0)(np.array([[0.0], [1.0]])).ravel().tolist()
    [5.0, 7.0]
    """
    means = xs.mean(axis=0), xt.mean(axis=0)
    scales = (_deviation(xs), _deviation(xt)) if scale else (np.ones(xs.shape[1]), np.ones(xs.shape[1]))
    source, target = (Covariance.of(x / s, reg=reg, ddof=1) for x, s in zip((xs, xt), scales, strict=True))
    return Coral(source, target, means, scales)


def monge(xs: np.ndarray, xt: np.ndarray, *, reg: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Return A (d, d), symmetric, and b (d,): x A + b is the optimal transport between the Gaussians with the samples' moments.

    A = C_s^(-1/2) (C_s^(1/2) C_t C_s^(1/2))^(1/2) C_s^(-1/2) (Peyré & Cuturi 2019, remark 2.31), covariances dividing by n, plus ``reg`` times
    their mean variance on each diagonal, so that ``reg`` has no unit.

    >>> A, b = monge(np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]]))  # deviations 1 and 2
    >>> A.round(5).tolist(), b.round(5).tolist()
    ([[2.0]], [5.0])
    """
    means = xs.mean(axis=0), xt.mean(axis=0)
    zs, zt = (x - m for x, m in zip((xs, xt), means, strict=True))
    d, few = xs.shape[1], len(xs) + len(xt) < xs.shape[1]
    # why: outside what the cases of both domains span, covariances are their ridges alone, and (n + m)^3 is far less than d^3
    basis = qr(np.vstack([zs, zt]).T, mode="economic")[0] if few else None
    Cs, Ct = ((z @ basis).T @ (z @ basis) / len(z) if few else z.T @ z / len(z) for z in (zs, zt))
    # why tiny: where nothing varies, or no ridge was wanted, only the directions in which the source moves are mapped
    ridges = [max(reg * np.trace(C) / d, np.finfo(float).tiny) for C in (Cs, Ct)]
    for C, ridge in zip((Cs, Ct), ridges, strict=True):
        C[np.diag_indices_from(C)] += ridge
    A = transport_matrix(Cs, Ct)
    if basis is not None:
        outside = np.sqrt(ridges[1] / ridges[0])
        A = basis @ (A - outside * np.eye(len(A))) @ basis.T
        A[np.diag_indices_from(A)] += outside
    return A, means[1] - means[0] @ A


def transport_matrix(Cs: np.ndarray, Ct: np.ndarray) -> np.ndarray:
    """Return the A of :func:`monge` for two covariances (d, d) of full rank."""
    values, V = eigh(Cs)
    root = np.sqrt(np.maximum(values, NOTHING * values[-1]))
    half, back = (V * root) @ V.T, (V / root) @ V.T
    inner, W = eigh(half @ Ct @ half)
    A = back @ ((W * np.sqrt(np.maximum(inner, 0.0))) @ W.T) @ back
    symmetric: np.ndarray = (A + A.T) / 2.0
    return symmetric


def _deviation(x: np.ndarray) -> np.ndarray:
    deviation = x.std(axis=0, ddof=1)
    scale: np.ndarray = np.where(is_dead(deviation) | (deviation == 0.0), 1.0, deviation)
    return scale


class _CORAL(Mapped):
    """What both forms share: the map, and its settings."""

    def __init__(self, estimator: Any = None, *, reg: float = 1.0, scale: bool = True) -> None:
        self.estimator = estimator
        self.reg = reg
        self.scale = scale

    def _align(self, domains: Domains) -> None:
        self.map_ = coral(domains.xs, domains.xt, reg=self.reg, scale=self.scale)

    def _source(self, X: np.ndarray) -> np.ndarray:
        moved: np.ndarray = self.map_(X)
        return moved


class CORAL(ClassifierMixin, _CORAL):
    """Classify the target by a head on source cases whose covariance was made the target's (Sun, Feng & Saenko 2016).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    reg : ridge on both covariances. 1, as in the paper, of features with deviation 1; 0 makes the covariances equal exactly where n > d
    scale : divide each domain's features by their deviations first, as in the paper. Without it ``reg`` is in the square of the features' unit

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> CORAL().fit(source, labels, 100.0 + 10.0 * source).predict([[105.0], [185.0]]).tolist()
    ['a', 'b']
    """

    name: ClassVar[str] = "coral"
    paper: ClassVar[str] = "Sun et al. 2016, Return of frustratingly easy domain adaptation"
    limits: ClassVar[str] = "linear; harms where the classes' shares differ between the domains, for means and covariances follow them"


class CORALRegressor(RegressorMixin, _CORAL):
    """:class:`CORAL` for numbers.

    Examples
    --------
    >>> x = np.arange(6.0)[:, None]
    >>> CORALRegressor(scale=False, reg=0.0).fit(x, 3.0 * x.ravel(), 100.0 + 10.0 * x).predict([[120.0]]).round(2).tolist()
    [6.0]
    """

    name: ClassVar[str] = "coral"
    paper: ClassVar[str] = CORAL.paper
    limits: ClassVar[str] = "linear; harms where the targets are spread differently in the two domains"


class LinearOT(ClassifierMixin, Mapped):
    """Classify the target by a head on source cases moved by the optimal transport between the two Gaussians (Flamary et al. 2019).

    Parameters
    ----------
    estimator : the head; ``None``: ridge with leave-one-out
    reg : ridge on each covariance, as a share of its mean variance; needed where n is at most d

    Attributes
    ----------
    A_, b_ : (d, d), (d,) a source case x is moved to x A + b

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> LinearOT().fit(source, labels, 100.0 + 10.0 * source).A_.round(3).tolist()
    [[10.0]]
    """

    name: ClassVar[str] = "ot-linear"
    paper: ClassVar[str] = "Flamary et al. 2019, Concentration bounds for linear Monge mapping estimation and optimal transport domain adaptation"
    limits: ClassVar[str] = "linear, costs d^3; harms where the classes' shares differ between the domains, for means and covariances follow them"

    def __init__(self, estimator: Any = None, *, reg: float = 1e-3) -> None:
        self.estimator = estimator
        self.reg = reg

    def _align(self, domains: Domains) -> None:
        self.A_, self.b_ = monge(domains.xs, domains.xt, reg=self.reg)

    def _source(self, X: np.ndarray) -> np.ndarray:
        moved: np.ndarray = X @ self.A_ + self.b_
        return moved
