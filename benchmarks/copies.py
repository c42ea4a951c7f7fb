"""FixMatch, whose batches bring augmented copies of the target's cases, on pairs of real domains beside the same training without them.

    OMP_NUM_THREADS=1 python benchmarks/copies.py --data DIR --out rows.jsonl [--seeds 5] [--only pacs]
    python benchmarks/copies.py --out rows.jsonl --table

The pairs of PACS (EfficientNet-Lite0) and of reviews (all-MiniLM-L6-v2) of ``adaptation_domains.py``, but from the inputs themselves, as copies are made of
those; each copy runs through the network once and is stored. A seed draws 300 cases of all that a domain has. Methods have their defaults and are fitted by
``learner.learn``. A row per pair, seed and method is written when it is measured; a started file goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import domains
from adaptation_domains import AMONG, append, interval, rows_of
from headstart import sources
from headstart.activations.store import Store, default_root
from headstart.core import Source
from headstart.learner import Candidate, Target, learn
from headstart.methods.relations.deep import DEEP, SourceOnly
from headstart.modality import door
from headstart.views import Views

OF = {"pacs": "efficientnet_lite0", "reviews": "all-MiniLM-L6-v2"}
MOST = 300
PLAIN, LABELLED = "source-only", "self-training"
KINDS = {PLAIN: SourceOnly, LABELLED: DEEP["self-training"], "fixmatch": DEEP["fixmatch"]}


@dataclass(frozen=True)
class Domain:
    """Inputs and class codes (n,) of one domain."""

    items: list[Any]
    y: np.ndarray


@cache
def read(benchmark: str, name: str, data: Path) -> Domain:
    items, y, _ = domains.READERS[benchmark](name, data)
    return Domain(list(items), np.asarray(y))


def drawn(domain: Domain, seed: int) -> Domain:
    rows = np.sort(np.random.default_rng(seed).permutation(len(domain.y))[:MOST])
    return Domain([domain.items[i] for i in rows], domain.y[rows])


def pairs(only: set[str]) -> Iterator[tuple[str, str, str]]:
    for benchmark, one, two in domains.plan():
        if benchmark in (only or OF) and {one, two} <= AMONG:
            yield from ((benchmark, one, two), (benchmark, two, one))


def collect(data: Path, out: Path, seeds: int, only: set[str]) -> None:
    done = {(row["pair"], row["seed"], row["method"]) for row in rows_of(out)}
    for seed in range(seeds):
        for benchmark, one, two in pairs(only):
            missing = [name for name in KINDS if (f"{one} -> {two}", seed, name) not in done]
            if missing:
                here, there = drawn(read(benchmark, one, data), seed), drawn(read(benchmark, two, data), seed)
                for name in missing:
                    row = {"benchmark": benchmark, "pair": f"{one} -> {two}", "seed": seed, "method": name}
                    row |= measured(name, sources.get(OF[benchmark]), here, there, seed=seed)
                    append(out, row)
                    print(f"{row['pair']}, seed {seed}, {name}: {100 * row['accuracy']:.1f}, {row['seconds']:.1f} s", flush=True)


def measured(name: str, source: Source, here: Domain, there: Domain, *, seed: int) -> dict[str, float]:
    """Return the accuracy on the target's cases, and the processor's seconds, those of making copies for the first time included."""
    of, items = door(source.modality), [*here.items, *there.items]
    views = Views(items, [of.digest(item) for item in items], {source.name: source}, Store(default_root()), source.modality)
    y, theirs = np.concatenate([here.y, there.y]), np.arange(len(here.y), len(items))
    began, method = time.process_time(), KINDS[name]()
    fitted = learn(Candidate(method, source), views, np.arange(len(here.y)), y, classes=int(y.max()) + 1, seed=seed, target=Target(theirs))
    said = fitted.output(views.of_rows(fitted.candidate.served, theirs)).argmax(axis=1)
    return {"accuracy": float(np.mean(said == there.y)), "seconds": time.process_time() - began}


def table(rows: list[dict[str, Any]]) -> None:
    """Print accuracy, and the gain over source only in points with a 95 % interval over pairs."""
    print("| method | accuracy | gain over source only (95 %) | pacs | reviews | worse by half a point | seconds, median |\n| --- |" + " --- |" * 6)
    plain = {(row["pair"], row["seed"]): row["accuracy"] for row in rows if row["method"] == PLAIN}
    for name in KINDS:
        own = [row for row in rows if row["method"] == name and (row["pair"], row["seed"]) in plain]
        gains: dict[tuple[str, str], list[float]] = {}
        for row in own:
            gains.setdefault((row["benchmark"], row["pair"]), []).append(row["accuracy"] - plain[row["pair"], row["seed"]])
        each = {where: float(np.mean(some)) for where, some in gains.items()}
        by = [[gain for (benchmark, _), gain in each.items() if benchmark == one] for one in OF]
        points = " | ".join(f"{100 * np.mean(some):+.1f}" if some else "" for some in by)
        accuracy, seconds = 100 * np.mean([row["accuracy"] for row in own]), np.median([row["seconds"] for row in own])
        worse = f"{sum(gain < -0.005 for gain in each.values())} of {len(each)}"
        print(f"| {name} | {accuracy:.1f} | {interval(list(each.values()))} | {points} | {worse} | {seconds:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="pacs or reviews")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        if asked.data is None:
            parser.error("--data DIR is needed to measure")
        collect(asked.data, asked.out, asked.seeds, {name for name in asked.only.split(",") if name})
    table(rows_of(asked.out))


if __name__ == "__main__":
    main()
