"""Cases of one class drawn together across domains, cases of others pushed apart (Wang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from headstart.core import Batch, Net
from headstart.methods.method import knob
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen
from headstart.methods.relations.deep.reversal import ramp


@dataclass(frozen=True)
class Contrastive(Deep):
    """Contrast each target case with the labelled cases of a batch, those of its class against the others, and the other way round (Wang et al. 2022, sec. 3).

    A target case's class is what the net says where it is sure; others are left out. (The paper labels all by their nearest centroid.) Repairs classes that
    were torn apart by domain; its weight rises as the net has learnt, by 2 / (1 + exp(-10 p)) - 1.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    weight : of the loss; .1, and not 1, as it learns its own mistakes (LOG.md)
    temperature : of cosines; .3, where Khosla et al. 2020, whose loss it is within one domain, have .1
    sure : least probability of a class
    """

    name: ClassVar[str] = "contrastive"
    paper: ClassVar[str] = "Wang et al. 2022, Cross-domain contrastive learning for unsupervised domain adaptation"
    limits: ClassVar[str] = "learns its own mistakes where it is sure of them; in a batch of 32 many classes have no partner"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    weight: float = knob(0.1, choices=(0.1, 0.3, 1.0))
    temperature: float = knob(0.3, choices=(0.05, 0.1, 0.3))
    sure: float = knob(0.9, choices=(0.8, 0.9, 0.95))

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        p, said = seen.zt.detach().softmax(dim=1).max(dim=1)
        kept = p >= self.sure
        labels = batch.y if batch.y.ndim == 1 else batch.y.argmax(dim=1)
        fs, ft = functional.normalize(seen.fs, dim=1), functional.normalize(seen.ft[kept], dim=1)
        both = contrast(ft, said[kept], fs, labels, temperature=self.temperature) + contrast(fs, labels, ft, said[kept], temperature=self.temperature)
        return {"contrast": self.weight * ramp(batch.progress) * both}


def contrast(anchors: Tensor, codes: Tensor, others: Tensor, their_codes: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of -log softmax(a . o / T) over pairs of anchors (n, d) and others (m, d) of one class, each anchor counting alike; 0 without a pair.

    >>> from torch import eye, tensor
    >>> round(contrast(eye(2)[:1], tensor([0]), eye(2), tensor([0, 1]), temperature=1.0).item(), 4)  # log(1 + exp(-1))
    0.3133
    """
    same = codes[:, None] == their_codes
    paired = same.any(dim=1)
    if not bool(paired.any()):
        return 0.0 * (anchors.sum() + others.sum())
    each = functional.log_softmax(anchors[paired] @ others.T / temperature, dim=1)
    same = same[paired]
    loss: Tensor = -((each * same).sum(dim=1) / same.sum(dim=1)).mean()
    return loss
