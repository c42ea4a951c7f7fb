"""Data-level methods on real tasks with few labels, each against the same head without it.

    python benchmarks/data_level.py --data DIR --out data_level.jsonl [--seeds 3] [--only TASK]
    python benchmarks/data_level.py --out data_level.jsonl --table

Three tasks of images and one of texts; so many cases of every class are drawn for each seed ("20:5": twenty of the first class and five of each other), and 200
others are scored by balanced accuracy. "without" is the same ridge head on the same features, its penalty chosen from the same grid in the same inner folds:
what a method gains over it is the method's own. Each method stands by its defaults; several policies of augmentation are shown, and none is picked by
these scores. Borrowed cases come from a neighbouring domain and have passed :func:`headstart.lend`. Groups (patients) are never on both sides. One row per
(task, budget, seed, method), written when it is measured: a run that is started again fills in what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pool
from collect import rows_of
from headstart import sources
from headstart.activations.engines import available
from headstart.activations.store import Store, default_root
from headstart.core import Domain, InputError, Source, Task
from headstart.evaluate import score
from headstart.learner import Candidate, learn
from headstart.lending import lend
from headstart.methods import METHODS, AugmentImage, AugmentText, Gaussian, Probe, Restyle
from headstart.methods.data import BorrowingRidge
from headstart.methods.data.placed import OnFeatures
from headstart.methods.needs import unmet
from headstart.modality import door
from headstart.views import Views

BUDGETS = ("10", "20:5", "20")
PER_CLASS, TESTED, LENT = 24, 200, 400  # cases of a class that may be drawn, cases that are scored, cases that a neighbour lends
NEIGHBOURS = {"elpv poly": "elpv mono", "pacs cartoon": "pacs art_painting", "chest x-rays": ""}
ENGINE = "openvino" if "openvino" in available() else "torch"  # several times as fast, and equal to PyTorch within 1e-5
REVIEWS = "reviews dvd"
WITHOUT, PROBE = "without", "frozen + head"
BORROWING = ("calibrated", "borrow", "borrow-ratio", "borrow-similar", "borrow-gradient", "borrow-curriculum")


class Without(OnFeatures):
    """The head that all others are compared with: nothing is made, nothing is borrowed."""

    name = WITHOUT

    def estimator(self, *, seed: int) -> Any:
        return BorrowingRidge(seed=seed)


@dataclass(frozen=True)
class World:
    """A task with its training and test cases apart, and the source that also lends."""

    y: np.ndarray
    y_test: np.ndarray
    classes: int
    source: Source
    train: Views
    test: Views


def candidates(world: World) -> dict[str, Candidate]:
    """Every data-level method that the task allows, by the name under which it is shown."""
    source, modality = world.source, world.source.modality
    shown: dict[str, Any] = {WITHOUT: Without(), PROBE: Probe()}
    if modality == "image":
        shown |= {f"augment: {p}, no mirror": AugmentImage(policy=p, flip="never") for p in ("crop", "crop+colour", "trivial", "rand")}
        shown |= {f"augment: {p}, mirror {f}": AugmentImage(policy=p, flip=f) for p in ("none", "crop") for f in ("auto", "always")}
        shown["augment: crop, no mirror, averaged"] = AugmentImage(flip="never", average=True)
    else:
        shown |= {f"augment: {p}": AugmentText(policy=p) for p in ("delete", "swap", "mask")}
    shown |= {name: METHODS[name][0]() for name in ("interpolate", "smote", *BORROWING)}  # type: ignore[call-arg]
    shown |= {"gaussian": Gaussian(), "gaussian copula": Gaussian(copula=True)}
    shown |= {f"restyle: {style}": Restyle(style=style) for style in ("fourier", "tone")}
    return {name: Candidate(method, source) for name, method in shown.items() if not unmet(method, source, classes=world.classes)}


def worlds(data: Path | None, *, only: str | None) -> Iterator[tuple[str, World]]:
    """Yield every task that is here, or the one of that name."""
    for name, neighbour in NEIGHBOURS.items():
        if only not in (None, name):
            continue
        pool.TRAIN, pool.TEST = 100_000, TESTED
        for target in pool.targets(data, None, only=name):
            rows = drawn(target.y, target.train, [PER_CLASS] * len(target.labels), 0)
            other = next(iter(pool.targets(data, None, only=neighbour)), None) if neighbour else None
            lent = None if other is None else Task("classification", "image", _some(other), other.labels)
            yield name, _world("squeezenet", target.items, target.y, target.labels, rows, target.test, lent)
    if only not in (None, REVIEWS):
        return
    if data is None or not (data / "amazon_reviews_raw").is_dir():
        print(f"skipped reviews: --data {data} has no amazon_reviews_raw", flush=True)
        return
    items, y, labels = _reviews(data, "dvd")
    order = np.random.default_rng(0).permutation(len(items))
    theirs, codes, _ = _reviews(data, "books")
    few = np.sort(np.random.default_rng(1).permutation(len(theirs))[:LENT])
    lent = Task("classification", "text", Domain("books", [theirs[i] for i in few], [labels[codes[i]] for i in few]), labels)
    yield REVIEWS, _world("all-MiniLM-L6-v2", items, y, labels, np.sort(order[: 4 * PER_CLASS]), np.sort(order[-TESTED:]), lent)


def _world(name: str, items: Sequence[Any], y: np.ndarray, labels: tuple[str, ...], rows: np.ndarray, test: np.ndarray, lent: Task | None) -> World:
    full = sources.get(name)
    source = dataclasses.replace(full, tune_cuts=(), opener=lambda: full.backbone, digest=lambda: full.weights_sha256)  # no whole activations are kept
    if lent is not None:
        task = Task("classification", source.modality, Domain("mine", [items[i] for i in (*rows, *test)], [labels[y[i]] for i in (*rows, *test)]), labels)
        try:
            (source,) = lend([source], lent, task)
        except InputError as error:
            print(f"nothing is lent: {error}", flush=True)
    of = door(source.modality)

    def views(which: np.ndarray) -> Views:
        part = [items[i] for i in which]
        return Views(part, [of.digest(item) for item in part], {source.name: source}, Store(default_root()), source.modality, engine=lambda _: ENGINE)

    return World(y[rows], y[test], len(labels), source, views(rows), views(test))


def _some(target: pool.Target) -> Domain:
    rows = np.sort(np.random.default_rng(2).permutation(len(target.items))[:LENT])
    return Domain(target.name, [target.items[i] for i in rows], [target.labels[target.y[i]] for i in rows])


def _reviews(data: Path, domain: str) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    parts = [sorted(set(_lines(data / "amazon_reviews_raw", domain, label))) for label in ("negative", "positive")]
    return [text for part in parts for text in part], np.repeat([0, 1], [len(part) for part in parts]), ("negative", "positive")


def _lines(folder: Path, domain: str, label: str) -> list[str]:
    with gzip.open(folder / f"{domain}.{label}.txt.gz", "rt", encoding="utf-8", errors="replace") as file:
        return [line.strip() for line in file if line.strip()]


def drawn(y: np.ndarray, rows: np.ndarray, counts: Sequence[int], seed: int) -> np.ndarray:
    """So many of those rows of every class, as far as they reach."""
    rng = np.random.default_rng([seed, *counts])
    return np.sort(np.concatenate([rng.permutation(rows[y[rows] == c])[:n] for c, n in enumerate(counts)]))


def counts_of(budget: str, classes: int) -> list[int]:
    """Return how many cases of every class a budget names."""
    first, _, rest = budget.partition(":")
    return [int(first), *[int(rest or first)] * (classes - 1)]


def measure(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    done = {key(row) for row in rows_of(options.out)}
    table = dict(worlds(options.data, only=options.only))
    for seed in range(options.seeds):
        for name, world in table.items():
            for budget in BUDGETS:
                rows = drawn(world.y, np.arange(len(world.y)), counts_of(budget, world.classes), seed)
                for method, candidate in candidates(world).items():
                    one(options.out, done, {"task": name, "budget": budget, "seed": seed, "method": method}, world, rows, candidate)


def one(out: Path, done: set[Any], about: dict[str, Any], world: World, rows: np.ndarray, candidate: Candidate) -> None:
    """Measure one method on one draw, if it was not yet."""
    if key(about) in done:
        return
    world.train.array(candidate.view)  # why here: the passes through frozen stages are made once, and their seconds are not the fit's
    began = time.process_time()
    fitted = learn(candidate, world.train, rows, world.y, classes=world.classes, seed=about["seed"])
    reached = score(world.y_test, fitted.output(world.test.array(candidate.served)), classes=world.classes)
    row = {**about, "n": len(rows), "score": reached, "seconds": time.process_time() - began}
    row |= {name: getattr(fitted.model, f"{name}_") for name in ("trust", "flips") if hasattr(fitted.model, f"{name}_")}
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["budget"], row["seed"], row["method"]


def table_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Gain over the arm without, in points with a 90 % interval over paired seeds, task by task; and over tasks."""
    held = {key(row): 100 * row["score"] for row in rows}
    tasks, methods = (list(dict.fromkeys(row[what] for row in rows)) for what in ("task", "method"))
    for budget in BUDGETS:
        seeds = {task: {k[2] for k in held if k[0] == task and k[1] == budget} for task in tasks}
        base = {task: np.mean([held[task, budget, s, WITHOUT] for s in seeds[task] if (task, budget, s, WITHOUT) in held] or [np.nan]) for task in tasks}
        yield f"\n{budget} of each class; seeds: " + ", ".join(f"{task} {len(seeds[task])}" for task in tasks)
        yield "\n| method | " + " | ".join(tasks) + " | all, over tasks | seconds |\n| --- |" + " --- |" * (len(tasks) + 2)
        yield f"| {WITHOUT}, score | " + " | ".join(f"{base[task]:.1f}" for task in tasks) + f" | {np.nanmean(list(base.values())):.1f} | |"
        for method in (m for m in methods if m != WITHOUT):
            gains = {task: _gains(held, task, budget, seeds[task], method) for task in tasks}
            cells = [f"{np.mean(g):+.1f} ± {_half(g):.1f}" if len(g) > 1 else "-" for g in gains.values()]
            means = [float(np.mean(g)) for g in gains.values() if len(g)]
            spent = [row["seconds"] for row in rows if row["method"] == method and row["budget"] == budget]
            if means:
                yield f"| {method} | " + " | ".join(cells) + f" | {np.mean(means):+.1f} ± {_half(means):.1f} ({len(means)}) | {np.median(spent):.1f} |"
    choices = defaultdict(list)
    for row in rows:
        for what in ("trust", "flips"):
            if what in row and row["method"] != WITHOUT and (what == "trust" or "auto" in row["method"]):
                choices[what, row["method"], row["task"]].append(float(row[what]))
    yield "\nMean trust in borrowed cases (0: none), and how often mirror images were learned from: " + "; ".join(
        f"{method}, {task} {np.mean(v):.2f}" for (_, method, task), v in sorted(choices.items())
    )


def _gains(held: dict[Any, float], task: str, budget: str, seeds: set[int], method: str) -> list[float]:
    pairs = [(held.get((task, budget, s, method)), held.get((task, budget, s, WITHOUT))) for s in sorted(seeds)]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _half(values: Sequence[float]) -> float:
    """Half of a 90 % t interval of the mean."""
    from scipy.stats import t

    return float(t.ppf(0.95, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=None, help="one task, so that several processes can share the work")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    print("\n".join(table_of(rows_of(options.out))))


if __name__ == "__main__":
    main()
