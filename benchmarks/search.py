"""How many trials does the joint search need to come within a point of the best fixed strategy, and how many does plain random search?

    python benchmarks/search.py --data DIR --out search.jsonl [--only TASK] [--seeds 3] [--trials 30] [--words bayes,gp,halving,hyperband] [--tune]
    python benchmarks/search.py --out search.jsonl --table
    python benchmarks/search.py --out search.jsonl --order

Nine real tasks with about 200 training cases, and up to 500 others that no search sees. A trial is one configuration (source, method, hyperparameters) in three
folds of the training cases. A fixed strategy is one method by its defaults on one source; the bar is the best of all of them, less one point, and a search has
reached it when the best trial so far is above. That is counted twice: by scores in folds, and by scores on the held-out cases of what was best in folds. The
best of some seventy strategies by held-out score is flattered by chance, and a search, which cannot see those scores, is not: the second bar is the harder one.

fixed   : every method by its defaults on every source
random  : the product's blind draws from the joint space, without a probe before them: plain random search
bayes.. : the product's search by that word as ``transfer`` runs it, the probe of the source that leads without training first; each probe counts as a trial.
          The order of the defaults that it begins with is not the shipped one, which these tasks gave, but what the other tasks give

All words go through ``headstart.joint.searched``, on a bench whose budget never ends. A trial's folds are kept in the run's own ledger, one for each task, so
that what was measured once is replayed whoever proposes it. Seeds are those of the proposers; cases and folds stay. Left out of the space are what is dear
(copies, boosted trees, Gaussian processes) and what borrows cases. What trains a network takes 50 steps from the last cut: rates that fall by stage for images
and tables, LP-FT for tables, and with ``--tune`` both for all. Images have seven networks, texts the encoders that are here (three at most), wine one.
One row per task, searcher and seed: a run that is started again fills in what is missing.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
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
from headstart import joint, plan, sources
from headstart.activations.engines import available
from headstart.activations.store import Store, default_root
from headstart.bench import Bench, Silent
from headstart.core import Domain, InputError, Inspection, Source, Task
from headstart.evaluate import folds, strata
from headstart.joint import EVERYTHING, searched
from headstart.learner import Candidate
from headstart.ledger import Ledger
from headstart.methods import METHODS, Discriminative, FineTune
from headstart.methods.method import Closed, Method
from headstart.methods.needs import unmet
from headstart.modality import door
from headstart.pretrain import source_from_table
from headstart.proposing import BLIND
from headstart.search import Arena, Clock, Search
from headstart.terms import Terms
from headstart.views import Views

TRAIN, TEST, FOLDS, POINT = 200, 500, 3, 0.01
IMAGES = ("elpv poly", "pacs sketch", "chest x-rays", "mnist", "pacs cartoon", "usps", "white cells 1", "pacs art_painting")
TEXTS = {"trec": "TREC.train.all", "customers": "custrev.all", "subjectivity": "subj.all", "films": "rt-polarity.all"}
LATER = ("usps", "white cells 1", "pacs art_painting", "films")  # added once the search and its order were settled: nothing was chosen on them
ENCODERS = ("paraphrase-MiniLM-L3-v2", "all-MiniLM-L6-v2", "SmolLM2-135M")
TASKS = ("elpv poly", "trec", "pacs sketch", "white wine", "chest x-rays", "customers", "mnist", "pacs cartoon", "subjectivity", *LATER)
# the networks for images, and the cut from which each is tuned: the last stage that has much to learn
POOL = {
    "efficientnet_lite0": 8,
    "squeezenet": 6,
    "mobilenetv2 imagenet": 8,
    "mobilenetv2 birds": 8,
    "mobilenetv2 insects": 8,
    "resnet20 cifar10": 9,
    "resnet56 cifar10": 9,
}
LEFT_OUT = {"augment", "restyle", "calibrated", "boosting", "gaussian-process"}  # dear, or asks for cases to borrow
SEARCHED = tuple(m for m in EVERYTHING if m.name not in LEFT_OUT and not m.name.startswith("borrow"))
ENGINE = "openvino" if "openvino" in available() else "torch"
WORDS = ("bayes", "gp", "halving", "hyperband")
NEVER = math.inf
SHIPPED = joint.PORTFOLIO
SHUFFLES, SMALLEST = 500, 1e-9
LIMIT = 30  # trials of a search; a random search of more draws is held to as many
THIRD = 1 / 3 + SMALLEST
SHOWN = (1, 2, 4, 6, 8, 12, 16, 20, 30)


@dataclass(frozen=True)
class FiftySteps(FineTune):
    """LP-FT whose steps are not searched: up to 200 would take as long as all heads together."""

    steps: int = 50


@dataclass(frozen=True)
class FiftyStepsByStage(Discriminative):
    """Rates that fall by stage, of as many steps."""

    steps: int = 50


METHODS[FineTune.name], METHODS[Discriminative.name] = (FiftySteps,), (FiftyStepsByStage,)  # why: a search asks this table for what stands behind a name


@dataclass(frozen=True)
class World:
    """A task whose first rows train and whose last ones test, its sources, and the views of all its cases."""

    task: Task
    y: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    test: np.ndarray
    sources: dict[str, Source]
    views: Views

    @property
    def classes(self) -> int:
        return len(self.task.labels)

    def methods(self, *, tune: bool) -> list[type[Closed | Method]]:
        """What is searched; LP-FT for images, and any tuning of an encoder, take minutes in every fold on a busy core, so they are for who asks for them."""
        dear = {"tabular": (), "image": (FineTune,), "text": (FineTune, Discriminative)}[self.task.modality]
        return [m for m in SEARCHED if tune or m not in dear]


def world_of(name: str, data: Path | None) -> World | None:
    """Return the task of that name; ``None``, and say why, where its data are absent."""
    if name in IMAGES:
        pool.TRAIN, pool.TEST = TRAIN, TEST
        wanted = [dataclasses.replace(s, tune_cuts=(POOL[s.name],)) for s in pool.sources(data) if s.name in POOL]
        for target in pool.targets(data, None, only=name):
            task = Task("classification", "image", Domain(name, target.items, [target.labels[c] for c in target.y]), target.labels)
            return _world(task, target.y, wanted, target.groups, len(target.train))
        return None
    if name in TEXTS:
        return _texts(name, data)
    return _wine(data)


def _texts(name: str, data: Path | None) -> World | None:
    folder = (data or Path()) / "sentence_cls"
    if not folder.is_dir():
        print(f"skipped {name}: there is no {folder}", flush=True)
        return None
    lines, of = pool.sentences(folder / TEXTS[name])
    task = Task("classification", "text", Domain(name, lines[: TRAIN + TEST], of[: TRAIN + TEST]), tuple(sorted(set(of))))
    wanted = [dataclasses.replace(s, tune_cuts=s.tune_cuts[-1:]) for s in _encoders()]
    return _world(task, np.asarray(task.codes), wanted, None, TRAIN)


def _encoders() -> Iterator[Source]:
    for name in ENCODERS:
        try:
            yield sources.get(name)
        except InputError as error:
            print(f"skipped {name}: {error}", flush=True)


def _wine(data: Path | None) -> World | None:
    folder = (data or Path()) / "wine_quality"
    if not folder.is_dir():
        print(f"skipped white wine: there is no {folder}", flush=True)
        return None
    red, white = (_bottles(folder / f"winequality-{colour}.csv", colour) for colour in ("red", "white"))
    rows = np.random.default_rng(pool.SEED).permutation(len(white.target))[: TRAIN + TEST]
    task = dataclasses.replace(white, target=white.target.take(rows.tolist()))
    source = source_from_table(red, task, seed=0)
    return _world(task, np.asarray(task.target.y, dtype=np.float64), [source], None, TRAIN)


def _bottles(path: Path, colour: str) -> Task:
    with path.open(encoding="utf-8") as file:
        rows = {tuple(row.items()): None for row in csv.DictReader(file)}
    cells = [{name: float(value) for name, value in row} for row in rows]
    y = [row.pop("quality") for row in cells]
    return Task("regression", "tabular", Domain(f"{colour} wine", cells, y))


def _engine(source: Source) -> str:
    # why only those: OpenVINO's converter stumbles over the name of a stage in the others
    return ENGINE if source.name in {"efficientnet_lite0", "squeezenet"} else "torch"


def _world(task: Task, y: np.ndarray, wanted: Sequence[Source], groups: np.ndarray | None, n: int) -> World:
    of, table = door(task.modality), {s.name: s for s in wanted}
    views = Views(task.target.x, [of.digest(x) for x in task.target.x], table, Store(default_root()), task.modality, engine=_engine)
    return World(task, y, groups, np.arange(n), np.arange(n, len(y)), table, views)


def bench_of(world: World, ledger: Ledger, *, seed: int) -> Bench:
    """Return the product's own bench for the task, on which nothing was tried; the budget never ends, and folds are the same for every seed."""
    codes, names = strata(world.y, world.task.labels)
    arena = Arena(world.views, world.y, world.classes, ledger, 0, world.groups)
    given = (world.task, Inspection(tuple(world.views.digests)), world.y, world.groups, world.train, world.test, world.sources)
    bench = Bench(*given, arena, Search(arena, (), None), Clock(1e9), Silent(), seed, codes, names, None)  # type: ignore[arg-type]
    few = None if world.groups is None else world.groups[world.train]
    bench.search.folds = folds([names[c] for c in codes[world.train]], groups=few, k=FOLDS, seed=0)
    return bench


