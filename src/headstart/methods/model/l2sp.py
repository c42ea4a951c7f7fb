"""L2-SP: pull the weights towards where they started, not towards zero (Li et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, frozen_copy


@dataclass(frozen=True)
class L2SP(Tuned):
    """Fine-tune from a cut under alpha/2 |w - w0|^2 + beta/2 |v|^2: w0 the source's weights, v the head's (Li et al. 2018, eq. 3).

    It takes the place of weight decay, which is off.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    alpha : strength of the pull; .01 was best of 1 to .0001 on Living-17 (Kumar et al. 2022, their code)
    beta : strength on the head, .01 as in the paper

    Examples
    --------
    >>> w, w0 = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> filled = [nn.init.constant_(p, c) for m, c in ((w, 3.0), (w0, 1.0)) for p in m.parameters()]
    >>> half_square(w, w0).item()  # (2^2 + 2^2) / 2
    4.0
    """

    name: ClassVar[str] = "l2-sp"
    paper: ClassVar[str] = "Li et al. 2018, Explicit inductive bias for transfer learning with convolutional networks"
    limits: ClassVar[str] = "holds weights near, not what they compute; where source and target disagree it holds back"
    weight_decay: ClassVar[float] = 0.0

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9, 1.0))
    steps: int = knob(50, choices=(50, 100, 200))
    alpha: float = knob(0.01, choices=(0.001, 0.01, 0.1))
    beta: float = knob(0.01, choices=(0.001, 0.01))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"start": frozen_copy(body)})

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        start = net.scaffold["start"] if net.scaffold is not None else net.body
        return {"distance from the source": self.alpha * half_square(net.body, start), "size of the head": self.beta * half_square(net.head)}


def half_square(module: nn.Module, start: nn.Module | None = None) -> Tensor:
    """Return half the sum of squares of a module's weights, or of their distance from another's."""
    weights = list(module.parameters())
    origins = [torch.zeros(()) for _ in weights] if start is None else list(start.parameters())
    return 0.5 * torch.stack([(w - w0).square().sum() for w, w0 in zip(weights, origins, strict=True)] or [torch.zeros(())]).sum()
