"""Gradual unfreezing and discriminative rates: the two halves of ULMFiT (Howard & Ruder 2018), each on its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from headstart.core import Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned

FALL = 1 / 2.6  # of the rate from one layer to the one below: Howard & Ruder 2018, sec. 3.2
FALL_OF_TEXTS = 0.9  # with .65 three to five points less on questions (LOG.md)
HEAD = 10.0  # times the body's rate for a head that starts from zeros
ROUNDING = 1e-9  # why: .8 * 3/4 is a hair above .6


@dataclass(frozen=True)
class Gradual(Tuned):
    """Train the head first, then thaw one stage after another from the head down (Howard & Ruder 2018, sec. 3.3).

    There, a stage is thawed each epoch; here, at even shares of the steps, so that the budget does not depend on the network's depth.

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate : peak learning rate of AdamW in the last stage; the head, which starts from zeros, has ten times that
    decay : factor on the rate from one stage to the one before it, 1/2.6 in the paper
    until : share of the steps after which the last stage is thawed, 0..1
    steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> [Gradual(decay=1.0, until=0.5).rates(2, t) for t in (0.0, 0.25, 0.5)]
    [[0.0, 0.0, 10.0], [0.0, 1.0, 10.0], [1.0, 1.0, 10.0]]
    """

    name: ClassVar[str] = "gradual"
    paper: ClassVar[str] = "Howard & Ruder 2018, Universal language model fine-tuning (ULMFiT), sec. 3.3"
    limits: ClassVar[str] = "stages near the input learn in few steps; a stage that only pools takes its turn as well"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(FALL, choices=(FALL, 0.65, 1.0))
    until: float = knob(0.5, choices=(0.3, 0.5, 0.8))
    steps: int = knob(100, choices=(100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    @property
    def starts_from_probe(self) -> bool:
        return False

    def rates(self, stages: int, progress: float) -> list[float]:
        thawed = [progress + ROUNDING >= self.until * (stages - i) / stages for i in range(stages)]
        return [self.decay ** (stages - 1 - i) if thawed[i] else 0.0 for i in range(stages)] + [HEAD]


@dataclass(frozen=True)
class Discriminative(Tuned):
    """Train every stage above the cut at once, each at a rate that is smaller than the next one's by a factor (Howard & Ruder 2018, sec. 3.2).

    Parameters
    ----------
    depth : which tuning cut to start from, 0 nearest to the output
    rate : peak learning rate of AdamW in the head, which starts from zeros
    decay : factor on the rate from the head to the last stage, and from one stage to the one before it; 1/2.6 in the paper, .75 is timm's default and .9
        AutoGluon's. .65, for on four tasks at 5, 20 and 100 of each class 50 steps at .65 reach what 100 at 1/2.6 do; where a plan or a search
        begins with it on a source for text .9 (:meth:`suited`), 1.5 points above LP-FT over five tasks (RESULTS.md)
    steps : optimiser steps of 32 cases
    smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> Discriminative(decay=0.5).rates(2, 0.0)
    [0.25, 0.5, 1.0]
    """

    name: ClassVar[str] = "discriminative"
    paper: ClassVar[str] = "Howard & Ruder 2018, Universal language model fine-tuning (ULMFiT), sec. 3.2"
    limits: ClassVar[str] = "in deep chains a small factor leaves the first stages as good as frozen"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(3e-3, low=5e-4, high=1e-2, log=True)
    decay: float = knob(0.65, choices=(FALL, 0.65, 0.75, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    @property
    def starts_from_probe(self) -> bool:
        return False

    def suited(self, source: Source) -> Discriminative:
        return dataclasses.replace(self, decay=FALL_OF_TEXTS) if source.modality == "text" else self

    def rates(self, stages: int, progress: float) -> list[float]:
        return [self.decay ** (stages - i) for i in range(stages)] + [1.0]
