"""Stochastic normalisation: BatchNorm whose channels use the batch's or the source's statistics by chance (Kou et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.core import Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned


@dataclass(frozen=True)
class StochNorm(Tuned):
    """Fine-tune from a cut with every BatchNorm replaced by a stochastic one, whose statistics move (Kou et al. 2020, eq. 5).

    In training each channel is normalised by the batch's statistics with probability p, else by the running ones, which begin as the source's. What is
    served is a plain BatchNorm.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    p : probability that a channel uses the batch's statistics, 0..1; .5 as in the paper
    """

    name: ClassVar[str] = "stochastic-norm"
    paper: ClassVar[str] = "Kou et al. 2020, Stochastic normalization"
    limits: ClassVar[str] = "for networks with BatchNorm alone; statistics of batches of 32 are rough"
    needs: ClassVar[frozenset[str]] = frozenset({"batchnorm"})
    freezes_statistics: ClassVar[bool] = False

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    p: float = knob(0.5, choices=(0.25, 0.5, 0.75))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        body = super().body(source, seed=seed)
        for module in list(body.modules()):
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm) and child.track_running_stats:
                    setattr(module, name, Stochastic(child, self.p))
        return body


class Stochastic(_BatchNorm):
    """A BatchNorm with another one's tensors and names, which in training mixes statistics by chance.

    What timm puts into its norms (dropout, activation) runs behind, as there.

    >>> norm = Stochastic(nn.BatchNorm1d(2), 0.0)  # never the batch's: as in evaluation
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> torch.allclose(norm(x), x, atol=1e-4), norm.running_mean
    (True, tensor([0.2000, 0.3000]))
    """

    def __init__(self, norm: _BatchNorm, p: float) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        for name, child in norm.named_children():
            self.add_module(name, child)
        self.p = p
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, x: Tensor) -> Tensor:
        out = self._normalised(x, batch=False)
        if self.training:
            chosen = torch.rand(self.num_features, device=x.device) < self.p
            out = torch.where(chosen.view(1, -1, *[1] * (x.ndim - 2)), self._normalised(x, batch=True), out)
        for child in self.children():
            out = child(out)
        return out

    def _normalised(self, x: Tensor, *, batch: bool) -> Tensor:
        mean, deviation = self.running_mean, self.running_var
        if not batch and mean is not None and deviation is not None:
            mean, deviation = mean.clone(), deviation.clone()  # why: the batch's turn moves them before the gradient is taken
        momentum = 0.1 if self.momentum is None else self.momentum
        return functional.batch_norm(x, mean, deviation, self.weight, self.bias, batch, momentum, self.eps)
