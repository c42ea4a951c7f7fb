"""How often does the guard say "transfer" where transfer gains nothing, how often where it gains, and what does a bad source cost?

    python benchmarks/guard.py                       # null worlds: the false rate
    python benchmarks/guard.py --part harm           # planted negative transfer: handwritten digits, and sources a little worse than nothing
    python benchmarks/guard.py --part power          # gains of 2, 5 and 10 points at 50 to 800 labels
    python benchmarks/guard.py --part outlook        # gain with all training cases and with twice the labels: bias, and how often intervals hold it

A world is a small task whose truth is known. It goes the way of a user's data: the real search over many candidates on search folds (every source
probed, the best one looked at more closely, then what TPE proposes), the real fit of each arm's winner, the real judging on fresh folds, the real
verdict. Heads are ridge rules in closed form, without the packaged heads' checks, so that thousands of worlds take minutes. What is true is measured
on cases that no step has seen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart import evidence
from headstart.bench import Bench, Silent
from headstart.contenders import contest
from headstart.core import Domain, Inspection, Source, Task
from headstart.evaluate import balanced_accuracy, folds, holdout, share_tested
from headstart.judging import Chosen, Judgement, fit_chosen, judge_arms, verdict
from headstart.learner import Candidate
from headstart.methods.method import Closed, View, knob
from headstart.outlook import outlook
from headstart.result import Contender, Outlook, Verdict
from headstart.search import Arena, Clock, Piece, Search

D = 6  # features of a view
UNSEEN = 2000
DRAWS = 8  # of as many fresh cases as a model was fitted on, whose mean is the expected gain
SLOW = 40  # columns of noise in a view that is learnt from slowly
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
        mean, self.bias = w @ Z / len(y), w @ Y / len(y)
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
    features: int = knob(0, choices=(0, 1))

    def view(self, source: Source | None) -> View:
        return View("pooled", "own", (self.features,))

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


class Held:
    """A runner without disk and hashes: the same fits on the same rows, so that a world takes a fraction of a second."""

    width = 1

    def __init__(self) -> None:
        self.held: dict[Any, np.ndarray] = {}

    def ahead(self, arena: Arena, pieces: Iterable[Piece], *, deadline: float) -> None: ...

    def outcome(self, arena: Arena, piece: Piece, *, deadline: float, patience: float) -> tuple[np.ndarray, float]:
        candidate, train, test = piece
        key = (candidate.method, candidate.view, train.tobytes(), test.tobytes())
        if key not in self.held:
            x = arena.views.array(candidate.view)
            self.held[key] = candidate.method.estimator(seed=arena.seed).fit(x[train], arena.y[train]).predict_proba(x[test])  # type: ignore[union-attr]
        return self.held[key], 0.0


@dataclass(frozen=True)
class Outcome:
    """What the guard said of one world, and what unseen cases say: the gain of the judged transfer arm, and that of what was shipped."""

    verdict: Verdict
    true_gain: float
    shipped_gain: float
    contenders: tuple[Contender, ...] = ()
    foretold: Foretold | None = None


@dataclass(frozen=True)
class Foretold:
    """What the run foretells, and the truth: the gain of the chosen settings, the mean over fresh draws, with as many training cases as the shipped
    model has (``expected``) and with twice those of a judging fold (``doubled``)."""

    outlook: Outlook
    expected: float
    doubled: float


def run(world: World, *, seed: int, alone: bool = False, foretell: bool = False) -> Outcome:
    """Send a world through search, fit, judging and verdict, as ``pipeline`` does; with each source ``alone``, and the outlook, where that is asked."""
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
    judged = verdict(bench, arms, margin=0.0)
    unseen = np.arange(world.n, len(world.y))
    truth = {name: _true(bench, c, unseen) for name, c in chosen.items()}
    return Outcome(
        verdict=judged.verdict,
        true_gain=truth[judged.stands.name] - truth["baseline"],
        shipped_gain=truth[judged.shipped.name] - truth["baseline"],
        contenders=contest(bench, arms, margin=0.0) if alone else (),
        foretold=_foretold(bench, chosen, judged, unseen) if foretell else None,
    )


def _foretold(bench: Bench, chosen: Mapping[Any, Chosen], judged: Judgement, unseen: np.ndarray) -> Foretold:
    sides = chosen["frozen"].candidate, chosen["baseline"].candidate
    curve = evidence.curve(bench.arena, sides, bench.folds(repeats=1, seed=bench.seed + 1), strata=bench.strata, clock=bench.clock)
    share, size = share_tested(bench.search.folds), len(bench.train)
    told = outlook(judged.verdict, judged.gains, curve, test_share=share, n=len(bench.task.target), trained=size, of_curve=judged.stands.name == "frozen")
    stands = chosen[judged.stands.name].candidate, chosen["baseline"].candidate
    return Foretold(told, _expected(bench, stands, size, unseen), _expected(bench, sides, 2 * curve[-1].n, unseen))


def _expected(bench: Bench, sides: tuple[Candidate, Candidate], size: int, unseen: np.ndarray) -> float:
    """Return the mean gain of settings that are fitted on fresh draws of so many cases, on the other unseen cases; both classes are drawn alike."""
    half = len(unseen) // 2
    if size > half:
        return float("nan")
    gains = []
    for draw in range(DRAWS):
        rows = np.random.default_rng([bench.seed, draw]).permutation(unseen)
        a, b = (bench.arena.score(side, np.sort(rows[:size]), rows[half:], deadline=np.inf)[0] for side in sides)
        gains.append(a - b)
    return float(np.mean(gains))


def _true(bench: Bench, chosen: Chosen, unseen: np.ndarray) -> float:
    output = chosen.fitted.output(bench.arena.views.array(chosen.candidate.view)[unseen])
    return balanced_accuracy(bench.y[unseen], output.argmax(axis=1))


def _bench(world: World, *, seed: int) -> Bench:
    names = tuple(str(c) for c in range(int(world.y.max()) + 1))
    task = Task("classification", "tabular", Domain("world", list(range(world.n)), [names[c] for c in world.y[: world.n]]), names)
    train, test = holdout(world.y[: world.n], seed=seed)
    table = {name: Source(name, dim=D, stages=("a", "b", "c")) for name in world.sources}
    arena = Arena(world, world.y, len(names), None, seed, runner=Held())  # type: ignore[arg-type]
    search = Search(arena, (), None)
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


def gaussian(*, n: int, sources: int, accuracy: float, baseline: float, seed: int, slow: str = "") -> World:
    """Two classes as normal clouds. Views are exchangeable draws: the same signal, half of the noise along it shared by all, most of
    the rest by the stages of one source. Views of the ``slow`` side ("own" or "sources") have 40 more columns, of noise."""
    rng = np.random.default_rng([seed, n, sources])
    y = np.concatenate([rng.permutation(np.arange(n) % 2), np.arange(UNSEEN) % 2])
    sign, hard = np.where(y, 1.0, -1.0), rng.normal(size=len(y))
    names = tuple(f"s{k}" for k in range(sources))

    def view(strength: float, common: np.ndarray | None = None, *, more: int = 0) -> np.ndarray:
        z = rng.normal(size=(len(y), D))
        if common is not None:
            z = np.sqrt(KIN) * common + np.sqrt(1 - KIN) * z
        z[:, 0] = np.sqrt(SHARED) * hard + np.sqrt(1 - SHARED) * z[:, 0] + sign * strength
        turned = z @ np.linalg.qr(rng.normal(size=(D, D)))[0]
        return np.column_stack([turned, rng.normal(size=(len(y), more))]) if more else turned

    weak, strong = signal(baseline, n), signal(accuracy, n)
    views = {("own", k): view(weak, more=SLOW * (slow == "own")) for k in (0, 1)}
    for name in names:
        common = rng.normal(size=(len(y), D))
        views |= {(name, k): view(strong, common, more=SLOW * (slow == "sources")) for k in range(6)}
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
    print(f"| null world | {COLUMNS} | any source alone, % | after Holm, % (95 %) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    everything: list[Outcome] = []
    for name, about in NULLS.items():
        found = [run(gaussian(**about, seed=s), seed=s, alone=True) for s in range(worlds)]
        everything += found
        print(f"{_row(name, found)} {_claims(found)} |", flush=True)
    print(f"{_row(f'all {len(everything)}', everything)} {_claims(everything)} |")


def _claims(found: Sequence[Outcome]) -> str:
    """Return how often any source is said to help: each by its own test, and after Holm's correction."""
    alone = [any(c.p <= 0.05 for c in o.contenders) for o in found]
    return f"{100 * np.mean(alone):.1f} | {share([any(c.helps for c in o.contenders) for o in found])}"


