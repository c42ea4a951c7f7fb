"""The data doctor: what is wrong with the data, before anything runs on them.

Each finding says what, where, how sure, and what to do. A finding is a suspicion from simple features; a person decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core import Inspection, Task
from headstart.evaluate import folds
from headstart.evidence import THINGS, name
from headstart.findings import SHOWN, Finding, finding
from headstart.findings import Diagnosis as Diagnosis
from headstart.methods import SIMPLE
from headstart.modality import door
from headstart.similarity.two_sample import classifier_test, pool
from headstart.treatment import treated_otherwise, treatment
from headstart.twins import ALIKE, fingerprints, near_pairs, normalised, numbers, shingles

MOST = 4000  # cases that are compared pair by pair: 16 million cosines
FEW = 10  # of a class: five folds need two each
UNEQUAL = 10.0  # largest class over smallest
UNLIKELY = 0.10  # probability of the given label below which it is suspected: where probabilities hold, one suspect of ten is right after all
SURE = 0.01  # p-value from which a shift is told
PERMUTATIONS = 199
OF_GROUPS = re.compile(
    r"(^|[_\W])(patient|subject|person|participant|user|customer|client|site|hospital|centre|center|device|family|session)s?([_\W]?(id|no|nr|number|code))?$",
    re.I,
)
REPORTED = frozenset({"unreadable", "duplicates"})  # by every run
PATTERNS = (r"((?:patient|subject|person|participant|case|pat|sub|pid)[-_ ]?\d+)", r"([A-Za-z]*\d+)[-_]\w+\.\w+$")


def diagnose(task: Task, other: Task | None = None, *, seed: int = 0) -> Diagnosis:
    """Look a data set over before anything runs; ``other`` holds the inputs that will be predicted.

    Images are read, nothing is trained but a simple model in folds, and no network runs. At most 4,000 cases are compared pair by pair.

    Raises
    ------
    InputError
        the task cannot be read.

    Examples
    --------
    >>> from headstart.core import Domain
    >>> texts = ["a fine film", "a dull book", "a long play", "an old song", "A fine film!", "rain until noon", "snow on the hills", "sun all day"]
    >>> task = Task("classification", "text", Domain("t", texts, list("aaaabbbb")), ("a", "b"))
    >>> diagnose(task).kinds()
    ('contradiction', 'small class')
    """
    task, inspection = door(task.modality).inspect(task, skip_unreadable=True)
    squares = _squares(task)
    found = cheap(task, inspection, squares)
    rows = _looked_at(task, seed=seed)
    simple = _simple(task, rows)
    found += _noise(task, rows, simple, seed=seed)
    if other is not None:
        found += _beside(task, other, squares)
        found += _shift(task, other, simple, seed=seed)
    return Diagnosis(len(task.target), THINGS[task.modality], tuple(found))


def cheap(task: Task, inspection: Inspection, squares: np.ndarray | None) -> list[Finding]:
    """Return what can be found without fitting anything; ``squares`` (n, 3 side^2), 0..1, are the first 4,000 images, squeezed, and ``None`` for others."""
    found = []
    if inspection.unreadable:
        names = tuple(inspection.unreadable)
        found.append(finding("unreadable", f"{len(names)} {THINGS[task.modality]} cannot be read", names, len(names), "certain", "Repair or remove them."))
    found += _twins(task, inspection, squares)
    found += _classes(task)
    if task.modality == "tabular":
        found += _columns(task)
    if squares is not None:
        found += _names(task)
        found += treatment(task, squares)
    return found


def notes(task: Task, inspection: Inspection, squares: np.ndarray | None) -> list[str]:
    """Return what a run says of its data, in sentences: the cheap findings, less what it reports anyway."""
    return [str(one) for one in cheap(task, inspection, squares) if one.kind not in REPORTED]


def _squares(task: Task) -> np.ndarray | None:
    if task.modality != "image":
        return None
    from headstart.modality.simple import pixels

    return pixels(task.target.x[:MOST])


def _twins(task: Task, inspection: Inspection, squares: np.ndarray | None) -> list[Finding]:
    """Equal and near-equal cases: with other labels, in other groups, and the rest."""
    pairs = _pairs(task, inspection, squares)
    y, groups, things = task.target.y, task.target.groups, THINGS[task.modality]
    found = []
    clash = [p for p in pairs if y is not None and task.labels and y[p[0]] != y[p[1]]]
    clashing = set(clash)
    if clash:
        what = f"{len(clash)} pairs of {things} are equal or nearly so, under different labels"
        found.append(
            finding("contradiction", what, _named(task, clash), len(clash), "one of each pair is wrong, if they show one thing", "Correct the labels.")
        )
    split = [p for p in pairs if groups is not None and str(groups[p[0]]) != str(groups[p[1]])]
    if split:
        what = f"{len(split)} pairs of {things} are equal or nearly so, in different groups"
        found.append(finding("leak across groups", what, _named(task, split), len(split), "likely", "Give both the same group, or leave one out."))
    told = {*clash, *split}
    same = [p for p in pairs if inspection.digests[p[0]] == inspection.digests[p[1]] and p not in clashing]
    if same:
        what = f"{len(same)} pairs of {things} are equal"
        found.append(finding("duplicates", what, _named(task, same), len(same), "certain", "Nothing need be done: they are kept on one side of a split."))
    near = [p for p in pairs if inspection.digests[p[0]] != inspection.digests[p[1]] and p not in told]
    if near and (groups is None):
        what = f"{len(near)} pairs of {things} are nearly equal"
        do = "Give each pair one group (--group-by), or leave one of each out: a split may divide them."
        found.append(finding("near duplicates", what, _named(task, near), len(near), "likely", do))
    return found


def _pairs(task: Task, inspection: Inspection, squares: np.ndarray | None) -> list[tuple[int, int]]:
    """Pairs i < j of equal or nearly equal cases; of many alike, each with the first of them."""
    keys = [normalised(t) or t for t in task.target.x] if task.modality == "text" else list(inspection.digests)
    first: dict[str, int] = {}
    pairs = {(first[key], i) for i, key in enumerate(keys) if first.setdefault(key, i) != i}
    return sorted(pairs | set(_near(task.modality, task.target.x[:MOST], squares)))


def _near(modality: str, items: Sequence[Any], squares: np.ndarray | None) -> list[tuple[int, int]]:
    """Pairs of nearly equal images or texts; rows of a table are equal or are not."""
    if modality == "tabular":
        return []
    return near_pairs(shingles(items) if squares is None else fingerprints(squares), least=ALIKE[modality])


def _named(task: Task, pairs: Sequence[tuple[int, int]]) -> list[str]:
    return [f"{name(task, i)} = {name(task, j)}" for i, j in pairs[:SHOWN]]


def _classes(task: Task) -> list[Finding]:
    if not task.labels or task.target.y is None:
        return []
    counts = Counter(str(v) for v in task.target.y)
    found = []
    small = {label: n for label, n in counts.items() if n < FEW}
    if small:
        where = [f"{label} {n}" for label, n in sorted(small.items(), key=lambda one: one[1])]
        what = f"{len(small)} {'class has' if len(small) == 1 else 'classes have'} fewer than {FEW} cases"
        found.append(finding("small class", what, where, len(small), "certain", "Add cases, join classes, or leave them out: folds can hardly measure them."))
    most, least = max(counts.values()), min(counts.values())
    if most >= UNEQUAL * least:
        what = f"The largest class has {most} cases, the smallest {least}"
        found.append(finding("imbalance", what, (), least, "certain", "Read balanced accuracy, not accuracy; add cases of the rare classes first."))
    return found


def _names(task: Task) -> list[Finding]:
    """File names that look as if several images come from one patient, where nothing says so."""
    if task.target.groups is not None:
        return []
    paths = [str(p).replace("\\", "/") for p in task.target.x if not isinstance(p, np.ndarray)]
    for pattern in PATTERNS:
        matches = [m.group(1) for p in paths if (m := re.search(pattern, "/".join(p.split("/")[-2:]), re.IGNORECASE))]
        ids = Counter(matches)
        if len(matches) >= 0.8 * len(task.target) and 3 <= len(ids) <= 0.7 * len(matches):
            where = [f"{one} {n}" for one, n in ids.most_common(SHOWN)]
            what = f"File names look like {len(ids)} patients, sites or series with several images each"
            return [finding("groups in names", what, where, len(ids), "a guess from names", f"If so, keep them whole: --group-by '{pattern}'.")]
    return []


def _columns(task: Task) -> list[Finding]:
    """Columns whose name says patient or site, where nothing says so, and columns of a few values each of which goes with one label alone."""
    found, n = [], len(task.target)
    for column in task.target.x[0]:
        values = [str(row.get(column)) for row in task.target.x]
        distinct = len(set(values))
        if task.target.groups is None and OF_GROUPS.search(column) and 3 <= distinct <= 0.7 * n:
            what = f"Column {column!r} looks like {distinct} patients, sites or series with several rows each"
            found.append(finding("groups in columns", what, (), distinct, "a guess from its name", f"If so, keep them whole: --group-by {column}."))
        if task.labels and 2 <= distinct <= n / FEW and len(set(zip(values, map(str, task.target.y or ()), strict=True))) == distinct:
            what = f"Column {column!r} tells the label: each of its {distinct} values goes with one label alone"
            found.append(finding("leak in a column", what, (), n, "certain", "Leave it out, if it is written down after the label is known."))
    return found


def _looked_at(task: Task, *, seed: int) -> np.ndarray:
    """Rows (n,) that are looked at one by one: all, or 4,000 drawn with the seed."""
    n = len(task.target)
    return np.arange(n) if n <= MOST else np.sort(np.random.default_rng(seed).choice(n, MOST, replace=False))


def _noise(task: Task, rows: np.ndarray, X: Any, *, seed: int) -> list[Finding]:
    """Labels that a simple model, fitted without the case, finds nearly impossible (confident learning; Northcutt et al. 2021)."""
    if not task.labels or task.target.y is None or min(Counter(task.codes).values()) < FEW // 2:
        return []
    y = np.asarray(task.codes)
    groups = None if task.target.groups is None else [task.target.groups[i] for i in rows]
    proba = np.zeros((len(rows), len(task.labels)))
    for train, test in folds(y[rows], groups=groups, k=5, seed=seed):
        estimator = SIMPLE[task.modality](model="linear" if task.modality == "text" else "svm").estimator(seed=seed).fit(X[train], y[rows][train])
        proba[np.ix_(test, estimator.classes_)] = estimator.predict_proba(X[test])
    own, guess = proba[np.arange(len(rows)), y[rows]], proba.argmax(axis=1)
    usual = np.array([proba[y[rows] == c, c].mean() for c in range(len(task.labels))])  # the confidence in a class among its own cases
    suspects = np.flatnonzero((guess != y[rows]) & (own < UNLIKELY) & (proba.max(axis=1) >= usual[guess]))
    if not len(suspects):
        return []
    order = suspects[np.argsort(own[suspects], kind="stable")]
    where = [f"{name(task, int(rows[i]))} is {task.labels[y[rows[i]]]}, looks like {task.labels[guess[i]]}" for i in order[:SHOWN]]
    right = float(np.mean(guess == y[rows]))
    what = f"{len(suspects)} labels look wrong"
    return [finding("label noise", what, where, len(suspects), f"by a simple model that is right in {right:.0%}", "Look at them; the list is sorted.")]


def _simple(task: Task, rows: np.ndarray) -> Any:
    """What the modality's simple model learns from."""
    if task.modality == "image":
        from headstart.modality.simple import handmade

        return handmade([task.target.x[i] for i in rows])
    items = np.empty(len(rows), dtype=object)
    items[:] = [task.target.x[i] for i in rows]
    return items


