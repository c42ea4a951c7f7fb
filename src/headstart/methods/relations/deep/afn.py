"""Features made longer, step by step, in both domains (Xu et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from headstart.core import Batch, Net
from headstart.methods.method import knob
from headstart.methods.relations.deep.deep import Deep, Seen


@dataclass(frozen=True)
class AFN(Deep):
    """Let the norm of every case's features grow by a step over what it is, in both domains (stepwise AFN, Xu et al. 2019, sec. 4).

    Repairs target features that are shorter than the source's, on which a classifier is unsure ("misaligned feature norms").

    Parameters
    ----------
    depth, width, steps : as in :class:`Deep`
    rate : 3e-4, a tenth of the others'. AdamW takes steps of the rate's size however small a loss is, so that at 3e-3 norms grow not by 1 a step but from 14 to
        462 in all, the target's more than the source's; then it lost 9 points on pictures
    weight : of the loss; .05 as in the paper
    step : by how much a norm shall grow; 1 as in the paper
    """

    name: ClassVar[str] = "afn"
    paper: ClassVar[str] = "Xu et al. 2019, Larger norm more transferable: an adaptive feature norm approach"
    limits: ClassVar[str] = "moves no domain towards the other; its loss is the step's square at every step, so it tells nothing"

    rate: float = knob(3e-4, low=1e-4, high=1e-3, log=True)
    weight: float = knob(0.05, choices=(0.01, 0.05, 0.2))
    step: float = knob(1.0, choices=(0.3, 1.0, 3.0))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {"norms": self.weight * (growth(seen.fs, step=self.step) + growth(seen.ft, step=self.step))}


def growth(features: Tensor, *, step: float) -> Tensor:
    """Return the mean of (|f| - r)^2 over cases (n, d), r being what |f| is, plus ``step``, without gradient: step^2, with slope -2 step.

    >>> from torch import tensor
    >>> growth(tensor([[3.0, 4.0]]), step=2.0)
    tensor(4.)
    """
    norms = features.norm(dim=1)
    grown: Tensor = (norms - (norms.detach() + step)).square().mean()
    return grown