def by_defaults(bench: Bench, methods: Sequence[type[Closed | Method]]) -> Iterator[Candidate]:
    """Every method of the space by its defaults, on every source that can bear it."""
    for source in bench.sources.values():
        for method in methods:
            kind = next((k for k in METHODS[method.name] if not unmet(k, source, classes=bench.classes)), None)
            if kind is not None:
                yield Candidate(kind(), source)


def one(world: World, ledger: Ledger, searcher: str, *, seed: int, trials: int, tune: bool) -> dict[str, Any]:
    """Let one searcher search, and say of every trial what it was, its scores in folds, and of a whole one its score on the held-out cases."""
    bench, began = bench_of(world, ledger, seed=seed), time.process_time()
    if searcher == "fixed":
        bench.search.fixed(by_defaults(bench, world.methods(tune=tune)), deadline=NEVER)
    else:
        blind = searcher in BLIND
        probes = () if blind else plan.lead(bench)
        ranked = plan.rank(bench_of(world, ledger, seed=seed)) if blind else plan.ranked(bench, probes)
        searched(bench, ranked, world.methods(tune=tune), Terms(search=searcher, trials=trials), probes=probes[1:])
    rows = [_said(bench, t.number) for t in bench.search.trials]
    return {"trials": rows, "n": len(world.train), "n_test": len(world.test), "classes": world.classes, "seconds": time.process_time() - began}


