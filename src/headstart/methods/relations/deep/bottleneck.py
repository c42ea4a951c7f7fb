"""The layer in which domains are brought together: final features, standardised, through one narrow layer."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.methods.features.scaling import column_moments, live_scale, over_both


class Bottleneck(nn.Module):
    """relu(W s (x - m) + b): (n, width) of features (n, dim); m is the mean of the labelled cases at the start, s brings both domains to size; neither learns.

    Why standardised: features of tables have units and those of networks dead channels, and one learning rate shall serve them all. Why no norm: methods look
    at lengths of what comes out, and a norm would fix them.

    >>> narrow = Bottleneck.over(np.array([[0.0, 5.0], [2.0, 5.0]]), width=3)
    >>> narrow.centre.tolist(), narrow.scale.tolist()  # the second feature is dead
    ([1.0, 5.0], [1.0, 0.0])
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, width)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @classmethod
    def over(cls, features: np.ndarray, *, width: int, beside: np.ndarray | None = None) -> Self:
        """Return one for features (n, dim) and those of a second domain (m, dim); weights are drawn from PyTorch's own generator (He et al. 2015)."""
        made = cls(features.shape[1], width)
        mean, var = column_moments(np.asarray(features, dtype=np.float64))
        scale = live_scale(mean, var, len(features))
        if beside is not None:
            scale = over_both(scale, var, (mean, var), len(features), np.asarray(beside, dtype=np.float64))
        with torch.no_grad():
            nn.init.kaiming_normal_(made.linear.weight, nonlinearity="relu")
            made.linear.bias.zero_()
            made.centre.copy_(torch.from_numpy(mean))
            made.scale.copy_(torch.from_numpy(1.0 / scale))
        return made

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.linear((x - self.centre) * self.scale))
