"""The baselines: what can be reached without transfer. They are tuned as hard as the transfer arms, on the same folds.

``Simple`` is a classical model on raw or hand-made features; ``Scratch`` is the source's architecture with random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Backbone, Batch, Net, Source
from headstart.methods.features.logistic import LogisticPath
from headstart.methods.method import Arm, Closed, Level, Method, View, knob


@dataclass(frozen=True)
class Simple(Closed):
    """A classical model on features that need no pretrained network.

    Parameters
    ----------
    features : "pixels" (32 x 32 colour) or "handmade" (histogram of oriented gradients, grid colour statistics, histograms)
    model : "logistic" (whole L2 path), "svm" (Gaussian kernel) or "forest" (extremely randomised trees; Geurts et al. 2006)
    strength : the SVM's C; the logistic path finds its own and the forest needs none

    Examples
    --------
    >>> Simple("handmade", "forest").view(None).kind
    'handmade'
    """

    name: ClassVar[str] = "simple"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"

    features: str = knob("handmade", choices=("handmade", "pixels"))
    model: str = knob("svm", choices=("svm", "logistic", "forest"))
    strength: float = knob(3.0, choices=(0.3, 3.0, 30.0))

    def view(self, source: Source | None) -> View:
        return View("handmade" if self.features == "handmade" else "pixels")

    def estimator(self, *, seed: int) -> Any:
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.model_selection import StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        if self.model == "logistic":
            return LogisticPath(seed=seed)
        if self.model == "forest":
            return ExtraTreesClassifier(n_estimators=300, class_weight="balanced", n_jobs=2, random_state=seed)
        svm = make_pipeline(StandardScaler(), SVC(C=self.strength, class_weight="balanced"))
        # why: an SVM has no probabilities; Platt's sigmoid on three inner folds, one final model (Platt 1999)
        inner = StratifiedKFold(3, shuffle=True, random_state=seed)
        return CalibratedClassifierCV(svm, cv=inner, ensemble=False)


@dataclass(frozen=True)
class Scratch(Method):
    """The source's architecture, trained from random weights on the target alone.

    Parameters
    ----------
    twin : returns the architecture with random weights for a seed
    side : side of the square input in pixels; 64 lets a CPU train it within minutes
    rate : peak learning rate of AdamW
    steps : optimiser steps of 32 cases

    No image is flipped or cropped at random: whether a label survives that is not known here, and the transfer arms do without, too.
    """

    name: ClassVar[str] = "scratch"
    arm: ClassVar[Arm] = "baseline"
    level: ClassVar[Level] = "none"
    freezes_statistics: ClassVar[bool] = False

    twin: Callable[[int], Backbone]
    side: int = 64
    rate: float = knob(2e-3, low=5e-4, high=5e-3, log=True)
    steps: int = knob(100, choices=(100, 300))

    def view(self, source: Source | None) -> View:
        return View("image", side=self.side)

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        backbone = self.twin(seed)
        return Net(backbone.above(0), nn.Linear(backbone.dim, classes))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * (stages + 1)

    def loss(self, net: Net, batch: Batch, weights: Tensor) -> dict[str, Tensor]:
        return {"cross entropy": functional.cross_entropy(net(batch.x), batch.y, weight=weights)}
