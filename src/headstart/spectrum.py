"""One decomposition of features, from which every ridge penalty, its leave-one-out errors and the evidence of a linear model follow.

The eigenvectors are those of the smaller Gram matrix (Rifkin & Lippert 2007, "Notes on regularized least squares"); the residual of a case that was
left out is e / (1 - h), h its leverage (Allen 1974). Case weights enter as in weighted least squares. Rows are read in blocks, never copied whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headstart.moments import moments, rows_of

NOTHING = 1e-12  # of the largest eigenvalue; what lies below is rounding of the Gram matrix, and counts as 0


def class_weights(codes: np.ndarray) -> np.ndarray:
    """Return (n,) weights of mean 1 that give every class the same total: what balanced accuracy asks of a fit.

    >>> class_weights(np.array([0, 0, 0, 1])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    counts = np.bincount(codes)
    weights: np.ndarray = len(codes) / (np.count_nonzero(counts) * counts[codes])
    return weights


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues and eigenvectors of centred features S = sqrt(w) (X - mean), n x d.

    Parameters
    ----------
    X : (n, d) features as they came: any float type, memory-mapped or not
    root : (n,) square roots of the case weights
    mean : (d,) weighted mean
    values : (r,) eigenvalues of S'S, r = min(n, d), rising, not negative
    vectors : (n, r) of S S' where n <= d, else (d, r) of S' S

    Examples
    --------
    >>> Spectrum.of(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])).values.round(6).tolist()
    [0.0, 8.0]
    """

    X: np.ndarray
    root: np.ndarray
    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, X: np.ndarray, *, weights: np.ndarray | None = None) -> Spectrum:
        """Decompose X (n, d) with case weights (n,), all 1 by default. Costs n d min(n, d) and min(n, d)^3."""
        n, d = X.shape
        root = np.ones(n) if weights is None else np.sqrt(weights)
        if n <= d:
            mean = X.mean(axis=0, dtype=np.float64) if weights is None else weights @ X / weights.sum()
            S = X - mean
            if weights is not None:
                S *= root[:, None]
            gram = S @ S.T
        else:
            nothing = np.empty((n, 0))
            blocks = ((X[rows], nothing[rows]) for rows in rows_of(n))
            found = moments(blocks, weights=None if weights is None else (weights[rows] for rows in rows_of(n)))
            mean, gram = found.mean, found.scatter
        values, vectors = np.linalg.eigh(gram)  # why not SciPy's: it keeps other threads waiting, and several sources are decomposed at once
        return cls(X, root, mean, np.where(values > NOTHING * values[-1], values, 0.0), vectors)

    @property
    def is_dual(self) -> bool:
        """Whether the eigenvectors are those of S S'."""
        n, d = self.X.shape
        return bool(n <= d)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) squared lengths of the rows of S."""
        out = np.empty(len(self.X))
        for rows in rows_of(len(out)):
            S = self.centred(rows)
            out[rows] = np.einsum("ij,ij->i", S, S)
        return out

    def centred(self, rows: slice) -> np.ndarray:
        """Return these rows of S (b, d)."""
        S: np.ndarray = self.X[rows] - self.mean
        S *= self.root[rows, None]
        return S

    def scores(self, rows: slice) -> np.ndarray:
        """Return these rows (b, r) of U where n <= d, else of S V = U sqrt(values)."""
        scores: np.ndarray = self.vectors[rows] if self.is_dual else self.centred(rows) @ self.vectors
        return scores

    def coordinates(self, Y: np.ndarray) -> np.ndarray:
        """Return U'T (r, c) of the centred, weighted targets T; 0 along directions in which the features do not move, unless n <= d."""
        T = self.targets(Y)[0]
        along = self._along(T)
        if self.is_dual:
            return along
        live = self.values > 0.0
        out: np.ndarray = np.where(live, 1.0 / np.sqrt(np.where(live, self.values, 1.0)), 0.0)[:, None] * along
        return out

    def targets(self, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return T = sqrt(w) (Y - mean), (n, c), and that mean (c,)."""
        mean = np.average(Y, axis=0, weights=self.root**2)
        return self.root[:, None] * (Y - mean), mean

    def ridge(self, Y: np.ndarray) -> Ridge:
        """Return the ridge regressions of Y (n, c) on these features, for every penalty."""
        T, mean = self.targets(Y)
        return Ridge(self, T, mean, self._along(T))

    def _along(self, T: np.ndarray) -> np.ndarray:
        """Return U'T where n <= d, else V'S'T."""
        if self.is_dual:
            along: np.ndarray = self.vectors.T @ T
            return along
        cross = np.zeros((self.X.shape[1], T.shape[1]))
        for rows in rows_of(len(T)):
            cross += self.centred(rows).T @ T[rows]
        along = self.vectors.T @ cross
        return along


@dataclass(frozen=True)
class Ridge:
    """Weighted ridge regression with a free intercept, for any penalty: minimises sum_i w_i |y_i - b - W x_i|^2 + alpha |W|^2."""

    spectrum: Spectrum
    T: np.ndarray
    y_mean: np.ndarray
    along: np.ndarray

    def left_out(self, alphas: Sequence[float]) -> np.ndarray:
        """Return residuals (len(alphas), n, c): y_i minus the prediction of y_i by the model that was fitted without case i.

        Exact for the centring and the weights of all n cases; the intercept is fitted anew.

        >>> X, Y = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [3.0]])
        >>> Spectrum.of(X).ridge(Y).left_out([1e-12]).ravel().round(6).tolist()  # lines through two points: -3 at 0, 1.5 at 1, 0 at 2
        [3.0, -1.5, 3.0]
        """
        out = np.empty((len(alphas), *self.T.shape))
        for rows, residuals in self.blocks(alphas):
            out[:, rows] = residuals
        return out

    def blocks(self, alphas: Sequence[float]) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows and their :meth:`left_out` residuals (len(alphas), b, c): the second reading of the features, for their leverages."""
        spectrum = self.spectrum
        total = np.sum(spectrum.root**2)
        shrink = 1.0 / (spectrum.values[:, None] + np.asarray(alphas))
        if spectrum.is_dual:  # 1 - s/(s + alpha) is alpha/(s + alpha): no cancellation where alpha is small
            shrink *= alphas
        weights = (shrink[:, :, None] * self.along[:, None]).reshape(len(shrink), -1)  # of all penalties side by side: one product instead of many thin ones
        for rows in rows_of(len(self.T)):
            scores, root = spectrum.scores(rows), spectrum.root[rows]
            free = root**2 / total  # leverage of the free intercept
            product = (scores @ weights).reshape(len(scores), len(alphas), -1)
            squares = np.square(scores) if spectrum.is_dual else np.square(scores, out=scores)
            if spectrum.is_dual:
                left = squares @ shrink - free[:, None]
            else:
                np.subtract(self.T[rows, None], product, out=product)
                left = 1.0 - squares @ shrink - free[:, None]
            product /= (left * root[:, None])[:, :, None]
            yield rows, product.transpose(1, 0, 2)

    def solve(self, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (c, d) and intercepts (c,)."""
        spectrum = self.spectrum
        inner = spectrum.vectors @ (self.along / (spectrum.values + alpha)[:, None])
        if spectrum.is_dual:
            inner = sum((spectrum.centred(rows).T @ inner[rows] for rows in rows_of(len(inner))), np.zeros((spectrum.X.shape[1], inner.shape[1])))
        return inner.T, self.y_mean - inner.T @ spectrum.mean
