"""Nearest neighbours among the target's own cases, each left out once: how local the target is in the features.

Of classes and labels, neighbours are near by angle, as in Wu et al. 2018 ("Unsupervised feature learning via non-parametric instance discrimination",
sec. 3.4); of numbers, which the length of a feature may tell, by distance. They vote with weight exp(nearness / 0.1). Ties share what is left, so that
neither the order of cases nor the numbering of classes decides one.
"""

from __future__ import annotations

import numpy as np

from headstart.moments import rows_of

TEMPERATURE = 0.1  # in units of nearness: a neighbour that is 0.1 less near counts 1/e as much
RESOLUTION = 1e-8  # what differs by less is equal
HELD = 1 << 21  # pairs held at once: 16 MiB


def leave_one_out_votes(x: np.ndarray, targets: np.ndarray, *, ks: tuple[int, ...], by_angle: bool) -> np.ndarray:
    """Return (len(ks), n, c): the weighted mean of the targets (n, c) of the k nearest other cases of each case, for one-hot targets the vote.

    Nearness is minus half the squared distance of centred features, which are brought to length 1 each (``by_angle``: it is then the cosine less 1) or to
    mean squared length 1 together. Cases that are as near as the k-th share the places that are left among the k. k above n - 1 takes all
    others. Costs n^2 d; rows are compared in blocks, and memory holds n d numbers beside.

    >>> x, y = np.array([[0.0, 2.0], [0.1, 1.0], [2.0, 0.0], [1.0, 0.1]]), np.array([[1.0], [2.0], [5.0], [6.0]])
    >>> leave_one_out_votes(x, y, ks=(1,), by_angle=True)[0].ravel().tolist()
    [2.0, 1.0, 6.0, 5.0]
    """
    n = len(x)
    z = _scaled(x, by_angle=by_angle)
    halves = 0.5 * np.einsum("ij,ij->i", z, z)
    out = np.empty((len(ks), n, targets.shape[1]))
    block = max(1, HELD // n)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        near = z[rows] @ z.T - halves[rows, None] - halves
        own = np.arange(len(near))
        near[own, start + own] = -np.inf
        votes = np.exp((near - near.max(axis=1, keepdims=True)) / TEMPERATURE)
        for j, k in enumerate(ks):
            weights = votes * _places(near, min(k, n - 1))
            out[j, rows] = weights @ targets / weights.sum(axis=1, keepdims=True)
    return out


def credit(votes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return (n,) what each case counts as right: 1 where its class has the most votes (n, c), 1/m where m classes share the most, else 0.

    >>> credit(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([1, 1])).tolist()
    [0.0, 0.5]
    """
    most = votes.max(axis=1, keepdims=True)
    top = votes >= most - RESOLUTION * np.abs(most)
    counted: np.ndarray = top[np.arange(len(codes)), codes] / top.sum(axis=1)
    return counted


def _places(near: np.ndarray, k: int) -> np.ndarray:
    """Return (b, n) the share of a place among the k that each case holds: 1, 0, or what those that tie with the k-th divide."""
    kth = near.max(axis=1, keepdims=True) if k == 1 else np.partition(near, near.shape[1] - k, axis=1)[:, -k, None]
    nearer = near > kth + RESOLUTION
    tied = ~nearer & (near >= kth - RESOLUTION)
    left = k - nearer.sum(axis=1, keepdims=True)
    places: np.ndarray = nearer + tied * (left / tied.sum(axis=1, keepdims=True))
    return places


def _scaled(x: np.ndarray, *, by_angle: bool) -> np.ndarray:
    mean = np.mean(x, axis=0, dtype=np.float64)
    z = np.empty(x.shape)
    for rows in rows_of(len(x)):
        z[rows] = x[rows] - mean
    squares = np.einsum("ij,ij->i", z, z)
    lengths = np.sqrt(squares if by_angle else np.full(len(z), squares.mean()))[:, None]
    z /= np.where(lengths > 0.0, lengths, 1.0)
    return z
