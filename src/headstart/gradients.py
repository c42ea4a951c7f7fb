"""The gradients of a batch, part by part as memory bears it: by one process, whichever of several it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from headstart.activations.engines import is_out_of_memory
from headstart.core import Batch, InputError, Net
from headstart.methods.method import Criterion, Method


@dataclass(frozen=True)
class Work:
    """What is trained, and where: ``net`` and ``criterion`` are on ``device``; ``reduced`` computes in bfloat16; ``rank`` is this process's number."""

    method: Method
    net: Net
    criterion: Criterion
    seed: int
    device: torch.device
    reduced: bool = False
    rank: int = 0

    def sow(self, step: int) -> None:
        """Seed the draws of this step, where they are not those that PyTorch's own generator goes on with (the first process on a CPU)."""
        if self.rank:
            torch.manual_seed(self._drawn(step))
        elif self.device.type == "cuda":
            torch.cuda.manual_seed(self._drawn(step))  # why: a checkpoint then needs no state of a GPU

    def _drawn(self, step: int) -> int:
        return int(np.random.SeedSequence((self.seed % 2**63, step, self.rank)).generate_state(1)[0])


def backward(work: Work, batch: Batch, *, step: int, micro: int, share: float = 1.0) -> tuple[float, int]:
    """Leave the gradients of the batch's loss, which counts by ``share``, in the net; return the loss and how many cases memory held at once."""
    random = torch.get_rng_state()
    while True:
        work.net.zero_grad(set_to_none=True)
        work.sow(step)
        try:
            return _accumulated(work, placed(batch, work.device), step=step, micro=micro, share=share), micro
        except (MemoryError, RuntimeError) as error:
            if micro == 1 or not is_out_of_memory(error):
                raise
        micro = (min(micro, len(batch.y)) + 1) // 2
        torch.set_rng_state(random)


def placed(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on that device."""
    return replace(batch, **{name: given.to(device) for name, given in vars(batch).items() if isinstance(given, torch.Tensor)})  # type: ignore[arg-type]


def _accumulated(work: Work, batch: Batch, *, step: int, micro: int, share: float) -> float:
    """Add up gradients part by part; each part's mean loss counts by its share of the batch's weights, so that the sum is the batch's own mean."""
    method, criterion = work.method, work.criterion
    mass = criterion.mass(batch.y)
    whole = 0.0
    for rows in torch.arange(len(batch.y), device=work.device).split(micro):
        alone = len(rows) == len(batch.y)
        part = batch if alone else batch.take(rows)
        counts = share * (1.0 if alone else float(mass[rows].sum() / mass.sum()))
        with torch.autocast(work.device.type, torch.bfloat16, enabled=work.reduced):
            terms = method.loss(work.net, part, criterion)
        whole += counts * _finite(sum(float(term.detach()) for term in terms.values()), step, method)
        method.descend(terms, work.net, counts)
    return whole


def _finite(loss: float, step: int, method: Method) -> float:
    if not math.isfinite(loss):
        raise InputError(f"The loss of {method.name!r} became {loss} at step {step + 1}. Lower its rate (now {method.rate:g}).")
    return loss
