"""Runners: where the folds of a run are computed. In this process, or on a cluster; the result is the same."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headstart.core import InputError
from headstart.keeping import Settings
from headstart.search import Here, Runner
from headstart.train import PLAIN

WORDS = {"here": "in this process", "ray": "on a Ray cluster"}


@contextmanager
def opened(runner: str | Runner, *, address: str = "auto", settings: Settings = PLAIN, say: Callable[[str], None] | None = None) -> Iterator[Runner]:
    """Open a runner by one of :data:`WORDS`, and let go of it at the end; one that is given as an object is used as it is.

    Parameters
    ----------
    address : of the cluster, see :class:`headstart.runners.cluster.OnRay`
    settings : of training; a cluster's folds are trained by one process each, on the CPU
    say : hears what went wrong on the cluster

    Raises
    ------
    InputError
        there is no such runner; Ray is not installed; no cluster answers; its folds cannot be trained as the settings ask.

    Examples
    --------
    >>> with opened("here") as runner:
    ...     runner.width
    1
    """
    if not isinstance(runner, Here) and runner != "here" and (settings.processes > 1 or settings.device != "cpu"):
        raise InputError("Folds on a Ray cluster are trained by one process each, on the CPU. Leave out --runner ray, or torchrun and device=cuda.")
    if not isinstance(runner, str):
        yield runner
    elif runner == "ray":
        from headstart.runners.cluster import OnRay

        with OnRay(address, say=say) as cluster:
            yield cluster
    elif runner != "here":
        near = difflib.get_close_matches(runner, WORDS, n=1)
        raise InputError(f"There is no runner {runner!r}. {f'Did you mean {near[0]}?' if near else 'There are ' + ', '.join(WORDS) + '.'}")
    elif address != "auto":
        raise InputError("--address is that of a cluster. Name one with --runner ray.")
    else:
        yield Here()
