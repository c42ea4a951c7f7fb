"""Every adaptation method on pairs of real domains, against source only and beside skada and adapt on the same features: accuracy, gain and seconds.

    OMP_NUM_THREADS=1 python benchmarks/adaptation_domains.py --data DIR --out rows.jsonl [--first-seed 0] [--seeds 5] [--sides headstart,skada,adapt]
        [--only coral,tca]
    python benchmarks/adaptation_domains.py --out rows.jsonl --table [--without "cartoon -> photo,..."]
    OMP_NUM_THREADS=1 python benchmarks/adaptation_domains.py --data DIR --out choosing.jsonl --choosing [--deep steps=600,rate=1e-3] [--most 300] [--seeds 2]

Pairs: MNIST and USPS as pixels, the twelve of PACS (pooled features of EfficientNet-Lite0) and the twelve of books, dvd, electronics and kitchen (of
all-MiniLM-L6-v2). Of 600 cases of each domain a seed draws 300. Methods have their defaults and see all target cases without labels; the labels score.
TrAdaBoost and EasyAdapt also get three labelled cases of each class, and are scored on the others, as their baseline is. Trained ones are two layers on the
stored features; those that move norms, behind a BatchNorm with the source's statistics. On four pairs the others' also get the steps and rates of ours.
``--choosing`` runs the trained methods of this package on the five pairs on which their defaults were chosen, three of which are among those above.

Skada and adapt ask for an environment of their own (see RESULTS.md). All run in one process in turn, each once on a tenth of the cases before the clock starts.
Seconds are of processor time for fit and prediction, all threads counted, so that what else runs on the machine does not count. A row per pair, seed and
method is written when it is measured; a started file goes on. All closed forms see a seed before the next seed begins, trained ones after them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC as KernelSVC

import domains
from adaptation_rivals import LOGISTIC, MATCHED, NET, SAME, SVC, Contestant, World, rivals
from headstart.channels import is_dead
from headstart.core import Backbone, ColumnInput, Net, Source
from headstart.methods.features import RidgeLOO
from headstart.methods.needs import UNLABELLED
from headstart.methods.relations import RELATIONS
from headstart.methods.relations.deep import DEEP, Deep, OwnStatistics, SourceFree, SourceOnly

AMONG = {"MNIST", "USPS", *domains.PACS, "books", "dvd", "electronics", "kitchen"}
FOUR = {"MNIST -> USPS", "photo -> sketch", "art_painting -> cartoon", "books -> kitchen"}
CHOSEN_ON = {"USPS -> MNIST", "COIL1 -> COIL2", "poly -> mono", "cartoon -> photo", "dvd -> electronics"}
POOL, MOST, FEW, TENTH = 600, 300, 3, 30
NONE, NONE_FEW, NONE_TRAINED, NONE_NORM = "source only", "source and few labels", "source-only", OwnStatistics.name
BENCHMARKS = ("digits", "pacs", "reviews")
OTHER_FIRST = 1  # seeds of methods that have no counterpart here
Row = dict[str, Any]


class ScaledOverBoth(SourceOnly):
    """Source only, but with features divided by their deviations over both domains, as all that see the target have them."""

    name = "source-only scaled over both"
    needs = frozenset({UNLABELLED})


def ours(fields: dict[str, float]) -> list[Contestant]:
    """Every method of this package with its default head, and the baselines under every head; trained ones with those ``fields``."""
    heads: dict[str, Callable[[], Any]] = {SAME: RidgeLOO, SVC: KernelSVC, LOGISTIC: lambda: LogisticRegression(max_iter=1000)}
    found = [Contestant(NONE, "none", head, "closed", partial(_plain, make)) for head, make in heads.items()]
    found += [Contestant(NONE_FEW, "none", head, "few", partial(_plain, heads[head])) for head in (SAME, LOGISTIC)]
    found.append(
        Contestant("scale over both alone", "headstart", SAME, "closed", lambda world: RidgeLOO().fit(world.xs, world.ys, beside=world.xt).predict(world.xt))
    )
    for name, kind in RELATIONS.items():
        found.append(Contestant(name, "headstart", SAME, "few" if kind.needs_target_labels else "closed", partial(_related, kind)))
    able = [kind for kind in DEEP.values() if "copies" not in kind.needs]  # why: bare features have no copies
    for trained in (SourceOnly, ScaledOverBoth, OwnStatistics, *able):
        found.append(Contestant(trained.name, "headstart", NET, "trained", partial(_deep, trained, fields)))
    return found


def _plain(make: Callable[[], Any], world: World) -> np.ndarray:
    X, y = np.vstack([world.xs, world.xt[world.known]]), np.concatenate([world.ys, world.yk])
    return np.asarray(make().fit(X, y).predict(world.xt))


def _related(kind: Any, world: World) -> np.ndarray:
    labels: list[Any] | None = None
    if len(world.known):
        labels = [None] * len(world.xt)
        for row, label in zip(world.known, world.yk, strict=True):
            labels[row] = label
    return np.asarray(kind().fit(world.xs, world.ys, world.xt, labels).predict(world.xt))


def _deep(kind: type[Deep], fields: dict[str, float], world: World) -> np.ndarray:
    from headstart.train import predict_logits

    # why the dead are 0: BatchNorm's eps lifts rounding of 1e-8 above what counts as dead, and the bottleneck then divides what TENT adds to it by 4e-6
    dead = is_dead(world.xs.std(axis=0))
    xs, xt = (np.where(dead, 0.0, x).astype(np.float32) for x in (world.xs, world.xt))
    norm = bool({"norms", "batchnorm"} & kind.needs)
    net = _trained(kind(**fields), columns(xs, norm=norm), xs, world.ys, xt, seed=world.seed)
    return np.asarray(predict_logits(net, xt).argmax(axis=1))


def _trained(method: Deep, source: Source, xs: np.ndarray, ys: np.ndarray, xt: np.ndarray, *, seed: int) -> Net:
    """What ``learner.learn`` does, on features that come from no store."""
    import torch

    from headstart.train import fit

    if isinstance(method, SourceFree):
        net = method.continued(_trained(method.start(source), source, xs, ys, xt, seed=seed))
    else:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            final, others = (source.backbone.eval()(torch.from_numpy(x)).numpy() for x in (xs, xt))
            net = method.build(source, features=final, y=ys, classes=int(ys.max()) + 1, seed=seed, beside=others)
    return fit(method, net, xs, ys, seed=seed, unlabelled=xt)[0]


def columns(x: np.ndarray, *, norm: bool) -> Source:
    """Return features (n, d) as a source of one stage, with ``norm`` a BatchNorm that has their statistics."""
    import torch
    from torch import nn

    d = x.shape[1]
    stage: nn.Module = nn.BatchNorm1d(d) if norm else nn.Identity()
    if isinstance(stage, nn.BatchNorm1d):
        stage.running_mean.copy_(torch.from_numpy(x.mean(axis=0)))
        stage.running_var.copy_(torch.from_numpy(x.var(axis=0)))
    body = Backbone({"columns": stage}, dim=d, preprocess=ColumnInput(tuple(map(str, range(d)))))
    return Source("columns", modality="tabular", dim=d, stages=("columns",), opener=lambda: body, digest=lambda: "columns")


def choose(data: Path, out: Path, seeds: range, fields: dict[str, float], only: set[str], *, most: int) -> None:
    """Measure the trained methods on the pairs that their defaults were chosen on, and print what each has right."""
    pairs = [pair for pair in domains.pairs(data, 0, most=max(POOL, most)) if pair.name in CHOSEN_ON]
    print(f"| {most} cases | mean | {' | '.join(pair.name for pair in pairs)} | seconds |\n| --- |{' --- |' * (2 + len(pairs))}", flush=True)
    for one in ours(fields):
        if one.kind == "trained" and (not only or one.method in only):
            rows = [_measured(one, pair, seed, most=most) for pair in pairs for seed in seeds]
            for row in rows:
                append(out, {**row, "n": most, "fields": fields})
            right = [100 * _mean([row for row in rows if row["pair"] == pair.name], "accuracy") for pair in pairs]
            print(f"| {one.method} | {np.mean(right):.1f} | {' | '.join(f'{r:.1f}' for r in right)} | {_mean(rows, 'seconds'):.2f} |", flush=True)


def collect(data: Path, out: Path, seeds: range, sides: set[str], only: set[str]) -> None:
    everyone = [one for one in (*ours({}), *rivals(sides)) if not only or one.method in only or one.side == "none"]
    order = {name: place for place, name in enumerate(dict.fromkeys(one.method for one in everyone))}
    everyone.sort(key=lambda one: order[one.method])  # why: rivals follow each other within seconds, so that the machine is the same for both
    done = {(row["pair"], row["seed"], row["method"], row["side"], row["head"]) for row in rows_of(out)}
    warm: set[tuple[str, str, str]] = set()
    for seed in seeds:
        for kinds in ({"closed", "few"}, {"trained", "matched"}, {"other"}):
            if kinds == {"other"} and seed >= OTHER_FIRST:
                continue
            for pair in in_turn(data):
                all_ways = pair.name in FOUR
                for one in everyone:
                    if one.kind in kinds and (all_ways or one.kind not in {"matched", "other"}) and (pair.name, seed, *one.key) not in done:
                        if one.key not in warm:
                            _measured(one, pair, seed, most=TENTH)
                            warm.add(one.key)
                        append(out, {**_measured(one, pair, seed, most=MOST), "n": MOST})
                print(f"seed {seed}, {pair.name}: {', '.join(sorted(kinds))} done", flush=True)


@cache
def in_turn(data: Path) -> list[domains.Pair]:
    """Return the pairs, one of each benchmark after the other, so that what a stopped run has is of all."""
    found = list(domains.pairs(data, 0, set(BENCHMARKS), among=AMONG, most=POOL))
    place = {pair.name: sum(one.benchmark == pair.benchmark for one in found[:i]) for i, pair in enumerate(found)}
    return sorted(found, key=lambda pair: place[pair.name])


def append(out: Path, row: Row) -> None:
    """Write down a row when it is measured."""
    with out.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")


def _measured(one: Contestant, pair: domains.Pair, seed: int, *, most: int) -> Row:
    world, yt = _world(pair, seed, few=one.kind == "few", most=most)
    row: Row = {"benchmark": pair.benchmark, "pair": pair.name, "seed": seed, "method": one.method, "side": one.side, "head": one.head, "kind": one.kind}
    wall, used = time.perf_counter(), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = one.run(world)
    except Exception as refused:  # why every kind: other libraries fail in ways that cannot be named beforehand, and that is a result
        return {**row, "accuracy": None, "seconds": time.process_time() - used, "error": f"{type(refused).__name__}: {str(refused)[:200]}"}
    row |= {"seconds": time.process_time() - used, "wall": time.perf_counter() - wall}
    scored = np.setdiff1d(np.arange(len(yt)), world.known)
    return {**row, "accuracy": float(np.mean(said[scored] == yt[scored]))}


def _world(pair: domains.Pair, seed: int, *, few: bool, most: int) -> tuple[World, np.ndarray]:
    """Return what a method is given, and the target's labels."""
    dice = np.random.default_rng(seed)
    s, t = (_every_class(y, most, dice) for y in (pair.ys, pair.yt))
    yt = pair.yt[t]
    known = np.concatenate([dice.permutation(np.flatnonzero(yt == c))[:FEW] for c in np.unique(yt)]) if few else np.zeros(0, dtype=int)
    return World(pair.xs[s], pair.ys[s], pair.xt[t], known, yt[known], seed), yt


