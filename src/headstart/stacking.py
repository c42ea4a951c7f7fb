"""Several tasks as one set of rows: an input that two tasks share is one row, with both labels; a label that is missing is NaN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from headstart.core import InputError, Inspection, Task
from headstart.evaluate import Split, strata
from headstart.evidence import joined_groups
from headstart.keeping import Settings
from headstart.methods.model.multitask import Part

TRIES = 32
POWERS = {"proportional": 1.0, "sqrt": 0.5, "equal": 0.0}


@dataclass(frozen=True)
class Stack:
    """Rows of all tasks: raw ``items``, their ``digests``, targets ``y`` (n, tasks) with NaN where missing, and groups (n,) that are never split."""

    parts: tuple[Part, ...]
    items: tuple[Any, ...]
    digests: tuple[str, ...]
    y: np.ndarray
    groups: np.ndarray | None
    labels: tuple[tuple[str, ...], ...]

    @property
    def have(self) -> np.ndarray:
        """(n, tasks) which rows have which label."""
        have: np.ndarray = ~np.isnan(self.y)
        return have


@dataclass(frozen=True)
class Drawn(Settings):
    """Training settings that draw rows by the tasks they serve: a task's odds are n^p of its n labels, shared out evenly over its rows.

    ``sampling`` is "proportional" (p = 1, the default: every row once in a pass), "sqrt" (p = 1/2) or "equal" (p = 0).

    >>> y = torch.tensor([[1.0, torch.nan], [1.0, torch.nan], [torch.nan, 0.5]])
    >>> Drawn(sampling="equal").odds(y, torch.ones(0)).tolist()
    [0.25, 0.25, 0.5]
    """

    sampling: Literal["proportional", "sqrt", "equal"] = "proportional"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampling not in POWERS:
            raise InputError(f"sampling={self.sampling!r} is unknown. Choose one of {', '.join(POWERS)}.")

    def odds(self, y: Tensor, weights: Tensor) -> Tensor | None:
        if self.sampling == "proportional":
            return None
        have = (~torch.isnan(y)).double()
        counts = have.sum(dim=0).clamp(min=1)
        tasks = counts ** POWERS[self.sampling]
        return have @ (tasks / tasks.sum() / counts)


def labelled(task: Task) -> Task:
    """Return the task without the cases whose target is ``None`` or NaN."""
    y = task.target.y or ()
    rows = [i for i, v in enumerate(y) if v is not None and v == v]
    return task if len(rows) == len(y) else replace(task, target=task.target.take(rows))


def stacked(tasks: Mapping[str, Task], inspections: Mapping[str, Inspection]) -> Stack:
    """Stack inspected tasks. Inputs with equal bytes are one row; the second copy within one task meets the second copy within another."""
    place: dict[tuple[str, int], int] = {}
    items: list[Any] = []
    found: list[list[int]] = []
    for name, task in tasks.items():
        seen: Counter[str] = Counter()
        rows = []
        for item, digest in zip(task.target.x, inspections[name].digests, strict=True):
            seen[digest] += 1
            key = (digest, seen[digest])
            if key not in place:
                place[key] = len(items)
                items.append(item)
            rows.append(place[key])
        found.append(rows)
    y = np.full((len(items), len(tasks)), np.nan)
    for column, (task, rows) in enumerate(zip(tasks.values(), found, strict=True)):
        y[rows, column] = task.codes if task.labels else np.asarray(task.target.y, dtype=np.float64)
    digests = tuple(digest for digest, _ in place)
    parts = tuple(Part(name, len(task.labels)) for name, task in tasks.items())
    return Stack(parts, tuple(items), digests, y, _groups(tasks, found, digests), tuple(task.labels for task in tasks.values()))


def splits(stack: Stack, *, k: int, repeats: int, seed: int) -> list[Split]:
    """Return ``repeats`` times k (training rows, test rows) in which each task's classes, or ranges of its numbers, are spread evenly; groups stay whole.

    Greedy, the rarest stratum first, as in Sechidis et al. 2011. k falls to the least number of groups that hold a class.

    Raises
    ------
    InputError
        a class that cannot stand in two folds; names task and class.
    """
    columns, names = _strata(stack)
    units = np.arange(len(stack.y)) if stack.groups is None else np.unique(stack.groups, return_inverse=True)[1]
    per_unit = np.zeros((units.max() + 1, columns.shape[1]))
    np.add.at(per_unit, units, columns)
    holders = (per_unit > 0).sum(axis=0)
    k = min(k, int(holders.min()))
    if k < 2:
        raise InputError(f"{names[int(holders.argmin())]} has too few cases to stand in two folds. Add cases from other groups, or leave it out.")
    out: list[Split] = []
    for child in np.random.SeedSequence(seed).spawn(repeats):
        out += _one_repeat(per_unit, units, names, k, child.generate_state(TRIES), task_of=np.cumsum([0, *_widths(stack)]))
    return out


def _one_repeat(per_unit: np.ndarray, units: np.ndarray, names: Sequence[str], k: int, seeds: np.ndarray, *, task_of: np.ndarray) -> list[Split]:
    """Return the first draw in which every training part holds every stratum, and every test part a case of every task."""
    total = per_unit.sum(axis=0)
    for state in seeds:
        fold, have = _dealt(per_unit, k, np.random.default_rng(int(state)))
        tested = np.add.reduceat(have, task_of[:-1], axis=1)
        if np.all(total - have > 0) and np.all(tested > 1):
            return [(np.flatnonzero(fold[units] != f), np.flatnonzero(fold[units] == f)) for f in range(k)]
    worst = names[int((total - have).min(axis=0).argmin())]
    raise InputError(f"No {k} folds put cases of every task into each, and {worst} into each training part. Add cases, or use fewer groups.")


def _dealt(per_unit: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Deal units to the folds that lack their strata most, the rarest first; return (units,) folds and (k, strata) what each has."""
    total = per_unit.sum(axis=0)
    rarity = np.where(per_unit > 0, total, np.inf).min(axis=1)
    order = rng.permutation(len(per_unit))
    order = order[np.lexsort((-per_unit[order].sum(axis=1), rarity[order]))]
    fold, have = np.zeros(len(per_unit), dtype=np.intp), np.zeros((k, len(total)))
    for unit in order:
        lack = ((total / k - have) / total) @ per_unit[unit]
        best = np.flatnonzero(lack >= lack.max() - 1e-12)
        least = have[best].sum(axis=1)
        fold[unit] = rng.choice(best[least == least.min()])
        have[fold[unit]] += per_unit[unit]
    return fold, have


