"""Heads on features: how fast beside scikit-learn, at the same choice; and how good each head is on real stored features.

    python benchmarks/heads.py [--only ridge|logistic] [--rounds 3] [--n 20000] [--threads 1] [--out heads.jsonl]
    python benchmarks/heads.py --real --data DIR [--seeds 3] [--per-class 5,20,100] --out heads-real.jsonl
    python benchmarks/heads.py --table --out heads.jsonl
    python benchmarks/heads.py --real --table --out heads-real.jsonl

Speed: features of 20 classes, 1,280 wide, as a network's last rectified layer gives them (a rank-64 signal, noise, zeros below 0), standardised for both sides.
Ours and scikit-learn's run in turn in one process, in every round; each fits, chooses its penalty, and predicts 4,000 other cases.
Ridge: ``RidgeClassifierCV``, the same 15 penalties. Logistic: ``LogisticRegressionCV``, the same 10 strengths, folds, loss and limit of steps.

Real: every head that has a name, by its defaults, on stored features of EfficientNet-Lite0 (solar cells of the package ``elpv-dataset``, chest X-rays) and of
MiniLM (questions of TREC), fitted to so many cases of each class, drawn anew for every seed, and scored by balanced accuracy on about 300 (500) others that no
fit sees. One row per (task, budget, seed, head), written when it is measured, seeds outermost: a run that is started again fills in what is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import pool
from headstart import sources
from headstart.activations.store import Store, default_root
from headstart.evaluate import score
from headstart.learner import Candidate, learn
from headstart.methods import METHODS, Closed, Probe
from headstart.methods.features import LogisticPath, RidgeLOO
from headstart.methods.features.logistic import CS, MAX_ITER
from headstart.methods.features.ridge import ALPHAS
from headstart.modality import door
from headstart.views import Views
from strategies import MOST, drawn

WIDTH, CLASSES, SIGNAL, HELD_OUT = 1280, 20, 64, 4000


def features(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rectified features (n, 1280) in float64 and class codes (n,); the classes are the same for every seed."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres, mixing = world.normal(size=(CLASSES, SIGNAL)), world.normal(size=(SIGNAL, WIDTH)) * np.linspace(2.0, 0.1, SIGNAL)[:, None] / 8.0
    y = rng.integers(0, CLASSES, n)
    signal = centres[y] + 2.5 * rng.normal(size=(n, SIGNAL))
    return np.maximum(signal @ mixing + rng.normal(size=(n, WIDTH)), 0.0), y


def contestants(pair: str) -> dict[str, Any]:
    """The two sides, unfitted."""
    if pair == "ridge":
        return {"headstart": RidgeLOO(balanced=False), "scikit-learn": RidgeClassifierCV(alphas=ALPHAS)}
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    given = {"Cs": CS, "cv": folds, "max_iter": MAX_ITER, "scoring": "neg_log_loss", "l1_ratios": (0,), "use_legacy_attributes": False}
    return {"headstart": LogisticPath(balanced=False, seed=0), "scikit-learn": LogisticRegressionCV(**given)}


def speed(options: argparse.Namespace) -> None:
    X, y = features(options.n, seed=1)
    new, truth = features(HELD_OUT, seed=2)
    scaler = StandardScaler().fit(X)
    Z, new = scaler.transform(X), scaler.transform(new)
    for turn in range(options.rounds):
        for pair in [options.only] if options.only else ["ridge", "logistic"]:
            predicted = {}
            for side, model in contestants(pair).items():
                with threadpool_limits(options.threads), warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # both stop after as many steps
                    began, cpu = time.perf_counter(), time.process_time()
                    model.fit(Z, y)
                    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
                predicted[side] = model.predict(new)
                row = {"pair": pair, "side": side, "n": options.n, "threads": options.threads, "round": turn, "seconds": seconds, "cpu": cpu}
                chosen = float(getattr(model, "alpha_", getattr(model, "C_", np.nan)))
                row |= {"chosen": chosen, "accuracy": float(np.mean(predicted[side] == truth)), "machine": platform.machine()}
                row["agree"] = float(np.mean(predicted[side] == predicted["headstart"]))
                write(options.out, row)


def real(options: argparse.Namespace) -> None:
    done = {key(row) for row in rows_of(options.out)} if options.out else set()
    table = []
    for target, name in problems(options.data):
        source = sources.get(name)
        of = door(source.modality)
        views = Views(list(target.items), [of.digest(item) for item in target.items], {name: source}, Store(default_root()), source.modality)
        table.append((target, source, views))
    for seed in range(options.seeds):
        for target, source, views in table:
            for per_class in [int(k) for k in options.per_class.split(",")]:
                train, classes = drawn(target, per_class, seed), len(target.labels)
                for head in named(classes):
                    row: dict[str, Any] = {"task": target.name, "per_class": per_class, "seed": seed, "head": head.name}
                    if key(row) in done:
                        continue
                    views.array(head.view(source))
                    cpu = time.process_time()
                    with threadpool_limits(options.threads):
                        fitted = learn(Candidate(head, source), views, train, target.y, classes=classes, seed=seed)
                        reached = score(target.y[target.test], fitted.output(views.array(head.view(source))[target.test]), classes=classes)
                    write(options.out, row | {"n": len(train), "score": reached, "cpu": time.process_time() - cpu})


def problems(data: Path) -> Iterator[tuple[pool.Target, str]]:
    """Yield each task that is here with the name of its source; of images, at most 100 of a class may train."""
    pool.TRAIN = 100_000
    for name in ("elpv poly", "chest x-rays"):
        for target in pool.targets(data, None, only=name):
            kept = np.concatenate([drawn(target, MOST, 0), target.test])
            items, y = tuple(target.items[i] for i in kept), target.y[kept]
            n = len(kept) - len(target.test)
            yield pool.Target(name, target.labels, items, y, target.groups[kept], np.arange(n), np.arange(n, len(kept))), "efficientnet_lite0"
    folder = data / "sentence_cls"
    if not folder.is_dir():
        return print(f"skipped TREC: {folder} is no folder", flush=True)
    sides = [[line.split(" ", 1) for line in (folder / f"TREC.{part}.all").read_text(encoding="latin-1").splitlines()] for part in ("train", "test")]
    labels = sorted({label for label, _ in sides[0]})
    seen = {text for _, text in sides[1]}
    first: list[tuple[str, str]] = []
    for label in labels:
        first += [(label, text) for own, text in sides[0] if own == label and text not in seen][:MOST]
    everything = [*first, *((label, text) for label, text in sides[1])]
    y = np.array([labels.index(label) for label, _ in everything])
    rows = np.arange(len(y))
    yield pool.Target("TREC", tuple(labels), tuple(text for _, text in everything), y, rows, rows[: len(first)], rows[len(first) :]), "all-MiniLM-L6-v2"


def named(classes: int) -> Iterator[Closed]:
    """Yield every head for classes, by its defaults."""
    for kinds in METHODS.values():
        kind = kinds[0]
        if issubclass(kind, Closed) and kind.level == "feature" and (kind.needs == {"classes"} or kind is Probe):
            yield kind()


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["per_class"], row["seed"], row["head"]


def real_table(rows: list[dict[str, Any]]) -> None:
    """Mean score by task and budget over the seeds that every head has, and CPU seconds of a fit with its predictions."""
    heads = list(dict.fromkeys(row["head"] for row in rows))
    cells = list(dict.fromkeys((row["task"], row["per_class"]) for row in rows))
    scores = {key(row): row for row in rows}
    seeds = {cell: [s for s in range(99) if all((*cell, s, head) in scores for head in heads)] for cell in cells}
    cells = [cell for cell in cells if seeds[cell]]
    print("| head | " + " | ".join(f"{task}, {k}" for task, k in cells) + " | mean | CPU s, median and most |")
    print("| --- |" + " --- |" * (len(cells) + 2))
    means = {head: [float(np.mean([scores[*cell, s, head]["score"] for s in seeds[cell]])) for cell in cells] for head in heads}
    for head in sorted(heads, key=lambda head: -np.mean(means[head])):
        spent = [row["cpu"] for row in rows if row["head"] == head]
        words = " | ".join(f"{100 * value:.1f}" for value in means[head])
        print(f"| {head} | {words} | {100 * np.mean(means[head]):.1f} | {np.median(spent):.2f}, {max(spent):.1f} |")
    spread = [100 * np.std([scores[*cell, s, head]["score"] for s in seeds[cell]], ddof=1) for cell in cells for head in heads if len(seeds[cell]) > 1]
    print(
        "\nSeeds: "
        + ", ".join(f"{task} {k}: {len(seeds[task, k])}" for task, k in cells)
        + f". Deviation over seeds, median: {np.median(spread or [np.nan]):.1f} points."
    )


def write(out: Path | None, row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def speed_table(rows: list[dict[str, Any]]) -> None:
    sides: dict[tuple[str, int, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        sides[row["pair"], row["n"], row["threads"]][row["side"]].append(row)
    print("| head, n, threads | Headstart, s | scikit-learn, s | x wall clock, median (range) | x CPU | chosen | accuracy | predictions that agree |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (pair, n, threads), both in sides.items():
        ours, theirs = both["headstart"], both["scikit-learn"]
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=False)]
        cpu = float(np.median([b["cpu"] / a["cpu"] for a, b in zip(ours, theirs, strict=False)]))
        words = [" / ".join(f"{row['seconds']:.1f}" for row in rows) for rows in (ours, theirs)]
        same = f"{ours[0]['chosen']:.3g} and {theirs[0]['chosen']:.3g}"
        scores = f"{ours[0]['accuracy']:.4f} and {theirs[0]['accuracy']:.4f}"
        range_ = f"{min(ratios):.1f} to {max(ratios):.1f}"
        agree = theirs[0]["agree"]
        print(f"| {pair}, {n:,}, {threads} | {words[0]} | {words[1]} | **{np.median(ratios):.1f}** ({range_}) | {cpu:.1f} | {same} | {scores} | {agree:.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("ridge", "logistic"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads that either side may use")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", default="5,20,100")
    options = parser.parse_args()
    measure, show = (real, real_table) if options.real else (speed, speed_table)
    if not options.table:
        measure(options)
    if options.out is not None:
        show(rows_of(options.out))


if __name__ == "__main__":
    main()
