"""Lending: cases of a neighbouring domain are handed to sources, so that methods may borrow them. What would betray a case of the task is left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core import Domain, InputError, Source, Task
from headstart.modality import door
from headstart.twins import ALIKE, fingerprints, near_pairs, shingles


def lend(sources: Sequence[Source], data: Task, task: Task) -> list[Source]:
    """Return the sources with cases of a neighbouring domain, for methods that need ``source.data`` or ``source.labels``.

    Left behind are cases that equal or nearly equal (see :mod:`headstart.twins`) a case of the task or one before them, those of a group that
    the task has too, and those of a label that it does not have: a borrowed copy of a held-out case would tell its label.

    Parameters
    ----------
    sources : models, each of which will see the cases
    data : labelled as the task is, or without targets: then only methods that ask for no labels can borrow
    task : what is to be learned

    Raises
    ------
    InputError
        the two are of unlike kinds, share no label, or nothing is left to lend.

    Examples
    --------
    >>> mine = Task("classification", "text", Domain("mine", ["good", "bad"], ["yes", "no"]), ("no", "yes"))
    >>> other = Task("classification", "text", Domain("other", ["good", "fine", "so"], ["yes", "yes", "maybe"]), ("maybe", "yes"))
    >>> (one,) = lend([Source("s", modality="text")], other, mine)
    >>> one.data.x, one.data.y
    (['fine'], [1])
    """
    if data.modality != task.modality or (data.target.y is not None and data.kind != task.kind):
        raise InputError(f"{data.target.name} holds {data.modality} {data.kind} and {task.target.name} {task.modality} {task.kind}. Give data of one kind.")
    kept = _known(data, task)
    kept = [i for i in kept if i not in _told(data, task, kept)]
    if not kept:
        raise InputError(f"Every case of {data.target.name} is one of {task.target.name} already, so there is nothing to borrow. Give data of another domain.")
    part = data.target.take(kept)
    codes = {label: code for code, label in enumerate(task.labels)}
    y = None if part.y is None else [codes[str(v)] for v in part.y] if task.labels else [float(v) for v in part.y]
    of = door(task.modality)
    about = json.dumps([[of.digest(item) for item in part.x], y])
    lent = Domain(data.target.name, part.x, y)
    return [replace(source, data=lent, data_sha256=hashlib.sha256(about.encode()).hexdigest()) for source in sources]


def named(source: Source) -> str:
    """Return the name of a source, and of what it lends, as a run's folder remembers them.

    >>> named(Source("s"))
    's'
    """
    return source.name if source.data is None else f"{source.name} with {source.data.name} {source.data_sha256[:12]}"


def _known(data: Task, task: Task) -> list[int]:
    """Return the rows whose label the task has and whose group it has not."""
    rows = list(range(len(data.target)))
    if data.target.y is not None and task.labels:
        rows = [i for i in rows if str(data.target.y[i]) in task.labels]
        if not rows:
            theirs = ", ".join(data.labels[:5])
            raise InputError(f"{data.target.name} and {task.target.name} share no label ({theirs}; {', '.join(task.labels[:5])}). Name classes alike.")
    if data.target.groups is not None and task.target.groups is not None:
        mine = {str(group) for group in task.target.groups}
        rows = [i for i in rows if str(data.target.groups[i]) not in mine]
    return rows


def _told(data: Task, task: Task, rows: Sequence[int]) -> set[int]:
    """Return those of the rows that equal or nearly equal a case of the task, or an earlier one of the rows."""
    of = door(task.modality)
    seen = {of.digest(item) for item in task.target.x}
    told = set()
    for i in rows:
        digest = of.digest(data.target.x[i])
        if digest in seen:
            told.add(i)
        seen.add(digest)
    fresh = [i for i in rows if i not in told]
    if task.modality not in ALIKE or not fresh:
        return told
    n = len(task.target)
    pairs = near_pairs(_looks([*task.target.x, *(data.target.x[i] for i in fresh)], task.modality), least=ALIKE[task.modality])
    return told | {fresh[j - n] for _, j in pairs if j >= n}


def _looks(items: Sequence[Any], modality: str) -> Any:
    if modality == "text":
        return shingles([str(item) for item in items])
    from headstart.modality.simple import pixels

    return fingerprints(np.asarray(pixels(items)))
