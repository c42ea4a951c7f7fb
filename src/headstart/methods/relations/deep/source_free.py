"""Adaptation without the source's data: from a fitted net and unlabelled cases alone (SHOT, TENT)."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion, knob
from headstart.methods.model.co_tuning import Table
from headstart.methods.model.tuned import is_norm
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen, built, cut_below, is_turn, through
from headstart.methods.relations.deep.mcc import entropy
from headstart.methods.relations.deep.source_only import OwnStatistics, SourceOnly

ROUNDS = 15  # times in a training that SHOT labels the target anew: once in each of the paper's epochs


@dataclass(frozen=True)
class SourceFree(Deep):
    """The interface: which method fits the net that this one goes on from, and what is minimised on unlabelled cases alone.

    ``learner.learn`` fits the first and goes on; ``learner.moved`` goes on from a net that is there, where the source's cases are not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes"})

    @abstractmethod
    def start(self, source: Source) -> Deep:
        """Return the method that is fitted first, on labelled cases; it starts from the same cut."""

    def continued(self, net: Net) -> Net:
        """Return what is trained: a copy of a fitted net of the same cut, with the scaffold."""
        return Net(copy.deepcopy(net.body), copy.deepcopy(net.head), self.memory())

    def memory(self) -> nn.ModuleDict | None:
        """Return what is remembered of the target."""
        return None

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return self.memory()

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        if batch.unlabelled is None:
            raise ValueError(f"{self.name} learns from the second domain; this batch has none")
        features, output = through(net, batch.unlabelled)
        return self.nearing(net, batch, Seen(features[:0], output[:0], features, output))


@dataclass(frozen=True)
class SHOT(SourceFree):
    """Make predictions sure and varied, and train on labels by the nearest centroid, under a frozen classifier (Liang et al. 2020, sec. 3).

    Repairs a shift of the features of every class, as they are drawn to where the classifier, which is all that is left of the source, expects them. Goes on
    from a net trained with label smoothing .1. Centroids and labels are found anew over the whole target 15 times.

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`
    pseudo : weight of the centroids' labels; .3 as in the paper

    Examples
    --------
    >>> SHOT().start(Source("s", stages=("a",))).smoothing
    0.1
    """

    name: ClassVar[str] = "shot"
    paper: ClassVar[str] = "Liang et al. 2020, Do we really need to access the source data? Source hypothesis transfer for unsupervised domain adaptation"
    limits: ClassVar[str] = "asks for classes of about equal shares in the target; learns its own mistakes"
    fixed: ClassVar[tuple[str, ...]] = ("head.linear",)

    pseudo: float = knob(0.3, choices=(0.0, 0.1, 0.3))

    def start(self, source: Source) -> Deep:
        return SourceOnly(self.depth, self.width, self.rate, self.steps, smoothing=0.1)

    def memory(self) -> nn.ModuleDict | None:
        return nn.ModuleDict({"labels": Table(np.zeros((0, 1)))})

    def surveys(self, step: int, steps: int) -> bool:
        return is_turn(step, steps, times=ROUNDS)

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        seen = [through(net, part) for part in parts]
        p = torch.cat([output for _, output in seen]).softmax(dim=1)
        labels = nearest_centroid(torch.cat([features for features, _ in seen]), p)
        if net.scaffold is not None:
            net.scaffold["labels"] = Table(functional.one_hot(labels, p.shape[1]).cpu().numpy())

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        p = seen.zt.softmax(dim=1)
        labels = built(net, "labels")(batch.unlabelled_rows)
        return {
            "entropy": entropy(p).mean(),
            "diversity": -entropy(p.mean(dim=0, keepdim=True)).sum(),
            "centroids": self.pseudo * functional.cross_entropy(seen.zt, labels),
        }


@dataclass(frozen=True)
class TENT(SourceFree):
    """Take BatchNorm statistics from target batches, and minimise the entropy of predictions over the norms' scales and shifts alone (Wang et al. 2021).

    Repairs another brightness, contrast or noise, in little time and without labels or source; so few numbers learn that little can break. LayerNorms learn
    as well; then there are no statistics to take. Training starts from the nearest cut with a norm above.

    Parameters
    ----------
    depth, width : as in :class:`Deep`, depth counted among cuts with a norm above
    rate : of AdamW; 1e-3 as in the paper's small networks
    steps : few, as entropy has its least where all is one class: about a pass, as in the paper
    """

    name: ClassVar[str] = "tent"
    paper: ClassVar[str] = "Wang et al. 2021, Tent: fully test-time adaptation by entropy minimization"
    limits: ClassVar[str] = "for networks with norms; on small or one-sided batches it drifts to one class"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "classes", "norms"})
    freezes_statistics: ClassVar[bool] = False

    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    steps: int = knob(50, choices=(25, 50, 100))

    def cut(self, source: Source) -> int:
        return cut_below(source, is_norm, depth=self.depth)

    def start(self, source: Source) -> Deep:
        return OwnStatistics(self.depth, self.width)

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * stages + [0.0]

    def learns(self, module: nn.Module, name: str) -> bool:
        return is_norm(module)

    def multiples(self, net: Net) -> dict[str, float]:
        return {}

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {"entropy": entropy(seen.zt.softmax(dim=1)).mean()}


def nearest_centroid(features: Tensor, p: Tensor) -> Tensor:
    """Return (n,) the class of the nearest centroid by cosine: first of centroids weighted by probabilities (n, c), then of the classes that this gives.

    Features (n, d) have a 1 appended and unit length, as in the authors' code; a class without cases keeps its first centroid.

    >>> f = torch.tensor([[4.0, 0.0], [3.0, 1.0], [0.0, 3.0]])
    >>> nearest_centroid(f, torch.tensor([[0.9, 0.1], [0.45, 0.55], [0.1, 0.9]])).tolist()
    [0, 0, 1]
    """
    unit = functional.normalize(torch.cat([features, features.new_ones(len(features), 1)], dim=1), dim=1)
    centroids = p.T @ unit
    labels = (unit @ functional.normalize(centroids, dim=1).T).argmax(dim=1)
    share = functional.one_hot(labels, p.shape[1]).to(unit.dtype)
    again = torch.where(share.sum(dim=0)[:, None] > 0, share.T @ unit, centroids)
    nearest: Tensor = (unit @ functional.normalize(again, dim=1).T).argmax(dim=1)
    return nearest
