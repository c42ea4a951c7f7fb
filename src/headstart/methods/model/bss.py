"""Batch spectral shrinkage: suppress the smallest singular values of a batch's features (Chen et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from headstart.core import Batch, Net
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned


@dataclass(frozen=True)
class BSS(Tuned):
    """Fine-tune from a cut, and penalise the k smallest singular values of the batch's features (Chen et al. 2019, eq. 7).

    Directions with small singular values are the ones that did not transfer; with few labels they are fitted to noise.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    eta : strength of the penalty, .001 as in the paper
    k : how many singular values are shrunk, 1 as in the paper

    Examples
    --------
    >>> round(float(smallest_squares(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 1)), 4)
    4.0
    """

    name: ClassVar[str] = "bss"
    paper: ClassVar[str] = "Chen et al. 2019, Catastrophic forgetting meets negative transfer: batch spectral shrinkage"
    limits: ClassVar[str] = "looks at one batch of 32, whose spectrum is a rough one; where fewer features than cases live, the smallest value is 0 already"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    eta: float = knob(0.001, choices=(0.0001, 0.001, 0.01))
    k: int = knob(1, choices=(1, 2, 4))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        return {"small singular values": self.eta * smallest_squares(activations[-1], self.k)}


def smallest_squares(features: Tensor, k: int) -> Tensor:
    """Return the sum of squares of the k smallest of the min(n, d) singular values of features (n, d)."""
    values: Tensor = torch.linalg.svdvals(features.float())
    return values[-k:].square().sum()
