"""The target's geometry kept: how its cases lie to each other in the source's own features (Park et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
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
    of_distances, of_angles : weights; 25 and 50 as in the paper's classification
    """

    name: ClassVar[str] = "rkd"
    paper: ClassVar[str] = "Park et al. 2019, Relational knowledge distillation"
    limits: ClassVar[str] = "keeps what the source sees of the target, right or wrong, and brings no domain nearer"

    of_distances: float = knob(25.0, choices=(5.0, 25.0, 100.0))
    of_angles: float = knob(50.0, choices=(10.0, 50.0, 200.0))

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
    apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    n = len(x)
    return apart / (apart.sum() / max(1, n * (n - 1))).clamp_min(torch.finfo(x.dtype).tiny)


def angles(x: Tensor) -> Tensor:
    """Return (n, n, n) cosines of the angles at case i between cases j and k, of cases (n, d); 0 where two are one.

    >>> angles(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]]))[0, 1, 2]
    tensor(0.)
    """
    towards = functional.normalize(x[None] - x[:, None], dim=2)
    return towards @ towards.transpose(1, 2)
