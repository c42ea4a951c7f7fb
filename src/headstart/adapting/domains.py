"""Two or more domains as one list of cases: sources with labels, a target whose labels are learned from only where that was asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.adaptation import Labels, Side, Warned
from headstart.core import Domain, InputError, Inspection, Task
from headstart.evaluate import holdout, strata
from headstart.evidence import THINGS, joined_groups, short
from headstart.modality.tabular import columns_of
from headstart.similarity.label_shift import plain_name

LEAST = 10  # cases of a domain: with fewer no distance between domains, and no score, can be told from chance
HELD = 0.25  # of the source's cases, which train nothing: scores, temperatures and validators are theirs
Read = tuple[Task, Inspection]


@dataclass(frozen=True)
class Domains:
    """All cases in one order: those of the first source, of the second, ..., of the target.

    Parameters
    ----------
    task : the first source's kind, modality and columns, with the classes of all sources
    names : of the sources, then of the target
    items, digests : n raw inputs, and the hashes of their content
    y : (n,) class codes or numbers; 0 where no label may be learned from
    strata : (n,) class, or range of numbers, of cases with a label; 0 elsewhere
    groups : (n,) who is never split, or ``None``
    domain : (n,) index into ``names``
    train, held : rows of the sources' cases that train, and that do not
    target, known : rows of the target, and those of them whose label is learned from
    hidden : labels of the target that nobody may look at, by row: only ``--score`` reads them, when all is decided; ``None`` where the source lacks the class
    recorded : what a run wrote down of its source, where none of its cases is there
    """

    task: Task
    names: tuple[str, ...]
    items: Sequence[Any]
    digests: tuple[str, ...]
    y: np.ndarray
    strata: np.ndarray
    strata_names: tuple[str, ...]
    groups: np.ndarray | None
    domain: np.ndarray
    train: np.ndarray
    held: np.ndarray
    target: np.ndarray
    known: np.ndarray
    hidden: Mapping[int, int | float | None]
    inspections: tuple[Inspection, ...]
    recorded: Side | None = None

    @property
    def classes(self) -> int:
        """How many classes the sources have together; 0 for numbers."""
        return len(self.task.labels)

    @property
    def source(self) -> np.ndarray:
        """Rows of all sources."""
        return np.flatnonzero(self.domain < len(self.names) - 1)

    @property
    def shares(self) -> np.ndarray:
        """(c,) shares of the classes among the source's cases, as they are there or were written down."""
        counts = np.bincount(self.y[self.source], minlength=self.classes) if self.recorded is None else self.counted
        shares: np.ndarray = counts / max(1, counts.sum())
        return shares

    @property
    def counted(self) -> np.ndarray:
        """(c,) cases of each class that were written down of the source."""
        strata = {} if self.recorded is None else self.recorded.strata
        return np.array([strata.get(label, 0) for label in self.task.labels], dtype=np.intp)

    def sha256(self, *, read_labels: bool) -> str:
        """Hash every case's content, domain, group, and the label where it may be learned from, or is read at the end."""
        labelled = np.zeros(len(self.items), dtype=bool)
        labelled[self.source] = labelled[self.known] = True
        groups = [None] * len(self.items) if self.groups is None else self.groups.tolist()
        labels = [value if has else None for value, has in zip(self.y.tolist(), labelled, strict=True)]
        rows = [list(self.digests), self.domain.tolist(), groups, labels, list(self.task.labels), sorted(self.hidden.items()) if read_labels else []]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def sides(self) -> tuple[Side, ...]:
        """Return each domain as it was found, the target last."""
        target = set(np.array(self.digests)[self.target].tolist())
        source = set(np.array(self.digests)[self.source].tolist())
        out = []
        for k, name in enumerate(self.names):
            if k == 0 and self.recorded is not None:
                out.append(self.recorded)
                continue
            rows, is_target = np.flatnonzero(self.domain == k), k == len(self.names) - 1
            labelled = self.known if is_target else rows
            counts = np.bincount(self.strata[labelled], minlength=len(self.strata_names))
            inspection, other = self.inspections[k], source if is_target else target
            out.append(
                Side(
                    name,
                    n=len(rows),
                    labelled=len(labelled),
                    held_out=int(np.isin(self.held, rows).sum()),
                    strata={s: int(c) for s, c in zip(self.strata_names, counts, strict=True) if c or not is_target},
                    shared=sum(self.digests[i] in other for i in rows),
                    unreadable=tuple(short(p) for p in inspection.unreadable),
                    facts=dict(inspection.facts),
                )
            )
        return tuple(out)


