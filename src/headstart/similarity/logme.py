"""LogME: how well a linear model under its own best prior explains the target, in closed form (You et al. 2021, "LogME: practical assessment of
pre-trained models for transfer learning").

For one target column, y ~ N(0, F F'/alpha + I/beta), and the score is the log density at the best alpha and beta. With t = alpha/beta the best
scale is known, which leaves a curve over log t, maximised here for all columns at once. It differs from the published fixed point in two ways.
An intercept with a flat prior is integrated out, so that the mean of ReLU features tells nothing: the density is that of the n - 1 contrasts between
cases. And it is right for n < d, where the published code keeps d/2 log alpha for the min(n, d) directions that exist and rises with d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal
from scipy.linalg.lapack import dormqr, dptsv, dsytrd, dsytrd_lwork

from headstart.moments import Moments, moments, rows_of
from headstart.spectrum import Spectrum

GRID = np.logspace(-8.0, 8.0, 17)  # of t over the mean eigenvalue; the curve bends over a decade, beyond the ends it is flat to 1e-8
STEPS = 60  # of the false position at most; it takes about 8
CLOSE = 1e-7  # of log t; the value errs by its square
LEAST = 1e-14  # of the target's sum of squares; what is left over from a perfect fit is rounding


@dataclass(frozen=True)
class LogME:
    """Evidence of a linear model for each of c target columns.

    Parameters
    ----------
    evidence : (c,) log density at the optimum, nats per contrast (per case where there is no intercept)
    alpha, beta : (c,) precision of the weights and of the noise there; alpha is the largest that was tried where features tell nothing
    null : (c,) the same density without features; ``evidence - null`` is what the features tell, whatever the unit of y
    """

    evidence: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    null: np.ndarray

    @property
    def value(self) -> float:
        """The mean over columns: the score."""
        return float(self.evidence.mean())


def logme(x: np.ndarray, y: np.ndarray, *, intercept: bool = True) -> LogME:
    """Return LogME of features x (n, d) for target columns y (n, c): one-hot classes, zeros and ones of several labels, or numbers.

    Tridiagonalises the smaller Gram matrix, and needs no eigenvectors: n d min(n, d) and 4/3 min(n, d)^3 operations. Rows are read in blocks
    where n > d; for rows that are no array see :func:`logme_of_moments`, where the decomposition is at hand :func:`logme_of_spectrum`.

    Parameters
    ----------
    y : columns that do not vary have no density and must not be given
    intercept : False takes x and y as they are, as published, over n cases. What the mean of the features tells then counts

    Examples
    --------
    >>> x, y = np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0], [-2.0], [1.0]])  # no linear trend: y ~ N(0, 3) in two contrasts
    >>> found = logme(x, y)
    >>> round(found.value, 4), round(float(-np.log(2 * np.pi * np.e * 3.0) / 2), 4)
    (-1.9682, -1.9682)
    """
    n, d = x.shape
    if n > d:
        return _of_sums(moments((x[rows], y[rows]) for rows in rows_of(n)), intercept=intercept)
    F, T = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if intercept:
        F, T = F - F.mean(axis=0), T - T.mean(axis=0)
    return _maximise(_Tridiagonal.of(F @ F.T, T, total=None), np.einsum("ij,ij->j", T, T), n - intercept)


def logme_of_moments(found: Moments, *, intercept: bool = True) -> LogME:
    """Return :func:`logme` of all rows that were summed up; n should exceed d, for below that the noise is told to 8 digits only."""
    return _of_sums(replace(found, scatter=found.scatter.copy()), intercept=intercept)


def logme_of_spectrum(spectrum: Spectrum, y: np.ndarray) -> LogME:
    """Return :func:`logme` where the unweighted decomposition of the features was made already: the cost of n d c."""
    T = spectrum.targets(y)[0]
    total, squares = np.einsum("ij,ij->j", T, T), np.square(spectrum.coordinates(y))
    rest = np.zeros(len(total)) if spectrum.is_dual else np.maximum(total - squares.sum(axis=0), 0.0)
    return _maximise(_Eigen(spectrum.values, squares, rest), total, len(T) - 1)


def _of_sums(found: Moments, *, intercept: bool) -> LogME:
    """Overwrite the scatter."""
    scatter, cross, total = found.scatter, found.cross, np.diag(found.y_scatter)
    if not intercept:
        scatter += found.n * np.outer(found.mean, found.mean)
        cross = cross + found.n * np.outer(found.mean, found.y_mean)
        total = total + found.n * found.y_mean**2
    return _maximise(_Tridiagonal.of(scatter, cross, total=total), total, found.n - intercept)


class _Resolvent(Protocol):
    """What is left (c,) of each target column, q = t y' (F F' + t)^-1 y, and its derivative by log t, at a t of its own (c,) or one for all (1,)."""

    @property
    def values(self) -> np.ndarray: ...

    def left(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class _Eigen:
    """From eigenvalues (r,), squared coordinates (r, c) and what lies outside (c,): q = rest + sum x^2 t / (s + t)."""

    values: np.ndarray
    squares: np.ndarray
    rest: np.ndarray

    def left(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share = t / (self.values[:, None] + t)
        kept = self.squares * share
        return self.rest + kept.sum(axis=0), (kept * (1.0 - share)).sum(axis=0)


@dataclass(frozen=True)
class _Tridiagonal:
    """From A = Q T Q', T tridiagonal, and z = Q'b (r, c): where A is F F', b = y and ``total`` is None; where it is F'F, b = F'y and ``total`` y'y."""

    values: np.ndarray
    diagonal: np.ndarray
    beside: np.ndarray
    z: np.ndarray
    total: np.ndarray | None

    @classmethod
    def of(cls, A: np.ndarray, b: np.ndarray, *, total: np.ndarray | None) -> _Tridiagonal:
        """Reduce A, which is overwritten."""
        work = int(dsytrd_lwork(len(A), lower=1)[0])
        reflectors, diagonal, beside, tau, _ = dsytrd(A.T, lower=1, lwork=work, overwrite_a=1)
        z = np.array(b, dtype=np.float64, order="F")
        if len(A) > 1:  # the reflectors leave the first coordinate alone
            z[1:] = dormqr("L", "T", reflectors[1:, :-1], tau, z[1:], lwork=64 * z.shape[1])[0]
            values = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf")
        else:
            values, beside = diagonal, np.zeros(1)  # dptsv wants an entry where there is none
        return cls(np.maximum(values, 0.0), diagonal, beside, z, total)

    def left(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(t) == 1:
            v = dptsv(self.diagonal + t[0], self.beside, self.z)[2]
        else:
            v = np.column_stack([dptsv(self.diagonal + each, self.beside, z)[2] for each, z in zip(t, self.z.T, strict=True)])
        through, square = np.einsum("ij,ij->j", self.z, v), np.einsum("ij,ij->j", v, v)
        if self.total is None:
            return t * through, t * (through - t * square)
        return self.total - through, t * square


def _maximise(model: _Resolvent, total: np.ndarray, n: float) -> LogME:
    """Maximise the density of n contrasts over log t: the best point of a grid, then the root of the slope between it and its neighbour."""
    values, column = model.values, np.arange(len(total))

    def curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left, bend = model.left(np.exp(u))
        left = np.maximum(left, LEAST * total)
        share = values[:, None] / np.exp(u)
        height = -0.5 * n * np.log(2.0 * np.pi * np.e * left / n) - 0.5 * np.log1p(share).sum(axis=0)
        return height, 0.5 * (share / (1.0 + share)).sum(axis=0) - 0.5 * n * bend / left, left

    grid = np.log((float(values.mean()) or 1.0) * GRID)
    points = [curve(grid[i : i + 1]) for i in range(len(grid))]
    heights, slopes = np.array([height for height, _, _ in points]), np.array([slope for _, slope, _ in points])
    best = heights.argmax(axis=0)
    beside = np.clip(np.where(slopes[best, column] > 0.0, best + 1, best - 1), 0, len(grid) - 1)
    u = _root(lambda u: curve(u)[1], grid[beside], grid[best], slopes[beside, column], slopes[best, column])
    height, _, left = curve(u)
    return LogME(height / n, np.exp(u) * n / left, n / left, -0.5 * np.log(2.0 * np.pi * np.e * total / n))


def _root(slope: Callable[[np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, at_a: np.ndarray, at_b: np.ndarray) -> np.ndarray:
    """Return a root of the slope between each a and b, or b where its sign does not change, by the Illinois rule (Dowell & Jarratt 1971)."""
    inside = at_a * at_b < 0.0
    for _ in range(STEPS):
        step = np.where(inside, at_b * (a - b) / np.where(inside, at_b - at_a, 1.0), 0.0)
        c = b + step
        if np.all(np.abs(step) < CLOSE):
            return c
        at_c = slope(c)
        crossed = at_c * at_b < 0.0
        a, at_a = np.where(crossed, b, a), np.where(crossed, at_b, 0.5 * at_a)
        b, at_b = c, at_c
    return b
