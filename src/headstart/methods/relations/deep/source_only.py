"""No adaptation: the same net, steps and rates on labelled cases alone, scaled by these alone, which is what every other method is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion, knob, target_loss
from headstart.methods.model.tuned import is_norm
from headstart.methods.relations.deep.deep import Deep, Seen, cut_below, through


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
        return of_labels(net, batch, criterion, smoothing=self.smoothing)

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class OwnStatistics(Deep):
    """The same from the nearest cut with a norm above, whose BatchNorms take the statistics of the labelled cases: where TENT starts.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`, depth counted among cuts with a norm above
    """

    name: ClassVar[str] = "source-only with its own statistics"
    paper: ClassVar[str] = "Ioffe & Szegedy 2015, Batch normalization"
    limits: ClassVar[str] = "that of source-only; statistics of batches of 32"
    needs: ClassVar[frozenset[str]] = frozenset({"norms"})
    freezes_statistics: ClassVar[bool] = False

    def cut(self, source: Source) -> int:
        return cut_below(source, is_norm, depth=self.depth)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return of_labels(net, batch, criterion)

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {}


def of_labels(net: Net, batch: Batch, criterion: Criterion, *, smoothing: float = 0.0) -> dict[str, Tensor]:
    """Return the loss of the labelled cases alone."""
    return target_loss(through(net, batch.x)[1], batch.y, criterion, smoothing=smoothing)
