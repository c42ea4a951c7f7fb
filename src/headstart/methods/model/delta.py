"""DELTA: keep the outputs of the stages near the source's, most of all in the channels that matter (Li et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion, knob, target_loss
from headstart.methods.model.l2sp import half_square
from headstart.methods.model.tuned import Tuned, frozen_copy, walked


@dataclass(frozen=True)
class DELTA(Tuned):
    """Fine-tune from a cut, and penalise how far each stage's output moves from the source's, channel by channel (Li et al. 2019, eq. 5).

    Omega = alpha/2 sum_k mean_i sum_j W_kj |f_kj(x_i) - f0_kj(x_i)|^2 + beta/2 |v|^2: stage k, case i, channel j, |.|^2 the mean over positions, v the
    head. W_k is the softmax over channels of how much the loss of the source with the probe's head would rise without that channel; the paper takes
    each channel out in turn, here the rise is that of first order, from one backward pass (Molchanov et al. 2017, eq. 6).

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    alpha : strength on the features; W sums to 1 over a stage's channels
    beta : strength on the head, .01 as in the paper

    Examples
    --------
    >>> attention(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[-1.0, 0.0]]]))  # softmax of (1, 0)
    tensor([0.7311, 0.2689])
    """

    name: ClassVar[str] = "delta"
    paper: ClassVar[str] = "Li et al. 2019, DELTA: deep learning transfer using feature map with attention"
    limits: ClassVar[str] = "runs the source's stages beside the trained ones in every step: half as much time again"
    weight_decay: ClassVar[float] = 0.0

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9, 1.0))
    steps: int = knob(50, choices=(50, 100, 200))
    alpha: float = knob(1.0, choices=(0.1, 1.0, 10.0))
    beta: float = knob(0.01, choices=(0.001, 0.01))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def scaffold(self, source: Source, body: nn.Sequential, *, features: np.ndarray | None, y: np.ndarray, classes: int) -> nn.ModuleDict | None:
        return nn.ModuleDict({"reference": Reference(body, source.backbone.pooling)})

    def prepare(self, net: Net, batch: Batch, criterion: Criterion) -> None:
        reference = _reference(net)
        first, *rest = reference.body
        activations = [first(batch.x).detach().requires_grad_(True)]
        for stage in rest:
            activations.append(stage(activations[-1]))
        loss = torch.stack(list(target_loss(net.head(activations[-1]), batch.y, criterion).values())).sum()
        gradients = torch.autograd.grad(loss, activations)
        reference.learn([attention(reference.channels(a), reference.channels(g)) for a, g in zip(activations, gradients, strict=True)])

    def penalties(self, net: Net, batch: Batch, activations: list[Tensor]) -> dict[str, Tensor]:
        reference = _reference(net)
        with torch.no_grad():
            kept = walked(reference.body, batch.x)
        parts = [(reference.channels(a) - reference.channels(b)).square() for a, b in zip(activations, kept, strict=True)]
        moved = torch.stack([(part.mean(dim=1) * w).sum(dim=1).mean() for part, w in zip(parts, reference.attentions, strict=True)]).sum()
        return {"distance from the source": 0.5 * self.alpha * moved, "size of the head": self.beta * half_square(net.head)}


class Reference(nn.Module):
    """A frozen copy of the source's stages, and how much each channel of each stage's output matters."""

    def __init__(self, body: nn.Sequential, pooling: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body: Any = frozen_copy(body)
        self.pooling = pooling

    @property
    def attentions(self) -> list[Tensor]:
        """(channels,) of each stage."""
        return [self.get_buffer(f"attention{i}") for i in range(len(self.body))]

    def learn(self, attentions: list[Tensor]) -> None:
        """Keep how much the channels matter."""
        for i, values in enumerate(attentions):
            self.register_buffer(f"attention{i}", values.detach())

    def channels(self, activation: Tensor) -> Tensor:
        """Return (n, positions, channels) of an activation; of text without its mask, and 0 where there is padding."""
        if activation.ndim == 2:
            return activation[:, None]
        width = self.pooling(activation.detach()).shape[1]
        if activation.ndim == 4:
            return (activation.flatten(2).transpose(1, 2)) if activation.shape[1] == width else activation.flatten(1, 2)
        return activation if activation.shape[2] == width else activation[..., :width] * (activation[..., -1:].detach() > 0)


def attention(activation: Tensor, gradient: Tensor) -> Tensor:
    """Return the softmax over channels of the first-order rise of the loss without them, -sum a g: (channels,) of (n, positions, channels) each."""
    return torch.softmax(-(activation.detach() * gradient).sum(dim=(0, 1)), dim=0)


def _reference(net: Net) -> Reference:
    part = None if net.scaffold is None else net.scaffold["reference"]
    if not isinstance(part, Reference):
        raise ValueError("DELTA trains with its scaffold; this net has none")
    return part