def _every_class(y: np.ndarray, most: int, dice: np.random.Generator) -> np.ndarray:
    """Return ``most`` rows, or few more, with at least two of each class."""
    rows = dice.permutation(len(y))
    first = np.concatenate([rows[y[rows] == c][:2] for c in np.unique(y)])
    return np.sort(np.concatenate([first, rows[~np.isin(rows, first)][: max(0, most - len(first))]]))


def rows_of(out: Path) -> list[Row]:
    """Return the finished rows; a last line that a kill tore is left out."""
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True) if out.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


# ---------------------------------------------------------------- tables


Key = tuple[str, str, str]
RIVALS = {
    "skada": lambda key: key[1] == "skada" and key[2] != SAME,
    "skada, same head": lambda key: key[1] == "skada" and key[2] == SAME,
    "adapt": lambda key: key[1] == "adapt" and key[2] != SAME,
    "adapt, same head": lambda key: key[1] == "adapt" and key[2] == SAME,
}


def table(rows: list[Row]) -> None:
    """Print each method beside its counterparts, and the totals."""
    by: dict[Key, list[Row]] = {}
    for r in rows:
        by.setdefault((r["method"], r["side"], r["head"]), []).append(r)
    for title, kinds in (("closed forms", {"closed", "few"}), ("trained", {"trained"}), ("of the others alone", {"other"})):
        some = {key: found for key, found in by.items() if found[0]["kind"] in kinds}
        if some:
            _one_table(title, some, rows)
    _totals(rows)