def _said(bench: Bench, number: int) -> dict[str, Any]:
    trial, candidate = bench.search.trials[number], bench.search.candidates[number]
    params = {name: round(v, 6) if isinstance(v, float) else v for name, v in trial.params.items()}
    held = bench.arena.score(candidate, bench.train, bench.test, deadline=NEVER)[0] if trial.status == "complete" else None
    about = {"method": trial.method, "source": trial.source, "params": params, "status": trial.status, "folds": trial.folds}
    return {**about, "score": trial.score, "held": held, "seconds": round(bench.search.seconds[number], 2)}


def measure(options: argparse.Namespace) -> None:
    """Fixed strategies and blind draws of every task first; they say in which order a search of another task tries its defaults."""
    torch.set_num_threads(1)
    names = list(TASKS) if options.only is None else options.only.split(",")
    blind = [("fixed", 0), *(("random", seed) for seed in range(options.seeds))]
    for name in names:
        race(name, blind, options)
    for name in names:
        others = [held for task, held in defaults_of(rows_of(options.out)).items() if task != name]
        joint.PORTFOLIO = tuple(portfolio(others)) if others else SHIPPED
        race(name, [(word, seed) for word in options.words for seed in range(options.seeds)], options)


def race(name: str, wanted: Sequence[tuple[str, int]], options: argparse.Namespace) -> None:
    """Let each searcher search one task, and write a row for it as soon as it ends."""
    done = {key(row) for row in rows_of(options.out)}
    missing = [pair for pair in wanted if (name, *pair) not in done]
    world = world_of(name, options.data) if missing else None
    for searcher, seed in missing if world is not None else ():
        ledger = Ledger(options.out.with_suffix("") / name.replace(" ", "_") / "folds")
        row = {"task": name, "searcher": searcher, "seed": seed, **one(world, ledger, searcher, seed=seed, trials=options.trials, tune=options.tune)}
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        best = max(row["trials"], key=lambda t: t["score"] if t["held"] is not None else -1.0)
        print(f"{name}, {searcher}, seed {seed}: {best['score']:.3f} in folds, {best['held']:.3f} held out, {row['seconds']:.0f} CPU s", flush=True)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["searcher"], row["seed"]


