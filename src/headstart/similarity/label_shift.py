"""Label shift: do the same classes come equally often in both data sets, and are they the same classes at all? Classes are matched by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.similarity.two_sample import LEVEL, PERMUTATIONS, permutation_p

BOOTSTRAPS = 999


@dataclass(frozen=True)
class LabelShift:
    """Total variation between the class frequencies of target and source, 0..1: the least share of labels that would have to change.

    Parameters
    ----------
    value : a class that one side lacks has frequency 0 there
    interval : at 90 %; wide enough for the errors of both samples' frequencies to add up, which they rarely do
    p : share of shuffled labellings, the true one included, with as large a value
    chance : its mean over shuffled labellings
    shared : names of classes that both have
    n, m : labelled cases
    """

    value: float
    interval: tuple[float, float]
    p: float
    chance: float
    shared: tuple[str, ...]
    n: int
    m: int


def label_shift(y: np.ndarray, ys: np.ndarray, *, labels: Sequence[str], source_labels: Sequence[str], seed: int) -> LabelShift:
    """Return how far class frequencies differ between y (n,) and ys (m,), codes into ``labels`` and ``source_labels``.

    >>> label_shift(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), labels=["ant", "bee"], source_labels=["Bee", "ant"], seed=0).value  # 1/2 and 3/4
    0.25
    """
    own, other = _counts(y, labels), _counts(ys, source_labels)
    names = sorted(own.keys() | other.keys())  # why sorted: the numbering of classes decides nothing
    a, b = (np.array([side.get(name, 0) for name in names]) for side in (own, other))
    n, m = len(y), len(ys)
    value = float(_total_variation(a / n, b / m))
    rng = np.random.default_rng(seed)
    shuffled = rng.multivariate_hypergeometric(a + b, n, size=PERMUTATIONS, method="marginals")
    by_chance = _total_variation(shuffled / n, (a + b - shuffled) / m)
    p = permutation_p(np.append(value, by_chance))
    errors = [_total_variation(rng.multinomial(k, counts / k, size=BOOTSTRAPS) / k, counts / k) for k, counts in ((n, a), (m, b))]
    reach = float(np.quantile(errors[0] + errors[1], LEVEL))
    shared = tuple(name for name in names if name in own and name in other)
    return LabelShift(value, (max(0.0, value - reach), min(1.0, value + reach)), p, float(by_chance.mean()), shared, n, m)


def classes_shared(labels: Sequence[str], source_labels: Sequence[str]) -> float:
    """Return the share of the target's classes that the source has by name, 0..1; capitals, and spaces, hyphens or underscores, do not count.

    >>> classes_shared(["Tabby cat", "dog"], ["tabby_cat", "car"])
    0.5
    """
    known = {plain_name(name) for name in source_labels}
    return sum(plain_name(name) in known for name in labels) / len(labels)


def _counts(codes: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Return the number of cases of each class by its plain name."""
    counts: dict[str, int] = {}
    for name, count in zip(names, np.bincount(codes, minlength=len(names)), strict=True):
        counts[plain_name(name)] = counts.get(plain_name(name), 0) + int(count)
    return counts


def plain_name(name: str) -> str:
    """Return a class's name as it is compared: capitals, and spaces, hyphens or underscores, do not count.

    >>> plain_name("Tabby_Cat")
    'tabby cat'
    """
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))


def _total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.abs(p - q).sum(axis=-1) / 2.0
    return distances
