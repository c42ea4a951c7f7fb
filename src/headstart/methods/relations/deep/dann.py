"""Features by which no critic tells the domains apart (Ganin et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.relations.deep.deep import Deep, Seen, built
from headstart.methods.relations.deep.reversal import AGAINST, GENTLE, critic, ramp, reversed_gradient, told_apart


@dataclass(frozen=True)
class DANN(Deep):
    """Train a critic to tell the domains' features apart, and the features against it, through a reversed gradient (Ganin et al. 2016, eqs. 16 to 18).

    Repairs any shift of the features' distribution that leaves the classes where they were. The critic learns at full rate from the start; the features hear
    it by 2 / (1 + exp(-10 p)) - 1 (sec. 5.2.2).

    Parameters
    ----------
    depth, width : as in :class:`Deep`
    rate : 1e-3, as the features of a faster adversary fall together
    steps : 200, for two play; after 600 as much was right (LOG.md)
    strength : largest factor on the reversed gradient; 1 as in the paper
    """

    name: ClassVar[str] = "dann"
    paper: ClassVar[str] = "Ganin et al. 2016, Domain-adversarial training of neural networks"
    limits: ClassVar[str] = "aligns what should stay apart where classes have other shares in the target; a game of two, so its loss tells nothing"

    rate: float = knob(GENTLE, low=2e-4, high=3e-3, log=True)
    steps: int = knob(AGAINST, choices=(100, 200, 600))
    strength: float = knob(1.0, choices=(0.1, 0.3, 1.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"critic": critic(self.width)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        strength = self.strength * ramp(batch.progress)
        fs, ft = (reversed_gradient(f, strength) for f in (seen.fs, seen.ft))
        return {"critic": told_apart(built(net, "critic"), fs, ft)}


@dataclass(frozen=True)
class BSP(DANN):
    """DANN that also keeps the largest singular values of either domain's features small (Chen et al. 2019, sec. 3.3).

    Repairs what DANN repairs; an adversary strengthens the few directions that transfer best at the cost of those that tell classes apart: this holds it back.

    Parameters
    ----------
    depth, width, rate, steps, strength : as in :class:`DANN`
    weight : of the k largest squared singular values of a batch. The paper has 1e-4; on standardised features, which are longer, that took 8 points on five
        pairs of real domains (LOG.md)
    k : 1 as in the paper
    """

    name: ClassVar[str] = "bsp"
    paper: ClassVar[str] = "Chen et al. 2019, Transferability vs. discriminability: batch spectral penalization for adversarial domain adaptation"
    limits: ClassVar[str] = "those of DANN; looks at one batch, whose largest singular value is mostly its mean"

    weight: float = knob(1e-5, choices=(1e-6, 1e-5, 1e-4))
    k: int = knob(1, choices=(1, 2, 4))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        spectra = largest_squares(seen.fs, self.k) + largest_squares(seen.ft, self.k)
        return {**super().nearing(net, batch, seen), "large singular values": self.weight * spectra}


def largest_squares(features: Tensor, k: int) -> Tensor:
    """Return the sum of squares of the k largest singular values of features (n, d).

    >>> largest_squares(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), 1)
    tensor(9.)
    """
    values: Tensor = torch.linalg.svdvals(features)
    return values[:k].square().sum()
