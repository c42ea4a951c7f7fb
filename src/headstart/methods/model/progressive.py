"""Progressive transfer: start part of the way from random weights to the source's, and hold the weights near that point."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.core import Batch, Net, Preprocess, Source
from headstart.methods.method import View, knob
from headstart.methods.model.l2sp import half_square
from headstart.methods.model.layers import restart
from headstart.methods.model.tuned import Tuned, frozen_copy, start_below

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
DEEPEST = 32  # stages that a walk lets learn at most


@dataclass(frozen=True)
class Progressive(Tuned):
    """Train the last stages, and a head, from w = fresh + a (source - fresh), under alpha a/2 |w - start|^2; a = 0 transfers nothing.

    Shrinking the source's weights and adding fresh ones is that of Ash & Adams 2020 (shrink and perturb), the pull that of Li et al. 2018 (L2-SP). The
    stages below keep the source's weights and are frozen, so their stored activations serve. The head starts from a times a probe's. With a = 0 there
    is no source: every stage starts from random weights and learns, and the trial counts as a baseline. ``headstart.walk`` goes from there to the
    source by steps that pay.

    Parameters
    ----------
    share : a, the share of the way from fresh weights to the source's, 0..1
    last : how many stages learn, counted from the output; all of them where ``share`` is 0
    pull : alpha, the strength of the pull towards the start; .01 as in :class:`L2SP`
    rate, steps, smoothing, dropout : as in :class:`FineTune`; 100 steps and no decay, since fresh weights need both
    side : pixels of images (only in networks with BatchNorm, which take any size), and tokens of texts, where ``share`` is 0; 64, as in :class:`Scratch`

    Examples
    --------
    >>> Progressive(last=1).rates(3, 0.0), Progressive(share=0.0).rates(3, 0.0)
    ([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    >>> Progressive().arm, Progressive(share=0.0).arm
    ('fine-tuned', 'baseline')
    """

    name: ClassVar[str] = "progressive"
    paper: ClassVar[str] = "Ash & Adams 2020, On warm-starting neural network training"
    limits: ClassVar[str] = "the walk measures the network from random weights first, which takes minutes for images and texts"
    freezes_statistics: ClassVar[bool] = False

    share: float = knob(1.0, choices=SHARES)
    last: int = knob(2, choices=tuple(range(1, DEEPEST + 1)))
    pull: float = knob(0.01, choices=(0.0, 0.001, 0.01, 0.1))
    rate: float = knob(1e-3, low=2e-4, high=1e-2, log=True)
    steps: int = knob(100, choices=(50, 100, 200, 400))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2))
    side: int = 64

    def __post_init__(self) -> None:
        if self.share == 0:  # why: what transfers nothing must not be counted as a gain of transfer
            object.__setattr__(self, "arm", "baseline")

    def cut(self, source: Source) -> int:
        return start_below(source, max(0, len(source.stages) - self.last)) if self.share else 0

    def view(self, source: Source | None) -> View:
        if source is None or self.share:
            return super().view(source)
        return View("image", side=self.side) if _takes_any_size(source) else View("input", source.name, (0,), self.side)

    @property
    def starts_from_probe(self) -> bool:
        return self.share > 0

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        net = super().build(source, features=features, y=y, classes=classes, seed=seed)
        with torch.no_grad():
            for values in net.head.parameters():
                values.mul_(self.share)
        return net

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        body = super().body(source, seed=seed)
        if self.share == 1:
            return body
        fresh = copy.deepcopy(body)
        learning = fresh[max(0, len(fresh) - self.last) :] if self.share else fresh
        restart(learning)
        return blended(fresh, body, share=self.share)

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"start": frozen_copy(body)}) if self.pull * self.share else None

    def rates(self, stages: int, progress: float) -> list[float]:
        return [0.0 if self.share and i < stages - self.last else 1.0 for i in range(stages)] + [1.0]

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        if net.scaffold is None:
            return {}
        return {"distance from the start": self.pull * self.share * half_square(net.body, net.scaffold["start"])}


def blended(fresh: nn.Sequential, source: nn.Sequential, *, share: float) -> nn.Sequential:
    """Move weights, and statistics, of ``fresh`` that share of the way to those of ``source``; at 0 and 1 the bits of the one or the other.

    >>> fresh, source = (nn.Sequential(nn.Linear(1, 1, bias=False)) for _ in range(2))
    >>> filled = [nn.init.constant_(m[0].weight, c) for m, c in ((fresh, 1.0), (source, 5.0))]
    >>> blended(fresh, source, share=0.25)[0].weight.item()
    2.0
    """
    with torch.no_grad():
        pairs = [*zip(fresh.parameters(), source.parameters(), strict=True), *zip(fresh.buffers(), source.buffers(), strict=True)]
        for mine, theirs in pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs, share)
    return fresh


def _takes_any_size(source: Source) -> bool:
    """Whether the source sees colour images through BatchNorm: convolutional networks of fixed size came before it, and transformers have none."""
    if source.modality != "image":
        return False
    preprocess = source.backbone.preprocess
    return isinstance(preprocess, Preprocess) and preprocess.channels == "RGB" and any(isinstance(m, _BatchNorm) for m in source.backbone.stages.modules())
