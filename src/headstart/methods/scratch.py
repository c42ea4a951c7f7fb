"""A baseline: the source's architecture, trained from random weights on the target alone, tuned on the same folds as the transfer arms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from headstart.core import Backbone, Batch, Net, Source
from headstart.methods.method import Arm, Criterion, Level, Method, View, knob, target_loss


@dataclass(frozen=True)
class Scratch(Method):
    """The source's architecture, trained from random weights on the target alone.

    Parameters
    ----------
    twin : returns the architecture with random weights for a seed
    source : name of the source whose input it takes (tokens, columns); "" for images, which are made small
    side : side of the square input in pixels, or the number of tokens; 64 lets a CPU train it within minutes
    rate : peak learning rate of AdamW
    steps : optimiser steps of 32 cases

    No image is flipped or cropped at random: whether a label survives that is not known here, and the transfer arms do without, too.
    """

    name: ClassVar[str] = "scratch"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    freezes_statistics: ClassVar[bool] = False
    paper: ClassVar[str] = "He et al. 2019, Rethinking ImageNet pre-training"
    limits: ClassVar[str] = "needs many labels; images are made small"

    twin: Callable[[int], Backbone]
    source: str = ""
    side: int = 64
    rate: float = knob(2e-3, low=5e-4, high=5e-3, log=True)
    steps: int = knob(100, choices=(100, 300))

    def view(self, source: Source | None) -> View:
        return View("input", self.source, (0,), self.side) if self.source else View("image", side=self.side)

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        backbone = self.twin(seed)
        return Net(backbone.above(0), nn.Linear(backbone.dim, max(1, classes)))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * (stages + 1)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return target_loss(net(batch.x), batch.y, criterion)