def _one_table(title: str, by: dict[Key, list[Row]], rows: list[Row]) -> None:
    pairs = {(r["benchmark"], r["pair"]) for found in by.values() for r in found}
    each = ", ".join(f"{name} {sum(one == name for one, _ in pairs)}" for name in BENCHMARKS)
    print(f"\n{title}: {len(pairs)} pairs ({each}), {len({(r['pair'], r['seed']) for found in by.values() for r in found})} with seeds\n")
    print(f"| method | accuracy | gain over source only (95 %) | {' | '.join(BENCHMARKS)} | worse | seconds | {' | '.join(RIVALS)} |")
    print("| --- |" + " --- |" * (5 + len(BENCHMARKS) + len(RIVALS) - 1))
    for method in dict.fromkeys(key[0] for key in by):
        own = [key for key in by if key[0] == method and key[1] in {"headstart", "none"}]
        beside = [_beside([by[key] for key in by if key[0] == method and is_it(key)]) for is_it in RIVALS.values()]
        for key in own:
            name = method if key[1] == "headstart" else f"*{method}, {key[2]}*"
            print(f"| {name} | {' | '.join(_cells(by[key], rows))} | {' | '.join(beside)} |")
        if not own:
            print(f"| {method} |" + " |" * 7 + f" {' | '.join(beside)} |")


