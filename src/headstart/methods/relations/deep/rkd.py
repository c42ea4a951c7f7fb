"""The target's geometry kept: how its cases lie to each other in the source's own features (Park et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.distance import squared_distances
from headstart.methods.method import knob
from headstart.methods.model.tuned import frozen_copy
from headstart.methods.relations.deep.deep import Deep, Seen, built


@dataclass(frozen=True)
class RKD(Deep):
    """Keep distances and angles among target cases as they are in the untouched source's features (Park et al. 2019, sec. 3).

    Labels of one domain bend the features to its classes; this holds the target's own clusters together meanwhile. Nothing moves the domains to each other.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    of_distances, of_angles : weights; 1 and 2 as in the paper's metric learning. With its classification's 25 and 50 five pairs of real domains lost 4 points
        (LOG.md)
    """

    name: ClassVar[str] = "rkd"
    paper: ClassVar[str] = "Park et al. 2019, Relational knowledge distillation"
    limits: ClassVar[str] = "keeps what the source sees of the target, right or wrong, and brings no domain nearer"

    of_distances: float = knob(1.0, choices=(1.0, 5.0, 25.0))
    of_angles: float = knob(2.0, choices=(2.0, 10.0, 50.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"teacher": frozen_copy(body)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        bottleneck = net.head.get_submodule("bottleneck")
        with torch.no_grad():
            known = (built(net, "teacher")(batch.unlabelled) - bottleneck.get_buffer("centre")) * bottleneck.get_buffer("scale")
        return {
            "distances": self.of_distances * functional.smooth_l1_loss(distances(seen.ft), distances(known.float())),
            "angles": self.of_angles * functional.smooth_l1_loss(angles(seen.ft), angles(known.float())),
        }


def distances(x: Tensor) -> Tensor:
    """Return (n, n) distances among cases (n, d), over their mean; neither rotation nor scale nor shift of x changes them.

    >>> distances(torch.tensor([[0.0], [3.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    apart = _roots(_squares(x))
    n = len(x)
    return (apart / (apart.sum() / max(1, n * (n - 1))).clamp_min(torch.finfo(x.dtype).tiny)).to(x.dtype)


def angles(x: Tensor) -> Tensor:
    """Return (n, n, n) cosines of the angles at case i between cases j and k, of cases (n, d); 0 where two are one.

    By the law of cosines, (a^2 + b^2 - c^2) / 2ab: distances cost n^2 d, and all pairs of differences n^3 d.

    >>> round(angles(torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]]))[0, 1, 2].item(), 4)  # 45 degrees
    0.7071
    """
    squares = _squares(x)
    sides = _roots(squares)
    apart = sides[:, :, None] * sides[:, None, :]
    one = apart == 0
    twice = squares[:, :, None] + squares[:, None, :] - squares[None]
    return (twice / (2.0 * apart).masked_fill(one, 1.0)).masked_fill(one, 0.0).to(x.dtype)


def _squares(x: Tensor) -> Tensor:
    return squared_distances(x.double(), x.double())  # why doubles: what the law of cosines takes the difference of is nearly equal


def _roots(squares: Tensor) -> Tensor:
    """Return the roots; where a square is 0 there is no slope, which would be infinite."""
    one = squares == 0
    return squares.masked_fill(one, 1.0).sqrt().masked_fill(one, 0.0)
