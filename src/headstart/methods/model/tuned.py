"""What methods that tune a copy of a source have in common: where training starts, the copy, the head, and the loss of the target."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.gain import stored_cuts
from headstart.core import Batch, Net, Source
from headstart.methods.features.probe import ALPHAS
from headstart.methods.features.ridge import RidgeLOO
from headstart.methods.method import Arm, Criterion, Level, Method, View, target_loss


class Tuned(Method):
    """Train a copy of the stages above a cut, and a head behind them.

    The stages below the cut are frozen, so they ran once, and training starts from their stored activations; cut 0 is the input itself. As it
    stands: from the cut that ``depth`` names, from a probe's head, with rates that fall by ``decay`` from stage to stage.
    """

    arm: ClassVar[Arm] = "fine-tuned"
    level: ClassVar[Level] = "model"

    depth: int = 0
    decay: float = 1.0
    smoothing: float
    dropout: float

    def cut(self, source: Source) -> int:
        """Return the cut that training starts from, of those whose activations are worth storing, or the input."""
        cuts = starts(source)
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
        body = self.body(source, seed=seed)
        linear = probed(features, y, classes=classes) if self.starts_from_probe else blank(source.dim, classes=classes)
        head = nn.Sequential(OrderedDict(dropout=nn.Dropout(self.dropout), linear=linear))
        return Net(body, head, self.scaffold(source, body, features=features, y=y, classes=classes))

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        """Return what is trained of the source: a copy of the stages above the cut."""
        return copy.deepcopy(source.backbone.above(self.cut(source)))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        """Return what only training needs. Parts of it that require gradients learn at the head's rate; the others are frozen."""
        return None

    def rates(self, stages: int, progress: float) -> list[float]:
        return [self.decay ** (stages - 1 - i) for i in range(stages)] + [1.0]

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        activations = walked(net.body, batch.x)
        target = target_loss(net.head(activations[-1]), batch.y, criterion, smoothing=self.smoothing)
        return {**target, **self.penalties(net, batch, activations)}

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        """Return what is minimised besides the target's loss; ``activations`` are the outputs of the body's stages, (n, ...) each."""
        return {}


def starts(source: Source) -> list[int]:
    """Return the cuts that training may start from, the one nearest to the output first."""
    return sorted({*stored_cuts(source), *(c for c in source.tune_cuts if c == 0)}, reverse=True)


def start_below(source: Source, cut: int) -> int:
    """Return the stored cut nearest below ``cut``, or the input: stages between it and ``cut`` run in every step."""
    return max((c for c in stored_cuts(source) if c <= cut), default=0)


def walked(body: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Return the output of every stage.

    >>> [tuple(a.shape) for a in walked(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.ones(5, 3))]
    [(5, 4), (5, 2)]
    """
    out = []
    for stage in body:
        x = stage(x)
        out.append(x)
    return out or [x]


def probed(features: np.ndarray | None, y: np.ndarray, *, classes: int) -> nn.Linear:
    """Return the linear head of a probe on final features (n, d), in closed form: so that training starts where a frozen source ends.

    Its logits are smaller than those of a served probe: from one as sure as it is right, ten adaptation methods had 2 points less right on ten pairs (LOG.md).
    """
    if features is None:
        raise ValueError("this method starts from a probe: the final features of the training cases are needed")
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, features.shape[1], max(1, classes))
    weight, bias = _classified(features, y, classes=classes) if classes else _ridge(features, y)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    return linear


def blank(dim: int, *, classes: int) -> nn.Linear:
    """Return a head of zeros: even odds for every class, and no random direction that distorts the body (BiT, Kolesnikov et al. 2020)."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, dim, max(1, classes))
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy that never learns."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: by its name, as timm and transformers have norms of their own.

    >>> is_norm(nn.LayerNorm(3)), is_norm(nn.Linear(3, 3))
    (True, False)
    """
    return "norm" in type(module).__name__.lower()


def _classified(features: np.ndarray, y: np.ndarray, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (c, d) and biases (c,) of logits; a class without a case is as unlikely for every input as least squares to -1 makes it."""
    head = RidgeLOO(smoothing=float(classes)).fit(features, y)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -head.sharpness_)
    weight[head.classes_], bias[head.classes_] = head.linear()
    return weight, bias


def _ridge(features: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (1, d) and bias (1,) of a ridge regression on standardised features, its penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    from headstart.methods.features.scaling import LiveScaler

    scaler = LiveScaler().fit(features)
    ridge = RidgeCV(ALPHAS).fit(scaler.transform(features), y)
    weight = (ridge.coef_ / scaler.scale_)[None]
    return weight, np.atleast_1d(ridge.intercept_) - weight @ scaler.mean_
