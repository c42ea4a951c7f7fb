"""Channels of features, some of which are dead: they hardly move, and then only by rounding."""

from __future__ import annotations

import numpy as np

DEAD = 1e-6  # of the largest deviation: float32 resolves no less, so what moves by less is rounding


def is_dead(deviation: np.ndarray) -> np.ndarray:
    """Return (d,) whether a channel's deviation is under a millionth of the largest, or nothing moves at all.

    >>> is_dead(np.array([2.0, 1e-9, 0.1])).tolist(), is_dead(np.zeros(2)).tolist()
    ([False, True, False], [True, True])
    """
    dead: np.ndarray = deviation <= DEAD * deviation.max()
    return dead
