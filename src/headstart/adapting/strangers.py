"""Open sets: is there a cluster of target cases that no class of the source explains?

Under any shift target cases lie farther from the source and are named with less confidence, so neither tells an unknown class. A cluster that does so against
the rest of the target may: it is found in one half of the target, by both signs, and tested in the other half. A linear head is sure of what lies beyond a
class, so the second sign is also sought without one: the nearest class is hardly nearer than the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from headstart.adaptation import Warned
from headstart.adapting.choosing import calibrated
from headstart.adapting.ground import Ground
from headstart.adapting.trying import Tried
from headstart.evidence import THINGS, short
from headstart.similarity.two_sample import one_thread

SURE = 0.001  # p from which on a cluster is told, halves and signs counted
FARTHER = 0.80  # AUC of the cluster against the rest of the target; lower ones are what shift alone makes (LOG.md)
# second signs: the least AUC of each, and how it is said
SIGNS = {"confidence": (0.85, "is named with less confidence"), "between": (0.80, "lies hardly nearer to one class than to the next")}
SMALLEST = 4  # cases of a cluster in either half
COMPONENTS, NEIGHBOURS, MORE = 30, 5, 2  # components that clusters lie in; neighbours of a distance; clusters beside one for each class
SHOWN = 5
LEAST = 40  # target cases; with fewer a half shows nothing
MOST = 2000  # target cases looked at


@dataclass(frozen=True)
class Strangers:
    """A cluster: ``rows`` (k,) places among the target's cases, AUCs by which it is farther from the source and shows one of the ``SIGNS``, and p."""

    rows: np.ndarray
    farther: float
    sign: str
    shown: float
    p: float

    @property
    def is_unknown(self) -> bool:
        """Whether it looks like a class that the source lacks."""
        return self.p < SURE and self.farther >= FARTHER and self.shown >= SIGNS[self.sign][0]


def unknown_classes(ground: Ground, reference: Tried, network: str) -> list[Warned]:
    """Return a warning where a cluster of the target looks like a class that the source lacks."""
    domains, x = ground.domains, ground.final(network)
    if not domains.classes or untested(ground):
        return []
    n = len(domains.target)
    asked = np.arange(n) if n <= MOST else np.sort(np.random.default_rng(ground.seed).choice(n, MOST, replace=False))
    sure = calibrated(ground, reference).max(axis=1)
    found = strangers(x[domains.train], domains.y[domains.train], x[domains.target[asked]], sure[asked], seed=ground.seed)
    if found is None or not found.is_unknown:
        return []
    task, rows = domains.task, asked[found.rows]
    least_sure = rows[np.argsort(sure[rows], kind="stable")][:SHOWN]
    shown = tuple(short(domains.items[int(domains.target[i])]) if task.modality == "image" else f"row {i + 1}" for i in least_sure)
    cluster = f"{len(rows)} of {len(asked)} {THINGS[task.modality]} of {domains.names[-1]} form a cluster"
    how = f"lies farther from the source than the rest does (AUC {found.farther:.2f}) and {SIGNS[found.sign][1]} (AUC {found.shown:.2f})"
    words = f"{cluster} that {how}: perhaps a class that the source lacks, which nothing here can name. Look at {', '.join(shown)}."
    return [Warned("open set", words, shown, f"clusters of half the target, tested in the other half: distance and {found.sign}, Mann-Whitney", found.p)]


def untested(ground: Ground) -> str:
    """Say why nothing can be told of classes that the source lacks; "" where it can, or where there are no classes."""
    domains = ground.domains
    if not domains.classes:
        return ""
    why = f"that takes {LEAST} cases of it" if len(domains.target) < LEAST else "no case of the source is here" if not len(domains.train) else ""
    return (
        f"Whether {domains.names[-1]} holds classes that the source lacks was not tested: {why}. Any such case is given a class of the source." if why else ""
    )