def joined(sources: Sequence[Read], target: Read, *, labels: Labels, seed: int) -> Domains:
    """Return the domains as one list; a quarter of the source's cases is held out, stratified by class and domain, groups and equal contents whole.

    Raises
    ------
    InputError
        a domain of fewer than ten cases; labels of the target that no source has; no labels where some were promised; classes that cannot be split.
    """
    first, reads = sources[0][0], [*sources, target]
    names = _names([task.target.name for task, _ in reads])
    for name, (task, _) in zip(names, reads, strict=True):
        if len(task.target) < LEAST:
            raise InputError(f"{name} has {len(task.target)} {THINGS[first.modality]}; a domain needs at least {LEAST}. Add some, or predict without adapting.")
    task = dataclasses.replace(first, labels=tuple(sorted({label for one, _ in sources for label in one.labels})))
    domain = np.repeat(np.arange(len(reads)), [len(one.target) for one, _ in reads])
    digests = tuple(d for _, inspection in reads for d in inspection.digests)
    rows = np.flatnonzero(domain == len(sources))
    given = target_labels(task, target[0], rows)
    if labels == "some":
        check_given(task, names[-1], target[0], given)
    y, learned = _codes(task, [one for one, _ in sources], len(domain)), given if labels == "some" else {}
    for row, value in learned.items():
        y[row] = value
    of_source = np.flatnonzero(domain < len(sources))
    known = np.array(sorted(learned), dtype=np.intp)
    labelled = np.concatenate([of_source, known])
    bins, bin_names = strata(y[labelled], task.labels)
    codes = np.zeros(len(domain), dtype=np.intp)
    codes[labelled] = bins
    groups = joined_groups(groups_of([one for one, _ in reads]), digests)
    by_domain = [f"{names[domain[i]]}: {bin_names[codes[i]]}" for i in of_source]
    train, held = holdout(by_domain, groups=None if groups is None else groups[of_source], share=HELD, seed=seed)
    items = [item for one, _ in reads for item in one.target.x]
    inspections = tuple(inspection for _, inspection in reads)
    hidden = {} if labels == "some" else given
    return Domains(task, names, items, digests, y, codes, bin_names, groups, domain, of_source[train], of_source[held], rows, known, hidden, inspections)


def check_alike(sources: Sequence[Task], target: Task) -> None:
    """Raise ``InputError`` where sources and target are not of one kind."""
    if not sources:
        raise InputError("No source domain was given. Give a labelled one before the target: headstart adapt SOURCE TARGET.")
    first = sources[0]
    for task in sources:
        if task.kind not in {"classification", "regression"}:
            raise InputError(f"Headstart cannot adapt {task.modality} {task.kind} yet; it can adapt classification and regression.")
        if task.kind != first.kind:
            raise InputError(f"{first.target.name} is {first.kind} and {task.target.name} {task.kind}. Sources must predict the same thing.")
        if task.target.y is None:
            raise InputError(f"{task.target.name} has no labels, so nothing can be learned from it. Give a labelled source.")
    for task in (*sources, target):
        if task.modality != first.modality:
            raise InputError(f"{first.target.name} holds {THINGS[first.modality]} and {task.target.name} {THINGS[task.modality]}. Give one modality.")


