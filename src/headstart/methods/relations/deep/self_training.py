"""The net's own sure predictions as labels of the target: of all cases, class by class, and of their copies (CBST, FixMatch)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.methods.method import STRONG, View, knob
from headstart.methods.model.co_tuning import Table
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen, built, is_turn, through

ROUNDS = 10  # times in a training that the target is labelled anew
AVERAGED = 15  # times that predictions are averaged over it, as often as SHOT labels it
LEAST = 1e-6  # an average prediction: a class that nothing is called any more comes back by no more than this


@dataclass(frozen=True)
class SelfTraining(Deep):
    """Train on the surest share of the target, of each predicted class the same share, labelled anew in rounds (Zou et al. 2018, sec. 4).

    Repairs a shift in steps: what is sure first pulls the rest along; by taking a share of each class, frequent ones do not swallow the others. Starts from
    the head of the labelled cases. The share grows from ``first`` to ``last`` (20 % to 50 % as in the paper).

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    first, last : shares of each predicted class that are labelled in the first and in the last round, 0..1
    weight : of the target's loss
    """

    name: ClassVar[str] = "self-training"
    paper: ClassVar[str] = "Zou et al. 2018, Unsupervised domain adaptation for semantic segmentation via class-balanced self-training"
    limits: ClassVar[str] = "learns its own mistakes, and is the surer of them; needs a start that is right more often than not"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    first: float = knob(0.2, choices=(0.1, 0.2, 0.4))
    last: float = knob(0.5, choices=(0.5, 0.7, 0.9))
    weight: float = knob(1.0, choices=(0.3, 1.0))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"labels": Table(np.zeros((0, classes)))})

    def surveys(self, step: int, steps: int) -> bool:
        return is_turn(step, steps, times=ROUNDS)

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        p = predicted(net, parts)
        if net.scaffold is not None:
            net.scaffold["labels"] = Table(surest(p, self.first + (self.last - self.first) * progress).cpu().numpy())

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        labels = built(net, "labels")(batch.unlabelled_rows)
        return {"own labels": -self.weight * (labels * functional.log_softmax(seen.zt, dim=1)).sum() / labels.sum().clamp_min(1.0)}


@dataclass(frozen=True)
class FixMatch(Deep):
    """A sure prediction on a target case is the label of an augmented copy of it (Sohn et al. 2020, eqs. 3 and 4).

    Copies are made of the inputs, run through the frozen stages once and stored; in each pass over the target the next copy of every case is trained on. They
    are by modality what :data:`~headstart.methods.method.STRONG` says: a crop and RandAugment of images, words deleted and swapped and tokens masked of texts,
    noise and absent values of rows. The label is that of the case as it is (the paper shifts and mirrors it a little).

    Under a shift the surest predictions may be wrong and pull all cases into one class. So predictions are first divided by what is predicted on average, found
    anew over the whole target 15 times: distribution alignment (Berthelot et al. 2020, sec. 3.1), which the paper of FixMatch adds where classes are many.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`; after 600 steps at 1e-3 three pairs of real domains had 8 points less right (LOG.md)
    sure : least probability that makes a label; .95 as in the paper
    copies : of each case; each costs a pass of the target through the frozen stages, once. 120 steps go over 900 cases four times
    weight : of the target's loss; 1 as in the paper
    aligned : divide so; without, planted shifts of two classes end in one class fewer (LOG.md)

    Examples
    --------
    >>> FixMatch(copies=2).beside(Source("s", modality="text", stages=("a",))).copies
    ('delete+swap+mask', 'delete+swap+mask')
    """

    name: ClassVar[str] = "fixmatch"
    paper: ClassVar[str] = "Sohn et al. 2020, FixMatch: simplifying semi-supervised learning with consistency and confidence"
    limits: ClassVar[str] = "learns its own mistakes; aligned, it leans to classes of equal shares; few looks at a case, not a new one in every step"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes", "copies"})

    sure: float = knob(0.95, choices=(0.8, 0.9, 0.95))
    copies: int = knob(4, choices=(2, 4, 8))
    weight: float = knob(1.0, choices=(0.3, 1.0))
    aligned: bool = knob(True, choices=(True, False))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"average": Table(np.full((1, classes), 1.0 / classes))})

    def surveys(self, step: int, steps: int) -> bool:
        return self.aligned and is_turn(step, steps, times=AVERAGED)

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        p = predicted(net, parts)
        if net.scaffold is not None:
            net.scaffold["average"] = Table(p.mean(dim=0, keepdim=True).cpu().numpy())

    def beside(self, source: Source | None) -> View:
        place = self.view(source)
        return place if source is None else dataclasses.replace(place, copies=(STRONG[source.modality],) * self.copies)

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        if batch.copies is None:
            raise ValueError(f"{self.name} trains on copies of the second domain's cases; this batch has none")
        weak = seen.zt.detach()
        if self.aligned:
            weak = weak - built(net, "average")(torch.zeros(1, dtype=torch.long, device=weak.device)).clamp_min(LEAST).log()
        return {"own labels": self.weight * consistency(weak, through(net, batch.copies)[1], sure=self.sure)}


def predicted(net: Net, parts: Iterable[Tensor]) -> Tensor:
    """Return class probabilities (m, c) of a whole domain, given in parts."""
    return torch.cat([through(net, part)[1].softmax(dim=1) for part in parts])


def consistency(weak: Tensor, strong: Tensor, *, sure: float) -> Tensor:
    """Return the cross entropy of logits ``strong`` (n, c) with the classes of ``weak`` (n, c), over all n; a case counts where weak's probability is ``sure``.

    >>> consistency(torch.tensor([[9.0, 0.0], [0.1, 0.0]]), torch.zeros(2, 2), sure=0.95)  # log 2, of one of two cases
    tensor(0.3466)
    """
    p, labels = weak.softmax(dim=1).max(dim=1)
    each = functional.cross_entropy(strong, labels, reduction="none")
    counted: Tensor = (each * (p >= sure)).mean()
    return counted


def surest(p: Tensor, share: float) -> Tensor:
    """Return (n, c): 1 for the predicted class of each case among the surest ``share`` of those predicted alike, at least one; other rows are 0.

    >>> surest(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), 0.5).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    sure, codes = p.max(dim=1)
    rows = torch.zeros_like(p)
    for c in range(p.shape[1]):
        cases = (codes == c).nonzero()[:, 0]
        best = cases[sure[cases].argsort(descending=True, stable=True)[: max(1, round(share * len(cases)))]]
        rows[best, c] = 1.0
    return rows
