"""Layer transfer: keep the weights of some stages and restart the others (Yosinski et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from headstart.core import Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, start_below

HEAD = 10.0  # times the kept stages' rate for what starts from nothing


@dataclass(frozen=True)
class KeepFirst(Tuned):
    """Keep the first stages of the source, restart the last ones from random weights, and train (Yosinski et al. 2014, AnB and AnB+).

    Early stages hold what many tasks share, late ones what the source's own task asked for.

    Parameters
    ----------
    restart : how many of the last stages restart; 2, as the last one often only pools
    kept : factor on the rate of the stages that are kept; 0, the default, freezes them (AnB), so that their stored activations serve
    rate : peak learning rate of AdamW in what is restarted
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> KeepFirst(restart=1).rates(3, 0.0), KeepFirst(restart=1, kept=0.1).rates(3, 0.0)
    ([0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 1.0, 1.0])
    """

    name: ClassVar[str] = "keep-first"
    paper: ClassVar[str] = "Yosinski et al. 2014, How transferable are features in deep neural networks?"
    limits: ClassVar[str] = "random stages need many cases and steps; neighbours that learnt together are parted (fragile co-adaptation)"
    freezes_statistics: ClassVar[bool] = False

    restart: int = knob(2, choices=(1, 2, 3))
    kept: float = knob(0.0, choices=(0.0, 0.1))
    rate: float = knob(1e-3, low=2e-4, high=5e-3, log=True)
    steps: int = knob(200, choices=(100, 200, 400))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2))

    def cut(self, source: Source) -> int:
        return start_below(source, len(source.stages) - self.restart) if self.kept == 0 else 0

    @property
    def starts_from_probe(self) -> bool:
        return False

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        body = super().body(source, seed=seed)
        restart(body[max(0, len(body) - self.restart) :])
        return body

    def rates(self, stages: int, progress: float) -> list[float]:
        return [self.kept if i < stages - self.restart else 1.0 for i in range(stages)] + [1.0]


@dataclass(frozen=True)
class KeepLast(Tuned):
    """The mirror: restart the first stages, and keep the last ones: for inputs unlike the source's whose classes are alike.

    Parameters
    ----------
    restart : how many of the first stages restart
    kept : factor on the rate of the stages that are kept
    rate : peak learning rate of AdamW in what is restarted
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> KeepLast(restart=1, kept=0.1).rates(3, 0.0)
    [1.0, 0.1, 0.1, 1.0]
    """

    name: ClassVar[str] = "keep-last"
    paper: ClassVar[str] = "Yosinski et al. 2014, mirrored"
    limits: ClassVar[str] = "trains from the input; the kept stages get other inputs than they knew until the restarted ones have learnt"
    freezes_statistics: ClassVar[bool] = False

    restart: int = knob(1, choices=(1, 2, 3))
    kept: float = knob(0.1, choices=(0.0, 0.1, 1.0))
    rate: float = knob(1e-3, low=2e-4, high=5e-3, log=True)
    steps: int = knob(200, choices=(100, 200, 400))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2))

    def cut(self, source: Source) -> int:
        return 0

    @property
    def starts_from_probe(self) -> bool:
        return False

    def body(self, source: Source, *, seed: int) -> nn.Sequential:
        body = super().body(source, seed=seed)
        restart(body[: self.restart])
        return body

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0 if i < self.restart else self.kept for i in range(stages)] + [1.0]


def restart(stages: nn.Module) -> None:
    """Give every tensor of those stages new random values, from PyTorch's generator.

    Layers draw them as they do when they are made. Tensors outside any such layer (class tokens, positions) are drawn from a normal distribution with
    the mean and deviation that they had.
    """
    with torch.no_grad():
        for module in stages.modules():
            renew = getattr(module, "reset_parameters", None)
            if callable(renew):
                renew()
                continue
            for values in module.parameters(recurse=False):
                deviation = float(values.std()) if values.numel() > 1 else 0.0
                values.normal_(float(values.mean()), deviation)
