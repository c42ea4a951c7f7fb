"""Sub-samples that depend on what the cases hold and on the seed, not on the order in which they come.

A score must not change when the rows of a file are shuffled, so cases are put in an order of their own before any are drawn.
"""

from __future__ import annotations

import numpy as np

PLACES = 9  # decimals of a relative radius that count; why: what lies below is rounding, and a rotation would change it
BLOCK = 4096  # rows that are held in float64 at once


def at_most(x: np.ndarray, y: np.ndarray, *, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most so many rows of x (n, d) and y (n,), drawn without replacement; equal sets give equal samples.

    >>> x, y = np.array([[3.0], [1.0], [2.0], [7.0]]), np.array([3, 1, 2, 7])
    >>> there, _ = at_most(x, y, most=2, seed=0)
    >>> back, _ = at_most(x[::-1], y[::-1], most=2, seed=0)
    >>> bool((there == back).all())
    True
    """
    if len(x) <= most:
        return x, y
    rows = own_order(x, seed=seed)[np.random.default_rng(seed).permutation(len(x))[:most]]
    return x[rows], y[rows]


def halves(x: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n // 2,) and (n - n // 2,) of two random halves; equal sets fall into equal halves."""
    rows = own_order(x, seed=seed)[np.random.default_rng(seed).permutation(len(x))]
    return rows[: len(x) // 2], rows[len(x) // 2 :]


def own_order(x: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (n,) rows from the nearest to the mean to the farthest: an order that shuffling, shifting, scaling and rotating leave alone.

    Cases at one distance, as in tables of zeros and ones, follow their projection on a random direction; only equal rows stay as they came.
    """
    mean, direction = x.mean(axis=0, dtype=np.float64), np.random.default_rng(seed).normal(size=x.shape[1])
    radius, along = np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        z = x[start : start + BLOCK] - mean
        radius[start : start + BLOCK], along[start : start + BLOCK] = np.square(z).sum(axis=1), z @ direction
    order: np.ndarray = np.lexsort((_rounded(along), _rounded(radius)))
    return order


def _rounded(values: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.round(values / max(float(np.abs(values).max()), np.finfo(float).tiny), PLACES)
    return rounded
