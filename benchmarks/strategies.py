"""Every way to tune a source, on real tasks, at several label budgets: which should be the default?

    python benchmarks/strategies.py --data DIR --packages DIR --out strategies.jsonl [--seeds 5] [--per-class 5,20,100] [--source efficientnet_lite0]
        [--methods discriminative,fine-tune] [--budget 600]
    python benchmarks/strategies.py --out strategies.jsonl --table

Each method trains with its defaults on so many cases per class, drawn anew for every seed, and is scored by balanced accuracy on 300 other images that no
method and no choice ever sees. Groups (patients) are never on both sides. With an encoder (``--source all-MiniLM-L6-v2``) tasks are of texts. "choice" is what
Headstart does where no method is named and the budget is ``--budget``, by three folds of the training cases: of images the best of what such a budget tries
(rates that fall by stage, from ten minutes on LP-FT, and the whole network where half of the budget pays for it), unless frozen features (a head on the last
or on chosen stages) lead by more than a standard error; of texts the better of rates by stage and LP-FT, where it leads by more than one. One
row per (task, budget, seed, method), written when it is measured: a run that is started again fills in what is missing, seeds outermost, so that a table can
be drawn at any time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pool
from collect import rows_of
from headstart import plan, sources
from headstart.activations.store import Store, default_root
from headstart.core import Source
from headstart.evaluate import folds, score, share_tested
from headstart.guard import resampled_t
from headstart.learner import Candidate, learn
from headstart.methods import METHODS, FineTune, FineTuneAll, Method, Probe, Stages
from headstart.methods.needs import unmet
from headstart.modality import door
from headstart.pipeline import DEFAULT
from headstart.train import PLAIN
from headstart.views import Views

TASKS = ("elpv poly", "chest x-rays", "pacs cartoon", "mnist", "fashion", "coil")
TEXTS = {"subjectivity": "subj.all", "customers": "custrev.all", "films": "rt-polarity.all", "phrases": "mpqa.all", "questions": "TREC.train.all"}
MOST = 100  # cases of a class that may be drawn
CHOICE, PROBE, BEST = "choice", "frozen + head", "best of all"
FOLDS = 3  # of a search
LEFT_OUT = {"distil"}  # asks for a second source


def candidates(source: Source, classes: int) -> dict[str, Candidate]:
    """Every method by name, with its defaults, that the source and the task allow."""
    found = {PROBE: Candidate(Probe(), source)}
    for name, kinds in METHODS.items():
        if kinds[0].arm in ("frozen", "fine-tuned") and name not in {PROBE, *LEFT_OUT} and not unmet(kinds[0], source, classes=classes):
            method = kinds[0]()
            found[name] = Candidate(method.suited(source) if isinstance(method, Method) else method, source)  # type: ignore[arg-type]
    return found


def measured(candidate: Candidate, views: Views, train: np.ndarray, test: np.ndarray, y: np.ndarray, classes: int, seed: int) -> float:
    """Balanced accuracy on the test rows."""
    fitted = learn(candidate, views, train, y, classes=classes, seed=seed)
    return score(y[test], fitted.output(views.array(candidate.view.plain)[test]), classes=classes)


def chosen(table: dict[str, Candidate], tried: Sequence[str], views: Views, train: np.ndarray, y: np.ndarray, classes: int, seed: int) -> str:
    """What Headstart takes: the best in folds of what it tunes with; or the better in folds of the probe and the stages that a ridge chooses:
    of images where that leads by more than a standard error of the paired folds, of texts where it does not trail by more than one."""
    modality = table[PROBE].source.modality  # type: ignore[union-attr]
    pairs = folds([str(c) for c in y[train]], k=FOLDS, repeats=1, seed=seed)
    still = (PROBE, Stages.name)
    reached = {name: np.array([measured(table[name], views, train[a], train[b], y, classes, seed) for a, b in pairs]) for name in (*still, *tried)}
    frozen, tuned = (max(names, key=lambda name: float(reached[name].mean())) for names in (still, tried))
    mean, error, _ = resampled_t(list(reached[tuned] - reached[frozen]), test_share=share_tested(pairs))
    return tuned if (mean >= -error if modality == "image" else mean > error) else frozen


def tried_by(source: Source, *, budget: float) -> list[str]:
    """Return what Headstart tunes that source with where no method is named, in that many seconds."""
    names = [kind.name for kind in DEFAULT[source.modality]]
    if source.modality == "image":
        fits = FOLDS + plan.FOLDS + 1
        names += [FineTune.name] * (budget >= plan.LONGER_FROM)
        names += [FineTuneAll.name] * (fits * plan.seconds_of_whole(source, batch=PLAIN.batch) <= plan.SHARE_WHOLE * budget)
    return names


def named_source(name: str, data: Path | None) -> Source:
    """Return the source of the benchmarks' pool, or else of the catalogue, that has this name."""
    return next((one for one in pool.sources(data) if one.name == name), None) or sources.get(name)


