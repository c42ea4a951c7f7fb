"""What a report shows beside the verdict: what was found, the learning curve, the confusion, the worst mistakes, a map, the calibration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.cases import Case
from headstart.core import Inspection, Source, Task
from headstart.evaluate import expected_calibration_error, interval_of_mean, log_loss, metric, scale, share_tested
from headstart.learner import Candidate
from headstart.methods.method import View
from headstart.modality import door
from headstart.result import Calibration, Confusion, Coverage, CurvePoint, FeatureMap, Found, Mistake, RankedSource, Scatter, Score
from headstart.search import Arena, Clock
from headstart.train import OutOfTime

THINGS = {"image": "images", "text": "texts", "tabular": "rows"}
CURVE_POINTS = 5
MAP_ROWS = 1000
MISTAKES = 12


def joined_groups(groups: Sequence[Any] | None, digests: Sequence[str]) -> np.ndarray | None:
    """Return a group number per case: cases of one user group, or with the same bytes, are together. ``None``: every case stands alone.

    >>> joined_groups(None, ["a", "b", "a"]).tolist()
    [0, 1, 0]
    >>> joined_groups(["p", "q", "r"], ["a", "b", "a"]).tolist()
    [0, 1, 0]
    """
    if groups is None and len(set(digests)) == len(digests):
        return None
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(digests)
    same = [np.unique(np.asarray(list(keys), dtype=str), return_inverse=True)[1] for keys in (digests, groups) if keys is not None]
    rows = np.concatenate([np.arange(n)] * len(same))
    columns = np.concatenate([codes + n * (k + 1) for k, codes in enumerate(same)])
    size = n * (len(same) + 1)
    return np.asarray(connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size)), directed=False)[1][:n])


def cases(task: Task, train: np.ndarray, *, groups: np.ndarray | None) -> tuple[Case, ...]:
    """Return the inputs as they were divided, ``train`` the rows that are trained on; none where inputs are arrays or rows of a table.

    >>> from headstart.core import Domain
    >>> [case.part for case in cases(Task("classification", "text", Domain("d", ["x", "y"], ["a", "b"]), ("a", "b")), np.array([1]), groups=None)]
    ['held out', 'train']
    """
    if task.modality == "tabular" or not all(isinstance(item, str | Path) for item in task.target.x):
        return ()
    inputs = [str(Path(item).absolute()) if task.modality == "image" else str(item) for item in task.target.x]
    trained = set(train.tolist())
    parts: list[Literal["train", "held out"]] = ["train" if i in trained else "held out" for i in range(len(inputs))]
    shared = [""] * len(inputs) if groups is None else [str(g) for g in groups]
    return tuple(Case(*one) for one in zip(inputs, map(str, task.target.y or ()), parts, shared, strict=True))


def found(
    task: Task, inspection: Inspection, *, strata: np.ndarray, names: Sequence[str], groups: np.ndarray | None, train: np.ndarray, test: np.ndarray
) -> Found:
    """Return what was found in the data."""
    y = [str(v) for v in task.target.y or ()]
    by_digest: dict[str, set[str]] = {}
    for digest, label in zip(inspection.digests, y, strict=True):
        by_digest.setdefault(digest, set()).add(label)
    clashing = {d for d, labels in by_digest.items() if len(labels) > 1}
    conflicts = [name(task, i) for i, d in enumerate(inspection.digests) if d in clashing]
    counts = np.bincount(strata, minlength=len(names))
    return Found(
        n=len(y),
        things=THINGS[task.modality],
        strata={label: int(n) for label, n in zip(names, counts, strict=True)},
        facts=dict(inspection.facts),
        unreadable=tuple(short(p) for p in inspection.unreadable),
        duplicates=len(y) - len(by_digest),
        conflicts=tuple(conflicts),
        groups=None if task.target.groups is None or groups is None else len(set(groups.tolist())),
        n_train=len(train),
        n_test=len(test),
    )


def describe(found: Found, *, kind: str) -> str:
    """Say in a few lines what was found."""
    counts = ", ".join(f"{name} {n}" for name, n in found.strata.items())
    what = f"{len(found.strata)} classes ({counts})" if kind == "classification" else f"targets ({counts})"
    facts = "".join(f"; {title.lower()} {words}" for title, words in found.facts.items())
    lines = [f"Found {found.n} {found.things} {'in' if kind == 'classification' else 'with'} {what}{facts}."]
    lines.append(f"{found.n_train} train, {found.n_test} are held out and nothing tunes on them.")
    if found.duplicates:
        lines.append(f"{found.duplicates} exact duplicates: each is kept on one side of every split.")
    if found.conflicts:
        lines.append(f"{len(found.conflicts)} {found.things} have the same content under different targets, such as {found.conflicts[0]}: check them.")
    if found.unreadable:
        lines.append(f"{len(found.unreadable)} unreadable {found.things} left out, such as {found.unreadable[0]}.")
    return "\n".join(lines)


def curve(
    arena: Arena, candidates: Sequence[Candidate | None], pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, strata: np.ndarray, clock: Clock
) -> tuple[CurvePoint, ...]:
    """Score frozen features and the baseline when they train on fewer labels: the same draws, the same judging folds for both."""
    transfer, baseline = candidates
    name_of_metric = metric(arena.classes)
    if transfer is None or baseline is None or baseline.source is not None:
        return ()
    points: list[CurvePoint] = []
    share = share_tested(pairs)
    for n in _sizes(pairs, int(strata.max()) + 1):
        scores: list[list[float]] = [[], []]
        try:
            for i, (train, test) in enumerate(pairs):
                rows = _draw(strata, train, n, seed=arena.seed + i)
                for side, candidate in enumerate((transfer, baseline)):
                    scores[side].append(arena.score(candidate, rows, test, deadline=clock.deadline(0.97))[0])
        except OutOfTime:
            break
        a, b = (Score(name_of_metric, float(np.mean(s)), interval=interval_of_mean(s, test_share=share), n=n) for s in scores)
        points.append(CurvePoint(n, a, b, tuple(zip(scores[0], scores[1], strict=True))))
    return tuple(points)


def _sizes(pairs: Sequence[tuple[np.ndarray, np.ndarray]], classes: int) -> list[int]:
    full = min(len(train) for train, _ in pairs)
    least = min(full, 5 * classes)
    return sorted({round(v) for v in np.geomspace(least, full, CURVE_POINTS)})


def _draw(y: np.ndarray, train: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Draw n training rows, classes in proportion but at least two of each where there are two."""
    if n >= len(train):
        return train
    generator = np.random.default_rng(seed)
    shuffled = train[generator.permutation(len(train))]
    rank = np.empty(len(shuffled))
    for c in np.unique(y[shuffled]):
        where = np.flatnonzero(y[shuffled] == c)
        rank[where] = (np.arange(len(where)) + 0.5) / len(where)
        rank[where[:2]] = -1.0
    return np.sort(shuffled[np.argsort(rank, kind="stable")[:n]])


