"""What a report shows of two domains: how far they are apart before and after, a map, and where target cases went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.adaptation import ClassDistance, ClassMove, ClassRate, Confidence, Distance, DomainMap
from headstart.adapting.choosing import calibrated, codes
from headstart.adapting.ground import Ground
from headstart.adapting.trying import Trials, Tried
from headstart.core import Net
from headstart.learner import Fitted
from headstart.methods.relations.relation import Mapped
from headstart.result import Score
from headstart.similarity.two_sample import auc_interval, classifier_test, mmd, one_thread, permutation_test, pool
from headstart.train import hidden

MOST = 600  # cases of each domain in a distance: a classifier's AUC is then known to .03
OF_CLASS, LEAST = 150, 8  # cases of a class and a domain in the distance of that class, and how few are too few
MAPPED = 400  # cases of each domain in the map
COMPONENTS = 30  # principal components that the map is drawn from
NEIGHBOURS = 10
BINS = 10


@dataclass(frozen=True)
class Features:
    """Features in which the domains are compared: ``source`` (n, d) of the rows ``rows`` of the sources, ``target`` (m, d), and what they are, in words."""

    source: np.ndarray
    target: np.ndarray
    rows: np.ndarray
    words: str


def before(ground: Ground, network: str) -> Features:
    """Return the network's features as they are; rows of the sources that train and that do not."""
    x = ground.final(network)
    return Features(x[ground.domains.source], x[ground.domains.target], ground.domains.source, f"final features of {network}")


def after(ground: Ground, one: Tried, fitted: Fitted) -> Features:
    """Return the features as the head of a fitted candidate sees them: moved, learned, or of source cases drawn by their weights."""
    domains, model = ground.domains, fitted.model
    x = ground.views.array(one.entry.candidate.view)
    rows = domains.source
    if isinstance(model, Net):
        theirs = hidden(model, x[domains.target])
        return Features(hidden(model, x[rows]) if len(rows) else theirs[:0], theirs, rows, f"features of {one.name}")
    x = np.asarray(x)
    if isinstance(model, Mapped):
        return Features(model.adapt_source(x[rows]), model.adapt_target(x[domains.target]), rows, f"features moved by {one.name}")
    weights = getattr(model, "weights_", None)
    trained = domains.train[np.isin(domains.domain[domains.train], one.entry.sources)]
    if weights is not None and len(weights) == len(trained):
        share = np.asarray(weights, dtype=np.float64) / np.sum(weights)
        worth = int(min(np.count_nonzero(share), max(LEAST, 1.0 / np.sum(share**2))))
        drawn = np.sort(np.random.default_rng(ground.seed).choice(trained, worth, replace=False, p=share))
        return Features(x[drawn], x[domains.target], drawn, f"source cases drawn by the weights of {one.name}")
    return Features(x[rows], x[domains.target], rows, f"features, which {one.name} leaves as they are")


def distance(ground: Ground, features: Features, labels: np.ndarray | None) -> Distance:
    """Return how far apart the domains lie in those features, as a whole and class by class.

    ``labels`` (m,) are the target's classes as predicted; where one is known, and may be learned from, it counts instead.
    """
    if labels is not None:
        labels = labels.copy()
        labels[np.searchsorted(ground.domains.target, ground.domains.known)] = ground.domains.y[ground.domains.known]
    with one_thread():
        both = pool(features.target, features.source, seed=ground.seed, most=MOST)
        told, spread = classifier_test(both, permutations=199), permutation_test(mmd, both, permutations=199)
        classes = () if labels is None else tuple(_of_class(ground, features, labels, c) for c in range(ground.domains.classes))
    auc = Score("domain classifier", told.value, told.interval, told.n + told.m, unit="AUC, .5..1", view="data", higher_is_closer=False)
    return Distance(features.words, auc, told.p, spread.value, spread.p, classes)


def _of_class(ground: Ground, features: Features, labels: np.ndarray, c: int) -> ClassDistance:
    xs, xt = features.source[ground.domains.y[features.rows] == c], features.target[labels == c]
    name = ground.domains.task.labels[c]
    if min(len(xs), len(xt)) < LEAST:
        return ClassDistance(name, len(xs), len(xt), None, None, None)
    both = pool(xt, xs, seed=ground.seed, most=OF_CLASS)
    told, spread = classifier_test(both, permutations=1), permutation_test(mmd, both, permutations=99)
    interval = auc_interval(told.value, told.n, told.m, folds=5)
    auc = Score("domain classifier", told.value, interval, told.n + told.m, unit="AUC, .5..1", view="data", higher_is_closer=False)
    return ClassDistance(name, len(xs), len(xt), auc, spread.value, spread.p)


def domain_map(ground: Ground, first: Features, last: Features, reference: Tried, chosen: Tried) -> DomainMap | None:
    """Lay both domains out in the plane before and after, in one t-SNE of both (van der Maaten & Hinton 2008), so that a case's two places can be compared.

    Principal components of the features after are turned onto those before (orthogonal Procrustes), for methods have spaces of their own.
    """
    domains = ground.domains
    shown = np.flatnonzero(np.isin(first.rows, last.rows))
    rng = np.random.default_rng(ground.seed)
    own = [np.sort(rng.permutation(k)[:MAPPED]) for k in (len(shown), len(domains.target))]
    of_source = shown[own[0]]
    place = {int(row): i for i, row in enumerate(last.rows)}
    of_last = np.array([place[int(first.rows[i])] for i in of_source], dtype=np.intp)
    one = np.vstack([first.source[of_source], first.target[own[1]]])
    two = np.vstack([last.source[of_last], last.target[own[1]]])
    if len(one) < 20:
        return None
    plane, method = _planes(one, two, seed=ground.seed)
    rows = np.concatenate([first.rows[of_source], domains.target[own[1]]])
    starts = np.searchsorted(domains.domain, np.arange(len(domains.names)))
    labels = domains.task.labels or domains.strata_names
    truth = domains.strata[first.rows[of_source]]
    predicted = [np.concatenate([truth, _strata(ground, tried)[own[1]]]) for tried in (reference, chosen)]
    n = len(rows)
    return DomainMap(
        method,
        domains=domains.names,
        labels=tuple(labels),
        row=tuple(int(r - starts[domains.domain[r]]) for r in rows),
        domain=tuple(int(k) for k in domains.domain[rows]),
        x_before=_rounded(plane[:n, 0]),
        y_before=_rounded(plane[:n, 1]),
        label_before=tuple(int(c) for c in predicted[0]),
        x_after=_rounded(plane[n:, 0]),
        y_after=_rounded(plane[n:, 1]),
        label_after=tuple(int(c) for c in predicted[1]),
    )