def drawn(target: pool.Target, per_class: int, seed: int) -> np.ndarray:
    """So many training rows of every class."""
    rng = np.random.default_rng([seed, per_class])
    rows = [rng.permutation(target.train[target.y[target.train] == c])[:per_class] for c in range(len(target.labels))]
    return np.sort(np.concatenate(rows))


def measure(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    source, done = named_source(options.source, options.data), {key(row) for row in rows_of(options.out)}
    table: dict[str, tuple[pool.Target, Views]] = {}
    of = door(source.modality)
    for target in images(options) if source.modality == "image" else texts(options.data):
        kept = np.concatenate([drawn(target, MOST, 0), target.test])
        halves = _halves(len(kept), len(target.test))
        small = pool.Target(target.name, target.labels, tuple(target.items[i] for i in kept), target.y[kept], target.groups[kept], *halves)
        views = Views(small.items, [of.digest(item) for item in small.items], {source.name: source}, Store(default_root()), source.modality)
        table[target.name] = (small, views)
    for seed in range(options.first_seed, options.seeds):
        for per_class in options.per_class:
            for name, (target, views) in table.items():
                cell(options.out, done, name, target, views, source, per_class, seed, only=options.methods, budget=options.budget)


def images(options: argparse.Namespace) -> Iterator[pool.Target]:
    pool.TRAIN = 100_000  # as many as there are, MOST of each class later
    for name in TASKS:
        yield from pool.targets(options.data, options.packages, only=name)


def texts(data: Path | None) -> Iterator[pool.Target]:
    """Yield the tasks of texts that are here; 300 lines of each test."""
    for name, file in TEXTS.items():
        path = (data or Path()) / "sentence_cls" / file
        if not path.is_file():
            print(f"skipped {name}: there is no {path}", flush=True)
            continue
        lines, of = pool.sentences(path)
        labels, rows = tuple(sorted(set(of))), np.arange(len(lines))
        y = np.array([labels.index(label) for label in of])
        yield pool.Target(name, labels, tuple(lines), y, rows, rows[pool.TEST :], rows[: pool.TEST])


def _halves(n: int, tested: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n - tested), np.arange(n - tested, n)


def cell(
    out: Path,
    done: set[Any],
    name: str,
    target: pool.Target,
    views: Views,
    source: Source,
    per_class: int,
    seed: int,
    *,
    only: set[str] | None,
    budget: float,
) -> None:
    """Measure what is missing of one task at one number of labels with one seed."""
    classes = len(target.labels)
    rows, named, tried = drawn(target, per_class, seed), candidates(source, classes), tried_by(source, budget=budget)
    reached: dict[str, float] = {}
    for method in [m for m in (*named, CHOICE) if only is None or m in {PROBE, CHOICE, *only}]:
        about = {"task": name, "per_class": per_class, "seed": seed, "method": method, "source": source.name}
        if key(about) in done:
            continue
        began = time.process_time()
        picked = chosen(named, tried, views, rows, target.y, classes, seed) if method == CHOICE else method
        if picked not in reached:
            reached[picked] = measured(named[picked], views, rows, target.test, target.y, classes, seed)
        row = {**about, "n": len(rows), "n_test": len(target.test), "score": reached[picked], "picked": picked, "seconds": time.process_time() - began}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        done.add(key(row))
        print(f"{name}, {per_class} of each class, seed {seed}, {method}: {reached[picked]:.3f}, {row['seconds']:.1f} s", flush=True)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["per_class"], row["seed"], row["method"]


def table_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Gain of each method over frozen features, in points, with a 90 % interval over tasks, by budget; and how far the choice falls short of the best."""
    cells: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for row in rows:
        cells[row["per_class"], row["task"], row["seed"]][row["method"]] = 100 * row["score"]
    names = {row["method"] for row in rows}
    whole = {where: held for where, held in cells.items() if names <= set(held)}
    budgets = sorted({where[0] for where in whole})
    yield f"{len(whole)} complete cells of {len(cells)}: {len({w[1] for w in whole})} tasks, seeds by budget: " + ", ".join(
        f"{b}: {len({w[2] for w in whole if w[0] == b})}" for b in budgets
    )
    yield "\n| method | " + " | ".join(f"{b} of each class" for b in budgets) + " | mean |\n| --- |" + " --- |" * (len(budgets) + 1)
    gains = {m: [_over_tasks(whole, b, lambda held, m=m: held[m] - held[PROBE]) for b in budgets] for m in names}  # type: ignore[misc]
    base = [np.mean([np.mean(v) for v in _by_task(whole, b, lambda held: held[PROBE]).values()]) for b in budgets]
    yield f"| {PROBE}, score | " + " | ".join(f"{v:.1f}" for v in [*base, np.mean(base)]) + " |"
    for method in sorted(names - {PROBE}, key=lambda m: -float(np.mean([g[0] for g in gains[m]]))):
        yield f"| {method} | " + " | ".join(f"{mean:+.1f} ± {half:.1f}" for mean, half in gains[method]) + f" | {np.mean([g[0] for g in gains[method]]):+.1f} |"
    others = names - {CHOICE}
    best = max(others, key=lambda m: float(np.mean([g[0] for g in gains[m]])))
    short = np.mean([g[0] for g in gains[best]]) - np.mean([g[0] for g in gains[CHOICE]])
    oracle = [_over_tasks(whole, b, lambda held: max(held[m] for m in others) - held[CHOICE])[0] for b in budgets]
    yield f"\nThe best method on average is {best}; the choice falls {short:.2f} points short of it, and {np.mean(oracle):.1f} short of each cell's best."
    yield from by_task_of(rows, whole, budgets, best)


def by_task_of(rows: list[dict[str, Any]], whole: dict[tuple[Any, ...], dict[str, float]], budgets: list[int], best: str) -> Iterator[str]:
    """Where the gains come from, task by task, and what one fit of each method costs."""
    shown = tuple(dict.fromkeys((CHOICE, FineTune.name, best)))
    yield "\n| task | " + " | ".join(f"{b}: {m}" for b in budgets for m in shown) + " |\n| --- |" + " --- |" * (len(budgets) * len(shown))
    for task in sorted({where[1] for where in whole}):
        cells = [_by_task(whole, b, lambda held, m=m: held[m] - held[PROBE])[task] for b in budgets for m in shown]  # type: ignore[misc]
        yield f"| {task} | " + " | ".join(f"{np.mean(cell):+.1f}" if cell else "-" for cell in cells) + " |"
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        seconds[row["method"]].append(row["seconds"])
    costs = ", ".join(f"{method} {np.median(spent):.1f}" for method, spent in sorted(seconds.items()))
    yield f"\nCPU seconds of one fit and its predictions, median: {costs}"


def _by_task(whole: dict[tuple[Any, ...], dict[str, float]], budget: int, of: Any) -> dict[str, list[float]]:
    out: dict[str, list[float]] = defaultdict(list)
    for (b, task, _), held in whole.items():
        if b == budget:
            out[task].append(of(held))
    return out


def _over_tasks(whole: dict[tuple[Any, ...], dict[str, float]], budget: int, of: Any) -> tuple[float, float]:
    """Mean over tasks of the mean over seeds, and half of a 90 % t interval over tasks: tasks are what one generalises over."""
    from scipy.stats import t

    means = [float(np.mean(v)) for v in _by_task(whole, budget, of).values()]
    half = t.ppf(0.95, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else float("nan")
    return float(np.mean(means)), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--packages", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="so that several processes can share the work")
    parser.add_argument("--per-class", type=lambda text: [int(k) for k in text.split(",")], default=[5, 20, 100])
    parser.add_argument("--source", default="efficientnet_lite0")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds that the choice has, which say what it tries")
    parser.add_argument("--methods", type=lambda text: set(text.split(",")), default=None, help="these beside the probe and the choice; all where not given")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    print("\n".join(table_of(rows_of(options.out))))


if __name__ == "__main__":
    main()
