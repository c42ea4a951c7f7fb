"""What the processes of a crew say to each other, and the order of what they hold."""

from __future__ import annotations

import contextlib
import io
import pickle
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from headstart.core import Batch, InputError, Source
from headstart.gradients import Work
from headstart.keeping import Settings

CPU = torch.device("cpu")
TENSORS = tuple(f.name for f in fields(Batch) if f.name != "progress")
Look = tuple[torch.Size, torch.dtype]


def size() -> int:
    """Return how many processes there are to share a batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@dataclass
class Deck:
    busy: bool = False  # whether the others wait for another word than "what next"


deck = Deck()


@dataclass(frozen=True)
class Fit:
    """A training begins: method, net and criterion, pickled."""

    packed: bytes
    settings: Settings
    seed: int
    reduced: bool
    micro: int


@dataclass(frozen=True)
class Step:
    """A step begins; by process, the shapes and types of its part and the share by which that counts."""

    step: int
    changed: list[int]
    modes: list[bool]
    learning: list[bool]
    parts: list[list[Look | None]]
    shares: list[float]
    progress: float


@dataclass
class Told:
    """How a process fared: its loss, which parameters have a gradient, which buffers moved; or its error."""

    loss: float = 0.0
    graded: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    error: str = ""
    trace: str = ""  # "" where it is for people as it stands

    def blamed(self, error: Exception | None) -> Told:
        if error is None:
            return self
        people = isinstance(error, InputError)
        text = str(error) if people else f"{type(error).__name__}: {error}"
        return replace(self, error=text, trace="" if people else "".join(traceback.format_exception(error)))


class Caught:
    """Keeps what its block raises, so that the others can be told first."""

    error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def same(which: Sequence[int], tensors: Sequence[Tensor]) -> None:
    """Give the others the leader's values of those tensors, byte by byte; wide numbers first, so that each lies where its type may."""
    chosen = sorted((tensors[i] for i in which), key=lambda one: -one.element_size())
    if not chosen:
        return
    flat = torch.cat([one.detach().reshape(-1).view(torch.uint8) for one in chosen])
    with company():
        dist.broadcast(flat, 0)
    if dist.get_rank():
        with torch.no_grad():
            for one, part in zip(chosen, flat.split([one.numel() * one.element_size() for one in chosen]), strict=True):
                one.copy_(part.view(one.dtype).view(one.shape))


def tensors_of(work: Work) -> list[Tensor]:
    return [*work.net.parameters(), *work.net.buffers()]


def floats_of(work: Work) -> set[int]:
    """Return which tensors are buffers of real numbers; whole ones, such as counts, are the leader's."""
    first = sum(1 for _ in work.net.parameters())
    return {first + i for i, one in enumerate(work.net.buffers()) if one.is_floating_point()}


def fields_of(part: Batch | None) -> list[Tensor | None]:
    return [] if part is None else [getattr(part, name) for name in TENSORS]


class _Pickler(pickle.Pickler):
    """Leaves of a source its name: a loss needs the net alone, and weights are heavy."""

    def reducer_override(self, given: Any) -> Any:
        return (Source, (given.name,)) if isinstance(given, Source) else NotImplemented


def dumped(work: Work) -> bytes:
    whole = io.BytesIO()
    work.net.cpu()  # why: the leader's GPU is not the others'
    try:
        _Pickler(whole).dump((work.method, work.net, work.criterion.weights.cpu(), work.criterion.focus))
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise InputError(f"{work.method.name!r} cannot be sent to other processes ({error}). Run it without torchrun.") from None
    finally:
        work.net.to(work.device)
    return whole.getvalue()


def say(what: Fit | Step | None) -> None:
    with company():
        dist.broadcast_object_list([what], 0, device=CPU)


def heard() -> Any:
    box: list[Any] = [None]
    with company():
        dist.broadcast_object_list(box, 0, device=CPU)
    return box[0]


def agreed(told: Told) -> list[Told]:
    """Return what each process tells, in all of them."""
    everyone: list[Any] = [None] * dist.get_world_size()
    with company():
        dist.all_gather_object(everyone, told)
    return everyone


@contextlib.contextmanager
def company() -> Iterator[None]:
    """Explain the end of another process: in the leader as an error, and the others end with it."""
    try:
        yield
    except RuntimeError as error:
        if dist.get_rank():
            raise SystemExit(1) from None
        why = str(error).partition("\n")[0]
        raise InputError(f"Another process of this run has ended, for want of memory perhaps ({why}). Run the same command again to go on.") from None
