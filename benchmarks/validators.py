"""Choosing among adapted candidates without target labels, on real pairs of domains: what each validator picks, and what that costs against the best.

    python benchmarks/validators.py --data DIR --out rows.jsonl [--seeds 3] [--only pacs,reviews]
    python benchmarks/validators.py --out rows.jsonl --table
    python benchmarks/validators.py --out rows.jsonl --ship src/headstart/validators/past_pairs.jsonl

For each pair of domains.py and each seed, a quarter of the source's cases is held out; every candidate is trained on the rest, with all target cases without
labels, and predicts the target, whose labels score and choose nothing. Candidates are source-only heads, and every closed-form classifier of
``headstart.methods.relations`` that needs no target labels, with its defaults. More can be added to ``CANDIDATES``; what a file of
outputs lacks is filled in. Scores are balanced accuracy.

"source only" is the source-only head with the best held-out source accuracy. The shipped panel was named after looking at these benchmarks, so the table has a
second row for the procedure: of all panels of up to four validators the one of most gain on four benchmarks is scored on the fifth. The forecast of gains is
always fitted without the benchmark that it is scored on.

What candidates say is kept beside ``OUT`` in the folder ``outputs``; one row per pair and seed, written when it is measured. One thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import domains
from headstart.core import InputError
from headstart.methods.features import HEADS, RidgeLOO
from headstart.methods.relations import RELATIONS, Mapped, ScaledByDomain
from headstart.methods.relations.door import proba_of
from headstart.methods.relations.label_shift import LabelShift
from headstart.validators import Outputs, evaluate
from headstart.validators.gains import Forecast, PastPair, fitted, written
from headstart.validators.panel import PANEL, Sight, effective, first

HELD_OUT = 0.25
NAMED_ON = {  # pairs whose first seed was looked at when the shipped panel was named; all other rows are new to it
    *("mono -> poly", "poly -> mono", "MNIST -> USPS", "USPS -> MNIST", "COIL1 -> COIL2", "COIL2 -> COIL1", "books -> dvd", "dvd -> books"),
    *("photo -> art_painting", "art_painting -> photo", "photo -> cartoon", "cartoon -> photo", "photo -> sketch"),
}
FEWER, DRAWS = 6, 20


class Alone:
    """A head on source cases, which does not look at the target."""

    def __init__(self, head: Any) -> None:
        self.head_ = head

    def fit(self, X: np.ndarray, y: np.ndarray, X_target: np.ndarray) -> Alone:
        self.head_.fit(X, y)
        self.classes_ = self.head_.classes_
        return self

    def on_source(self, X: np.ndarray) -> np.ndarray:
        return self.head_.predict_proba(X)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.head_.predict_proba(X)


class Related(Alone):
    """A method of ``RELATIONS`` with its defaults; source cases that it did not see go the way of those that it did."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def fit(self, X: np.ndarray, y: np.ndarray, X_target: np.ndarray) -> Related:
        self.method.fit(X, y, X_target=X_target)
        self.head_, self.classes_ = self.method.head_, self.method.classes_
        return self

    def on_source(self, X: np.ndarray) -> np.ndarray:
        if isinstance(self.method, Mapped):
            return proba_of(self.head_, self.method.adapt_source(X), self.classes_)
        if isinstance(self.method, LabelShift):  # why: its own probabilities are corrected for the target's shares
            return proba_of(self.head_, X, self.classes_)
        return self.method.predict_proba(X)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.method.predict_proba(X)


def nearest() -> Any:
    return make_pipeline(Normalizer(), KNeighborsClassifier(5, weights="distance"))


SOURCE_ONLY: dict[str, Callable[[], Any]] = {
    **{f"source {name}": lambda head=head: Alone(head()) for name, head in HEADS.items()},
    "source ridge, one scale": lambda: Alone(RidgeLOO(each=False)),
    "source nearest": lambda: Alone(nearest()),
}
CANDIDATES: dict[str, Callable[[], Any]] = {
    **SOURCE_ONLY,
    # why a name of its own: the rows that were measured before it joined RELATIONS call it so
    "scaled by domain": lambda: Related(ScaledByDomain()),
    **{name: lambda method=method: Related(method()) for name, method in RELATIONS.items() if not method.needs_target_labels and method is not ScaledByDomain},
}


