"""Folds as tasks of a Ray cluster.

Decisions stay in this process, in their order, so that a run ends with the same result wherever its folds were computed. Each fold that arrives is
written into the run's ledger at once: what is there is never computed again, whoever dies.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import BaseFileLock, Timeout

from headstart.activations.placed import Placed
from headstart.activations.store import Rows
from headstart.core import InputError, Source
from headstart.learner import BORROWS, Candidate, views_of
from headstart.methods.method import View
from headstart.runners.worker import Ground, Order, compute, packed, threads_here, unpacked
from headstart.search import Arena, Here, Piece
from headstart.train import OutOfTime
from headstart.views import Looks

RETRIES = 5  # deaths of nodes that a fold outlives on the cluster; after them this process computes it
POLL = 1.0  # seconds between two looks at whether any machine is left
GRACE = 10.0  # seconds that a cluster may be without a machine that has room before this process helps itself
KNOCK = 5.0  # seconds within which a cluster's head must let itself be reached
SENDING = (TypeError, AttributeError, pickle.PicklingError)  # what pickle raises for what cannot be sent


@dataclass
class Flight:
    """A fold on its way: its key in the ledger, its lock there, and how it ended, which is one of ``found``, ``error`` and ``failed``."""

    arena: Arena
    key: dict[str, Any]
    order: Order
    deadline: float
    lock: BaseFileLock
    ref: Any = None
    began: float = field(default_factory=time.monotonic)
    landed: threading.Event = field(default_factory=threading.Event)
    found: tuple[np.ndarray, float] | None = None
    error: BaseException | None = None
    failed: str = ""


class OnRay:
    """Computes folds on a Ray cluster; a context manager, which connects and lets go of it.

    Parameters
    ----------
    address : of the cluster's head, "host:6379"; "auto", the default, is the cluster that this machine is part of. A process that is connected already
        stays with its cluster
    cpus : processors that Ray sets aside for a fold; ``None``, the default: as many as this process computes with (``OMP_NUM_THREADS``), as far as one machine
        of the cluster has them. Workers compute with as many threads as this process whatever it is, so that results have the same bits
    retries : deaths of machines that a fold outlives on the cluster
    say : hears what went wrong on the cluster

    Raises
    ------
    InputError
        Ray is not installed; no cluster answers at that address.

    Notes
    -----
    Ray pickles what it sends, so a cluster must be one that you trust. Sent are the method with its settings (an estimator or a module of your own with
    its code), arrays of features, and what opens a source: packaged weights are opened from the worker's own package, whose hash is checked.
    """

    def __init__(self, address: str = "auto", *, cpus: float | None = None, retries: int = RETRIES, say: Callable[[str], None] | None = None) -> None:
        self.address, self.cpus, self.retries = address, cpus, retries
        self._say = say or (lambda text: None)
        self._ray: Any = None
        self._mine = False
        self._flights: dict[str, Flight] = {}
        self._landing: queue.SimpleQueue[Flight | None] = queue.SimpleQueue()
        self._lander = threading.Thread(target=self._land_all, name="ray folds", daemon=True)
        self._put: dict[Any, tuple[Arena, Any]] = {}  # references to what was sent, by arena and what it is there
        self._packed: dict[str, Any] = {}  # references to sources
        self._by_value = False
        self._last = 0.0
        self._empty_since: float | None = None
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        self._ray, self._mine = connected(self.address)
        if self.cpus is None:
            largest = max((node["Resources"].get("CPU", 0.0) for node in self._nodes()), default=0.0)
            self.cpus = min(threads_here()["torch"], largest) or 1.0
        self._task = self._ray.remote(compute).options(num_cpus=self.cpus, max_retries=self.retries, retry_exceptions=False)
        self._ray.util.register_serializer(Source, serializer=self._sent_as, deserializer=unpacked)
        self._lander.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._landing.put(None)
        self._lander.join()
        for flight in self._flights.values():
            if not flight.landed.is_set():
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(flight.ref, force=True)
                flight.lock.release()
        self._ray.util.deregister_serializer(Source)
        if self._mine:
            self._ray.shutdown()

    @property
    def width(self) -> int:
        """How many folds the cluster has room for now."""
        return max(1, sum(int(node["Resources"].get("CPU", 0.0) / (self.cpus or 1.0)) for node in self._nodes()))

    def ahead(self, arena: Arena, pieces: Iterable[Piece], *, deadline: float) -> None:
        """Send folds that are neither stored nor on their way nor in another process's hands."""
        for piece in pieces:
            if time.monotonic() > deadline:
                return
            key = arena.key(piece)
            if str(key) in self._flights or arena.ledger.stored(key) is not None:
                continue
            lock = arena.ledger.lock(key, thread_local=False)  # why: the thread that writes the fold gives the lock back
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                if arena.ledger.stored(key) is not None or not self._sent(arena, piece, key, lock, deadline):
                    lock.release()

    def outcome(self, arena: Arena, piece: Piece, *, deadline: float, patience: float) -> tuple[np.ndarray, float]:
        """Return what :meth:`Ledger.outcome` does. What the cluster cannot compute, this process does."""
        key = arena.key(piece)
        if (stored := arena.ledger.stored(key)) is not None:
            self._flights.pop(str(key), None)
            return stored
        self.ahead(arena, [piece], deadline=deadline)
        flight = self._flights.get(str(key))
        if flight is None:
            return Here().outcome(arena, piece, deadline=deadline, patience=patience)
        self._wait(flight, deadline)
        del self._flights[str(key)]
        if flight.error is not None:
            raise flight.error
        if flight.found is not None:
            return flight.found
        if not flight.failed and deadline > flight.deadline:  # its time was over, and this is a later step's
            return self.outcome(arena, piece, deadline=deadline, patience=patience)
        if not flight.failed:
            raise OutOfTime
        self._tell(f"Computed here, for the cluster could not: {flight.failed}")
        return Here().outcome(arena, piece, deadline=deadline, patience=-1.0)

    def _wait(self, flight: Flight, deadline: float) -> None:
        while not flight.landed.wait(max(0.0, min(POLL, deadline - time.monotonic()))):
            if time.monotonic() > deadline:
                raise OutOfTime
            if not self._lander.is_alive():
                raise RuntimeError("the thread that writes down what arrives has ended")
            if self._deserted():
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(flight.ref, force=True)
                self._end(flight, failed=f"no machine with {self.cpus:g} processors is left")

    def _deserted(self) -> bool:
        """Whether the cluster has been without a machine that has room for a fold for longer than it takes to put up another."""
        if any(node["Resources"].get("CPU", 0.0) >= (self.cpus or 1.0) for node in self._nodes()):
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
        return self._empty_since is not None and time.monotonic() - self._empty_since > GRACE

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _sent(self, arena: Arena, piece: Piece, key: dict[str, Any], lock: BaseFileLock, deadline: float) -> bool:
        """Send a fold; whether that could be done: its views may not be made in time, and not everything can be pickled."""
        try:
            self._lend_sources(arena)
            flight = Flight(arena, key, self._order(arena, piece, deadline), deadline, lock)
            self._submit(flight)
        except OutOfTime:
            return False
        except SENDING as error:
            self._tell(f"Computed here, for it cannot be sent: {error}")
            return False
        self._flights[str(key)] = flight
        return True

    def _order(self, arena: Arena, piece: Piece, deadline: float) -> Order:
        """Return what a worker is told. Views are made here where they are not yet: frozen stages run once."""
        candidate, train, test = piece
        wanted = tuple(views_of(candidate))
        for view in wanted:
            arena.views.array(view)
        of_source = [view for view in wanted if view.source is not None and view.kind in {"pooled", "unit"}]
        return Order(
            candidate,
            train,
            test,
            deadline - time.monotonic(),
            wanted,
            {view: arena.views.widths(view) for view in of_source},
            {one.name: arena.views.engine(one) for one in _sources_of(candidate)},
        )

    def _submit(self, flight: Flight) -> None:
        arena, candidate = flight.arena, flight.order.candidate
        about = (arena.y, arena.classes, arena.seed, arena.groups, arena.settings)
        ground = self._reference(arena, "ground", lambda: Ground(*about, threads_here()))
        borrowed = None
        if candidate.source is not None and candidate.method.needs & BORROWS:
            borrowed = self._reference(arena, ("lent", candidate.view), lambda: arena.views.lent(candidate.view))
        flight.ref = self._task.remote(ground, flight.order, borrowed, *(self._content(arena, view) for view in flight.order.views))
        flight.ref.future().add_done_callback(lambda done: self._landing.put(flight))

    def _content(self, arena: Arena, view: View) -> Any:
        """Return a reference to a view's content: an array, or of rows on disk their files, where these are to be seen from the workers."""
        by_value = self._by_value

        def make() -> Any:
            whole = arena.views.array(view)
            if not isinstance(whole, Rows | Looks):
                return whole
            return np.asarray(whole[np.arange(len(whole))]) if by_value else _placed(whole)

        return self._reference(arena, (view, by_value), make)

    def _reference(self, arena: Arena, what: Any, make: Callable[[], Any]) -> Any:
        """Return Ray's reference to a thing of an arena, which is sent once."""
        key = (id(arena), what)
        if key not in self._put:
            self._put[key] = (arena, self._ray.put(make()))  # why with the arena: so that no other one gets its id
        return self._put[key][1]

    def _lend_sources(self, arena: Arena) -> None:
        for source in arena.views.sources.values():
            if (key := _key(source)) not in self._packed:
                self._packed[key] = self._ray.put(packed(source))

    def _sent_as(self, source: Source) -> tuple[str, str, Any]:
        return _key(source), source.weights_sha256, self._packed.get(_key(source)) or packed(source)

    def _land_all(self) -> None:
        for flight in iter(self._landing.get, None):
            if not flight.landed.is_set():
                self._land(flight)

    def _land(self, flight: Flight) -> None:
        """Write down how a fold ended; where files could not be seen, send it again with what is in them."""
        raised = self._ray.exceptions
        try:
            answer = self._ray.get(flight.ref)
            if isinstance(answer, np.ndarray):
                now = time.monotonic()
                # why not the worker's seconds: a run that goes on takes the sum for the part of its budget that is spent, and many are at work at once
                seconds, self._last = now - max(self._last, flight.began), now
                self._end(flight, found=flight.arena.ledger.keep(flight.key, answer, seconds))
            elif answer == "unseen":
                self._by_value = True
                self._submit(flight)
            else:
                self._end(flight)
        except raised.RayTaskError as error:
            cause = error.cause
            self._end(flight, error=cause) if isinstance(cause, InputError) else self._end(flight, failed=f"{type(cause).__name__}: {cause}")
        except raised.RayError as error:
            self._end(flight, failed=str(error).partition("\n")[0])
        except OSError as error:  # the disk is full: told where the fold is asked for
            self._end(flight, error=error)

    def _end(self, flight: Flight, *, found: tuple[np.ndarray, float] | None = None, error: BaseException | None = None, failed: str = "") -> None:
        flight.found, flight.error, flight.failed = found, error, failed
        flight.lock.release()
        flight.landed.set()

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)


def connected(address: str) -> tuple[Any, bool]:
    """Return Ray, connected to the cluster at that address, and whether it was not before. Raises ``InputError``."""
    try:
        import ray
    except ImportError:
        raise InputError("A Ray cluster is asked for, and Ray is not installed: pip install 'headstart[ray]'.") from None
    if ray.is_initialized():
        return ray, False
    if "://" in address:
        raise InputError(f"{address} is an address for Ray's client. Run on a machine of the cluster, with the address of its head, such as 10.0.0.1:6379.")
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=KNOCK).close()  # why: Ray itself knocks for a minute
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"No Ray cluster answers at {address} ({why}). Start one with: ray start --head, or give another --address.") from None
    return ray, True


def _key(source: Source) -> str:
    return f"{source.name} {source.weights_sha256} {source.data_sha256}"


def _placed(rows: Rows | Looks) -> Placed | tuple[Placed, ...]:
    return tuple(Placed.of(part) for part in rows.parts) if isinstance(rows, Looks) else Placed.of(rows)


def _sources_of(candidate: Candidate) -> list[Source]:
    teacher = getattr(candidate.method, "teacher", None)
    return [one for one in (candidate.source, teacher and teacher[1]) if one is not None]
