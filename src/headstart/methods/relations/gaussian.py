"""Alignment of two Gaussians: correlation alignment (Sun et al. 2016) and the linear optimal transport between them.

Both move source cases so that they have the target's mean and covariance. Many maps do; CORAL whitens and colours again, optimal transport moves least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import eigh
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
        centred = x - x.mean(axis=0)
        centred /= np.sqrt(len(x) - ddof)
        return cls(*principal(centred), reg)

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


def principal(z: np.ndarray, *, least: float = 0.0, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues (r,) of z'z that are not rounding, rising, and their vectors (d, r), by the smaller of z'z and z z'; z (n, d) is centred.

    ``least``: what a value must exceed at any rate; ``most``: how many, of the largest. Products square the rounding, which is then a 1e-16th of the largest
    value, far below ``NOTHING``; an SVD takes five times as long.

    >>> values, vectors = principal(np.array([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]))
    >>> values.round(6).tolist(), abs(vectors).round(6).tolist()
    ([18.0], [[1.0], [0.0], [0.0]])
    """
    dual = len(z) < z.shape[1]
    values, vectors = eigh(z @ z.T if dual else z.T @ z, driver="evd", overwrite_a=True, check_finite=False)
    count = int(np.count_nonzero(values > max(NOTHING * values[-1], least)))
    first = len(values) - (count if most is None else min(count, most))
    values, vectors = values[first:], vectors[:, first:]
    if dual:
        vectors = z.T @ (vectors / np.sqrt(values))
    return values, vectors


@dataclass(frozen=True)
class Monge:
    """The map of :func:`monge`, applied to rows by calling it; ``matrix`` and ``shift`` write it as x A + b.

    Parameters
    ----------
    basis : (d, r) orthonormal
    inner : (r, r) A in that basis less ``outside``
    outside : by how much a direction orthogonal to the basis is stretched
    means : of both domains
    """

    basis: np.ndarray
    inner: np.ndarray
    outside: float
    means: tuple[np.ndarray, np.ndarray]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = x - self.means[0]
        moved: np.ndarray = (z @ self.basis) @ self.inner @ self.basis.T
        z *= self.outside
        moved += z
        moved += self.means[1]
        return moved

    @property
    def matrix(self) -> np.ndarray:
        """(d, d) A, symmetric."""
        A: np.ndarray = self.basis @ self.inner @ self.basis.T
        A[np.diag_indices_from(A)] += self.outside
        symmetric: np.ndarray = (A + A.T) / 2.0
        return symmetric

    @property
    def shift(self) -> np.ndarray:
        """(d,) b."""
        b: np.ndarray = self.means[1] - self.means[0] @ self.matrix
        return b


def monge(xs: np.ndarray, xt: np.ndarray, *, reg: float = 1e-6) -> Monge:
    """Return the map x -> x A + b that is the optimal transport between the Gaussians with the samples' moments.

    A = C_s^(-1/2) (C_s^(1/2) C_t C_s^(1/2))^(1/2) C_s^(-1/2) (Peyré & Cuturi 2019, remark 2.31), covariances dividing by n, plus ``reg`` times
    their mean variance on each diagonal, so that ``reg`` has no unit. In the source's principal directions its roots are those of numbers.

    >>> found = monge(np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]]))  # deviations 1 and 2
    >>> found.matrix.round(5).tolist(), found.shift.round(5).tolist()
    ([[2.0]], [5.0])
    """
    means = xs.mean(axis=0), xt.mean(axis=0)
    zs, zt = ((x - mean) / np.sqrt(len(x)) for x, mean in zip((xs, xt), means, strict=True))
    d, few = xs.shape[1], len(xs) + len(xt) < xs.shape[1]
    # why tiny: where nothing varies, or no ridge was wanted, only the directions in which the source moves are mapped
    at_s, at_t = (max(reg * np.square(z).sum() / d, np.finfo(float).tiny) for z in (zs, zt))
    # why: outside what the cases of both domains span, covariances are their ridges alone, and (n + m)^3 is far less than d^3
    values, basis = _spanned(zs, zt) if few else eigh(zs.T @ zs, driver="evd", overwrite_a=True, check_finite=False)
    variances = values + at_s
    root = np.sqrt(np.maximum(variances, NOTHING * variances.max()))
    half = (zt @ basis) * root
    middle = half.T @ half
    middle[np.diag_indices_from(middle)] += at_t * root**2
    squares, W = eigh(middle, driver="evd", overwrite_a=True, check_finite=False)
    back = W * np.maximum(squares, 0.0) ** 0.25 / root[:, None]
    inner, outside = back @ back.T, float(np.sqrt(at_t / at_s)) if few else 0.0
    inner[np.diag_indices_from(inner)] -= outside
    return Monge(basis, inner, outside, means)


def _spanned(zs: np.ndarray, zt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the source's variances and directions, and with variances of 0 those that the target has beside them."""
    values, own = principal(zs)
    beside = zt - (zt @ own) @ own.T
    more = principal(beside, least=NOTHING * np.square(zt).sum())[1]
    return np.concatenate([values, np.zeros(more.shape[1])]), np.hstack([own, more])


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
    map_ : what moves source cases; a case x goes to x A + b, A (d, d) its ``matrix``, b (d,) its ``shift``

    Examples
    --------
    >>> source, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), ["a", "a", "b", "b"]
    >>> LinearOT().fit(source, labels, 100.0 + 10.0 * source).map_.matrix.round(3).tolist()
    [[10.0]]
    """

    name: ClassVar[str] = "ot-linear"
    paper: ClassVar[str] = "Flamary et al. 2019, Concentration bounds for linear Monge mapping estimation and optimal transport domain adaptation"
    limits: ClassVar[str] = (
        "linear, costs the cube of d or of n + m; harms where the classes' shares differ between the domains, for means and covariances follow them"
    )

    def __init__(self, estimator: Any = None, *, reg: float = 1e-3) -> None:
        self.estimator = estimator
        self.reg = reg

    def _align(self, domains: Domains) -> None:
        self.map_ = monge(domains.xs, domains.xt, reg=self.reg)

    def _source(self, X: np.ndarray) -> np.ndarray:
        return self.map_(X)