def leading(trials: Sequence[dict[str, Any]]) -> Iterator[tuple[float, dict[str, Any] | None]]:
    """Yield after each trial what was spent, a trial given up counting by its folds, and the best whole trial in folds so far, the earlier of equals."""
    spent, best = 0.0, None
    for trial in trials:
        spent += len(trial["folds"]) / FOLDS
        if trial["status"] == "complete" and (best is None or trial["score"] > best["score"]):
            best = trial
        yield spent, best


def reached(trials: Sequence[dict[str, Any]], what: str, bar: float) -> float:
    """Return how many trials it took until the leading one was at the bar; infinity where it never was."""
    return next((math.ceil(spent) for spent, best in leading(trials) if best is not None and best[what] >= bar - SMALLEST), math.inf)


def shuffled(runs: Sequence[Sequence[dict[str, Any]]], *, count: int, seed: int) -> list[list[dict[str, Any]]]:
    """Return random searches drawn from all draws of all seeds: blind draws know no order, so each order of them is as good a search."""
    drawn, dice = [trial for run in runs for trial in run], np.random.default_rng(seed)
    return [[drawn[i] for i in dice.permutation(len(drawn))] for _ in range(count)]


def table_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Trials to the bar, task by task; ratios to plain random search; and the best so far by trial."""
    runs: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row["task"]][row["searcher"]].append(row["trials"])
    runs = {task: held for task, held in runs.items() if "fixed" in held and "random" in held}  # type: ignore[assignment]
    words = [w for w in WORDS if any(w in held for held in runs.values())]
    for what, name in (("score", "in folds"), ("held", "on held-out cases")):
        yield from _bars(runs, words, what, name)
    yield from _curves(runs, words)


def _bars(runs: dict[str, dict[str, list[Any]]], words: Sequence[str], what: str, name: str) -> Iterator[str]:
    yield f"\nTrials until the best so far is within a point of the best fixed strategy {name}: median, mean (a run that never is counts {LIMIT}); by word also"
    yield "both as a share of what random search takes.\n"
    yield f"| task | best fixed strategy | its score {name} | random | " + " | ".join(words) + " |"
    yield "| --- |" + " --- |" * (len(words) + 3)
    shares: dict[str, list[tuple[float, float]]] = defaultdict(list)
    sums: dict[str, float] = defaultdict(float)
    for task, held in runs.items():
        best = max(held["fixed"][0], key=lambda t: t[what] if t["held"] is not None else -1.0)
        bar = best[what] - POINT
        blind = _told([reached(run, what, bar) for run in shuffled(held["random"], count=SHUFFLES, seed=0)])
        sums["random"] += blind[1]
        cells = []
        for word in words:
            took = _told([reached(run, what, bar) for run in held[word]]) if held[word] else (math.nan, math.nan)
            sums[word] += took[1]
            shares[word].append((min(took[0], LIMIT) / min(blind[0], LIMIT), took[1] / blind[1]))
            cells.append(f"{_count(*took)}; {shares[word][-1][0]:.2f}, {shares[word][-1][1]:.2f}" if held[word] else "-")
        yield f"| {task} | {best['method']} on {best['source']} | {best[what]:.3f} | {_count(*blind)} | " + " | ".join(cells) + " |"
    thirds = [", ".join(f"{sum(r[i] <= THIRD for r in shares[w])} of {len(shares[w])}" for i in (0, 1)) for w in words]
    yield "| **a third or less, by medians and by means** | | | | " + " | ".join(thirds) + " |"
    yield (
        f"| **mean of means** | | | {sums['random'] / len(runs):.1f} | "
        + " | ".join(f"{sums[w] / len(runs):.1f}; {sums[w] / sums['random']:.2f}" for w in words)
        + " |"
    )


def _told(trials: Sequence[float]) -> tuple[float, float]:
    """Return median and mean of trials to the bar; in the mean, what never came there counts as :data:`LIMIT`, for every searcher alike."""
    return float(np.median(trials)), float(np.mean(np.minimum(trials, LIMIT)))


def _count(median: float, mean: float) -> str:
    return f"{median:g}, {mean:.1f}" if median <= LIMIT else f"> {LIMIT}, {mean:.1f}"


def _curves(runs: dict[str, dict[str, list[Any]]], words: Sequence[str]) -> Iterator[str]:
    """The mean over tasks and seeds of what the leading trial lacks to the best fixed strategy, in points."""
    for what, name in (("score", "in folds"), ("held", "on held-out cases")):
        yield f"\nThe best so far, less the best fixed strategy, {name}, in points: mean over tasks.\n"
        yield "| searcher | " + " | ".join(f"{k} trials" for k in SHOWN) + " |\n| --- |" + " --- |" * len(SHOWN)
        for searcher in ("random", *words):
            gaps: list[list[float]] = []
            for held in (h for h in runs.values() if h[searcher]):
                bar = max(t[what] for t in held["fixed"][0] if t["held"] is not None)
                orders = shuffled(held["random"], count=SHUFFLES, seed=0) if searcher == "random" else held[searcher]
                gaps.append([100 * float(np.mean([_at(order, what, k) - bar for order in orders])) for k in SHOWN])
            yield f"| {searcher} | " + " | ".join(f"{v:+.1f}" for v in np.nanmean(gaps, axis=0)) + " |"


def _at(trials: Sequence[dict[str, Any]], what: str, k: int) -> float:
    """Return the leading trial's score after ``k`` trials; 0 before there is one."""
    last = 0.0
    for spent, best in leading(trials):
        if spent > k + SMALLEST:
            break
        last = best[what] if best is not None else last
    return last


