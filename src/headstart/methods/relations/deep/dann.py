"""Features by which no critic tells the domains apart (Ganin et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.relations.deep.deep import Deep, Seen, built
from headstart.methods.relations.deep.reversal import critic, ramp, reversed_gradient, told_apart


@dataclass(frozen=True)
class DANN(Deep):
    """Train a critic to tell the domains' features apart, and the features against it, through a reversed gradient (Ganin et al. 2016, eq. 18).

    Repairs any shift of the features' distribution that leaves the classes where they were. The critic learns at full rate from the start; the features hear
    it by 2 / (1 + exp(-10 p)) - 1 (eq. 14).

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    strength : largest factor on the reversed gradient; 1 as in the paper
    """

    name: ClassVar[str] = "dann"
    paper: ClassVar[str] = "Ganin et al. 2016, Domain-adversarial training of neural networks"
    limits: ClassVar[str] = "aligns what should stay apart where classes have other shares in the target; a game of two, so its loss tells nothing"

    strength: float = knob(1.0, choices=(0.1, 0.3, 1.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"critic": critic(self.width, width=self.width)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        strength = self.strength * ramp(batch.progress)
        fs, ft = (reversed_gradient(f, strength) for f in (seen.fs, seen.ft))
        return {"critic": told_apart(built(net, "critic"), fs, ft)}