def measured(pair: domains.Pair, seed: int, held: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """What one candidate says: probabilities of held-out source and target cases, and the codes that it gives the former when it is trained back."""
    train, out, c = held["train"], held["held"], int(pair.ys.max()) + 1
    try:
        model = CANDIDATES[name]().fit(pair.xs[train], pair.ys[train], pair.xt)
        source = _every(model.on_source(pair.xs[out]), model.classes_, c)
        target = _every(model.predict_proba(pair.xt), model.classes_, c)
    except InputError as refused:
        print(f"{pair.name}, {seed}: {name} refused: {refused}", flush=True)
        return {f"{name}|refused": np.array(str(refused))}
    guess = target.argmax(axis=1)
    back = np.full(len(out), guess[0])
    if len(np.unique(guess)) > 1:
        try:
            back = CANDIDATES[name]().fit(pair.xt, guess, pair.xs[train]).predict_proba(pair.xs[out])
            back = np.unique(guess)[back.argmax(axis=1)]
        except (InputError, ValueError) as refused:  # why: few of a class, which folds and shares need more of
            print(f"{pair.name}, {seed}: {name} refused to be trained back: {refused}", flush=True)
            back = np.full(len(out), np.bincount(guess).argmax())
    return {f"{name}|source": source.astype(np.float32), f"{name}|target": target.astype(np.float32), f"{name}|reverse": back}


def _every(p: np.ndarray, classes: np.ndarray, c: int) -> np.ndarray:
    """Return probabilities (n, c) of all classes, those that the model does not know at 0."""
    full = np.zeros((len(p), c))
    full[:, classes] = p
    return full / full.sum(axis=1, keepdims=True)


def outputs_of(pair: domains.Pair, seed: int, file: Path) -> dict[str, np.ndarray]:
    """Return everything about a pair: read what the file has, measure what it lacks, and keep it."""
    arrays = dict(np.load(file)) if file.exists() else {}
    if not arrays:
        train, out = train_test_split(np.arange(len(pair.ys)), test_size=HELD_OUT, random_state=seed, stratify=pair.ys)
        arrays = {"train": train, "held": out}
    lacking = [name for name in CANDIDATES if f"{name}|target" not in arrays and f"{name}|refused" not in arrays]
    for name in lacking:
        arrays |= measured(pair, seed, arrays, name)
    if lacking:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return arrays


def row_of(pair: domains.Pair, seed: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what every validator says of every candidate, and the truth."""
    names = [name for name in CANDIDATES if f"{name}|target" in arrays]
    held, train = pair.xs[arrays["held"]], pair.xs[arrays["train"]]
    outputs = {}
    for name in names:
        p = {side: np.asarray(arrays[f"{name}|{side}"], dtype=np.float64) for side in ("source", "target")}
        p = {side: v / v.sum(axis=1, keepdims=True) for side, v in p.items()}
        outputs[name] = Outputs(
            p["source"], pair.ys[arrays["held"]], p["target"], held, pair.xt, train, refit=lambda codes, back=arrays[f"{name}|reverse"]: back
        )
    guesses = {name: one.target.argmax(axis=1) for name, one in outputs.items()}
    c, said = outputs[names[0]].classes, evaluate(outputs)
    baseline = max(SOURCE_ONLY, key=lambda name: said["source-accuracy"].get(name, -1.0))
    return {
        "benchmark": pair.benchmark,
        "pair": pair.name,
        "seed": seed,
        "classes": c,
        "n": len(train),
        "m": len(pair.xt),
        "shares": _shares(pair.ys, c),
        "predicted": {name: _shares(guess, c) for name, guess in guesses.items()},
        "said": said,
        "baseline": baseline,
        "differs": {name: float(np.mean(guess != guesses[baseline])) for name, guess in guesses.items()},
        "balanced": {name: float(balanced_accuracy_score(pair.yt, guess)) for name, guess in guesses.items()},
        "accuracy": {name: float(np.mean(guess == pair.yt)) for name, guess in guesses.items()},
        "refused": {name: str(arrays[f"{name}|refused"]) for name in CANDIDATES if f"{name}|refused" in arrays},
    }


def _shares(codes: np.ndarray, c: int) -> list[float]:
    return (np.bincount(codes, minlength=c) / len(codes)).round(5).tolist()


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the finished rows; a last line that a kill tore is left out."""
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True) if out.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def collect(data: Path, out: Path, seeds: range, only: set[str]) -> None:
    done = {(row["pair"], row["seed"]) for row in rows_of(out) if set(row["said"]["entropy"]) | set(row["refused"]) == set(CANDIDATES)}
    for seed in seeds:
        for pair in domains.pairs(data, seed, only):
            if (pair.name, seed) in done:
                continue
            file = out.parent / "outputs" / f"{pair.name.replace(' ', '')}-{seed}.npz".replace("->", "-")
            row = row_of(pair, seed, outputs_of(pair, seed, file))
            with out.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row) + "\n")
            print(f"{pair.name}, seed {seed}: source ridge {row['balanced']['source ridge']:.3f}, best {max(row['balanced'].values()):.3f}", flush=True)


