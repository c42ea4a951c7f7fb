"""Plain fine-tuning: of the whole network, and of its last stages from any cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headstart.core import Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned, start_below

HEAD = 10.0  # times the body's rate for a head that starts from nothing (AutoGluon's two_stages; He et al. 2019 warm up instead)


@dataclass(frozen=True)
class FineTuneAll(Tuned):
    """Train every stage from the input, and a head that starts from zeros: what most scripts do.

    Parameters
    ----------
    rate : peak learning rate of AdamW in the body, 1e-4 (AutoGluon; Hugging Face's Trainer has 5e-5); the head's is ten times that
    steps : optimiser steps of 32 cases
    smoothing, dropout : label smoothing, and the share of the features dropped before the head, 0..1

    Examples
    --------
    >>> FineTuneAll().rates(2, 0.0)
    [1.0, 1.0, 10.0]
    """

    name: ClassVar[str] = "fine-tune-all"
    paper: ClassVar[str] = "Girshick et al. 2014, Rich feature hierarchies (R-CNN), sec. 2.3"
    limits: ClassVar[str] = "runs the whole network in every step, and keeps all inputs in memory: 600 MB for 1,000 images of 224 pixels"

    rate: float = knob(1e-4, low=2e-5, high=1e-3, log=True)
    steps: int = knob(100, choices=(100, 200, 400))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2))

    def cut(self, source: Source) -> int:
        return 0

    @property
    def starts_from_probe(self) -> bool:
        return False

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * stages + [HEAD]


@dataclass(frozen=True)
class FineTuneFrom(Tuned):
    """Train the last stages, from any cut, and freeze the rest.

    Which depth is best differs with the distance between source and target (Yosinski et al. 2014). Where the cut's activations are not stored,
    training reads the nearest stored ones below and runs the frozen stages between in every step.

    Parameters
    ----------
    last : how many stages learn, counted from the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> FineTuneFrom(last=1, decay=0.5).rates(3, 0.0)
    [0.0, 0.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "fine-tune-from"
    paper: ClassVar[str] = "Yosinski et al. 2014, How transferable are features in deep neural networks?"
    limits: ClassVar[str] = "a stage that only pools counts as one"

    last: int = knob(2, choices=(1, 2, 3, 4, 6, 8))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9))
    steps: int = knob(50, choices=(50, 100, 200))
    smoothing: float = knob(0.1, choices=(0.0, 0.1))
    dropout: float = knob(0.2, choices=(0.0, 0.2, 0.5))

    def cut(self, source: Source) -> int:
        return start_below(source, max(0, len(source.stages) - self.last))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [self.decay ** (stages - 1 - i) if i >= stages - self.last else 0.0 for i in range(stages)] + [1.0]
