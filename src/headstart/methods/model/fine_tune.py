"""Fine-tune the stages above a cut, starting from a linear probe (LP-FT; Kumar et al. 2022), with rates that fall by stage.

The stages below the cut are frozen, so they ran once, and training starts from their stored activations. Starting from the probe's
head keeps the pretrained features from being distorted by a random one (Kumar et al. 2022, sec. 3).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.gain import stored_cuts
from headstart.core import Batch, Net, Source
from headstart.methods.features.probe import ALPHAS
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import Arm, Level, Method, View, knob, target_loss


@dataclass(frozen=True)
class FineTune(Method):
    """Fine-tune from a cut.

    Parameters
    ----------
    depth : which of the source's tuning cuts to start from, of those that are stored (see ``activations.gain``); 0 is the one nearest to the output
        (cheapest)
    rate : peak learning rate of AdamW in the last stage; 1e-3 with decay .8 is the middle of what the field uses for a body
        that is fine-tuned after its head (layer-wise decay: Clark et al. 2020; AutoGluon uses .9 and 1e-4 to 4e-4)
    decay : factor on the rate from one stage to the one before it
    steps : optimiser steps of 32 cases; budgets in steps hold for any n (BiT, Kolesnikov et al. 2020). From a probe's head 50 suffice: on 450
        cells 100 gained .00 to .01 for twice the time
    smoothing : label smoothing, 0..1
    dropout : share of the features dropped before the head, 0..1

    Examples
    --------
    >>> FineTune(decay=0.5).rates(3, 0.0)
    [0.25, 0.5, 1.0, 1.0]
    """

    name: ClassVar[str] = "fine-tune"
    arm: ClassVar[Arm] = "fine-tuned"
    level: ClassVar[Level] = "model"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def cut(self, source: Source) -> int:
        """Return the cut that training starts from, of those whose activations are worth storing, or the input."""
        cuts = sorted({*stored_cuts(source), *(c for c in source.tune_cuts if c == 0)}, reverse=True)
        return cuts[min(self.depth, len(cuts) - 1)]

    def view(self, source: Source | None) -> View:
        if source is None:
            raise ValueError("fine-tuning needs a source")
        cut = self.cut(source)
        return View("raw" if cut else "input", source.name, (cut,))

    @property
    def starts_from_probe(self) -> bool:
        return True

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        if features is None:
            raise ValueError("LP-FT starts from a probe: the final features of the training cases are needed")
        body = copy.deepcopy(source.backbone.above(self.cut(source)))
        linear = nn.utils.skip_init(nn.Linear, source.dim, max(1, classes))
        weight, bias = RidgeLOO().fit(features, y).linear() if classes else _ridge(features, y)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        return Net(body, nn.Sequential(OrderedDict(dropout=nn.Dropout(self.dropout), linear=linear)))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [self.decay ** (stages - 1 - i) for i in range(stages)] + [1.0]

    def loss(self, net: Net, batch: Batch, weights: Tensor) -> dict[str, Tensor]:
        return target_loss(net(batch.x), batch.y, weights, smoothing=self.smoothing)


def _ridge(features: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (1, d) and bias (1,) of a ridge regression on standardised features, its penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    from headstart.methods.features.scaling import LiveScaler

    scaler = LiveScaler().fit(features)
    ridge = RidgeCV(ALPHAS).fit(scaler.transform(features), y)
    weight = (ridge.coef_ / scaler.scale_)[None]
    return weight, np.atleast_1d(ridge.intercept_) - weight @ scaler.mean_
