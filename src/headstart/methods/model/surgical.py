"""Surgical fine-tuning (Lee et al. 2023): train the part of the network that the shift asks for, chosen by hand or by its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import ClassVar

from torch import nn

from headstart.core import Net, Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, is_norm


@dataclass(frozen=True)
class Surgical(Tuned):
    """Train one block of the body, and the head.

    A shift of the input (noise, another camera) is best met in the first block, a shift of the labels in the last (Lee et al. 2023, table 1).

    Parameters
    ----------
    block : "first" or "middle" third of the stages, trained from the input, or "last": the stages above the tuning cut nearest to the output
    rate, steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> Surgical(block="first").rates(5, 0.0), Surgical(block="middle").rates(5, 0.0)
    ([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    """

    name: ClassVar[str] = "surgical"
    paper: ClassVar[str] = "Lee et al. 2023, Surgical fine-tuning improves adaptation to distribution shifts"
    limits: ClassVar[str] = "first and middle run the whole network in every step"

    block: str = knob("first", choices=("first", "middle", "last"))
    rate: float = knob(1e-3, low=1e-4, high=3e-3, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def cut(self, source: Source) -> int:
        return super().cut(source) if self.block == "last" else 0

    def rates(self, stages: int, progress: float) -> list[float]:
        third = ceil(stages / 3)
        low, high = {"first": (0, third), "middle": (third, 2 * third), "last": (0, stages)}[self.block]
        return [float(low <= i < high) for i in range(stages)] + [1.0]


@dataclass(frozen=True)
class AutoRGN(Tuned):
    """Train each layer at a rate in proportion to its relative gradient norm, |g| / |w| over the largest (Lee et al. 2023, sec. 4).

    The norms are taken anew on the first batch of every pass; norm layers stay, as in the authors' code. There, every tensor has a norm of its own;
    here a layer's weight and bias share one, as else a bias near 0 has the whole rate and the others have none. There, the optimiser starts afresh
    in every epoch and the norms are means over a few batches; here its moments are kept, and one batch serves.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate : learning rate of the layer with the largest relative gradient
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> AutoRGN().rates(2, 0.0)
    [1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "auto-rgn"
    paper: ClassVar[str] = "Lee et al. 2023, Surgical fine-tuning improves adaptation to distribution shifts, sec. 4"
    limits: ClassVar[str] = "a layer of zeros has no relative gradient and learns at the full rate"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def learns(self, module: nn.Module, name: str) -> bool:
        return not is_norm(module)

    def multiples(self, net: Net) -> dict[str, float]:
        layers: dict[str, list[str]] = {}
        tensors = {name: p for name, p in net.named_parameters() if p.grad is not None}
        for name in tensors:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        ratios = {}
        for layer, names in layers.items():
            size = sum(float(tensors[name].detach().double().square().sum()) for name in names)
            pull = sum(float(grad.double().square().sum()) for name in names if (grad := tensors[name].grad) is not None)
            if size:
                ratios[layer] = sqrt(pull / size)
        largest = max(ratios.values(), default=0.0)
        return {name: ratios[layer] / largest for layer in ratios for name in layers[layer]} if largest else {}
