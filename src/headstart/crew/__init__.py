"""Several processes that share each batch of a training, on one machine or more, as torchrun starts them.

The first of them, the leader, runs the ordinary program and decides everything. The others wait in :func:`together`; in each step of a fit they get what has
changed in the net and their part of the batch, and their gradients are added to the leader's. So the search, schedules, averages, checkpoints and deadlines
are where they are for one process, and nothing has to be decided alike in several places.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from importlib import import_module

import torch
from torch import distributed as dist

from headstart import launched
from headstart.core import InputError
from headstart.crew.leader import Crew
from headstart.crew.parts import serve
from headstart.crew.wire import deck, say
from headstart.crew.wire import size as size
from headstart.gradients import Work, backward
from headstart.keeping import Settings

JOIN = timedelta(minutes=10)  # within which all processes must have started
IDLE = timedelta(days=20)  # that a process may wait for work: between two trainings lie minutes or hours; Gloo counts milliseconds in 32 bits
START = "torchrun --nproc-per-node {} -m headstart transfer ..., or a script that calls headstart.crew.together"

Gradients = Callable[..., tuple[float, int]]  # of a batch, as gradients.backward leaves them


@contextlib.contextmanager
def together() -> Iterator[int]:
    """Let the processes that torchrun started work for the first one, which alone goes on inside; give it their number.

    The others compute in here until the leader leaves, and then end with status 0. Outside torchrun, or with one process, it does nothing and gives 1;
    inside itself it does nothing more.

    Raises
    ------
    InputError
        not all of the processes came within ten minutes.

    Examples
    --------
    >>> with together() as processes:  # hs.transfer(..., settings=hs.Settings(processes=processes)) shares every batch of what is trained by the loop
    ...     processes
    1
    """
    if size() > 1 or launched.processes() == 1:
        yield size()
        return
    _join()
    if dist.get_rank():
        serve()
    try:
        yield dist.get_world_size()
    finally:
        with contextlib.suppress(InputError, RuntimeError):
            if not deck.busy:  # why: those who wait for another word than this one would never hear it; they end when the group does
                say(None)
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def ready(settings: Settings) -> None:
    """Raise ``InputError`` where there are not as many processes, or no GPU, as the settings ask for."""
    settings.place()
    if settings.processes > size():
        here = "this is one" if size() == 1 else f"there are {size()}"
        raise InputError(f"processes={settings.processes} is asked for, and {here}. Start them with: {START.format(settings.processes)}.")


def gradients_of(work: Work, settings: Settings) -> Gradients:
    """Return what leaves a batch's gradients in the net, see :func:`gradients.backward`: this process, or so many of them together."""
    if settings.processes == 1:
        return partial(backward, work)
    ready(settings)
    return Crew(work, settings).backward


def _join() -> None:
    """Meet the other processes, as torchrun's environment says where."""
    if not dist.is_available():
        raise InputError("This PyTorch cannot talk to other processes. Run without torchrun, or install another build.")
    from torch.distributed.distributed_c10d import PrefixStore  # why here: a build that cannot talk has neither
    from torch.distributed.rendezvous import rendezvous

    # why: its defaults hold the group that is there when it is first imported. A held group's threads never end, and one that frees a tensor while Python
    # ends aborts the process
    import_module("torch.distributed.nn.functional")

    try:
        store, rank, number = next(iter(rendezvous("env://", timeout=JOIN)))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"Not all of the processes came ({error}). Start them with: {START.format(2)}.") from None
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=PrefixStore("headstart", store), rank=rank, world_size=number, timeout=IDLE)