def _planes(one: np.ndarray, two: np.ndarray, *, seed: int) -> tuple[np.ndarray, str]:
    """Return (2n, 2): the places of cases before, then after, in one picture."""
    from scipy.linalg import orthogonal_procrustes
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    k = min(COMPONENTS, len(one) - 1, one.shape[1], two.shape[1])
    with one_thread():
        flat = [PCA(k, svd_solver="full").fit_transform(x.astype(np.float64)) for x in (one, two)]
        flat = [x / (np.linalg.norm(x) or 1.0) * np.sqrt(len(x)) for x in flat]
        turn, _ = orthogonal_procrustes(flat[1], flat[0])
        both = np.vstack([flat[0], flat[1] @ turn])
        if k < 3:
            return (both if k == 2 else np.column_stack([both[:, 0], np.zeros(len(both))])), "principal components, after turned onto before"
        plane = TSNE(2, perplexity=30.0 if len(both) > 120 else 10.0, init="pca", random_state=seed, n_jobs=1).fit_transform(both)
    return plane, f"t-SNE of {k} principal components, after turned onto before, both in one picture"


def _strata(ground: Ground, tried: Tried) -> np.ndarray:
    """Return (m,) the predicted classes, or the ranges that predicted numbers fall into."""
    if ground.domains.classes or tried.target is None:
        return codes(tried)
    domains = ground.domains
    tops = [domains.y[domains.source][domains.strata[domains.source] == c].max() for c in range(len(domains.strata_names) - 1)]
    return np.searchsorted(tops, tried.target[:, 0])


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in values)


def confidence(ground: Ground, reference: Tried, chosen: Tried) -> Confidence:
    """Count target cases by the calibrated probability of their predicted class, from 1/c to 1."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    counts = [np.histogram(calibrated(ground, one).max(axis=1), edges)[0] for one in (reference, chosen)]
    return Confidence(tuple(round(float(e), 3) for e in edges), *(tuple(int(v) for v in c) for c in counts))


def rates(ground: Ground, reference: Tried, chosen: Tried, estimated: Mapping[int, tuple[float, float, float]]) -> tuple[ClassRate, ...]:
    """Return each class's share in the source and among predictions, with what was ``estimated`` for the target: share, low, high."""
    domains, c = ground.domains, ground.domains.classes
    source = domains.shares
    first, last = (np.bincount(v, minlength=c) / len(v) for v in (codes(reference), codes(chosen)))
    out = []
    for k, label in enumerate(domains.task.labels):
        share = estimated.get(k)
        interval = None if share is None else (share[1], share[2])
        out.append(ClassRate(label, float(source[k]), float(first[k]), float(last[k]), None if share is None else share[0], interval))
    return tuple(out)


def moves(
    trials: Trials, reference: Tried, chosen: Tried, x: np.ndarray, truth: Mapping[int, int]
) -> tuple[tuple[ClassMove, ...], tuple[tuple[int, ...], ...]]:
    """Return what became of each class that source only predicted, and the table of moves. ``x`` (m, d) are the target's features, ``truth`` codes by place."""
    labels = trials.ground.domains.task.labels
    c = len(labels)
    old, new = codes(reference), codes(chosen)
    table = np.zeros((c, c), dtype=np.intp)
    np.add.at(table, (old, new), 1)
    near = old[_nearest(x)]
    others = np.array([codes(one) for one in trials.complete() if one is not reference and one is not chosen], dtype=np.intp).reshape(-1, len(old))
    out = []
    for k, label in enumerate(labels):
        went = np.flatnonzero((old == k) & (new != k))
        backed = _backed(near[went], old[went], new[went])
        agreed = _backed(others[:, went].T, old[went], new[went]) if len(others) else None
        known = [(truth[int(i)], int(new[i])) for i in went if int(i) in truth]
        gained, lost = (sum(t == n for t, n in known), sum(t == k for t, _ in known)) if truth else (None, None)
        out.append(ClassMove(label, int((old == k).sum()), len(went), int(table[:, k].sum() - table[k, k]), backed, agreed, gained, lost))
    return tuple(out), tuple(tuple(int(v) for v in row) for row in table)


def _nearest(x: np.ndarray) -> np.ndarray:
    """Return (m, k) the nearest other target cases of each."""
    from sklearn.neighbors import NearestNeighbors

    spread = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    k = min(NEIGHBOURS, len(x) - 1)
    with one_thread():
        found: np.ndarray = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
    return found


def _backed(votes: np.ndarray, old: np.ndarray, new: np.ndarray) -> float | None:
    """Return the share of cases for which more votes (n, k) are for the new class than for the old one; ``None`` where there are no cases."""
    if not len(old):
        return None
    return float(np.mean((votes == new[:, None]).sum(axis=1) > (votes == old[:, None]).sum(axis=1)))