def past_of(row: dict[str, Any]) -> PastPair:
    """Return a row as the package keeps it."""
    said = {name: {c: round(v, 4) for c, v in values.items()} for name, values in row["said"].items()}
    classes = {name: effective(shares) for name, shares in row["predicted"].items()}
    scores, differs = ({name: round(v, 4) for name, v in row[key].items()} for key in ("balanced", "differs"))
    return PastPair(row["benchmark"], row["pair"], row["seed"], Sight(row["baseline"], said, classes, effective(row["shares"]), differs), scores)


def ship(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the past pairs that the package brings; the first line, which is no pair, says what it is."""
    about = {"made by": "benchmarks/validators.py --ship", "benchmarks": sorted({row["benchmark"] for row in rows})}
    path.write_text("".join(json.dumps(line) + "\n" for line in (about, *(written(past_of(row)) for row in rows))), encoding="utf-8")


Pick = Callable[[PastPair], str]


def table(past: list[PastPair]) -> None:
    """Print what each way to choose gains over source only and loses to the best candidate, in points of balanced accuracy."""
    benchmarks = sorted({one.benchmark for one in past})
    pairs = {name: len({one.pair for one in past if one.benchmark == name}) for name in benchmarks}
    print(f"{len({one.pair for one in past})} pairs ({', '.join(f'{name} {n}' for name, n in pairs.items())}), {len(past)} with seeds")
    print("| chosen by | gain (95 %) | regret (95 %) | worse than source only by > 0.5, % | worst | " + " | ".join(benchmarks) + " |")
    print("| --- | --- | --- | --- | --- |" + " --- |" * len(benchmarks))
    for name, pick in ways(past).items():
        picks = [pick(one) for one in past]
        gain = np.array([100.0 * (one.scores[p] - one.scores[one.seen.baseline]) for one, p in zip(past, picks, strict=True)])
        regret = np.array([100.0 * (max(one.scores.values()) - one.scores[p]) for one, p in zip(past, picks, strict=True)])
        apart = " | ".join(f"{np.mean([g for g, one in zip(gain, past, strict=True) if one.benchmark == b]):+.1f}" for b in benchmarks)
        print(f"| {name} | {over_pairs(gain, past)} | {over_pairs(regret, past)} | {100 * np.mean(gain < -0.5):.0f} | {gain.min():+.1f} | {apart} |")


def over_pairs(values: np.ndarray, past: list[PastPair]) -> str:
    """Return the mean and Student's interval over pairs, each the mean of its seeds; pairs that share a domain are not independent."""
    by_pair = [np.mean([v for v, one in zip(values, past, strict=True) if one.pair == pair]) for pair in dict.fromkeys(one.pair for one in past)]
    mean, error = np.mean(by_pair), np.std(by_pair, ddof=1) / np.sqrt(len(by_pair))
    reach = stats.t.isf(0.025, len(by_pair) - 1) * error
    return f"{mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f})"


def ways(past: list[PastPair]) -> dict[str, Pick]:
    """Every way to choose; those that learn anything learn it from the other benchmarks."""
    models = {b: fitted([one for one in past if one.benchmark != b], PANEL) for b in {one.benchmark for one in past}}
    panels = best_panels(past)

    def chosen(one: PastPair, *, only_sure: bool) -> str:
        name = first(one.seen, PANEL)
        foretold = models[one.benchmark].forecast(one.seen, name)
        return name if (foretold.decision == "transfer" if only_sure else foretold.gain > 0.0) else one.seen.baseline

    said = past[0].seen.said
    return {
        "the best candidate (oracle)": lambda one: max(one.scores, key=lambda name: one.scores[name]),
        "**the rule**": lambda one: chosen(one, only_sure=False),
        "the rule where its verdict is transfer, else source only": lambda one: chosen(one, only_sure=True),
        "a panel set on the other benchmarks": lambda one: first(one.seen, panels[one.benchmark]),
        **{f"the panel without {name}": lambda one, name=name: first(one.seen, tuple(v for v in PANEL if v != name)) for name in PANEL},
        **{name: lambda one, name=name: max(one.seen.said[name], key=lambda c: one.seen.said[name][c]) for name in said},
        **{f"always {name}": lambda one, name=name: name if name in one.scores else one.seen.baseline for name in ("jda", "ot", "coral", "scaled by domain")},
        "the median candidate": lambda one: sorted(one.scores, key=lambda name: one.scores[name])[len(one.scores) // 2],
    }


def best_panels(past: list[PastPair]) -> dict[str, tuple[str, ...]]:
    """Return for each benchmark the panel of up to four validators with the most gain on the others."""
    panels = [p for k in (1, 2, 3, 4) for p in itertools.combinations(past[0].seen.said, k)]
    gains = np.array([[one.scores[first(one.seen, panel)] - one.scores[one.seen.baseline] for one in past] for panel in panels])
    found = {}
    for benchmark in sorted({one.benchmark for one in past}):
        others = np.array([one.benchmark != benchmark for one in past])
        found[benchmark] = panels[int(gains[:, others].mean(axis=1).argmax())]
    return found


def more_about_the_panel(past: list[PastPair]) -> None:
    """Print its gain on rows that it was not named on, how often it takes another source-only head, and what it does among fewer candidates."""
    gain = {id(one): 100.0 * (one.scores[first(one.seen, PANEL)] - one.scores[one.seen.baseline]) for one in past}
    later = [gain[id(one)] for one in past if one.pair not in NAMED_ON or one.seed > 0]
    heads = [gain[id(one)] for one in past if first(one.seen, PANEL) in SOURCE_ONLY]
    if later:
        print(f"\n{len(later)} rows came after the panel was named: gain {np.mean(later):+.1f}, worst {min(later):+.1f}")
    rest = [gain[id(one)] for one in past if first(one.seen, PANEL) not in SOURCE_ONLY]
    print(f"{len(heads)} picks are source-only heads, gain {np.mean(heads or [0.0]):+.1f}; {len(rest)} adapt, gain {np.mean(rest or [0.0]):+.1f}")
    dice, gains, most = np.random.default_rng(0), [], []
    for one in past:
        others = [name for name in one.scores if name != one.seen.baseline]
        for _ in range(DRAWS):
            keep = [one.seen.baseline, *dice.choice(others, FEWER - 1, replace=False)]
            said = {v: {name: values[name] for name in keep} for v, values in one.seen.said.items()}
            classes, differs = ({name: values[name] for name in keep} for values in (one.seen.classes, one.seen.differs))
            name = first(dataclasses.replace(one.seen, said=said, classes=classes, differs=differs), PANEL)
            gains.append(100.0 * (one.scores[name] - one.scores[one.seen.baseline]))
            most.append(100.0 * (max(one.scores[k] for k in keep) - one.scores[one.seen.baseline]))
    worse = 100 * np.mean(np.array(gains) < -0.5)
    worse = 100 * np.mean(np.array(gains) < -0.5)
    print(f"among {FEWER} candidates drawn at random: gain {np.mean(gains):+.1f} of {np.mean(most):+.1f}, worse in {worse:.0f} %, worst {min(gains):+.1f}")


def verdicts(past: list[PastPair]) -> None:
    """Print how often the forecast's interval held the truth, and what each verdict was worth, every benchmark foretold from the others."""
    held: list[tuple[Forecast, float]] = []
    for benchmark in sorted({one.benchmark for one in past}):
        model = fitted([one for one in past if one.benchmark != benchmark], PANEL)
        for one in (one for one in past if one.benchmark == benchmark):
            name = first(one.seen, PANEL)
            held.append((model.forecast(one.seen, name), one.scores[name] - one.scores[one.seen.baseline]))
    inside = np.mean([f.interval[0] <= gain <= f.interval[1] for f, gain in held])
    width, error = np.mean([f.interval[1] - f.interval[0] for f, _ in held]), np.mean([abs(f.gain - gain) for f, gain in held])
    print(f"\n90 % intervals held {100 * inside:.0f} % of true gains; mean width {100 * width:.0f} points, mean error of the forecast {100 * error:.1f}")
    print("| verdict | times | mean true gain | gain > 0, % | worst |\n| --- | --- | --- | --- | --- |")
    for decision in ("transfer", "undecided", "do not transfer"):
        gains = np.array([100 * gain for f, gain in held if f.decision == decision])
        if len(gains):
            print(f"| {decision} | {len(gains)} | {gains.mean():+.1f} | {100 * np.mean(gains > 0):.0f} | {gains.min():+.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="benchmarks, with commas between")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--ship", type=Path)
    asked = parser.parse_args()
    if asked.table:
        past = [past_of(row) for row in rows_of(asked.out)]
        table(past)
        more_about_the_panel(past)
        verdicts(past)
    elif asked.ship:
        ship(rows_of(asked.out), asked.ship)
    elif asked.data is None:
        raise SystemExit("--data DIR is wanted, the folder of data sets, or --table")
    else:
        collect(asked.data, asked.out, range(asked.seeds), {name.strip() for name in asked.only.split(",") if name.strip()})


if __name__ == "__main__":
    main()