def strangers(xs: np.ndarray, ys: np.ndarray, xt: np.ndarray, sure: np.ndarray, *, seed: int) -> Strangers | None:
    """Return the target's strangest cluster, which the best of two halvings and two signs finds; ``None`` where none is large enough in both halves.

    Parameters
    ----------
    xs, ys : (n, d) features of source cases, and their class codes (n,)
    xt : (m, d) of target cases
    sure : (m,) probability of the class that each target case is given

    Examples
    --------
    >>> dice = np.random.default_rng(0)
    >>> known, unknown = np.repeat([[0.0, 0.0], [9.0, 0.0]], 30, axis=0), np.repeat([[0.0, 40.0]], 20, axis=0)
    >>> xs, xt = (np.vstack(parts) + dice.normal(size=(k, 2)) for parts, k in (([known, known], 120), ([known, unknown], 80)))
    >>> found = strangers(xs, np.repeat([0, 1, 0, 1], 30), xt, np.repeat([0.9, 0.5], [60, 20]), seed=0)
    >>> found.is_unknown, found.rows.min() >= 60
    (True, np.True_)
    """
    classes = len(np.unique(ys))
    with one_thread():
        zs, zt = _components(xs, xt)
        away = _distance(zs, zt, itself=False) / np.maximum(_distance(zt, zt, itself=True), np.finfo(float).tiny)
        signs = {"confidence": -sure, "between": _between(zs, ys, zt)}
        half = np.random.default_rng(seed).permutation(len(zt)) % 2 == 0
        each = [_strangest(zt, away, sign, signs[sign], part, classes=classes, seed=seed) for sign in signs for part in (half, ~half)]
        found = [one for one in each if one is not None]
    return min(found, key=lambda one: (not one.is_unknown, one.p), default=None)


def _between(zs: np.ndarray, ys: np.ndarray, zt: np.ndarray) -> np.ndarray:
    """Return (m,) 0..1: the distance of each case to the nearest class, over that to the next; 1 where it is as far from both."""
    each = np.sort(np.stack([_distance(zs[ys == c], zt, itself=False) for c in np.unique(ys)], axis=1), axis=1)
    ratio: np.ndarray = each[:, 0] / np.maximum(each[:, 1], np.finfo(float).tiny)
    return ratio


def _components(xs: np.ndarray, xt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both domains, each standardised by itself, in common principal components."""
    from sklearn.decomposition import PCA

    from headstart.methods.features.scaling import LiveScaler

    zs, zt = LiveScaler().fit_transform(xs), LiveScaler().fit_transform(xt)
    both = np.vstack([zs, zt])
    k = min(COMPONENTS, max(2, len(zt) // 4), *both.shape)
    plane = PCA(k, svd_solver="full").fit(both)
    return plane.transform(zs), plane.transform(zt)


def _distance(a: np.ndarray, b: np.ndarray, *, itself: bool) -> np.ndarray:
    """Return (m,) the mean distance of each case of b to its nearest cases of a; not to ``itself`` where a is b."""
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBOURS, len(a) - itself)
    distances = NearestNeighbors(n_neighbors=k + itself).fit(a).kneighbors(b)[0]
    mean: np.ndarray = distances[:, int(itself) :].mean(axis=1)
    return mean


def _strangest(z: np.ndarray, away: np.ndarray, sign: str, value: np.ndarray, half: np.ndarray, *, classes: int, seed: int) -> Strangers | None:
    """Find clusters in ``half`` (m,), take the one that is farthest and whose sign has the greatest ``value`` (m,) there, and test it in the other half."""
    from sklearn.cluster import KMeans

    clusters = KMeans(classes + MORE, n_init=5, random_state=seed).fit(z[half])
    labels = clusters.predict(z)
    sized = [j for j in range(classes + MORE) if min((labels[part] == j).sum() for part in (half, ~half)) >= SMALLEST]
    if not sized:
        return None

    def seen(part: np.ndarray, j: int) -> tuple[float, float, float]:
        inside, outside = part & (labels == j), part & (labels != j)
        tests = [mannwhitneyu(of[inside], of[outside], alternative="greater") for of in (away, value)]
        pairs = inside.sum() * outside.sum()
        return float(tests[0].statistic / pairs), float(tests[1].statistic / pairs), float(max(test.pvalue for test in tests))

    picked = max(sized, key=lambda j: sum(seen(half, j)[:2]))
    farther, shown, p = seen(~half, picked)
    return Strangers(np.flatnonzero(labels == picked), farther, sign, shown, min(1.0, 4.0 * p))  # why 4: the best of two halvings and two signs is told
