"""Classes that a batch's predictions do not confuse (Jin et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from headstart.core import Batch, Net
from headstart.methods.method import knob
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen


@dataclass(frozen=True)
class MCC(Deep):
    """Minimise how much soft predictions on the target mix pairs of classes, over the batch (Jin et al. 2020, sec. 3).

    Repairs predictions that became unsure, where the target still has clusters; says nothing of how the domains lie to each other, so classes may have other
    shares.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    weight : of the confusion; 1 as in the paper
    temperature : of the softmax; 2.5 as in the paper: at 1 sure predictions outvote the others
    """

    name: ClassVar[str] = "mcc"
    paper: ClassVar[str] = "Jin et al. 2020, Minimum class confusion for versatile domain adaptation"
    limits: ClassVar[str] = "makes wrong predictions surer where the domains disagree on where classes lie; a batch of 32 holds few of each of many classes"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    weight: float = knob(1.0, choices=(0.3, 1.0, 3.0))
    temperature: float = knob(2.5, choices=(1.5, 2.5, 4.0))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {"confusion": self.weight * confusion(seen.zt, temperature=self.temperature)}


def confusion(output: Tensor, *, temperature: float) -> Tensor:
    """Return the mean, over classes, of the share of other classes in its row of the class correlation: of logits (n, c), 0..1.

    Cases count by 1 + exp(-H), sure ones more, over their mean; the weights have no gradient.

    >>> confusion(torch.zeros(4, 2), temperature=2.5)  # even odds for all: half of each row
    tensor(0.5000)
    """
    p = functional.softmax(output / temperature, dim=1)
    weights = sureness(p)
    correlation = (weights[:, None] * p).T @ p
    # why a least: a class that no case of the batch can be, by float32, mixes with none
    rows = correlation / correlation.sum(dim=1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    return (rows.sum() - rows.diagonal().sum()) / p.shape[1]


def sureness(p: Tensor) -> Tensor:
    """Return (n,) 1 + exp(-H) over its mean, without gradient, H being the entropy of probabilities (n, c) in nats.

    >>> sureness(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()  # 2 and 1.5
    [1.1428571939468384, 0.8571428656578064]
    """
    with torch.no_grad():
        weights = 1.0 + torch.exp(-entropy(p))
        return weights / weights.mean()


def entropy(p: Tensor) -> Tensor:
    """Return (n,) the entropy, in nats, of probabilities (n, c).

    >>> entropy(torch.tensor([[0.5, 0.5], [0.0, 1.0]])).round(decimals=4).tolist()  # ln 2, and none
    [0.6930999755859375, 0.0]
    """
    # why not torch.special.entr: its slope at 0 is infinite, and softmax's there is 0, so that a sure case made the loss no number
    each: Tensor = (p * p.clamp_min(torch.finfo(p.dtype).tiny).log().neg()).sum(dim=1)
    return each
