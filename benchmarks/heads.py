"""Heads on features: how fast beside scikit-learn, at the same choice; and how good each head is on real stored features.

    python benchmarks/heads.py [--only ridge|logistic] [--rounds 3] [--n 20000] [--threads 1] [--out heads.jsonl]
    python benchmarks/heads.py --real --data DIR --packages DIR [--seeds 5] [--per-class 5,20,100] --out heads-real.jsonl
    python benchmarks/heads.py --table --out heads.jsonl      (or heads-real.jsonl)

Speed: features of 20 classes, 1,280 wide, as a network's last rectified layer gives them (a rank-64 signal, noise, zeros below 0), standardised for both sides.
Ours and scikit-learn's run in turn in one process, in every round; each fits, chooses its penalty, and predicts 4,000 other cases.
Ridge: ``RidgeClassifierCV``, the same 15 penalties. Logistic: ``LogisticRegressionCV``, the same 10 strengths, folds, loss and limit of steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from headstart.methods.features import LogisticPath, RidgeLOO
from headstart.methods.features.logistic import CS, MAX_ITER
from headstart.methods.features.ridge import ALPHAS

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
    options = parser.parse_args()
    if options.table:
        return speed_table(rows_of(options.out))
    speed(options)
    if options.out is not None:
        speed_table(rows_of(options.out))


if __name__ == "__main__":
    main()
