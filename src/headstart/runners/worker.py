"""What a worker of a cluster does: it computes one fold of a candidate from what it was sent, by the same code as this process would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from headstart.activations.placed import Placed
from headstart.core import Backbone, InputError, Source
from headstart.keeping import Settings
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods.method import View
from headstart.search import Arena
from headstart.train import OutOfTime
from headstart.views import Looks, Views

DECIDE = ("headstart", "torch", "numpy", "scikit-learn")  # packages whose versions decide the bits
Answer = np.ndarray | Literal["late", "unseen"]


@dataclass(frozen=True)
class Ground:
    """What all folds of a run share: targets (n,) and what else an ``Arena`` has, how many ``threads`` compute, and the versions of the packages that do."""

    y: np.ndarray
    classes: int
    seed: int
    groups: np.ndarray | None
    settings: Settings
    threads: Mapping[str, int]
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in DECIDE})


@dataclass(frozen=True)
class Order:
    """One fold: the piece, the seconds that are left for it, and what is known of the ``views`` whose content comes beside it."""

    candidate: Candidate
    train: np.ndarray
    test: np.ndarray
    seconds: float
    views: tuple[View, ...]
    widths: Mapping[View, tuple[int, ...]] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """The views of an order, for what asks for them as it would ask ``Views``."""

    order: Order
    arrays: Mapping[View, Any]
    borrowed: tuple[np.ndarray, np.ndarray | None] | None

    def array(self, view: View) -> Any:
        """Return that view of all inputs, (n, ...)."""
        return self.arrays[view]

    def widths(self, view: View) -> tuple[int, ...]:
        """Return how many columns come from each stage."""
        return self.order.widths[view]

    def lent(self, view: View) -> tuple[np.ndarray, np.ndarray | None]:
        """Return that view of the cases that its source lends, and their targets."""
        if self.borrowed is None:
            raise KeyError(view)
        return self.borrowed

    def engine(self, source: Source) -> str:
        """Return which engine made the source's features."""
        return self.order.engines[source.name]


def compute(ground: Ground, order: Order, borrowed: tuple[np.ndarray, np.ndarray | None] | None, *content: Any) -> Answer:
    """Return the output of a fold from the ``content`` of its views and the cases that it borrows.

    Instead of it "late" where its time was over, "unseen" where the files of a view are not to be seen from here.

    Raises
    ------
    InputError
        as the candidate raises it; this worker has other versions of what decides the bits.
    """
    deadline = time.monotonic() + order.seconds if math.isfinite(order.seconds) else math.inf
    _check(ground.versions)
    arrays = dict(zip(order.views, map(_opened, content), strict=True))
    if any(array is None for array in arrays.values()):
        return "unseen"
    views = cast(Views, Sent(order, arrays, borrowed))
    arena = Arena(views, ground.y, ground.classes, Ledger(Path()), ground.seed, ground.groups, ground.settings)
    try:
        with threads(ground.threads):
            return arena.made((order.candidate, order.train, order.test), deadline=deadline)
    except OutOfTime:
        return "late"


def threads_here() -> dict[str, int]:
    """Return how many threads each kind of library computes with in this process."""
    import torch
    from threadpoolctl import threadpool_info

    pools = {kind: [one["num_threads"] for one in threadpool_info() if one["user_api"] == kind] for kind in ("blas", "openmp")}
    return {"torch": torch.get_num_threads(), **{kind: max(found) for kind, found in pools.items() if found}}


def threads(wanted: Mapping[str, int]) -> Any:
    """Compute with so many threads, as the process does that asked: a sum over another number of threads ends in other bits."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(wanted["torch"])
    return threadpool_limits(limits={kind: n for kind, n in wanted.items() if kind != "torch"})


def packed(source: Source) -> dict[str, Any]:
    """Return a source for a journey: what opens it, and the hash of its weights. A network that is already loaded stays behind."""
    fields = {name: value for name, value in vars(source).items() if name in Source.__dataclass_fields__}
    return {**fields, "digest": None, "opener": None if source.opener is None else partial(_checked, source.opener, source.digest, source.weights_sha256)}


_sources: dict[str, Source] = {}  # of this process, so that a network is loaded once, not once a fold


def unpacked(sent: tuple[str, str, Any]) -> Source:
    """Return the source of that key and weights, from what :func:`packed` made of it or Ray's reference to that; of one key always the same."""
    key, sha256, fields = sent
    if key not in _sources:
        if not isinstance(fields, dict):
            import ray

            fields = ray.get(fields)
        _sources[key] = Source(**{**fields, "digest": partial(str, sha256)})
    return _sources[key]


def _checked(opener: Callable[[], Backbone], digest: Callable[[], str] | None, sha256: str) -> Backbone:
    if digest is not None and digest() != sha256:
        raise InputError("The weights of a source are not the same on every machine of the cluster. Install the same package everywhere.")
    return opener()


_rows: dict[tuple[Path, ...], Any] = {}  # of this process: opening a file verifies it, which reads it whole


def _opened(content: Any) -> Any:
    """Return an array as it came, or rows from the files that they lie in; ``None`` where those are not to be seen."""
    if isinstance(content, Placed):
        if content.paths not in _rows:
            _rows[content.paths] = content.found()
        found = _rows[content.paths]
        return None if found is None else type(found)(found.shards, content.places)
    if isinstance(content, tuple):
        parts = [_opened(part) for part in content]
        return None if any(part is None for part in parts) else Looks(tuple(parts))
    return content


def _check(wanted: Mapping[str, str]) -> None:
    for name, here in ((name, version(name)) for name in wanted):
        if here != wanted[name]:
            raise InputError(f"A worker of the cluster has {name} {here}, and this process {wanted[name]}. Install the same version everywhere.")
