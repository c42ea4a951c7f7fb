"""A learning-rate finder as an aid: train for a hundred steps at rates that grow from 1e-7 to 10, and look where the loss falls.

The range test of Smith 2017 (Cyclical learning rates, sec. 3.3), with fastai's suggestion. On few cases it is a hint and no more: noise decides
between rates that differ by several times, so a method's own range, searched on folds, stays the rule.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from headstart.core import Batch, InputError, Net
from headstart.keeping import Settings
from headstart.methods.method import Criterion, Method
from headstart.train import PLAIN, fit

LOW, HIGH, STEPS = 1e-7, 10.0, 100
SMOOTH = 0.98  # of the running mean of the loss
FAR = 4.0  # times the least smoothed loss, and the search ends
SKIPPED = (STEPS // 10, 5)  # points that the suggestion leaves out at either end


@dataclasses.dataclass(frozen=True)
class RateFound:
    """``losses`` (k,) are smoothed, each measured at the step of its rate; ``suggestion`` is a peak rate for the method's ``rate``."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(method: Method, net: Net, x: np.ndarray, y: np.ndarray, *, seed: int, settings: Settings = PLAIN) -> RateFound:
    """Return what a sweep over learning rates finds for a method; ``net``, as the method built it, stays as it is.

    Parameters
    ----------
    method, net, x, y, seed, settings : as of :func:`headstart.train.fit`; the method's own ``rate``, ``steps`` and schedule are set aside, and its
        multiples of the rate by stage are kept

    Raises
    ------
    InputError
        the loss grew before there was anything to see.

    Examples
    --------
    >>> valley((1e-3, 1e-2, 1e-1, 1.0), (3.0, 2.0, 1.0, 9.0))
    0.001
    """
    seen: list[float] = []
    # why one process and whole batches: a step's loss is seen once, and the sweep may end there
    settings = dataclasses.replace(settings, processes=1, micro=0)
    try:
        fit(_swept(method, seen), copy.deepcopy(net), x, y, seed=seed, settings=settings)
    except _Diverged:
        pass
    rates = tuple(rate_at(step) for step in range(len(seen)))
    first, last = SKIPPED
    if len(seen) < first + last + 2:
        raise InputError(f"The loss grew after {len(seen)} steps at rates under {rate_at(len(seen)):.0e}. Look at the data, or at the net, before the rate.")
    return RateFound(rates, tuple(seen), valley(rates[first:-last], seen[first:-last]))


def rate_at(step: int) -> float:
    """Return the rate of a step, growing by the same factor from each to the next.

    >>> rate_at(0), round(rate_at(50), 9)
    (1e-07, 0.001)
    """
    return float(LOW * (HIGH / LOW) ** (step / STEPS))


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate in the middle of the longest chain of falling losses, not all of them neighbours (fastai's ``valley``)."""
    longest = [1] * len(losses)
    for i in range(1, len(losses)):
        longest[i] = 1 + max((longest[j] for j in range(i) if losses[j] > losses[i]), default=0)
    end = int(np.argmax(longest))
    start = end - longest[end]  # one before the chain's first member, where its members are neighbours
    third = (end - start) / 3
    return float(rates[max(0, start + int(third) + int(third / 2))])


class _Diverged(Exception):
    """The loss is far above the least."""


def _swept(method: Method, seen: list[float]) -> Method:
    """Return the same method with rates that grow; each step's smoothed loss goes into ``seen``."""
    kind: Any = type(method)
    mean = 0.0

    def loss(self: Method, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        nonlocal mean
        terms: dict[str, Tensor] = kind.loss(self, net, batch, criterion)
        mean = SMOOTH * mean + (1 - SMOOTH) * sum(float(term.detach()) for term in terms.values())
        seen.append(mean / (1 - SMOOTH ** (len(seen) + 1)))
        if not math.isfinite(seen[-1]):
            seen.pop()
            raise _Diverged
        if seen[-1] > FAR * min(seen):
            raise _Diverged
        return terms

    def schedule(self: Method, step: int, steps: int) -> tuple[float, float]:
        return rate_at(step), 0.9

    swept: Any = type(kind.__name__, (kind,), {"loss": loss, "schedule": schedule})
    values = {f.name: getattr(method, f.name) for f in dataclasses.fields(kind)}
    made: Method = swept(**{**values, "rate": 1.0, "steps": STEPS})
    return made
