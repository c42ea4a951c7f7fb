"""No adaptation: the same net, steps and rates on labelled cases alone, which is what every other method is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from headstart.core import Batch, Net
from headstart.methods.method import Criterion, knob, target_loss
from headstart.methods.relations.deep.deep import Deep, Seen, through


@dataclass(frozen=True)
class SourceOnly(Deep):
    """Train as the others do, and leave the unlabelled cases alone.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    smoothing : label smoothing, 0..1; SHOT starts from .1 (Liang et al. 2020, sec. 3.1)

    Examples
    --------
    >>> sorted(SourceOnly.needs)
    []
    """

    name: ClassVar[str] = "source-only"
    paper: ClassVar[str] = "Ben-David et al. 2010, A theory of learning from different domains"
    limits: ClassVar[str] = "its error on the target is bounded by that on the source and the distance of the domains, which it does nothing about"
    needs: ClassVar[frozenset[str]] = frozenset()

    smoothing: float = knob(0.0, choices=(0.0, 0.1))

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return target_loss(through(net, batch.x)[1], batch.y, criterion, smoothing=self.smoothing)

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {}