def _cells(found: list[Row], rows: list[Row]) -> list[str]:
    """Return accuracy, gain, that of each benchmark, on how many pairs it is below source only by half a point, and seconds."""
    good = [r for r in found if r["accuracy"] is not None]
    if not good:
        return [f"all {len(found)} refused", *[""] * (3 + len(BENCHMARKS))]
    gains = _gains(good, rows)
    apart = [[100.0 * g for b, g in gains.values() if b == bench] for bench in BENCHMARKS]
    below = f"{sum(g < -0.005 for _, g in gains.values())} of {len(gains)}" if gains else ""
    refused = f", {len(found) - len(good)} refused" if len(good) < len(found) else ""
    points = [f"{np.mean(some):+.1f}" if some else "" for some in apart]
    return [f"{100 * _mean(good, 'accuracy'):.1f}{refused}", interval([g for _, g in gains.values()]), *points, below, f"{_mean(good, 'seconds'):.2f}"]


def _beside(found: list[list[Row]]) -> str:
    every = [r for some in found for r in some]
    good = [r for r in every if r["accuracy"] is not None]
    failed = f", {len(every) - len(good)} failed" if len(good) < len(every) else ""
    return f"{100 * _mean(good, 'accuracy'):.1f} ({_mean(good, 'seconds'):.2f} s{failed})" if good else f"all {len(every)} failed" if every else ""


def _mean(rows: Iterable[Row], what: str) -> float:
    return float(np.mean([r[what] for r in rows]))


def _baseline(row: Row) -> Key:
    """Return the key of what a row is measured against: no adaptation, with the same head."""
    if row["kind"] == "trained":
        kind = DEEP.get(row["method"])
        norm = kind is not None and bool({"norms", "batchnorm"} & kind.needs) and row["side"] == "headstart"
        return (NONE_NORM if norm else NONE_TRAINED), ("skada" if row["side"] == "skada" else "headstart"), NET
    return (NONE_FEW if row["kind"] == "few" else NONE), "none", row["head"]


def _gains(good: list[Row], rows: list[Row]) -> dict[str, tuple[str, float]]:
    """Return benchmark and mean gain over the seeds of each pair; nothing for a baseline."""
    base = _baseline(good[0])
    if (good[0]["method"], good[0]["side"], good[0]["head"]) == base:
        return {}
    without = {(r["pair"], r["seed"]): r["accuracy"] for r in rows if (r["method"], r["side"], r["head"]) == base and r["accuracy"] is not None}
    each: dict[str, tuple[str, list[float]]] = {}
    for r in good:
        if (r["pair"], r["seed"]) in without:
            each.setdefault(r["pair"], (r["benchmark"], []))[1].append(r["accuracy"] - without[r["pair"], r["seed"]])
    return {pair: (benchmark, float(np.mean(gains))) for pair, (benchmark, gains) in each.items()}


