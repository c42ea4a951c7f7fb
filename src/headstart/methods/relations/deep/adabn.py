"""The target's own statistics in BatchNorm (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
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
    the frozen stages below keep the source's. The target's statistics are those of all its cases, in whatever order: means over its parts, as in "precise
    BatchNorm" (Wu & Johnson 2021), with the parts' means' own variance.

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
    """Put into every BatchNorm mean and variance over all cases of the parts (k, ...) that pass through ``body``, which stays in evaluation mode.

    On its way a part is normalised by its own statistics, as a batch is in training. Means of the parts' variances would lack what lies between parts, which is
    much where cases come sorted by class.
    """
    norms = [m for m in body.modules() if isinstance(m, BATCHNORM)]
    seen = [_Moments() for _ in norms]
    hooks = [norm.register_forward_pre_hook(one.see) for norm, one in zip(norms, seen, strict=True)]
    for norm in norms:
        norm.train()
    for part in parts:
        body(part)
    for norm, one, hook in zip(norms, seen, hooks, strict=True):
        hook.remove()
        norm.eval()
        norm.reset_running_stats()  # why: what the parts left there is theirs alone
        if one.n > 1 and norm.running_mean is not None and norm.running_var is not None:
            mean = one.total / one.n
            norm.running_mean.copy_(mean)
            norm.running_var.copy_((one.squares - one.n * mean.square()).clamp_min(0.0) / (one.n - 1))


@dataclass
class _Moments:
    """How many values of each channel a norm was given, their sums and those of their squares, (channels,) each."""

    n: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def see(self, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].detach().double().transpose(0, 1).flatten(1)
        self.n += values.shape[1]
        self.total = self.total + values.sum(dim=1)
        self.squares = self.squares + values.square().sum(dim=1)
