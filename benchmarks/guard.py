"""How often does the guard say "transfer" where transfer gains nothing, how often where it gains, and what does a bad source cost?

    python benchmarks/guard.py                       # null worlds: the false rate
    python benchmarks/guard.py --part harm           # planted negative transfer: handwritten digits, and sources a little worse than nothing
    python benchmarks/guard.py --part power          # gains of 2, 5 and 10 points at 50, 200 and 800 labels

A world is a small task whose truth is known. It goes the way of a user's data: the real search over many candidates on search folds (every source
probed, the best one looked at more closely, then what TPE proposes), the real fit of each arm's winner, the real judging on fresh folds, the real
verdict. Heads are ridge rules in closed form, without the packaged heads' checks, so that thousands of worlds take minutes. What is true is measured
on cases that no step has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.bench import Bench, Silent
from headstart.core import Domain, Inspection, Source, Task
from headstart.evaluate import balanced_accuracy, folds, holdout
from headstart.judging import Chosen, fit_chosen, judge_arms, preferred, verdict
from headstart.learner import Candidate
from headstart.methods.method import Closed, View, knob
from headstart.result import Verdict
from headstart.search import Arena, Clock, Search

D = 6  # features of a view
UNSEEN = 2000
SHARED = 0.5  # of the noise along the signal: the same cases are hard for every arm
KIN = 0.7  # of the noise that the stages of one source share: they see the same image
BASELINE = 0.75  # accuracy of the simple models
BUDGET = 300.0
ALPHAS = (1.0, 10.0, 100.0)


class Rule:
    """Ridge regression to +1/-1 one-hot targets on standardised features, every class with the same weight."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def fit(self, X: np.ndarray, y: np.ndarray) -> Rule:
        self.classes_ = np.unique(y)
        self.centre, self.scale = X.mean(axis=0), X.std(axis=0) + 1e-9
        Z, Y = (X - self.centre) / self.scale, np.where(y[:, None] == self.classes_, 1.0, -1.0)
        w = 1.0 / np.bincount(y)[y]
        w *= len(y) / w.sum()
        mean, self.bias = np.average(Z, axis=0, weights=w), np.average(Y, axis=0, weights=w)
        Z = Z - mean
        self.W = np.linalg.solve((Z * w[:, None]).T @ Z + self.alpha * np.eye(Z.shape[1]), (Z * w[:, None]).T @ (Y - self.bias))
        self.bias = self.bias - mean @ self.W
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        logits = ((X - self.centre) / self.scale) @ self.W + self.bias
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Plain(Closed):
    """No transfer: a ridge rule on one of the user's own views."""

    name: ClassVar[str] = "simple"
    arm: ClassVar[Any] = "baseline"
    level: ClassVar[Any] = "none"
    alpha: float = knob(10.0, choices=ALPHAS)
    own: int = knob(0, choices=(0, 1))

    def view(self, source: Source | None) -> View:
        return View("pooled", "own", (self.own,))

    def estimator(self, *, seed: int) -> Any:
        return Rule(self.alpha)


@dataclass(frozen=True)
class Frozen(Closed):
    """A ridge rule on one stage of a source."""

    name: ClassVar[str] = "frozen + head"
    arm: ClassVar[Any] = "frozen"
    level: ClassVar[Any] = "feature"
    alpha: float = knob(10.0, choices=ALPHAS)
    stage: int = knob(0, choices=(0, 1, 2))

    def view(self, source: Source | None) -> View:
        return View("pooled", source.name if source else "", (self.stage,))

    def estimator(self, *, seed: int) -> Any:
        return Rule(self.alpha)


@dataclass(frozen=True)
class Tuned(Closed):
    """Stands for fine-tuning: features of the source that the tuning has moved, another draw for each rate."""

    name: ClassVar[str] = "tuned"
    arm: ClassVar[Any] = "fine-tuned"
    level: ClassVar[Any] = "model"
    rate: int = knob(3, choices=(3, 4, 5))

    def view(self, source: Source | None) -> View:
        return View("pooled", source.name if source else "", (self.rate,))

    def estimator(self, *, seed: int) -> Any:
        return Rule(ALPHAS[1])


