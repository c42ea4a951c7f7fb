"""First and second moments of features and targets from blocks of rows, so that the number of cases is bounded by patience, not by memory.

Sums are taken about the mean of the first rows and moved to the mean of all at the end: the one shift that the algorithms of Chan, Golub & LeVeque
1983 ("Algorithms for computing the sample variance") ask for, without a second pass. Memory: d^2 + d c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

ROWS = 6144  # rows that are held in float64 at once: 60 MiB of 1,280 features; a third as many cost 5 % more time
NEAR = 256  # rows whose mean the sums are taken about: any point among the cases keeps the digits


@dataclass(frozen=True)
class Moments:
    """Weighted sums over n cases of features x (d) and targets y (c).

    Parameters
    ----------
    n : sum of the weights; the number of cases where all weigh 1
    mean, y_mean : (d,), (c,)
    scatter : (d, d) sum of w (x - mean)(x - mean)'
    cross : (d, c) sum of w (x - mean)(y - y_mean)'
    y_scatter : (c, c) sum of w (y - y_mean)(y - y_mean)'; of one-hot targets, ``n * y_mean`` counts the classes
    quartic : sum of w |x - mean|^4
    """

    n: float
    mean: np.ndarray
    y_mean: np.ndarray
    scatter: np.ndarray
    cross: np.ndarray
    y_scatter: np.ndarray
    quartic: float


def moments(blocks: Iterable[tuple[np.ndarray, np.ndarray]], *, weights: Iterable[np.ndarray] | None = None) -> Moments:
    """Return the moments of all rows of ``blocks``: pairs of x (b, d) and y (b, c), each read once and let go.

    Parameters
    ----------
    blocks : at least one; how rows fall into blocks changes rounding only
    weights : (b,) non-negative weights for each block, or ``None``: every case weighs 1

    Examples
    --------
    >>> x, y = np.array([[0.0], [2.0], [4.0]]), np.array([[1.0], [1.0], [4.0]])
    >>> whole = moments([(x[:2], y[:2]), (x[2:], y[2:])])
    >>> whole.mean.tolist(), whole.scatter.tolist(), whole.cross.tolist(), whole.y_scatter.tolist()
    ([2.0], [[8.0]], [[6.0]], [[6.0]])
    """
    each = iter(blocks)
    opening = next(each)
    about, y_about = (a[:NEAR].mean(axis=0, dtype=np.float64) for a in opening)
    d, c = len(about), len(y_about)
    n, quartic = 0.0, 0.0
    first, y_first, cubic = np.zeros(d), np.zeros(c), np.zeros(d)
    scatter, cross, y_scatter, product = np.zeros((d, d)), np.zeros((d, c)), np.zeros((c, c)), np.empty((d, d))
    for (x, y), weight in zip(chain([opening], each), repeat(None) if weights is None else weights, strict=False):
        w = np.ones(len(x)) if weight is None else weight
        z, v = x - about, y - y_about
        square = np.einsum("ij,ij->i", z, z)
        n, quartic = n + float(w.sum()), quartic + float(w @ square**2)
        first, y_first, cubic = first + w @ z, y_first + w @ v, cubic + (w * square) @ z
        if weight is not None:
            z, v = np.sqrt(w)[:, None] * z, np.sqrt(w)[:, None] * v
        scatter += np.matmul(z.T, z, out=product)
        cross += z.T @ v
        y_scatter += v.T @ v
    move, y_move = first / n, y_first / n
    length = float(move @ move)
    quartic += 4.0 * float(move @ scatter @ move) - 4.0 * float(move @ cubic) + 2.0 * float(np.trace(scatter)) * length - 3.0 * n * length**2
    scatter -= np.outer(n * move, move, out=product)
    cross -= n * np.outer(move, y_move)
    y_scatter -= n * np.outer(y_move, y_move)
    return Moments(n, about + move, y_about + y_move, scatter, cross, y_scatter, quartic)


def rows_of(n: int) -> Iterator[slice]:
    """Yield the slices of n rows that are worked on at once.

    >>> [(rows.start, rows.stop) for rows in rows_of(7000)]
    [(0, 6144), (6144, 7000)]
    """
    yield from (slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS))