def interval(gains: list[float]) -> str:
    """Return the mean and Student's interval over pairs in points; pairs share domains, so that it is too narrow."""
    if len(gains) < 2:
        return ""
    points = 100.0 * np.array(gains)
    reach = stats.t.isf(0.025, len(points) - 1) * points.std(ddof=1) / np.sqrt(len(points))
    return f"{points.mean():+.1f} ({points.mean() - reach:+.1f} to {points.mean() + reach:+.1f})"


def _totals(rows: list[Row]) -> None:
    """Print sums over what both sides finished: the same method on the same pair and seed."""
    mine = {(r["pair"], r["seed"], r["method"]): r for r in rows if r["side"] == "headstart" and r["accuracy"] is not None}
    names = ("methods", "runs of both", "accuracy here", "there", "difference over methods (95 %)", "seconds here", "there", "times as fast", *BENCHMARKS)
    print(f"\n| beside | {' | '.join(names)} | least, most of a method |")
    print("| --- |" + " --- |" * (len(names) + 1))
    for side in ("skada", "adapt"):
        for label, kinds, heads in (
            ("closed, its own head", {"closed", "few"}, {SVC, LOGISTIC}),
            ("closed, the same head", {"closed", "few"}, {SAME}),
            ("trained", {"trained"}, {NET}),
            ("trained with the same steps and rates", {"matched"}, {MATCHED}),
            ("all, as it comes", {"closed", "few", "trained"}, {SVC, LOGISTIC, NET}),
        ):
            theirs = [r for r in rows if r["side"] == side and r["kind"] in kinds and r["head"] in heads and r["accuracy"] is not None]
            both = [(mine[r["pair"], r["seed"], r["method"]], r) for r in theirs if (r["pair"], r["seed"], r["method"]) in mine]
            if not both:
                continue
            each = {m: [(a, b) for a, b in both if a["method"] == m] for m in dict.fromkeys(a["method"] for a, _ in both)}
            here, there = (sum(pair[i]["seconds"] for pair in both) for i in (0, 1))
            ratios = {m: sum(b["seconds"] for _, b in some) / sum(a["seconds"] for a, _ in some) for m, some in each.items()}
            differences = [float(np.mean([a["accuracy"] - b["accuracy"] for a, b in some])) for some in each.values()]
            slow, fast = min(ratios, key=lambda m: ratios[m]), max(ratios, key=lambda m: ratios[m])
            accuracy = [f"{100 * np.mean([pair[i]['accuracy'] for pair in both]):.1f}" for i in (0, 1)]
            of = {name: [pair for pair in both if pair[0]["benchmark"] == name] for name in BENCHMARKS}
            by = [f"{sum(b['seconds'] for _, b in some) / sum(a['seconds'] for a, _ in some):.1f}" if some else "" for some in of.values()]
            cells = (str(len(each)), str(len(both)), *accuracy, interval(differences), f"{here:.1f}", f"{there:.1f}", f"{there / here:.1f}", *by)
            print(f"| {side}, {label} | {' | '.join(cells)} | {slow} {ratios[slow]:.1f}, {fast} {ratios[fast]:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="so that several processes can share the work")
    parser.add_argument("--sides", default="headstart,skada,adapt", help="whose methods, with commas between; this package's always run")
    parser.add_argument("--only", default="", help="names of methods, with commas between")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--without", default="", help="pairs that the table leaves out, with commas between")
    parser.add_argument("--choosing", action="store_true", help="the trained methods alone, on the pairs that defaults were chosen on")
    parser.add_argument("--deep", default="", help="fields of trained methods, such as steps=600,rate=1e-3; with --choosing")
    parser.add_argument("--most", type=int, default=MOST, help="cases of a domain; with --choosing")
    asked = parser.parse_args()
    only = {name for name in asked.only.split(",") if name}
    if asked.table:
        table([row for row in rows_of(asked.out) if row["pair"] not in asked.without.split(",")])
        return
    if asked.data is None:
        parser.error("--data DIR is needed to measure")
    if asked.choosing:
        fields = {name: type(getattr(SourceOnly(), name))(float(value)) for name, value in (pair.split("=") for pair in asked.deep.split(",") if pair)}
        choose(asked.data, asked.out, range(asked.first_seed, asked.seeds), fields, only, most=asked.most)
        return
    collect(asked.data, asked.out, range(asked.first_seed, asked.seeds), set(asked.sides.split(",")), only)


if __name__ == "__main__":
    main()