@dataclass
class World:
    """Views by name and number, class codes ``y`` of all rows, and how many rows the user has; the others are what nobody sees before the end."""

    views: dict[tuple[str, int], np.ndarray]
    y: np.ndarray
    n: int
    sources: tuple[str, ...]

    @cached_property
    def digests(self) -> list[str]:
        return [str(i) for i in range(len(self.y))]

    def array(self, view: View) -> np.ndarray:
        return self.views[(view.source or "", view.cuts[0])]

    def engine(self, source: Source) -> str:
        return "torch"


class Memory:
    """A ledger that forgets with the world: the same keys, no disk."""

    def __init__(self) -> None:
        self.held: dict[str, np.ndarray] = {}

    def outcome(self, key: Any, make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
        name = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()
        if name not in self.held:
            self.held[name] = make()
        return self.held[name], 0.0


@dataclass(frozen=True)
class Outcome:
    """What the guard said of one world, and what unseen cases say: the gain of the judged transfer arm, and that of what was shipped."""

    verdict: Verdict
    true_gain: float
    shipped_gain: float


def run(world: World, *, seed: int) -> Outcome:
    """Send a world through search, fit, judging and verdict, as ``pipeline`` does."""
    bench = _bench(world, seed=seed)
    search = bench.search
    never = float("inf")
    search.fixed([Candidate(Plain(a, own)) for own in (0, 1) for a in ALPHAS], deadline=never)
    sources = list(bench.sources.values())
    search.fixed([Candidate(Frozen(), s) for s in sources], deadline=never)
    best = bench.sources[search.best("frozen").source]  # type: ignore[union-attr, index]
    search.fixed([Candidate(Frozen(a, k), best) for k in (0, 1, 2) for a in ALPHAS], deadline=never)
    search.propose(Frozen(), sources, count=4, deadline=never)
    search.fixed([Candidate(Tuned(r), bench.sources[search.best("frozen").source]) for r in (3, 4, 5)], deadline=never)  # type: ignore[union-attr, index]
    chosen = fit_chosen(bench)
    arms = judge_arms(bench, chosen)
    answer, winner, _ = verdict(bench, arms, margin=0.0)
    unseen = np.arange(world.n, len(world.y))
    truth = {name: _true(bench, c, unseen) for name, c in chosen.items()}
    judged = preferred(bench, [a for a in arms if a.name != "baseline"]).name
    return Outcome(answer, truth[judged] - truth["baseline"], truth[winner.name] - truth["baseline"])


def _true(bench: Bench, chosen: Chosen, unseen: np.ndarray) -> float:
    output = chosen.fitted.output(bench.arena.views.array(chosen.candidate.view)[unseen])
    return balanced_accuracy(bench.y[unseen], output.argmax(axis=1))


def _bench(world: World, *, seed: int) -> Bench:
    names = tuple(str(c) for c in range(int(world.y.max()) + 1))
    task = Task("classification", "tabular", Domain("world", list(range(world.n)), [names[c] for c in world.y[: world.n]]), names)
    train, test = holdout(world.y[: world.n], seed=seed)
    table = {name: Source(name, dim=D, stages=("a", "b", "c")) for name in world.sources}
    arena = Arena(world, world.y, len(names), Memory(), seed)  # type: ignore[arg-type]
    search = Search(arena, (), "")
    clock = Clock(BUDGET)
    inspection = Inspection(tuple(world.digests[: world.n]))
    bench = Bench(task, inspection, world.y, None, train, test, table, arena, search, clock, Silent(), seed, world.y, names, None)  # type: ignore[arg-type]
    search.folds = folds([names[c] for c in world.y[train]], k=5, seed=seed)
    search.folds = [(train[a], train[b]) for a, b in search.folds]
    return bench


@lru_cache(maxsize=64)
def signal(accuracy: float, n: int) -> float:
    """Return the length of the class means with which a ridge rule reaches that accuracy when it learns from the training part of ``n`` labels."""
    if accuracy <= 0.5:
        return 0.0
    rng = np.random.default_rng(0)
    rows = round(0.75 * n * 0.8)
    draws = [(rng.permutation(np.arange(rows) % 2), rng.normal(size=(rows, D))) for _ in range(200)]

    def reached(length: float) -> float:
        mu = np.eye(D)[0] * length
        total = 0.0
        for y, noise in draws:
            rule = Rule(10.0).fit(noise + np.where(y, 1.0, -1.0)[:, None] * mu, y)
            w = (rule.W[:, 1] - rule.W[:, 0]) / rule.scale
            b = rule.bias[1] - rule.bias[0] - rule.centre @ w
            total += (norm.cdf((w @ mu + b) / np.linalg.norm(w)) + norm.cdf((w @ mu - b) / np.linalg.norm(w))) / 2
        return total / len(draws)

    return float(brentq(lambda length: reached(length) - accuracy, 0.01, 6.0, xtol=1e-3))


def gaussian(*, n: int, sources: int, accuracy: float, baseline: float, seed: int) -> World:
    """Two classes as normal clouds. Views are exchangeable draws: the same signal, half of the noise along it shared by all, most of
    the rest by the stages of one source."""
    rng = np.random.default_rng([seed, n, sources])
    y = np.concatenate([rng.permutation(np.arange(n) % 2), np.arange(UNSEEN) % 2])
    sign, hard = np.where(y, 1.0, -1.0), rng.normal(size=len(y))
    names = tuple(f"s{k}" for k in range(sources))

    def view(strength: float, common: np.ndarray | None = None) -> np.ndarray:
        z = rng.normal(size=(len(y), D))
        if common is not None:
            z = np.sqrt(KIN) * common + np.sqrt(1 - KIN) * z
        z[:, 0] = np.sqrt(SHARED) * hard + np.sqrt(1 - SHARED) * z[:, 0] + sign * strength
        return np.asarray(z @ np.linalg.qr(rng.normal(size=(D, D)))[0])

    weak, strong = signal(baseline, n), signal(accuracy, n)
    views = {("own", k): view(weak) for k in (0, 1)}
    for name in names:
        common = rng.normal(size=(len(y), D))
        views |= {(name, k): view(strong, common) for k in range(6)}
    return World(views, y, n, names)


def digits(*, harm: str, n: int, seed: int, sources: int = 6) -> World:
    """Handwritten digits, with feature maps learnt on 800 others: from wrong labels, from another rule, or from what is no digit at all."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng([seed, n])
    order = rng.permutation(len(y))
    far, near = order[:800], order[800:]
    mine = near[np.argsort([np.flatnonzero(near[y[near] == c] == i)[0] for i, c in zip(near, y[near], strict=True)], kind="stable")]
    views = {("own", 0): X[mine], ("own", 1): np.sqrt(X[mine])}
    names = tuple(f"s{k}" for k in range(sources))
    for name in names:
        for k in range(6):
            views[(name, k)] = _harmful(harm, X[far], y[far], rng).transform(X[mine])
    return World(views, y[mine], n, names)


def _harmful(harm: str, X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> LinearDiscriminantAnalysis:
    X = X + rng.normal(scale=0.01, size=X.shape)
    if harm == "wrong labels":
        return LinearDiscriminantAnalysis().fit(X, rng.permutation(y))
    if harm == "permuted rule":  # the digits fall into three groups that mean nothing here
        return LinearDiscriminantAnalysis().fit(X, rng.permutation(np.arange(10) % 3)[y])
    shuffled = np.take_along_axis(X, rng.permuted(np.tile(np.arange(X.shape[1]), (len(X), 1)), axis=1), axis=1)
    return LinearDiscriminantAnalysis().fit(shuffled, np.digitize(shuffled[:, 0], [2, 8]))


NULLS: dict[str, dict[str, Any]] = {
    "no signal, 24 sources, n = 200": {"n": 200, "sources": 24, "accuracy": 0.5, "baseline": 0.5},
    "equal, 4 sources, n = 200": {"n": 200, "sources": 4, "accuracy": BASELINE, "baseline": BASELINE},
    "equal, 24 sources, n = 50": {"n": 50, "sources": 24, "accuracy": BASELINE, "baseline": BASELINE},
    "equal, 24 sources, n = 200": {"n": 200, "sources": 24, "accuracy": BASELINE, "baseline": BASELINE},
    "equal, 24 sources, n = 800": {"n": 800, "sources": 24, "accuracy": BASELINE, "baseline": BASELINE},
}


def share(hits: Sequence[bool]) -> str:
    """Return a share in percent with its 95 % Clopper-Pearson interval."""
    test = binomtest(int(sum(hits)), len(hits)).proportion_ci(0.95)
    return f"{100 * np.mean(hits):.1f} ({100 * test.low:.1f} to {100 * test.high:.1f})"


def nulls(worlds: int) -> None:
    print('| null world | "transfer" % (95 %) | "do not transfer" % | shipped transfer % | measured gain | true gain | shipped, true |')
    print("| --- | --- | --- | --- | --- | --- | --- |")
    everything: list[Outcome] = []
    for name, about in NULLS.items():
        found = [run(gaussian(**about, seed=s), seed=s) for s in range(worlds)]
        everything += found
        _row(name, found)
    _row(f"all {len(everything)}", everything)


def harms(worlds: int) -> None:
    print('| source | labels | "transfer" % (95 %) | "do not transfer" % | shipped transfer % | measured gain | true gain | shipped, true |')
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for harm in ("wrong labels", "permuted rule", "unrelated"):
        for n in (60, 200):
            _row(f"{harm} | {n}", [run(digits(harm=harm, n=n, seed=s), seed=s) for s in range(worlds)])
    slight(worlds)


def slight(worlds: int) -> None:
    """24 sources that are a little worse than what the user has: harm that the best of many can hide."""
    for points in (3, 6):
        for n in (50, 200):
            about = {"n": n, "sources": 24, "accuracy": BASELINE - points / 100, "baseline": BASELINE}
            _row(f"24 sources, {points} points worse | {n}", [run(gaussian(**about, seed=s), seed=s) for s in range(worlds)])  # type: ignore[arg-type]


def power(worlds: int) -> None:
    print('| true gain, points | labels | "transfer" % (95 %) | "do not transfer" % | shipped transfer % | measured gain | true gain | shipped, true |')
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for gain in (2, 5, 10):
        for n in (50, 200, 800):
            about = {"n": n, "sources": 4, "accuracy": BASELINE + gain / 100, "baseline": BASELINE}
            _row(f"{gain} | {n}", [run(gaussian(**about, seed=s), seed=s) for s in range(worlds)])  # type: ignore[arg-type]


def _row(name: str, found: Sequence[Outcome]) -> None:
    said = [o.verdict.decision for o in found]
    ships = np.mean([o.verdict.ship == "transfer" for o in found])
    means = [np.mean([o.verdict.gain for o in found]), np.mean([o.true_gain for o in found]), np.mean([o.shipped_gain for o in found])]
    numbers = " | ".join(f"{100 * m:+.2f}" for m in means)
    print(
        f"| {name} | {share([d == 'transfer' for d in said])} | {100 * np.mean([d == 'do not transfer' for d in said]):.1f} | {100 * ships:.0f} | {numbers} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("null", "harm", "slight", "power"), default="null")
    parser.add_argument("--worlds", type=int, default=100)
    asked = parser.parse_args()
    began = time.monotonic()
    {"null": nulls, "harm": harms, "slight": slight, "power": power}[asked.part](asked.worlds)
    print(f"\n{asked.worlds} worlds a row, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
