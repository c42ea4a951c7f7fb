"""How often does the guard say "transfer" where one source has many settings, none of which is worth anything?

    OMP_NUM_THREADS=1 python benchmarks/guard_settings.py [--worlds 200] [--cases 100]

``guard.py`` has many sources with few settings each, between which the judging folds choose inside their own training cases. Settings of one source they choose
by what the search predicted of the other cases, with models that were fitted on the fold's cases too, which flatters the best. Here the features of each
setting are noise of their own, which no two settings of one network are: the worst case. Search scores, judging and verdict are the real ones.
"""

from __future__ import annotations

import argparse
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from guard import share
from headstart.bench import Bench, Silent
from headstart.evaluate import score
from headstart.judging import Chosen, judge_arms, verdict
from headstart.result import Trial, Verdict
from headstart.search import Here, Search

D, HELD, SMOOTH = 8, 40, 0.3  # features of a setting, cases held out, the ridge's penalty for each case
ROWS = {
    "1 setting": ("frozen", 1),
    "24 settings": ("frozen", 24),
    "60 settings": ("frozen", 60),
    "fine-tuned, 6": ("fine-tuned", 6),
    "fine-tuned, 24": ("fine-tuned", 24),
}


class Noise:
    """Stands for the arena: a ridge rule on features of noise, one matrix for each candidate."""

    classes, seed, runner = 2, 0, Here()

    def __init__(self, y: np.ndarray, x: list[np.ndarray]) -> None:
        self.y, self.x, self.made = y, x, dict[Any, np.ndarray]()

    def fold(self, candidate: int, train: np.ndarray, test: np.ndarray, deadline: float | None = None) -> tuple[np.ndarray, float]:
        key = (candidate, train.tobytes(), test.tobytes())
        if key not in self.made:
            x, sign = self.x[candidate], 2.0 * self.y[train] - 1.0
            mean = x[train].mean(axis=0)
            z = x[train] - mean
            decision = (x[test] - mean) @ np.linalg.solve(z.T @ z + len(train) * SMOOTH * np.eye(D), z.T @ (sign - sign.mean()))
            self.made[key] = np.column_stack([-decision, decision])
        return self.made[key], 0.0

    def score(self, candidate: int, train: np.ndarray, test: np.ndarray, deadline: float | None = None) -> tuple[float, float]:
        return score(self.y[test], self.fold(candidate, train, test)[0], classes=2), 0.0

    def ahead(self, *given: Any, **more: Any) -> None:
        """Nothing is computed ahead."""


class Plain(Bench):
    """A bench without data to read: its time is never up."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    classes = 2  # type: ignore[assignment]
    limit = math.inf  # type: ignore[assignment]

    def begin(self, *given: Any) -> float:
        return math.inf

    def count(self, *, per: float, low: int, high: int) -> int:
        return max(low, min(high, int(300.0 // per)))


def judged(seed: int, arm: str, settings: int, *, cases: int) -> Verdict:
    rng = np.random.default_rng(seed)
    n = cases + HELD
    y = rng.permutation(np.arange(n) % 2)
    arena = Noise(y, [rng.normal(size=(n, D)) for _ in range(settings + 1)])
    rows = {"train": np.arange(cases), "test": np.arange(cases, n), "strata": y, "strata_names": ("a", "b"), "groups": None}
    about = {"observer": Silent(), "kinds": {}, "notes": [], "task": SimpleNamespace(modality="text")}
    bench = Plain(y=y, seed=seed, arena=arena, **rows, **about)
    search = Search(cast(Any, arena), (), cast(Any, None))
    bench.search, search.folds = search, bench.folds(repeats=1, seed=seed)
    for i in range(settings + 1):
        kind = ("baseline", "simple", None) if i == 0 else (arm, f"method {i % 6}" if arm == "frozen" else "tuned", "source")
        scores = tuple(arena.score(i, *fold)[0] for fold in search.folds)
        search.trials.append(Trial(i, *kind, {}, scores, "complete", ""))  # type: ignore[arg-type]
        search.candidates.append(cast(Any, i))
    chosen = {}
    for name in ("baseline", arm):
        best = search.best(name)  # type: ignore[arg-type]
        assert best is not None
        chosen[name] = Chosen(best, cast(Any, best.number), cast(Any, None), arena.fold(best.number, bench.train, bench.test)[0])
    return verdict(bench, judge_arms(bench, chosen), margin=0.0).verdict  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--cases", type=int, default=100)
    asked = parser.parse_args()
    print('| null world | "transfer" % (95 %) | "do not transfer" % | measured gain, points |\n| --- | --- | --- | --- |', flush=True)
    for name, (arm, settings) in ROWS.items():
        found = [judged(seed, arm, settings, cases=asked.cases) for seed in range(asked.worlds)]
        against = 100 * np.mean([one.decision == "do not transfer" for one in found])
        gain = 100 * np.mean([one.gain for one in found])
        print(f"| {name} | {share([one.decision == 'transfer' for one in found])} | {against:.1f} | {gain:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
