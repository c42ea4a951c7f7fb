"""Co-tuning: the source's own classifier is kept in training and taught what its classes mean for the target (You et al. 2020)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned


@dataclass(frozen=True)
class CoTuning(Tuned):
    """Fine-tune from a cut; besides the target's loss, the source's classifier shall say p(source class | target class) (You et al. 2020, eq. 3).

    The relation is learnt the direct way, by the mean of the source classifier's probabilities over the training cases of a target class (there,
    sec. 3.2); the source is not calibrated first.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    share : weight of the source's loss beside the target's; the authors' code has 2.3

    Examples
    --------
    >>> relation(np.array([[0.8, 0.2], [0.4, 0.6], [0.0, 1.0]]), np.array([0, 0, 1]), classes=2).round(1).tolist()
    [[0.6, 0.4], [0.0, 1.0]]
    """

    name: ClassVar[str] = "co-tuning"
    paper: ClassVar[str] = "You et al. 2020, Co-tuning for transfer learning"
    limits: ClassVar[str] = "for classification, from a source that comes with its classifier; says little where source and target share no classes"
    needs: ClassVar[frozenset[str]] = frozenset({"source.classifier", "classes"})

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    share: float = knob(2.3, choices=(0.5, 1.0, 2.3, 4.0))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        classifier = source.backbone.classifier
        if features is None or classifier is None:
            raise ValueError("co-tuning needs the final features of the training cases, and the source's classifier")
        with torch.no_grad():
            said = torch.softmax(classifier(torch.from_numpy(np.asarray(features, dtype=np.float32))).double(), dim=1).numpy()
        return nn.ModuleDict({"classifier": copy.deepcopy(classifier), "relation": Table(relation(said, y, classes=classes))})

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        if net.scaffold is None:
            raise ValueError("co-tuning trains with its scaffold; this net has none")
        wanted = net.scaffold["relation"](batch.y)
        return {"source's classes": self.share * functional.cross_entropy(net.scaffold["classifier"](activations[-1]), wanted)}


def relation(said: np.ndarray, y: np.ndarray, *, classes: int) -> np.ndarray:
    """Return (classes, source classes): the mean of the source's probabilities (n, source classes) over the cases of each target class.

    A class without cases has the mean over all.
    """
    return np.stack([said[y == c].mean(axis=0) if (y == c).any() else said.mean(axis=0) for c in range(classes)])


class Table(nn.Module):
    """Rows (c, d) that are looked up by code (n,), or averaged by shares (n, c)."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("rows", torch.from_numpy(rows).float())

    def forward(self, codes: Tensor) -> Tensor:
        rows = self.get_buffer("rows")
        return codes @ rows if codes.is_floating_point() else rows[codes]