def defaults_of(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by task what every method by its defaults reaches in folds on the source whose probe leads. No held-out score is looked at."""
    out = {}
    for row in (r for r in rows if r["searcher"] == "fixed"):
        probes = [t for t in row["trials"] if t["method"] == "frozen + head"]
        leads = max(probes, key=lambda t: t["score"])["source"]
        out[row["task"]] = {t["method"]: float(t["score"]) for t in row["trials"] if t["source"] == leads}
    return out


def portfolio(tasks: Sequence[dict[str, float]]) -> list[str]:
    """Return methods in the order in which each adds most to the mean over tasks of the best so far, after the probe (Feurer et al. 2022, sec. 3)."""
    order, best = ["frozen + head"], [held["frozen + head"] for held in tasks]
    left = dict.fromkeys(name for held in tasks for name in held if name not in order)
    while left:
        mean = {name: float(np.mean([max(b, held.get(name, 0.0)) for b, held in zip(best, tasks, strict=True)])) for name in left}
        solo = {name: float(np.mean([held.get(name, b) for b, held in zip(best, tasks, strict=True)])) for name in left}
        pick = max(left, key=lambda name: (round(mean[name], 9), solo[name]))
        del left[pick]
        order.append(pick)
        best = [max(b, held.get(pick, 0.0)) for b, held in zip(best, tasks, strict=True)]
    return order


def order_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The order that all tasks together give; and for each task the trials to its best default, less a point, by the order that the others give."""
    tasks = defaults_of(rows)
    yield "All tasks: " + ", ".join(portfolio(list(tasks.values())))
    for name, held in tasks.items():
        learnt = [m for m in portfolio([other for task, other in tasks.items() if task != name]) if m in held]
        listed, bar = list(held), max(held.values()) - POINT
        first = [next(i for i, m in enumerate(order, 1) if held[m] >= bar) for order in (listed, learnt)]
        yield f"{name}: {max(held, key=lambda m: held[m])} is best; as listed {first[0]} trials, by the order that the other tasks give {first[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=None, help="tasks, separated by commas, so that several processes can share the work")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--words", type=lambda text: tuple(text.split(",")), default=WORDS)
    parser.add_argument("--tune", action="store_true", help="search LP-FT of networks for images and texts as well, which takes hours")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--order", action="store_true", help="print in which order defaults had best been tried, and end")
    options = parser.parse_args()
    if options.order:
        print("\n".join(order_of(rows_of(options.out))))
        return
    if not options.table:
        measure(options)
    print("\n".join(table_of(rows_of(options.out))))


if __name__ == "__main__":
    main()
