"""The target's own statistics in BatchNorm (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.deep import Deep, Seen, cut_below
from headstart.methods.relations.deep.source_only import of_labels

BATCHNORM = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class AdaBN(Deep):
    """Train on labelled cases with their own BatchNorm statistics, and in the end put the target's in their place (Li et al. 2018, alg. 1).

    Repairs another brightness, contrast or gain of channels. Only BatchNorms above the cut take part, so training starts from the nearest cut with one above;
    the frozen stages below keep the source's. The target's statistics are means over its parts, as in "precise BatchNorm" (Wu & Johnson 2021).

    Parameters
    ----------
    depth, width, rate, steps : as in :class:`Deep`, depth counted among cuts with a BatchNorm above
    """

    name: ClassVar[str] = "adabn"
    paper: ClassVar[str] = "Li et al. 2018, Adaptive batch normalization for practical domain adaptation"
    limits: ClassVar[str] = "for networks with BatchNorm, whose last stages are trained; where classes have other shares in the target, that passes for a shift"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED, "batchnorm"})
    freezes_statistics: ClassVar[bool] = False

    def cut(self, source: Source) -> int:
        return cut_below(source, lambda m: isinstance(m, BATCHNORM), depth=self.depth)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return of_labels(net, batch, criterion)

    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        return {}

    def surveys(self, step: int, steps: int) -> bool:
        return step == steps

    def survey(self, net: Net, parts: Iterable[Tensor], progress: float) -> None:
        take_statistics(net.body, parts)


def take_statistics(body: nn.Module, parts: Iterable[Tensor]) -> None:
    """Put into every BatchNorm the means of mean and variance over the parts (k, ...) that pass through ``body``, which stays in evaluation mode."""
    norms = [m for m in body.modules() if isinstance(m, BATCHNORM)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # why: PyTorch then takes the mean over all batches
        norm.train()
    for part in parts:
        body(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
