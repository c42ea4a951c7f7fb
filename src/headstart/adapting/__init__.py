"""From one domain to another: labels here, few or none there. Try ways to adapt, choose without the target's labels, say whether it beats source only.

As in a transfer, decisions depend on the inputs, the seed and the budget that was named; the clock only ends a run early.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headstart.adaptation import Adaptation, Labels, Warned
from headstart.adapting.domains import Domains, Read, check_alike, joined, with_shared_columns
from headstart.adapting.ground import columns_source, grounded
from headstart.adapting.story import Asked, story
from headstart.bench import NO_SOURCE, Observer, Silent
from headstart.core import InputError, Source, Task
from headstart.evidence import THINGS
from headstart.export import read_adaptation
from headstart.modality import door
from headstart.runs import Run, full_disk_explained, parse_budget
from headstart.search import Clock

__all__ = ["adapt"]


def adapt(
    source: Task | Sequence[Task],
    target: Task,
    networks: Sequence[Source] | None = None,
    *,
    budget: str | float,
    seed: int,
    target_labels: Labels = "none",
    read_labels: bool = False,
    out: str | Path | None = None,
    skip_unreadable: bool = False,
    margin: float = 0.0,
    engine: str = "auto",
    observer: Observer | None = None,
    command: str = "",
) -> Adaptation:
    """Adapt from a labelled source domain to a target domain, and say whether that beats source only.

    Candidates are heads on source cases alone, and relation-level methods on the same frozen features. Without target labels a rule over validators
    chooses, and the gain over source only is foretold; with some, labelled target cases that a candidate was not trained on choose and test.

    Parameters
    ----------
    source : one labelled domain or several; classes are matched by name
    target : the domain to predict. Its ``target.y`` may hold ``None`` for cases without a label, or be ``None``; it is read only as ``target_labels`` says
    networks : whose frozen features are tried; ``None``: all of the modality that are installed. Tables are compared in their own columns
    budget : seconds, or text such as "5m"; the call ends within 1.1 times of it
    seed : decides splits and first weights
    target_labels : "none", the default: labels of the target choose nothing and train nothing. "some": labelled cases train semi-supervised methods, and test
    read_labels : with "none", read the target's labels once at the end, to score what was found; they decide nothing, and the result says so
    out : folder that keeps finished fits, so that a killed run goes on; ``None``: a temporary one
    skip_unreadable : leave out inputs that cannot be read, instead of refusing
    margin : smallest gain in balanced accuracy, or in R2, 0..1, that is worth adapting
    engine : what runs networks, as in :func:`headstart.transfer`
    observer : hears of progress
    command : how to repeat the run, for the report

    Returns
    -------
    Adaptation, with the shipped model: the candidate that the rule chose where it is foretold or measured to gain, else source only.

    Raises
    ------
    InputError
        a domain, a network, the budget or the folder cannot be used, in one line.

    Examples
    --------
    >>> from headstart.core import Domain
    >>> adapt([], Task("classification", "text", Domain("t", ["x"])), budget="1m", seed=0)
    Traceback (most recent call last):
    headstart.core.InputError: No source domain was given. Give a labelled one before the target: headstart adapt SOURCE TARGET.
    """
    seconds = parse_budget(budget)
    clock = Clock(seconds)
    observer = Silent() if observer is None else observer
    sources = [source] if isinstance(source, Task) else list(source)
    check_alike(sources, target)
    warned: list[Warned] = []
    if target.modality == "tabular":
        sources, target, warned = with_shared_columns(sources, target)
        networks = [columns_source(sources[0], [row for one in sources for row in one.target.x])]
    reads = [_read(one, observer, skip_unreadable=skip_unreadable) for one in sources]
    # why without labels: the fewest cases that a class may have are asked of the source
    theirs = _read(dataclasses.replace(target, labels=()), observer, skip_unreadable=skip_unreadable)
    domains = joined(reads, theirs, labels=target_labels, seed=seed)
    pool = _networks(domains, networks)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(out) if out is not None else Path(scratch))
        about = {"budget": seconds, "seed": seed, "margin": margin, "engine": engine, "target_labels": target_labels, "read_labels": read_labels}
        data = domains.sha256(read_labels=read_labels)
        run.take({"task": domains.names[-1], "domains": list(domains.names), "data": data, "sources": [s.name for s in pool], **about})
        if run.adapted:
            observer.say(f"This run is finished; its result is read from {run.folder}.")
            return read_adaptation(run.folder)
        with full_disk_explained(run.folder):
            ground = grounded(domains, pool, folder=run.folder, clock=clock, observer=observer, seed=seed, engine=engine)
            found = story(ground, Asked(target_labels, read_labels, margin, command, data), warned)
            if out is not None:
                found.save(run.folder)
        return found


def _read(task: Task, observer: Observer, *, skip_unreadable: bool) -> Read:
    reading = f"reading {THINGS[task.modality]} of {task.target.name}"
    observer.phase(reading, len(task.target))
    return door(task.modality).inspect(task, skip_unreadable=skip_unreadable, progress=lambda k: observer.advance(reading, k))


def _networks(domains: Domains, given: Sequence[Source] | None) -> list[Source]:
    from headstart import sources

    modality = domains.task.modality
    pool = list(given) if given is not None else sources.available(domains.task)
    if not pool:
        raise InputError(NO_SOURCE[modality].replace("source to transfer from", "network to take features from"))
    foreign = next((s for s in pool if s.modality != modality), None)
    if foreign is not None:
        raise InputError(f"Source {foreign.name!r} is for {foreign.modality}, and the domains are {modality}. List others: headstart sources.")
    bare = next((s for s in pool if not s.recipe), None)
    if bare is not None:
        raise InputError(f"Source {bare.name!r} could not be saved with the model, for nothing says how to build it. Give from_module a factory.")
    return pool
