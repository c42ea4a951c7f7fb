"""The leader's side of one training: who computes what, and what the others must be told for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from headstart.core import Batch, InputError
from headstart.crew.parts import gathered, rowed
from headstart.crew.wire import Fit, Step, Told, agreed, company, deck, dumped, fields_of, floats_of, same, say, size, tensors_of
from headstart.gradients import Work
from headstart.keeping import Settings

LEAST = 2  # cases of a part: a single one has no variance


@dataclass
class Crew:
    """The leader's side of one training."""

    work: Work
    settings: Settings
    shape: list[Any] = field(default_factory=list)
    sent: list[_Sent] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)  # tensors that the others may have moved by themselves

    def backward(self, batch: Batch, *, step: int, micro: int) -> tuple[float, int]:
        """Leave the batch's gradients in the net; return its loss and how many cases this process's memory held at once."""
        parts, shares = self._shared_out(batch)
        if self.shape != (shape := _shape(self.work)):
            self._begin(micro)
            self.shape, self.sent, self.stale = shape, [], set()
        deck.busy = True
        sending = self._send(step, parts, shares)
        own, micro, error = rowed(self.work, parts[0], shares[0], step=step, micro=micro)
        everyone = agreed(own)
        with company():
            for one in sending:
                one.wait()
        if not any(told.error for told in everyone):
            self.stale = gathered(self.work, everyone, shares[0])
        deck.busy = False
        _raise(everyone, error)
        return sum(told.loss for told in everyone), micro

    def _shared_out(self, batch: Batch) -> tuple[list[Batch | None], list[float]]:
        """Return each process's part, none where cases are few, and the share of the batch's weights in it."""
        n = len(batch.y)
        mass = self.work.criterion.mass(batch.y.to(self.work.device)).cpu()
        rows = torch.arange(n).tensor_split(max(1, min(self.settings.processes, n // LEAST)))
        idle = size() - len(rows)
        return [*(batch.take(own) for own in rows), *[None] * idle], [*(float(mass[own].sum() / mass.sum()) for own in rows), *[0.0] * idle]

    def _begin(self, micro: int) -> None:
        """Send the whole: at first, and where the net has other modules than before."""
        sent = dumped(self.work)
        deck.busy = True
        say(Fit(sent, self.settings, self.work.seed, self.work.reduced, micro))
        everyone = agreed(Told())
        deck.busy = False
        _raise(everyone, None)

    def _send(self, step: int, parts: Sequence[Batch | None], shares: list[float]) -> list[Any]:
        """Send what changed, and the parts; return what to wait for until they have gone."""
        net, tensors = self.work.net, tensors_of(self.work)
        floats = floats_of(self.work)
        now = [_Sent(one, one._version, one.clone() if i in floats else None) for i, one in enumerate(tensors)]
        changed = [i for i, (old, new) in enumerate(zip(self.sent, now, strict=False)) if i in self.stale or old.is_past(new)]
        self.sent = now
        looks = [[None if one is None else (one.shape, one.dtype) for one in fields_of(part)] for part in parts]
        progress = next(part.progress for part in parts if part is not None)
        say(Step(step, changed, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()], looks, shares, progress))
        same(changed, tensors)
        there = [(one.contiguous(), rank, tag) for rank, part in enumerate(parts) for tag, one in enumerate(fields_of(part)) if rank and one is not None]
        with company():
            return [dist.isend(one, rank, tag=tag) for one, rank, tag in there]


@dataclass(frozen=True)
class _Sent:
    """A tensor as the others hold it; ``value`` of a buffer, since BatchNorm moves its statistics without a new version."""

    tensor: Tensor
    version: int
    value: Tensor | None

    def is_past(self, now: _Sent) -> bool:
        if self.tensor is not now.tensor or self.version != now.version:
            return True
        return self.value is not None and now.value is not None and not torch.equal(self.value, now.value)


def _shape(work: Work) -> list[Any]:
    return [*work.net.modules(), *((one.shape, one.dtype) for one in tensors_of(work))]


def _raise(everyone: Sequence[Told], own: Exception | None) -> None:
    """Raise the leader's own error, or the first of the others'."""
    if own is not None:
        raise own
    for rank, told in enumerate(everyone):
        if told.error and not told.trace:
            raise InputError(told.error)
        if told.error:
            failed = RuntimeError(f"process {rank + 1} of {len(everyone)} failed: {told.error}")
            failed.add_note(told.trace)
            raise failed