def confusion(labels: Sequence[str], truth: np.ndarray, proba: np.ndarray) -> Confusion:
    """Count test cases by true and predicted label."""
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (truth, proba.argmax(axis=1)), 1)
    return Confusion(tuple(labels), tuple(tuple(int(v) for v in row) for row in counts))


def mistakes(task: Task, test: np.ndarray, truth: np.ndarray, output: np.ndarray, *, temperature: float) -> tuple[Mistake, ...]:
    """Return the test cases that the model got wrong with most confidence, or whose number it missed by most."""
    if not task.labels:
        worst = sorted(range(len(test)), key=lambda i: (-abs(output[i, 0] - truth[i]), i))[:MISTAKES]
        return tuple(_mistake(task, test[i], f"{truth[i]:.4g}", f"{output[i, 0]:.4g}", None) for i in worst)
    calibrated = scale(output, temperature)
    codes, sure = calibrated.argmax(axis=1), calibrated.max(axis=1)
    wrong = sorted(np.flatnonzero(codes != truth), key=lambda i: (-sure[i], i))[:MISTAKES]
    return tuple(_mistake(task, test[i], task.labels[truth[i]], task.labels[codes[i]], float(sure[i])) for i in wrong)


def _mistake(task: Task, row: int, truth: str, predicted: str, probability: float | None) -> Mistake:
    thumbnail, text = door(task.modality).show(task.target.x[row])
    return Mistake(name(task, row), truth, predicted, probability, thumbnail, text)


def scatter(truth: np.ndarray, output: np.ndarray) -> Scatter:
    """Return true and predicted numbers of the test cases."""
    return Scatter(tuple(float(v) for v in truth), tuple(float(v) for v in output[:, 0]))


def coverage(truth: np.ndarray, output: np.ndarray, *, reach: float, level: float = 0.90) -> Coverage:
    """Measure on the test split how often value +- reach holds the truth."""
    return Coverage(level, float(reach), float(np.mean(np.abs(truth - output[:, 0]) <= reach)), len(truth))


def feature_map(
    arena: Arena,
    sources: Mapping[str, Source],
    ranked: Sequence[RankedSource],
    rows: np.ndarray,
    *,
    strata: np.ndarray,
    labels: Sequence[str],
    clock: Clock,
) -> FeatureMap | None:
    """Lay the best source's final features of the training cases out in the plane (t-SNE; van der Maaten & Hinton 2008)."""
    if not ranked or clock.late(0.97):
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    source = sources[ranked[0].name]
    if len(rows) > MAP_ROWS:
        rows = np.sort(np.random.default_rng(arena.seed).choice(rows, MAP_ROWS, replace=False))
    x = arena.views.array(View("pooled", source.name, (len(source.stages),)))[rows].astype(np.float64)
    flat = PCA(min(30, *x.shape), svd_solver="full").fit_transform(x - x.mean(axis=0))
    if len(rows) < 20:
        plane, method = flat[:, :2], "PCA"
    else:
        perplexity = min(30.0, (len(rows) - 1) / 4)
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=arena.seed, n_jobs=1).fit_transform(flat)
        method = f"t-SNE, perplexity {perplexity:g}"
    x_values, y_values = (tuple(round(float(v), 3) for v in plane[:, i]) for i in (0, 1))
    return FeatureMap(f"{method}, of {source.name}'s final features", tuple(labels), x_values, y_values, tuple(int(c) for c in strata[rows]))


def calibration(truth: np.ndarray, proba: np.ndarray, *, temperature: float) -> Calibration:
    """Compare probabilities on the test split before and after temperature scaling."""
    after = scale(proba, temperature)
    ece = [expected_calibration_error(truth, p) for p in (proba, after)]
    losses = [log_loss(truth, p) for p in (proba, after)]
    return Calibration(float(temperature), float(ece[0]), float(ece[1]), float(losses[0]), float(losses[1]))


def name(task: Task, row: int) -> str:
    """Return what tells a person which case it is: a path's last two parts, or the number of the row, from 1."""
    item = task.target.x[row]
    return short(item) if task.modality == "image" else f"row {row + 1}"


def short(item: Any) -> str:
    """Return a path's last two parts, class folder and file, so that a result does not depend on where the folder lies."""
    return os.sep.join(os.fspath(item).split(os.sep)[-2:]) if isinstance(item, str | os.PathLike) else "array"
