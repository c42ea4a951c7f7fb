"""Pairs of real domains as features: the labelled source, and a target whose labels only score.

From a folder of data sets (``--data``: MNIST, USPS and COIL as pixels; PACS and Amazon reviews by a packaged network) and from the package elpv-dataset
(solar cells). What is absent is named and left out. A seed draws its own cases of each domain; equal inputs are kept once, and texts that two domains share
are left out of both.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from headstart.activations import extract
from headstart.activations.store import Store, default_root
from headstart.core import Source
from headstart.modality import door

PACS = ("photo", "art_painting", "cartoon", "sketch")
REVIEWS = ("books", "dvd", "electronics", "kitchen", "video")
SHARED = {"dvd", "video"}  # a tenth of their reviews are the same: no pair of two domains
MOST = {"digits": 600, "coil": 400, "pacs": 400, "reviews": 400, "cells": 400}


@dataclass(frozen=True)
class Pair:
    """Source ``xs`` (n, d), ``ys`` (n,) and target ``xt`` (m, d), ``yt`` (m,); classes are 0 .. c - 1 in both."""

    benchmark: str
    name: str
    xs: np.ndarray
    ys: np.ndarray
    xt: np.ndarray
    yt: np.ndarray


Sample = tuple[np.ndarray, np.ndarray]
Reader = Callable[[int], Sample]


def pairs(data: Path, seed: int, only: Set[str] = frozenset(), *, among: Set[str] = frozenset(), most: int = 0) -> Iterator[Pair]:
    """Yield every pair that is here, of all benchmarks and domains or of those named, both directions one after the other; say which are not.

    ``most`` cases are drawn of each domain, or where it is 0 those of ``MOST``.
    """
    for benchmark, left, right in plan():
        if (only and benchmark not in only) or (among and not {left, right} <= among):
            continue
        try:
            one, two = (_sample(benchmark, domain, data, seed, most or MOST[benchmark]) for domain in (left, right))
        except (OSError, ImportError) as error:
            print(f"skipped {left} and {right}: {type(error).__name__}: {error}", flush=True)
            continue
        yield Pair(benchmark, f"{left} -> {right}", *one, *two)
        yield Pair(benchmark, f"{right} -> {left}", *two, *one)


def plan() -> list[tuple[str, str, str]]:
    """Benchmark and the two domains of each unordered pair."""
    return [
        *(("digits", one, two) for one, two in (("MNIST", "USPS"), ("MNIST 8x8", "UCI 8x8"), ("USPS 8x8", "UCI 8x8"))),
        ("coil", "COIL1", "COIL2"),
        ("cells", "mono", "poly"),
        *(("pacs", one, two) for one, two in itertools.combinations(PACS, 2)),
        *(("reviews", one, two) for one, two in itertools.combinations(REVIEWS, 2) if {one, two} != SHARED),
    ]


@cache
def _sample(benchmark: str, domain: str, data: Path, seed: int, most: int) -> Sample:
    """Return features and class codes of the cases that the seed draws; the same ones in every pair."""
    items, y, features = READERS[benchmark](domain, data)
    dice = np.random.default_rng([seed, *domain.encode()])
    rows = np.sort(dice.permutation(len(y))[:most]) if len(y) > most else np.arange(len(y))
    return features([items[i] for i in rows]), np.asarray(y)[rows]


Domain = tuple[Sequence[Any], np.ndarray, Callable[[list[Any]], np.ndarray]]


def _digits(domain: str, data: Path) -> Domain:
    """MNIST and USPS at 16 x 16 pixels as they come, or beside scikit-learn's digits at 8 x 8, the means of four pixels."""
    if domain.startswith("UCI"):
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return list(x / np.linalg.norm(x, axis=1, keepdims=True)), y, np.array
    name, _, small = domain.partition(" ")
    rows, y, stacked = _matlab(name, data)
    if small:
        x = np.array(rows).reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4)).reshape(-1, 64)
        rows = list(x / np.linalg.norm(x, axis=1, keepdims=True))
    return rows, y, stacked


def _matlab(domain: str, data: Path) -> Domain:
    import h5py

    file, side = {"MNIST": ("MNIST_vs_USPS", "s"), "USPS": ("MNIST_vs_USPS", "t"), "COIL1": ("COIL1_vs_COIL2", "s"), "COIL2": ("COIL1_vs_COIL2", "t")}[domain]
    with h5py.File(data / "mnist_usps" / f"{file}.mat") as held:
        x, y = np.asarray(held[f"X{side}"], dtype=np.float64), np.asarray(held[f"Y{side}"]).ravel().astype(int)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return list(x), np.unique(y, return_inverse=True)[1], lambda rows: np.array(rows)


def _pacs(domain: str, data: Path) -> Domain:
    paths = sorted((data / "pacs112" / domain).glob("*/*.jpg"))
    if not paths:
        raise FileNotFoundError(f"no images in {data / 'pacs112' / domain}")
    return [str(p) for p in paths], np.unique([p.parent.name for p in paths], return_inverse=True)[1], lambda rows: _encoded("efficientnet_lite0", rows)


def _cells(domain: str, data: Path) -> Domain:
    from elpv_dataset.utils import load_dataset

    images, probability, kind = load_dataset()
    rows = [i for i in range(len(images)) if kind[i] == domain and probability[i] in (0.0, 1.0)]
    return [images[i] for i in rows], (probability[rows] == 1.0).astype(int), lambda some: _encoded("efficientnet_lite0", some)


def _reviews(domain: str, data: Path) -> Domain:
    own = _texts(domain, data)
    others = set().union(*(_texts(other, data) for other in REVIEWS if other != domain))
    texts = [text for text in own if text not in others]
    return texts, np.array([own[text] for text in texts]), lambda rows: _encoded("all-MiniLM-L6-v2", rows)


@cache
def _texts(domain: str, data: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for code, name in enumerate(("negative", "positive")):
        with gzip.open(data / "amazon_reviews_raw" / f"{domain}.{name}.txt.gz", "rt", encoding="utf-8", errors="replace") as file:
            found |= {line.strip(): code for line in file if line.strip()}
    return found


def _encoded(network: str, items: list[Any]) -> np.ndarray:
    """Return pooled features of the last stage, each input run once ever."""
    source = _network(network)
    cut = len(source.stages)
    digests = [door(source.modality).digest(item) for item in items]
    done = extract(source, items, digests=digests, cuts=(cut,), store=Store(default_root()))
    return np.asarray(done.pooled[cut], dtype=np.float64)


@cache
def _network(name: str) -> Source:
    import headstart as hs

    return hs.sources.get(name)


READERS: dict[str, Callable[[str, Path], Domain]] = {"digits": _digits, "coil": _matlab, "pacs": _pacs, "cells": _cells, "reviews": _reviews}
