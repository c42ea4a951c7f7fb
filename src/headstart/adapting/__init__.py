"""From one domain to another: labels here, few or none there. Try ways to adapt, choose without the target's labels, say whether it beats source only.

As in a transfer, decisions depend on the inputs, the seed and the budget that was named; the clock only ends a run early.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.adaptation import Adaptation, Labels, Warned
from headstart.adapting import alone as without_cases
from headstart.adapting.domains import Domains, Read, check_alike, joined, with_shared_columns
from headstart.adapting.ground import columns_source, grounded
from headstart.adapting.origin import Origin, check_fits, origin_of, target_alone
from headstart.adapting.story import Asked, story
from headstart.bench import NO_SOURCE, Observer, Silent
from headstart.core import InputError, Source, Task
from headstart.evidence import THINGS
from headstart.export import read_adaptation
from headstart.modality import door
from headstart.result import Result
from headstart.runs import Run, full_disk_explained, parse_budget
from headstart.search import Clock

__all__ = ["adapt"]


def adapt(
    source: Task | Sequence[Task] | Result | Adaptation | str | Path,
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

    Where the source is a finished run there are no cases, only the model that it shipped. Candidates are that model as it is, and what can be done to it with
    the target alone: correct its class shares, exchange its moments or the statistics of its norms, train on (TENT, SHOT). Without target labels nothing tells
    them apart well enough: one is named by the validators that need no source case, the verdict is "undecided", and the model is shipped as it is.

    Parameters
    ----------
    source : one labelled domain or several; classes are matched by name. Or a finished run: its folder, or what ``transfer`` or ``adapt`` returned
    target : the domain to predict. Its ``target.y`` may hold ``None`` for cases without a label, or be ``None``; it is read only as ``target_labels`` says
    networks : whose frozen features are tried; ``None``: all of the modality that are installed. Tables are compared in their own columns, a run keeps its own
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
    given = _Given(target_labels, seed, observer, skip_unreadable)
    sources = list(source) if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    origin = origin_of(sources[0]) if len(sources) == 1 else None
    if origin is not None:
        domains, pool, warned = given.without_cases(origin, target, networks)
    else:
        domains, pool, warned = given.with_cases(sources, target, networks)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(Path(out) if out is not None else Path(scratch))
        about = {"budget": seconds, "seed": seed, "margin": margin, "engine": engine, "target_labels": target_labels, "read_labels": read_labels}
        data = domains.sha256(read_labels=read_labels)
        model = {} if origin is None else {"model": origin.sha256}
        run.take({"task": domains.names[-1], "domains": list(domains.names), "data": data, "sources": [s.name for s in pool], **about, **model})
        if run.adapted:
            observer.say(f"This run is finished; its result is read from {run.folder}.")
            return read_adaptation(run.folder)
        with full_disk_explained(run.folder):
            ground = grounded(domains, pool, folder=run.folder, clock=clock, observer=observer, seed=seed, engine=engine, origin=origin)
            tell = story if origin is None else without_cases.story
            found = tell(ground, Asked(target_labels, read_labels, margin, command, data), warned)
            if out is not None:
                found.save(run.folder)
        return found


@dataclass(frozen=True)
class _Given:
    """What was given beside the domains, and how these are read."""

    labels: Labels
    seed: int
    observer: Observer
    skip_unreadable: bool

    def with_cases(self, given: Sequence[Any], target: Task, networks: Sequence[Source] | None) -> tuple[Domains, list[Source], list[Warned]]:
        """Return all domains as one, the networks to try, and what is odd."""
        sources = [one for one in given if isinstance(one, Task)]
        if len(sources) < len(given):
            raise InputError("A run is a model without its cases, and cannot be pooled with other sources. Give it as the only source.")
        check_alike(sources, target)
        warned: list[Warned] = []
        if target.modality == "tabular":
            sources, target, warned = with_shared_columns(sources, target)
            networks = [columns_source(sources[0], [row for one in sources for row in one.target.x])]
        reads = [self._read(one) for one in sources]
        # why without labels: the fewest cases that a class may have are asked of the source
        theirs = self._read(dataclasses.replace(target, labels=()))
        domains = joined(reads, theirs, labels=self.labels, seed=self.seed)
        return domains, _networks(domains, networks), warned

    def without_cases(self, origin: Origin, target: Task, networks: Sequence[Source] | None) -> tuple[Domains, list[Source], list[Warned]]:
        """Return the target alone, the network that the run's model stands on, and what is odd."""
        if networks is not None:
            raise InputError(f"The run of {origin.name} has a network of its own, or none. Leave --network out.")
        warned = check_fits(origin, target)
        domains = target_alone(origin, self._read(dataclasses.replace(target, labels=())), labels=self.labels)
        return domains, [] if origin.source is None else [origin.source], warned

    def _read(self, task: Task) -> Read:
        reading = f"reading {THINGS[task.modality]} of {task.target.name}"
        self.observer.phase(reading, len(task.target))
        return door(task.modality).inspect(task, skip_unreadable=self.skip_unreadable, progress=lambda k: self.observer.advance(reading, k))


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
