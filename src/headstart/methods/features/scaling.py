"""Standardising features of networks, some of which are dead: channels that hardly move, and then only by rounding."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from headstart.channels import is_dead


class LiveScaler(StandardScaler):
    """scikit-learn's ``StandardScaler``, which makes 0 of features whose deviation is under a millionth of the largest.

    MiniLM's last norm has channels with deviations of 1e-33 and 1e-9 beside others of 0.05. Divided by such a deviation, rounding becomes a feature
    like any other; and a head's weight on it, taken back to the raw scale, is 1e31, under which no gradient survives clipping.

    >>> abs(LiveScaler().fit_transform([[0.0, 1e-9], [2.0, 0.0]])).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn mean and deviation of X (n, d)."""
        super().fit(X, y, sample_weight)
        self.scale_[is_dead(np.sqrt(self.var_))] = np.inf
        return self
