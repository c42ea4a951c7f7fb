"""Open sets: is there a cluster of target cases that no class of the source explains?

Under any shift target cases lie farther from the source and are named with less confidence, so neither tells an unknown class. A cluster that does so against
the rest of the target may: it is found in one half of the target, by both signs, and tested in the other half.
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

SURE = 0.001  # p from which on a cluster is told, both halves and both signs counted
FARTHER, LESS_SURE = 0.80, 0.75  # AUC of the cluster against the rest of the target; lower ones are what shift alone makes (LOG.md)
SMALLEST = 4  # cases of a cluster in either half
COMPONENTS, NEIGHBOURS, MORE = 30, 5, 2  # components that clusters lie in; neighbours of a distance; clusters beside one for each class
SHOWN = 5
LEAST = 40  # target cases; with fewer a half shows nothing
MOST = 2000  # target cases looked at


@dataclass(frozen=True)
class Strangers:
    """A cluster: ``rows`` (k,) places among the target's cases, AUCs by which it is farther from the source and less surely named than the rest, and p."""

    rows: np.ndarray
    farther: float
    less_sure: float
    p: float

    @property
    def is_unknown(self) -> bool:
        """Whether it looks like a class that the source lacks."""
        return self.p < SURE and self.farther >= FARTHER and self.less_sure >= LESS_SURE


def unknown_classes(ground: Ground, reference: Tried, network: str) -> list[Warned]:
    """Return a warning where a cluster of the target looks like a class that the source lacks."""
    domains, x = ground.domains, ground.final(network)
    if not domains.classes or len(domains.target) < LEAST or len(domains.target) > MOST:
        return []
    sure = calibrated(ground, reference).max(axis=1)
    found = strangers(x[domains.train], x[domains.target], sure, classes=domains.classes, seed=ground.seed)
    if found is None or not found.is_unknown:
        return []
    task = domains.task
    least_sure = found.rows[np.argsort(sure[found.rows], kind="stable")][:SHOWN]
    shown = tuple(short(domains.items[int(domains.target[i])]) if task.modality == "image" else f"row {i + 1}" for i in least_sure)
    cluster = f"{len(found.rows)} of {len(domains.target)} {THINGS[task.modality]} of {domains.names[-1]} form a cluster"
    how = f"lies farther from the source than the rest does (AUC {found.farther:.2f}) and is named with less confidence (AUC {found.less_sure:.2f})"
    words = f"{cluster} that {how}: perhaps a class that the source lacks, which nothing here can name. Look at {', '.join(shown)}."
    return [Warned("open set", words, shown, "clusters of half the target, tested in the other half: distance and confidence, Mann-Whitney", found.p)]


def strangers(xs: np.ndarray, xt: np.ndarray, sure: np.ndarray, *, classes: int, seed: int) -> Strangers | None:
    """Return the target's strangest cluster, which the better of two halvings finds; ``None`` where no cluster is large enough in both halves.

    Parameters
    ----------
    xs : (n, d) features of source cases
    xt : (m, d) of target cases
    sure : (m,) probability of the class that each target case is given

    Examples
    --------
    >>> dice = np.random.default_rng(0)
    >>> known, unknown = np.repeat([[0.0, 0.0], [9.0, 0.0]], 30, axis=0), np.repeat([[0.0, 40.0]], 20, axis=0)
    >>> xs, xt = (np.vstack(parts) + dice.normal(size=(k, 2)) for parts, k in (([known, known], 120), ([known, unknown], 80)))
    >>> found = strangers(xs, xt, np.repeat([0.9, 0.5], [60, 20]), classes=2, seed=0)
    >>> found.is_unknown, found.rows.min() >= 60
    (True, np.True_)
    """
    with one_thread():
        zs, zt = _components(xs, xt)
        away = _distance(zs, zt, itself=False) / np.maximum(_distance(zt, zt, itself=True), np.finfo(float).tiny)
        half = np.random.default_rng(seed).permutation(len(zt)) % 2 == 0
        found = [one for one in (_strangest(zt, away, sure, part, classes=classes, seed=seed) for part in (half, ~half)) if one is not None]
    return min(found, key=lambda one: one.p, default=None)


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


def _strangest(z: np.ndarray, away: np.ndarray, sure: np.ndarray, half: np.ndarray, *, classes: int, seed: int) -> Strangers | None:
    """Find clusters in ``half`` (m,), take the one that is farthest and least surely named there, and test it in the other half."""
    from sklearn.cluster import KMeans

    clusters = KMeans(classes + MORE, n_init=5, random_state=seed).fit(z[half])
    labels = clusters.predict(z)
    sized = [j for j in range(classes + MORE) if min((labels[part] == j).sum() for part in (half, ~half)) >= SMALLEST]
    if not sized:
        return None

    def seen(part: np.ndarray, j: int) -> tuple[float, float, float]:
        inside, outside = part & (labels == j), part & (labels != j)
        tests = [mannwhitneyu(sign * value[inside], sign * value[outside], alternative="greater") for sign, value in ((1.0, away), (-1.0, sure))]
        pairs = inside.sum() * outside.sum()
        return float(tests[0].statistic / pairs), float(tests[1].statistic / pairs), float(max(test.pvalue for test in tests))

    picked = max(sized, key=lambda j: sum(seen(half, j)[:2]))
    farther, less_sure, p = seen(~half, picked)
    return Strangers(np.flatnonzero(labels == picked), farther, less_sure, min(1.0, 2.0 * p))  # why 2: the better of two halvings is told
