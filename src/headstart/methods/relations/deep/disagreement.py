"""Two classifiers that agree where there are labels and shall disagree where there are none, and features that do not let them (MDD, MCD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen, built
from headstart.methods.relations.deep.reversal import AGAINST, GENTLE, ramp, reversed_gradient

TEN = 10  # classes of the paper's digits


@dataclass(frozen=True)
class MDD(Deep):
    """Bring near the margin disparity of the domains: how well a second classifier follows the first on labelled cases and departs from it on others.

    In Zhang et al. 2019, sec. 5, the second minimises margin * CE(f', f) on the source and -log(1 - p'(f)) on the target; the features hear it reversed. The
    second has two layers, as in the authors' code, and the first, which is served, one; on seven pairs of real domains two layers for both are no better.

    Parameters
    ----------
    depth, width, rate : as in :class:`Deep`
    steps : 200, for two play
    margin : exp of the margin; 4 as in the paper
    strength : largest factor on the reversed gradient; .1 as in the authors' code
    """

    name: ClassVar[str] = "mdd"
    paper: ClassVar[str] = "Zhang et al. 2019, Bridging theory and algorithm for domain adaptation"
    limits: ClassVar[str] = "trusts the first classifier on the target; a game of two, so its loss tells nothing"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    steps: int = knob(AGAINST, choices=(100, 200, 600))
    margin: float = knob(4.0, choices=(2.0, 3.0, 4.0))
    strength: float = knob(0.1, choices=(0.1, 0.3, 1.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"second": second(self.width, classes=classes)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        strength, follow = self.strength * ramp(batch.progress), built(net, "second")
        # why together: what the classifier's weights cost to read is paid once
        ours, theirs = follow(reversed_gradient(torch.cat([seen.fs, seen.ft]), strength)).split([len(seen.fs), len(seen.ft)])
        return {"disparity": disparity(ours, seen.zs.argmax(dim=1), theirs, seen.zt.argmax(dim=1), margin=self.margin)}


@dataclass(frozen=True)
class MCD(Deep):
    """Let two classifiers disagree on the target as much as they can, and features make them agree, in one step by a reversed gradient (Saito et al. 2018).

    Repairs target cases that lie near the boundary, where two classifiers that are both right on the source part. The paper takes turns: one step of the
    classifiers, four of the features; the reversed gradient takes both steps at once, which it names as a possibility. The two have one form, and the second
    starts from random weights; the first is served. The distance is the paper's mean over classes where there are ten, and their sum counts alike for any
    number: as a mean two classes would be pulled at five times as hard, which on fourteen pairs of real domains cost 5 points (LOG.md).

    Parameters
    ----------
    depth, width : as in :class:`Deep`
    rate, steps : 1e-3 and 200, as in :class:`~headstart.methods.relations.deep.dann.DANN`
    strength : largest factor on the reversed gradient
    """

    name: ClassVar[str] = "mcd"
    paper: ClassVar[str] = "Saito et al. 2018, Maximum classifier discrepancy for unsupervised domain adaptation"
    limits: ClassVar[str] = "two classifiers can agree on the wrong side"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    rate: float = knob(GENTLE, low=2e-4, high=3e-3, log=True)
    steps: int = knob(AGAINST, choices=(100, 200, 600))
    strength: float = knob(1.0, choices=(0.3, 1.0, 3.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"second": nn.Linear(self.width, classes)})

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        other, theirs = built(net, "second"), reversed_gradient(seen.ft, self.strength * ramp(batch.progress))
        apart = (net.head.get_submodule("linear")(theirs).softmax(dim=1) - other(theirs).softmax(dim=1)).abs().sum(dim=1).mean() / TEN
        labels = batch.y if batch.y.ndim == 1 else batch.y.argmax(dim=1)
        return {"second": functional.cross_entropy(other(seen.fs), labels), "disagreement": -apart}


def second(dim: int, *, classes: int) -> nn.Sequential:
    """Return a second classifier of features (n, dim), of two layers, half of what is between them dropped, as in the authors' code of MDD."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(), nn.Linear(dim, classes))


def disparity(ours: Tensor, ours_said: Tensor, theirs: Tensor, theirs_said: Tensor, *, margin: float) -> Tensor:
    """Return margin * mean -log p'(said) over labelled cases (n, c), plus mean -log(1 - p'(said)) over the others (m, c), p' of logits.

    >>> said = torch.tensor([0])
    >>> round(disparity(torch.zeros(1, 2), said, torch.zeros(1, 2), said, margin=4.0).item(), 4)  # 5 log 2
    3.4657
    """
    others = theirs.scatter(1, theirs_said[:, None], -torch.inf)
    departing = theirs.logsumexp(dim=1) - others.logsumexp(dim=1)
    return margin * functional.cross_entropy(ours, ours_said) + departing.mean()
