"""Fine-tune the stages above a cut, starting from a linear probe (LP-FT; Kumar et al. 2022), with rates that fall by stage.

Starting from the probe's head keeps the pretrained features from being distorted by a random one (Kumar et al. 2022, sec. 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned


@dataclass(frozen=True)
class FineTune(Tuned):
    """Fine-tune from a cut.

    Parameters
    ----------
    depth : which of the source's tuning cuts to start from, of those that are stored (see ``activations.gain``); 0 is the one nearest to the output
        (cheapest)
    rate : peak learning rate of AdamW in the last stage; 1e-3 with decay .8 is the middle of what the field uses for a body
        that is fine-tuned after its head (layer-wise decay: Clark et al. 2020; AutoGluon uses .9 and 1e-4 to 4e-4)
    decay : factor on the rate from one stage to the one before it
    steps : optimiser steps of 32 cases; budgets in steps hold for any n (BiT, Kolesnikov et al. 2020). From a probe's head 50 suffice: on 450
        cells 100 gained .00 to .01 for twice the time
    smoothing : label smoothing, 0..1
    dropout : share of the features dropped before the head, 0..1

    Examples
    --------
    >>> FineTune(decay=0.5).rates(3, 0.0)
    [0.25, 0.5, 1.0, 1.0]
    """

    name: ClassVar[str] = "fine-tune"
    paper: ClassVar[str] = "Kumar et al. 2022, Fine-tuning can distort pretrained features"
    limits: ClassVar[str] = "gains little over frozen features where those already tell the classes apart"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))
