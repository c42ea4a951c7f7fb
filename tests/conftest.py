"""What all tests share: an activation store of their own, and no more threads than the smallest machine that runs them has cores."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from headstart.bench import Bench
from headstart.learner import Candidate
from headstart.methods import SimpleTable
from headstart.search import Clock


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep activations in a folder of this session: nothing of the user's is read or written, and every session starts cold."""
    with pytest.MonkeyPatch.context() as patch:  # why: subprocesses inherit it, and the session's end takes it back
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))  # fewer where OMP_NUM_THREADS says so: `make test` runs two processes of one thread


@pytest.fixture(scope="module")
def unhurried() -> Iterator[None]:
    """Budgets decide what is planned, and end nothing: so a run does on a loaded machine what it does on an idle one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "deadline", lambda clock, share: math.inf)
        patch.setattr(Clock, "late", lambda clock, share, *, need=0.0: False)
        yield


def shorten(patch: pytest.MonkeyPatch, *models: str) -> None:
    """Those baselines instead of a dozen, no network from random weights, judging once: what tests of one part of a whole run are not about."""

    def simple(bench: Bench) -> None:
        bench.search.fixed([Candidate(SimpleTable(model)) for model in models], deadline=math.inf)

    patch.setattr("headstart.plan.without_transfer", simple)
    patch.setattr("headstart.plan.from_scratch", lambda bench: None)
    patch.setattr("headstart.judging.REPEATS", 1)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with one baseline; see :func:`shorten`."""
    shorten(monkeypatch, "linear")