def with_shared_columns(sources: Sequence[Task], target: Task) -> tuple[list[Task], Task, list[Warned]]:
    """Return tables with the columns that all of them have, of one kind in all; name the others in a warning.

    Raises
    ------
    InputError
        the tables share no column.
    """
    tasks = [*sources, target]
    kinds = [{name: what for what, names in zip(("numbers", "words"), columns_of(task.target.x), strict=True) for name in names} for task in tasks]
    every = list(dict.fromkeys(name for one in kinds for name in one))
    shared = [name for name in every if all(name in one for one in kinds)]
    mixed = [name for name in shared if len({one[name] for one in kinds}) > 1]
    kept = [name for name in shared if name not in mixed]
    if not kept:
        raise InputError(f"{sources[0].target.name} and {target.target.name} share no column, so nothing carries over. Rename the columns that mean the same.")
    warned = []
    missing, extra = [name for name in every if name not in kinds[-1]], [name for name in every if name in kinds[-1] and name not in shared]
    parts = [f"{target.target.name} lacks {listed(missing)}"] * bool(missing) + [f"only {target.target.name} has {listed(extra)}"] * bool(extra)
    parts += [f"{listed(mixed)} holds numbers in one table and words in another"] * bool(mixed)
    if parts:
        warned.append(Warned("columns", f"{'; '.join(parts)}: not used. {len(kept)} shared column(s) are.", (*missing, *extra, *mixed)))
    return [_restricted(task, kept) for task in sources], _restricted(target, kept), warned


def _restricted(task: Task, columns: Sequence[str]) -> Task:
    rows = [{name: row[name] for name in columns if name in row} for row in task.target.x]
    return dataclasses.replace(task, target=Domain(task.target.name, rows, task.target.y, task.target.groups))


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Return names in quotes, the first ``most`` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are alike.

    >>> _names(["a", "b", "a"])
    ('a', 'b', 'a (2)')
    """
    out: list[str] = []
    for name in names:
        times = sum(before == name for before in names[: len(out)])
        out.append(name if not times else f"{name} ({times + 1})")
    return tuple(out)


def groups_of(tasks: Sequence[Task]) -> list[str] | None:
    """Return a group for each case, in all domains together, where any domain has groups; a case without one is its own."""
    if all(task.target.groups is None for task in tasks):
        return None
    return [
        f"case {k} {i}" if task.target.groups is None else f"group {task.target.groups[i]}" for k, task in enumerate(tasks) for i in range(len(task.target))
    ]


def _codes(task: Task, sources: Sequence[Task], n: int) -> np.ndarray:
    given = [value for one in sources for value in one.target.y or ()]
    if not task.labels:
        out = np.zeros(n)
        out[: len(given)] = np.asarray(given, dtype=np.float64)
        return out
    index = {label: i for i, label in enumerate(task.labels)}
    codes = np.zeros(n, dtype=np.intp)
    codes[: len(given)] = [index[str(value)] for value in given]
    return codes


def target_labels(task: Task, target: Task, rows: np.ndarray) -> dict[int, int | float | None]:
    """Return the target's labels by row, of rows that have one: class codes, ``None`` for a class that no source has, or numbers."""
    if target.target.y is None:
        return {}
    given = [(int(row), value) for row, value in zip(rows, target.target.y, strict=True) if value is not None]
    if not task.labels:
        return {row: float(value) for row, value in given}
    index: Mapping[str, int] = {plain_name(label): i for i, label in enumerate(task.labels)} | {label: i for i, label in enumerate(task.labels)}
    return {row: index.get(str(value), index.get(plain_name(str(value)))) for row, value in given}


def check_given(task: Task, name: str, target: Task, given: Mapping[int, int | float | None]) -> None:
    """Raise ``InputError`` where labels of the target were promised, and there are none, or some of a class that no source has."""
    if not given:
        raise InputError(f"{name} has no labelled case, and --target-labels some promises some. Label a few, or leave the option out.")
    foreign = sorted({str(v) for v in target.target.y or () if v is not None and _is_foreign(task, str(v))})
    if foreign:
        what = f"{name} has cases labelled {listed(foreign)}, which no source has (it has {', '.join(task.labels)})"
        raise InputError(f"{what}. Rename the class, or leave those cases unlabelled: a folder '_', an empty cell.")


def _is_foreign(task: Task, value: str) -> bool:
    return bool(task.labels) and value not in task.labels and plain_name(value) not in {plain_name(label) for label in task.labels}
