"""Train few of the body's numbers: its biases (BitFit), or the scales and shifts of its norms. Small data cannot overfit what cannot move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, is_norm


@dataclass(frozen=True)
class BitFit(Tuned):
    """Train the biases above the cut, and the head; every matrix and kernel stays (Ben Zaken et al. 2022).

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate : peak learning rate of AdamW; biases bear ten times what matrices bear (the paper searches 1e-4 to 1e-2)
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> BitFit().learns(nn.Linear(2, 2), "bias"), BitFit().learns(nn.Linear(2, 2), "weight")
    (True, False)
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "Ben Zaken et al. 2022, BitFit"
    limits: ClassVar[str] = "shown on transformers; convolutions before a BatchNorm have no bias, so there the shifts of the norms learn"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def learns(self, module: nn.Module, name: str) -> bool:
        return name.endswith("bias")  # why not equal: attention has in_proj_bias, or q_bias and v_bias


@dataclass(frozen=True)
class NormOnly(Tuned):
    """Train the scale and the shift of every norm above the cut, and the head (Frankle et al. 2021).

    Running statistics stay those of the source.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate : peak learning rate of AdamW
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> NormOnly().learns(nn.LayerNorm(2), "weight"), NormOnly().learns(nn.Linear(2, 2), "bias")
    (True, False)
    """

    name: ClassVar[str] = "norm-only"
    paper: ClassVar[str] = "Frankle et al. 2021, Training BatchNorm and only BatchNorm"
    limits: ClassVar[str] = "a network without norms trains its head alone"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(3e-3, low=3e-4, high=1e-2, log=True)
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def learns(self, module: nn.Module, name: str) -> bool:
        return is_norm(module)
