"""Distillation: a small net learns what a larger one says of the training cases, beside their labels (Hinton et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, Net, Source
from headstart.methods.method import Closed, Criterion, Method, knob, target_loss
from headstart.methods.model.co_tuning import Table
from headstart.methods.model.tuned import Tuned, walked

SMALLEST = 1e-12  # a probability of 0 counts as this, or its logarithm would be infinite


@dataclass(frozen=True)
class Distil(Tuned):
    """Tune a small source from a cut under (1 - s) times the target's loss + s T^2 KL(p || q) (Hinton et al. 2015, sec. 2).

    p and q are the probabilities of the teacher and of the net at temperature T; each case counts as much as in the target's loss, so that classes count
    alike. For numbers the second term is the mean square of the difference from what the teacher says. The teacher is fitted first, on the same
    cases and no others: in a fold it never sees what is tested. What it says of them is thus in-sample, as in the paper.

    Parameters
    ----------
    depth : which tuning cut of the student to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`; 100 steps, as what the teacher says has more to learn from
    temperature : T; 4, of the paper's 1 to 20
    soft : s, the share of the teacher, 0..1; "a considerably lower weight" on the labels was best in the paper
    teacher : a method and the source that it is fitted on; ``None``: nobody says anything, every class has even odds (label smoothing)

    Examples
    --------
    >>> said, net = torch.tensor([[0.8, 0.2]]).log(), torch.zeros(1, 2)
    >>> round(softened(net, said, torch.ones(1), temperature=1.0).item(), 4)  # log 2 - H(.8)
    0.1927
    """

    name: ClassVar[str] = "distil"
    paper: ClassVar[str] = "Hinton et al. 2015, Distilling the knowledge in a neural network"
    limits: ClassVar[str] = "asks for a larger source that knows more; fits it anew in every fold. Not with mixup: what the teacher says is of whole cases"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9, 1.0))
    steps: int = knob(100, choices=(50, 100, 200, 400))
    temperature: float = knob(4.0, choices=(1.0, 2.0, 4.0, 8.0))
    soft: float = knob(0.7, choices=(0.5, 0.7, 0.9, 1.0))
    smoothing: float = knob(0.0, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2, 0.5))
    teacher: tuple[Closed | Method, Source] | None = None

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"teacher": Table(np.zeros((len(y), max(1, classes))))})

    def heed(self, net: Net, said: np.ndarray) -> None:
        table = said if said.shape[1] == 1 else np.log(np.maximum(said, SMALLEST))
        if net.scaffold is not None:
            net.scaffold["teacher"] = Table(table)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        if net.scaffold is None or batch.rows is None:
            raise ValueError("distillation trains with its scaffold, and must know which cases a batch holds")
        output = net.head(walked(net.body, batch.x)[-1])
        target = target_loss(output, batch.y, criterion, smoothing=self.smoothing)
        said = net.scaffold["teacher"](batch.rows)
        if output.shape[1] == 1:
            taught = functional.mse_loss(output, said)
        else:
            taught = softened(output, said, criterion.mass(batch.y), temperature=self.temperature)
        return {**{name: (1 - self.soft) * term for name, term in target.items()}, "teacher": self.soft * taught}


def softened(output: Tensor, said: Tensor, mass: Tensor, *, temperature: float) -> Tensor:
    """Return T^2 KL(p || q), in nats, averaged over cases by their ``mass`` (n,): p, q of logits ``said`` and ``output`` (n, c) at temperature T.

    T^2 keeps the gradient's size as T changes (Hinton et al. 2015, sec. 2.1).
    """
    log_p, log_q = (functional.log_softmax(logits / temperature, dim=1) for logits in (said, output))
    each = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return temperature**2 * (mass * each).sum() / torch.clamp(mass.sum(), min=SMALLEST)
