"""Do two networks see the same inputs alike? Debiased linear centred kernel alignment, of two features or of every pair of stages.

Kornblith et al. 2019 ("Similarity of neural network representations revisited") with the unbiased estimate of Song et al. 2012 ("Feature selection via
dependence maximization", eq. 4), as Nguyen, Raghu & Kornblith 2021 use it: the plain one rises towards 1 with d/n, whatever the features.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headstart.moments import rows_of

HELD = 1 << 24  # kernel entries held at once: 128 MiB


def debiased_cka(a: np.ndarray, b: np.ndarray) -> float:
    """Return the alignment of features a (n, d) and b (n, e) of the same n >= 4 inputs, at most 1; about 0, also below it, where they are unrelated.

    Does not change with rotations, shifts and one positive factor of either. Costs n d e and no n x n kernel; 0 where a feature never moves.

    >>> a = np.array([[0.0, 1.0], [2.0, 1.0], [3.0, 5.0], [4.0, 0.0], [1.0, 1.0]])
    >>> turned = 3.0 * a @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 7.0
    >>> round(debiased_cka(a, turned), 12)
    1.0
    """
    a, b = _centred(a), _centred(b)
    own = _hsic(a, a) * _hsic(b, b)
    return _hsic(a, b) / float(np.sqrt(own)) if own > 0.0 else 0.0


def cka_map(stages_a: Mapping[str, np.ndarray], stages_b: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the :func:`debiased_cka` of every stage of one backbone with every stage of another, (a, b), on the same n inputs.

    Each stage's kernel is made once, in blocks of rows: n^2 times the sum of all widths. Take a few thousand inputs at most; the estimate is unbiased.

    >>> a = {"stem": np.array([[0.0], [2.0], [3.0], [7.0], [8.0]]), "top": np.array([[1.0], [5.0], [9.0], [1.0], [0.0]])}
    >>> cka_map(a, a).shape, cka_map(a, a).diagonal().round(12).tolist()
    ((2, 2), [1.0, 1.0])
    """
    names = [("a", name) for name in stages_a] + [("b", name) for name in stages_b]
    features = [_centred(x) for x in (*stages_a.values(), *stages_b.values())]
    n = len(features[0])
    sums = np.stack([_row_sums(x) for x in features])
    totals = sums.sum(axis=1) / ((n - 1.0) * (n - 2.0))
    products = np.zeros((len(names), len(names)))
    block = max(1, HELD // (n * len(names)))
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        kernels = np.stack([_u_centred(x, rows, s / (n - 2.0), total) for x, s, total in zip(features, sums, totals, strict=True)])
        flat = kernels.reshape(len(names), -1)
        products += flat @ flat.T
    own = np.sqrt(np.maximum(products.diagonal(), 0.0))
    scale = np.outer(own, own)
    aligned = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0.0)
    found: np.ndarray = aligned[: len(stages_a), len(stages_a) :]
    return found


def _hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Return n (n - 3) times the unbiased HSIC of two linear kernels whose diagonals are taken out, without the kernels."""
    n = len(a)
    across = a.T @ b
    diagonal = np.einsum("ij,ij->i", a, a) @ np.einsum("ij,ij->i", b, b)
    s, t = _row_sums(a), _row_sums(b)
    return float(np.einsum("ij,ij->", across, across) - diagonal + s.sum() * t.sum() / ((n - 1.0) * (n - 2.0)) - 2.0 / (n - 2.0) * (s @ t))


def _row_sums(x: np.ndarray) -> np.ndarray:
    """Return (n,) row sums of x x' without its diagonal."""
    sums: np.ndarray = x @ x.sum(axis=0) - np.einsum("ij,ij->i", x, x)
    return sums


def _u_centred(x: np.ndarray, rows: np.ndarray, mean: np.ndarray, total: float) -> np.ndarray:
    """Return rows (b, n) of the U-centred kernel (Székely & Rizzo 2014, eq. 2.8), whose inner products are unbiased."""
    kernel = x[rows] @ x.T - mean[rows, None] - mean + total
    kernel[np.arange(len(rows)), rows] = 0.0
    centred: np.ndarray = kernel
    return centred


def _centred(x: np.ndarray) -> np.ndarray:
    mean = np.mean(x, axis=0, dtype=np.float64)
    out = np.empty(x.shape)
    for rows in rows_of(len(x)):
        out[rows] = x[rows] - mean
    return out
