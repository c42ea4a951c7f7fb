"""A critic that sees what class a case is taken for (Long et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen, built
from headstart.methods.relations.deep.mcc import sureness
from headstart.methods.relations.deep.reversal import AGAINST, critic, ramp, reversed_gradient, told_apart

MOST = 4096  # products; beyond, as in the paper, a random projection onto 1,024 of them
PROJECTED = 1024


@dataclass(frozen=True)
class CDAN(Deep):
    """DANN whose critic is given the products of features and predictions, and with ``entropy`` hears sure cases more (CDAN+E; Long et al. 2018, sec. 3).

    Repairs a shift of every class by itself, where DANN may put one class over another.

    Parameters
    ----------
    depth, width, rate : as in :class:`Deep`
    steps : 200, for two play; 600 at a rate of 1e-3 had 2 points more right (LOG.md)
    strength : largest factor on the reversed gradient; 1 as in the paper
    entropy : cases count by 1 + exp(-H) of their predictions
    """

    name: ClassVar[str] = "cdan"
    paper: ClassVar[str] = "Long et al. 2018, Conditional adversarial domain adaptation"
    limits: ClassVar[str] = "trusts predictions on the target; a game of two, so its loss tells nothing"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    steps: int = knob(AGAINST, choices=(100, 200, 600))
    strength: float = knob(1.0, choices=(0.1, 0.3, 1.0))
    entropy: bool = knob(True, choices=(True, False))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        crossing = Crossing(self.width, classes)
        return nn.ModuleDict({"crossing": crossing, "critic": critic(crossing.dim)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        strength, cross = self.strength * ramp(batch.progress), built(net, "crossing")
        said = (seen.zs.detach().softmax(dim=1), seen.zt.detach().softmax(dim=1))
        crossed = [cross(reversed_gradient(f, strength), p) for f, p in zip((seen.fs, seen.ft), said, strict=True)]
        weights = (sureness(said[0]), sureness(said[1])) if self.entropy else None
        return {"critic": told_apart(built(net, "critic"), crossed[0], crossed[1], weights)}


class Crossing(nn.Module):
    """All products of features (n, d) and probabilities (n, c), or (R f)(S p) / sqrt(1024), whose scalar products are theirs on average.

    >>> Crossing(2, 2)(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]])).tolist()
    [[0.25, 0.75, 0.5, 1.5]]
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.projects = dim * classes > MOST
        self.dim = PROJECTED if self.projects else dim * classes
        if self.projects:
            self.register_buffer("of_features", torch.randn(dim, PROJECTED))
            self.register_buffer("of_classes", torch.randn(classes, PROJECTED))

    def forward(self, features: Tensor, p: Tensor) -> Tensor:
        if self.projects:
            return (features @ self.get_buffer("of_features")) * (p @ self.get_buffer("of_classes")) / math.sqrt(PROJECTED)
        return (features[:, :, None] * p[:, None, :]).flatten(1)
