"""Closed-form domain adaptation on handwritten digits and turned objects, beside the published table.

    python benchmarks/adaptation.py --data DIR [--only jda,gfk]
    python benchmarks/adaptation.py --data DIR --search

DIR holds ``mnist_usps/MNIST_vs_USPS.mat`` and, if at hand, ``mnist_usps/COIL1_vs_COIL2.mat`` (HDF5 with Xs, Ys, Xt, Yt; read with h5py), the files of Long et
al. 2013. Their protocol: every case scaled to unit length, the method on all cases of both domains, one nearest neighbour, accuracy. Methods that weigh cases
need a head that takes weights and get a logistic regression (C = 10), whose own row is without weights. Settings are the defaults of the classes, which are
the papers' own; target labels score, and choose nothing, but for ``--search``: there the number of components is the best of a grid by target labels, which
is what Long et al. say that they report. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from headstart.core import InputError
from headstart.methods.relations import BDA, GFK, JDA, RELATIONS, TCA, Mapped
from headstart.methods.relations.subspace import principal_directions

PUBLISHED = {  # Long et al. 2013, table 2 (accuracy in per cent)
    "MNIST -> USPS": {"1-NN": 65.94, "PCA": 66.22, "GFK": 67.22, "TCA": 56.28, "JDA": 67.28},
    "USPS -> MNIST": {"1-NN": 44.70, "PCA": 44.95, "GFK": 46.45, "TCA": 51.05, "JDA": 59.65},
    "COIL1 -> COIL2": {"1-NN": 83.61, "PCA": 84.72, "GFK": 72.50, "TCA": 88.47, "JDA": 89.31},
    "COIL2 -> COIL1": {"1-NN": 82.78, "PCA": 84.03, "GFK": 74.17, "TCA": 85.83, "JDA": 88.47},
}
DIMENSIONS = (10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200)
Pair = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def nearest() -> KNeighborsClassifier:
    return KNeighborsClassifier(1)


def logistic() -> LogisticRegression:
    return LogisticRegression(C=10.0, max_iter=2000)


def pairs(data: Path) -> dict[str, Pair]:
    """Both directions of each file that is there: xs, ys, xt, yt."""
    found: dict[str, Pair] = {}
    for file, one, two in (("MNIST_vs_USPS", "MNIST", "USPS"), ("COIL1_vs_COIL2", "COIL1", "COIL2")):
        path = data / "mnist_usps" / f"{file}.mat"
        if not path.exists():
            print(f"{path} is not there: {one} and {two} are left out")
            continue
        xs, ys, xt, yt = read(path)
        found[f"{one} -> {two}"], found[f"{two} -> {one}"] = (xs, ys, xt, yt), (xt, yt, xs, ys)
    return found


def read(path: Path) -> Pair:
    import h5py

    with h5py.File(path) as file:
        xs, xt, ys, yt = (np.array(file[name], dtype=np.float64) for name in ("Xs", "Xt", "Ys", "Yt"))
    xs, xt = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (xs, xt))
    return xs, ys.ravel().astype(int), xt, yt.ravel().astype(int)


def contestants() -> dict[str, Callable[[], Any]]:
    """Methods with published numbers first, under the papers' settings."""
    made: dict[str, Callable[[], Any]] = {
        "gfk (k = 100)": lambda: GFK(nearest(), n_components=100),
        "w-bda": lambda: BDA(nearest(), weighted=True),
        "tca-rbf": lambda: TCA(nearest(), kernel="rbf"),
        "jda, ridge head": JDA,
    }
    for name, method in RELATIONS.items():
        if not method.needs_target_labels:
            weighing = not issubclass(method, Mapped) and name not in {"selection", "propagation"}
            made[name] = partial(_with_head, method, logistic if weighing else nearest)
    return made


def _with_head(method: Callable[[Any], Any], head: Callable[[], Any]) -> Any:
    return method(head())


def scored(pair: Pair, make: Callable[[], Any]) -> str:
    xs, ys, xt, yt = pair
    start = time.perf_counter()
    try:
        accuracy = 100.0 * float(np.mean(make().fit(xs, ys, xt).predict(xt) == yt))
    except InputError as refused:
        return f"refused: {str(refused).split('.')[0]}"
    return f"{accuracy:.2f} ({time.perf_counter() - start:.1f} s)"


def table(found: dict[str, Pair], only: list[str]) -> None:
    rows: dict[str, Callable[[Pair], str]] = {
        "1-NN": lambda p: scored(p, lambda: Plain(nearest())),
        "PCA (k = 100)": lambda p: scored(p, lambda: Principal(nearest(), 100)),
        "logistic": lambda p: scored(p, lambda: Plain(logistic())),
        **{name: lambda p, make=make: scored(p, make) for name, make in contestants().items()},
    }
    print("| method | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for name in ("1-NN", "PCA", "GFK", "TCA", "JDA"):
        print(f"| published {name} | " + " | ".join(f"{PUBLISHED[pair][name]:.2f}" for pair in found) + " |")
    for name, run in rows.items():
        if not only or name in only:
            print(f"| {name} | " + " | ".join(run(pair) for pair in found.values()) + " |", flush=True)


class Plain:
    """A head without adaptation, with the same interface."""

    def __init__(self, head: Any) -> None:
        self.head = head

    def fit(self, xs: np.ndarray, ys: np.ndarray, xt: np.ndarray) -> Plain:
        self.head.fit(xs, ys)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.head.predict(x)


class Principal(Plain):
    """Principal components of both domains together."""

    def __init__(self, head: Any, k: int) -> None:
        super().__init__(head)
        self.k = k

    def fit(self, xs: np.ndarray, ys: np.ndarray, xt: np.ndarray) -> Principal:
        self.directions = principal_directions(np.vstack([xs, xt]), self.k)
        self.head.fit(xs @ self.directions, ys)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.head.predict(x @ self.directions)


def search(found: dict[str, Pair]) -> None:
    """Print the best of the grid of dimensions by target labels: what the published numbers are allowed."""
    print("| best of k = 10..200 by target labels | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for name, make in {
        "PCA": lambda k: Principal(nearest(), k),
        "GFK": lambda k: GFK(nearest(), n_components=k),
        "TCA": lambda k: TCA(nearest(), n_components=k),
    }.items():
        cells = []
        for xs, ys, xt, yt in found.values():
            each = {k: 100.0 * float(np.mean(make(k).fit(xs, ys, xt).predict(xt) == yt)) for k in DIMENSIONS if 2 * k <= xs.shape[1] or name != "GFK"}
            best = max(each, key=lambda k: each[k])
            cells.append(f"{each[best]:.2f} (k = {best}; least {min(each.values()):.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="", help="names of rows, with commas between")
    parser.add_argument("--search", action="store_true")
    asked = parser.parse_args()
    found = pairs(asked.data)
    if asked.search:
        search(found)
    else:
        table(found, [name.strip() for name in asked.only.split(",") if name.strip()])


if __name__ == "__main__":
    main()
