"""What deep adaptation methods have in common: one net over both domains, the labels' loss on one, and what brings the other near."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion, Level, View, knob, target_loss
from headstart.methods.model.tuned import Tuned, probed, starts
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations.deep.bottleneck import Bottleneck

WIDTH = 400  # features, at which the bottleneck learns at the rate itself
QUIET = 0.1  # of a probe's logits, where training starts: a head that is sure before the domains have met is heard too much (LOG.md)
BODY = 0.1  # of the rate, in the stages of the source: a tenth, as in Ganin et al. 2016, sec. 5.2.2, and all that followed


class Seen(NamedTuple):
    """What a net makes of a batch: features f (n, d) behind the bottleneck and outputs z (n, c), of labelled (s) and unlabelled (t) cases."""

    fs: Tensor
    zs: Tensor
    ft: Tensor
    zt: Tensor


@dataclass(frozen=True)
class Deep(Tuned):
    """Train a bottleneck and a head, and the stages above a cut if there are any, on labelled cases of one domain and unlabelled ones of another.

    By default the cut is the source's last: the network is frozen, its pooled features are in the store, and two layers learn within a second on two cores.
    What separates domains often lies in stages further down; with ``depth`` they learn as well, for the price of running them forward and back.

    Parameters
    ----------
    depth : 0, the default: nothing of the source learns; 1, 2, ...: from the tuning cut nearest to the output, or an earlier one
    width : of the bottleneck; 256, as in Long et al. 2015 and after
    rate : peak learning rate of AdamW in bottleneck and head; 3e-3, a tenth of it in the source's stages
    steps : optimiser steps of 32 labelled and 32 unlabelled cases; 120. On five pairs of real domains, 300 cases of each, methods without an adversary had as
        much right as after 600 steps at a third of the rate, with 1,600 of each as well (LOG.md)
    """

    level: ClassVar[Level] = "relation"
    needs: ClassVar[frozenset[str]] = frozenset({UNLABELLED})
    smoothing = 0.0

    depth: int = knob(0, choices=(0, 1))
    width: int = knob(256, choices=(64, 256))
    rate: float = knob(3e-3, low=5e-4, high=1e-2, log=True)
    steps: int = knob(120, choices=(60, 120, 300, 600))

    def cut(self, source: Source) -> int:
        return cuts(source)[min(self.depth, len(cuts(source)) - 1)]

    def view(self, source: Source | None) -> View:
        last = source is not None and self.cut(source) == len(source.stages)
        return View("pooled", source.name, (len(source.stages),)) if source is not None and last else super().view(source)

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int, beside: np.ndarray | None = None) -> Net:
        """Return the net; ``beside`` (m, dim) are final features of the unlabelled cases, by which each is scaled too where the method learns from those."""
        if features is None:
            raise ValueError("a bottleneck is built over the final features of the labelled cases")
        body = self.body(source, seed=seed)
        bottleneck = Bottleneck.over(features, width=self.width, beside=beside if UNLABELLED in self.needs else None)
        with torch.no_grad():
            behind = bottleneck(torch.from_numpy(np.asarray(features, dtype=np.float32))).double().numpy()
        head = nn.Sequential(OrderedDict(bottleneck=bottleneck, linear=_quietly(probed(behind, y, classes=classes), classes=classes)))
        return Net(body, head, self.scaffold(source, body, features=features, y=y, classes=classes))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [BODY] * stages + [1.0]

    def multiples(self, net: Net) -> dict[str, float]:
        """AdamW moves a weight by the rate whatever its size, and those behind ``dim`` features are of size sqrt(2 / dim): so they move alike in proportion."""
        narrow = net.head.get_submodule("bottleneck")
        # why asked: a net that is gone on from may have none, only its source's stages
        return {"head.bottleneck.linear.weight": math.sqrt(WIDTH / narrow.linear.in_features)} if isinstance(narrow, Bottleneck) else {}

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        if batch.unlabelled is None:
            raise ValueError(f"{self.name} brings a second domain near; this batch has none")
        features, output = through(net, torch.cat([batch.x, batch.unlabelled]))
        n = len(batch.x)
        seen = Seen(features[:n], output[:n], features[n:], output[n:])
        # why: distances and spectra are differences of large numbers, which bfloat16 does not hold
        with torch.autocast(batch.x.device.type, enabled=False):
            return {**target_loss(seen.zs, batch.y, criterion, smoothing=self.smoothing), **self.nearing(net, batch, seen)}

    @abstractmethod
    def nearing(self, net: Net, batch: Batch, seen: Seen) -> dict[str, Tensor]:
        """Return what is minimised besides the loss of the labels, term by term."""


def _quietly(linear: nn.Linear, *, classes: int) -> nn.Linear:
    """Return the head with logits a tenth as large; of numbers as it is."""
    if classes:
        with torch.no_grad():
            linear.weight.mul_(QUIET)
            linear.bias.mul_(QUIET)
    return linear


def cuts(source: Source) -> list[int]:
    """Return the cuts that a deep method may start from: the last, behind which nothing of the source is left, then those of fine-tuning."""
    last = len(source.stages)
    return [last, *(cut for cut in starts(source) if cut != last)]


def cut_below(source: Source, holds: Callable[[nn.Module], bool], *, depth: int) -> int:
    """Return the cut nearest to the output above which there is a module that ``holds``, or one of fine-tuning's ``depth`` cuts before it; else the input."""
    able = [cut for cut in cuts(source) if any(holds(m) for m in source.backbone.above(cut).modules())] or [0]
    return able[min(depth, len(able) - 1)]


def through(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, d) behind the bottleneck and outputs (n, c) of activations x, in float32."""
    features = net.head.get_submodule("bottleneck")(net.body(x))
    return features.float(), net.head.get_submodule("linear")(features).float()


def is_turn(step: int, steps: int, *, times: int) -> bool:
    """Whether a method looks over the second domain before ``step``, if it does so ``times`` times in a training, at even distances.

    >>> [step for step in range(9) if is_turn(step, 8, times=4)]
    [0, 2, 4, 6]
    """
    return step < steps and step % max(1, steps // times) == 0


def built(net: Net, name: str) -> nn.Module:
    """Return that part of the net's scaffold."""
    if net.scaffold is None:
        raise ValueError("a deep method trains with its scaffold; this net has none")
    return net.scaffold[name]