def harms(worlds: int) -> None:
    print(f"| source | labels | {COLUMNS} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for harm in ("wrong labels", "permuted rule", "unrelated"):
        for n in (60, 200):
            print(_row(f"{harm} | {n}", [run(digits(harm=harm, n=n, seed=s), seed=s) for s in range(worlds)]), flush=True)
    slight(worlds)


def slight(worlds: int) -> None:
    """24 sources that are a little worse than what the user has: harm that the best of many can hide."""
    for points in (3, 6):
        for n in (50, 200):
            about = {"n": n, "sources": 24, "accuracy": BASELINE - points / 100, "baseline": BASELINE}
            found = [run(gaussian(**about, seed=s), seed=s) for s in range(worlds)]  # type: ignore[arg-type]
            print(_row(f"24 sources, {points} points worse | {n}", found), flush=True)


def power(worlds: int) -> None:
    print(f"| true gain, points | labels | {COLUMNS} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for gain in (2, 5, 10):
        for n in (50, 100, 200, 400, 800):
            about = {"n": n, "sources": 4, "accuracy": BASELINE + gain / 100, "baseline": BASELINE}
            print(_row(f"{gain} | {n}", [run(gaussian(**about, seed=s), seed=s) for s in range(worlds)]), flush=True)  # type: ignore[arg-type]


def outlooks(worlds: int) -> None:
    """Bias in points and how often 90 % intervals hold what they are about: the gain with all training cases, raw and corrected, and with twice a fold's."""
    print("| world | labels | gain | bias of folds | holds % | corrected in % | bias | holds % | bias of twice | holds % | settled % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, about in CURVES.items():
        for n in (50, 200, 400):
            found = [run(gaussian(**about, n=n, seed=s), seed=s, foretell=True) for s in range(worlds)]
            print(f"| {name} | {n} | {_coverage(found)} | {_settled(about, found)} |", flush=True)


CURVES: dict[str, dict[str, Any]] = {
    "both learn alike": {"sources": 4, "accuracy": BASELINE + 0.05, "baseline": BASELINE},
    "the baseline learns slowly": {"sources": 4, "accuracy": BASELINE, "baseline": BASELINE, "slow": "own"},
    "the sources learn slowly": {"sources": 4, "accuracy": BASELINE + 0.1, "baseline": BASELINE, "slow": "sources"},
}
MOST = 1600  # labels of a world that is drawn to see whether they settle


def _coverage(found: Sequence[Outcome]) -> str:
    told = [(o.verdict, o.foretold.outlook, o.foretold) for o in found if o.foretold is not None]
    raw = [(v.gain, v.interval, f.expected) for v, _, f in told]
    mended = [(o.corrected.gain, o.corrected.interval, f.expected) for _, o, f in told if o.corrected is not None]
    twice = [(o.gain, o.interval, f.doubled) for _, o, f in told if o.gain is not None]

    def both(rows: Sequence[Any]) -> str:
        if not rows:
            return "- | -"
        return (
            f"{100 * np.mean([gain - truth for gain, _, truth in rows]):+.2f} | {100 * np.mean([low <= truth <= high for _, (low, high), truth in rows]):.0f}"
        )

    return f"{100 * np.mean([f.expected for *_, f in told]):+.2f} | {both(raw)} | {100 * len(mended) / len(found):.0f} | {both(mended)} | {both(twice)}"


def _settled(about: dict[str, Any], found: Sequence[Outcome]) -> str:
    """Of the undecided worlds that were told a number of labels, up to 1,600 in all: how many like them are settled with so many."""
    told = [(s, o.foretold.outlook.more, o.foretold.outlook.n // 2) for s, o in enumerate(found) if o.foretold is not None]
    drawn = [(s, n + more) for s, more, n in told if more and n + more <= MOST]
    if not drawn:
        return "-"
    settled = [run(gaussian(**about, n=n + n % 2, seed=10_000 + s), seed=s).verdict.decision != "undecided" for s, n in drawn]
    return f"{100 * np.mean(settled):.0f} of {len(drawn)}"


def _row(name: str, found: Sequence[Outcome]) -> str:
    said = [o.verdict.decision for o in found]
    ships = np.mean([o.verdict.ship == "transfer" for o in found])
    means = [np.mean([o.verdict.gain for o in found]), np.mean([o.true_gain for o in found]), np.mean([o.shipped_gain for o in found])]
    numbers = " | ".join(f"{100 * m:+.2f}" for m in means)
    wrong = 100 * np.mean([d == "do not transfer" for d in said])
    return f"| {name} | {share([d == 'transfer' for d in said])} | {wrong:.1f} | {100 * ships:.0f} | {numbers} |"


COLUMNS = '"transfer" % (95 %) | "do not transfer" % | shipped transfer % | measured gain | true gain | shipped, true'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("null", "harm", "slight", "power", "outlook"), default="null")
    parser.add_argument("--worlds", type=int, default=100)
    asked = parser.parse_args()
    began = time.monotonic()
    {"null": nulls, "harm": harms, "slight": slight, "power": power, "outlook": outlooks}[asked.part](asked.worlds)
    print(f"\n{asked.worlds} worlds a row, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
