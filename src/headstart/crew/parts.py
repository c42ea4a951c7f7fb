"""A process's part in a step: what all of them compute, and how those who are not the leader follow."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor
from torch import distributed as dist

from headstart.core import Batch
from headstart.crew.wire import TENSORS, Caught, Fit, Look, Step, Told, agreed, company, floats_of, heard, same, tensors_of
from headstart.gradients import Work, backward
from headstart.methods.method import Criterion


def serve() -> NoReturn:
    """Compute what the leader asks for, until it leaves."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # why: the leader alone says that it was stopped
    work: Work | None = None
    micro = 0
    while (word := heard()) is not None:
        if isinstance(word, Fit):
            with Caught() as caught:
                work, micro = _unpacked(word), word.micro
            agreed(Told().blamed(caught.error))
        elif work is not None:
            micro = _followed(work, word, micro)
    dist.destroy_process_group()
    raise SystemExit(0)


def _followed(work: Work, step: Step, micro: int) -> int:
    """Do a step as one of the others."""
    for module, mode in zip(work.net.modules(), step.modes, strict=True):
        module.training = mode
    for parameter, learns in zip(work.net.parameters(), step.learning, strict=True):
        parameter.requires_grad_(learns)
    same(step.changed, tensors_of(work))
    part, share = _received(step.parts[work.rank], step.progress), step.shares[work.rank]
    told, micro, _ = rowed(work, part, share, step=step.step, micro=micro)
    everyone = agreed(told)
    if not any(one.error for one in everyone):
        gathered(work, everyone, share)
    return micro


def _received(looks: Sequence[Look | None], progress: float) -> Batch | None:
    given = [None if look is None else torch.empty(look[0], dtype=look[1]) for look in looks]
    for tag, one in enumerate(given):
        if one is not None:
            with company():
                dist.recv(one, 0, tag=tag)
    if not given:
        return None
    batch = Batch(**dict(zip(TENSORS, given, strict=True)), progress=progress)  # type: ignore[arg-type]
    return replace(batch, x=batch.x.contiguous(memory_format=torch.channels_last)) if batch.x.ndim == 4 else batch


def rowed(work: Work, part: Batch | None, share: float, *, step: int, micro: int) -> tuple[Told, int, Exception | None]:
    """Compute this process's part; return what to tell the others, how many cases memory held, and the error."""
    tensors, floats = tensors_of(work), floats_of(work)
    before = {i: tensors[i].clone() for i in floats}
    told = Told()
    with Caught() as caught:
        work.net.zero_grad(set_to_none=True)
        if part is not None:
            told.loss, micro = backward(work, part, step=step, micro=micro, share=share)
    told.graded = [i for i, p in enumerate(work.net.parameters()) if p.grad is not None]
    told.moved = [i for i in floats if not torch.equal(before[i], tensors[i])]
    return told.blamed(caught.error), micro, caught.error


def gathered(work: Work, everyone: Sequence[Told], share: float) -> set[int]:
    """Add up the gradients, and the means of moved buffers, at the leader; return which buffers moved."""
    tensors = tensors_of(work)
    graded, moved = ([tensors[i] for i in sorted({i for told in everyone for i in getattr(told, name)})] for name in ("graded", "moved"))
    with torch.no_grad():
        for p in graded:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        _summed([p.grad for p in graded if p.grad is not None])
        for one in moved:
            one.mul_(share)
        _summed(moved)
    return {i for told in everyone for i in told.moved}


def _summed(tensors: Sequence[Tensor]) -> None:
    """Put into the leader's tensors the sums over all processes."""
    for kind in sorted({one.dtype for one in tensors}, key=str):
        alike = [one for one in tensors if one.dtype == kind]
        flat = torch.cat([one.reshape(-1) for one in alike])
        with company():
            dist.reduce(flat, 0)
        for one, total in zip(alike, flat.split([one.numel() for one in alike]), strict=True):
            one.copy_(total.view(one.shape))


def _unpacked(fit: Fit) -> Work:
    method, net, weights, focus = pickle.loads(fit.packed)  # from the leader, never from disk; torch.distributed pickles as well
    device = fit.settings.place()
    return Work(method, net.to(device), Criterion(weights.to(device), focus), fit.seed, device, fit.reduced, dist.get_rank())