def _beside(task: Task, other: Task, squares: np.ndarray | None) -> list[Finding]:
    """What will be predicted that was trained on, and images that were made otherwise than those that were trained on."""
    items, theirs = task.target.x[:MOST], other.target.x[:MOST]
    n, both = len(items), None
    seen: set[int] = set()
    if squares is not None:
        both = np.concatenate([squares, _squares(other)])
    if task.modality == "tabular":
        shared = sorted(set(items[0]) & set(theirs[0]))
        known = {repr([row.get(k) for k in shared]) for row in items}
        seen = {j for j, row in enumerate(theirs) if repr([row.get(k) for k in shared]) in known}
    else:
        seen = {j - n for i, j in _near(task.modality, [*items, *theirs], both) if i < n <= j}
    found = []
    if seen:
        what = f"{len(seen)} of the {THINGS[task.modality]} that will be predicted are equal or nearly so to some that are trained on"
        do = "Leave them out of any test: a score on them says nothing of new cases."
        found.append(finding("seen in training", what, [name(other, j) for j in sorted(seen)], len(seen), "likely", do))
    return found + (treated_otherwise(task, other, both[:n], both[n:]) if both is not None else [])


def _shift(task: Task, other: Task, simple: np.ndarray, *, seed: int) -> list[Finding]:
    """Can a classifier tell what will be predicted from what is trained on?"""
    x, xs = _side_by_side(task, other, simple)
    test = classifier_test(pool(x, xs, seed=seed, most=500), permutations=PERMUTATIONS)
    if test.p > SURE:
        return []
    what = f"What will be predicted differs from the training data: a classifier tells them apart with an AUC of {test.value:.2f}"
    do = "Scores measured here may not hold there; label some of those and add them."
    return [finding("shift", what, (), len(other.target), f"p = {test.p:.3f}, {test.n} + {test.m} cases", do)]


def _side_by_side(task: Task, other: Task, simple: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense features of both, made alike; of the task's images those that are at hand, ``simple``."""
    if task.modality == "image":
        return simple, _simple(other, np.arange(min(MOST, len(other.target))))
    both, n = [*task.target.x, *other.target.x], len(task.target)
    if task.modality == "tabular":
        shared = set(task.target.x[0]) & set(other.target.x[0])
        rows = numbers([{k: v for k, v in row.items() if k in shared} for row in both])
        return rows[:n], rows[n:]
    from sklearn.decomposition import TruncatedSVD

    sparse = shingles(both)
    dense = TruncatedSVD(min(50, sparse.shape[1] - 1), random_state=0).fit_transform(sparse)
    return dense[:n], dense[n:]
