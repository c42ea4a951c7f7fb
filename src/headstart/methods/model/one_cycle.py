"""fastai's ``fine_tune``: first the head alone, then all at discriminative rates, each part in one cycle of rate and momentum (Smith 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from headstart.core import Source
from headstart.methods.method import knob
from headstart.methods.model.tuned import Tuned

MOMENTA = (0.95, 0.85, 0.95)
FROZEN = (0.99, 25.0)  # of the first part: the share of its steps with rising rates, and how many times less than the peak it starts at
WHOLE = (0.3, 5.0)
LAST = 1e-5  # of the peak, where a cycle ends


@dataclass(frozen=True)
class OneCycle(Tuned):
    """Train the head with the body frozen, then all of it, by the schedule of fastai 2.8.12's ``fine_tune(epochs)`` with its defaults.

    The first part has one step for every ``epochs`` steps of the second, as there one epoch is frozen. Rates and momenta are those of fastai step by
    step; so are AdamW's decay .01, beta2 .99 and epsilon 1e-5. Not taken over: the head, a linear one that starts from zeros here; BatchNorm whose
    statistics and weights move in frozen layers, a known fault; batches that are not clipped.

    Parameters
    ----------
    rate : of the head while it learns alone, ``base_lr`` there; the second part's peak is half of it for the head
    lr_mult : how many times smaller the second part's peak is in the first group of stages than in the head; between, rates are spaced evenly in logarithm
    groups : 2 splits body and head, as fastai does with timm's networks; 3 splits the body into halves, as it does with ResNets
    epochs : steps of the second part for each step of the first
    steps : optimiser steps of both parts
    smoothing, dropout : as in :class:`FineTune`

    Examples
    --------
    >>> method = OneCycle(rate=2e-3, steps=10, epochs=4, groups=3)
    >>> method.rates(4, 0.1), method.rates(4, 0.2)
    ([0.0, 0.0, 0.0, 0.0, 1.0], [0.005, 0.005, 0.05, 0.05, 0.5])
    >>> method.schedule(2, 10)  # the second part begins at a fifth of its peak
    (0.2, 0.95)
    """

    name: ClassVar[str] = "one-cycle"
    paper: ClassVar[str] = "Howard & Gugger 2020, fastai: a layered API; Smith 2018, A disciplined approach to neural network hyper-parameters"
    limits: ClassVar[str] = "runs the whole network in every step; frozen BatchNorm stays frozen, which in fastai moves"
    weight_decay: ClassVar[float] = 0.01
    second_moment: ClassVar[float] = 0.99
    epsilon: ClassVar[float] = 1e-5

    rate: float = knob(2e-3, low=2e-4, high=1e-2, log=True)
    lr_mult: float = knob(100.0, choices=(10.0, 100.0))
    groups: int = knob(2, choices=(2, 3))
    epochs: int = knob(4, choices=(1, 4, 9))
    steps: int = knob(100, choices=(100, 200, 400))
    smoothing: float = knob(0.0, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2, 0.5))

    def cut(self, source: Source) -> int:
        return 0

    @property
    def starts_from_probe(self) -> bool:
        return False

    @property
    def alone(self) -> int:
        """Steps in which the head learns alone."""
        return max(1, round(self.steps / (1 + self.epochs)))

    def rates(self, stages: int, progress: float) -> list[float]:
        if round(progress * self.steps) < self.alone:
            return [0.0] * stages + [1.0]
        halves = [0 if i < math.ceil(stages / 2) else self.groups - 2 for i in range(stages)]
        return [0.5 / self.lr_mult ** (1 - group / (self.groups - 1)) for group in halves] + [0.5]

    def schedule(self, step: int, steps: int) -> tuple[float, float]:
        if step < self.alone:
            (rising, div), position = FROZEN, step / self.alone
        else:
            (rising, div), position = WHOLE, (step - self.alone) / max(1, steps - self.alone)
        return cycle(position, rising, (1 / div, 1.0, LAST)), cycle(position, rising, MOMENTA)


def cycle(position: float, rising: float, values: tuple[float, float, float]) -> float:
    """Return a value at ``position`` 0..1: by a half cosine from the first to the second until ``rising``, then by another to the third.

    >>> [round(cycle(p, 0.5, (0.0, 1.0, 0.5)), 3) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    first, second, third = values
    start, end, share = (first, second, position / rising) if position < rising else (second, third, (position - rising) / (1 - rising))
    return start + (end - start) * (1 - math.cos(math.pi * share)) / 2