def _strata(stack: Stack) -> tuple[np.ndarray, list[str]]:
    """Return (n, strata) which row is of which stratum of which task, and the strata's names."""
    columns, names = [], []
    for part, labels, y in zip(stack.parts, stack.labels, stack.y.T, strict=True):
        have = ~np.isnan(y)
        codes, words = strata(y[have].astype(np.intp) if labels else y[have], labels)
        one = np.zeros((len(y), len(words)))
        one[np.flatnonzero(have), codes] = 1.0
        columns.append(one)
        names += [f"Class {word!r} of {part.name!r}" if labels else f"The range {word} of {part.name!r}" for word in words]
    return np.hstack(columns), names


def _widths(stack: Stack) -> list[int]:
    return [len(strata(y[~np.isnan(y)].astype(np.intp) if labels else y[~np.isnan(y)], labels)[1]) for labels, y in zip(stack.labels, stack.y.T, strict=True)]


def _groups(tasks: Mapping[str, Task], found: Sequence[Sequence[int]], digests: Sequence[str]) -> np.ndarray | None:
    """Return groups of rows: of equal bytes, or of one user group in any task; a name means the same group in all tasks."""
    given: list[dict[int, str]] = []
    for task, rows in zip(tasks.values(), found, strict=True):
        given.append({} if task.target.groups is None else {row: str(g) for row, g in zip(rows, task.target.groups, strict=True)})
    codes = joined_groups(None, digests)
    for own in given:
        if not own:
            continue
        keys = [next((g[row] for g in (own, *given) if row in g), f"\0{row}") for row in range(len(digests))]
        codes = joined_groups(keys, [str(c) for c in (range(len(digests)) if codes is None else codes)])
    return codes
