"""Do the tests between two samples hold their level, what do they find, and how long does it take?

    python benchmarks/two_sample.py [--draws 1000]
    python benchmarks/two_sample.py --ridge
    python benchmarks/two_sample.py --seconds

The first prints, for every p-value of the data view, the share of pairs of samples in which it is at most 0.05: over pairs of one distribution in three
worlds (aim: 3.5 to 6.5 of a hundred), and over pairs that differ in a planted way. The second does so for ridges of the classifier. The third times
the one call and all measures on 2 x 2,000 cases of 1,280 features: processor seconds, so run it with OMP_NUM_THREADS=1. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from headstart.similarity import two_sample
from headstart.similarity.comparison import compare
from headstart.similarity.data import MEASURES, frechet_test
from headstart.similarity.label_shift import label_shift
from headstart.similarity.marginals import feature_tests, moment_shifts
from headstart.similarity.measure import Evidence
from headstart.similarity.two_sample import Pool, permutation_test, pool

SHUFFLES = 99
Draw = Callable[[np.random.Generator, int], np.ndarray]


def normals(dice: np.random.Generator, n: int) -> np.ndarray:
    return dice.normal(size=(n, 10))


def wide(dice: np.random.Generator, n: int) -> np.ndarray:
    """Rectified and correlated, more features than cases: what a network gives."""
    loading = np.random.default_rng(0).normal(size=(20, 300)) / 4.0
    return np.maximum(dice.normal(size=(n, 20)) @ loading + dice.normal(size=(n, 300)), 0.0)


def table(dice: np.random.Generator, n: int) -> np.ndarray:
    """Counts and yes or no: values and whole rows tie."""
    return np.column_stack([dice.poisson(2.0, n), dice.random(n) < 0.3, dice.random(n) < 0.5]).astype(float)


def turned(dice: np.random.Generator, n: int) -> np.ndarray:
    x = normals(dice, n)
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    return x


ALIKE: dict[str, Draw] = {"normals": normals, "wide": wide, "table": table}
PLANTED: dict[str, Draw] = {
    "mean +0.5": lambda dice, n: normals(dice, n) + 0.5,
    "one mean +1": lambda dice, n: normals(dice, n) + np.eye(10)[0],
    "spread x1.4": lambda dice, n: 1.4 * normals(dice, n),
    "a correlation of 0.8": turned,
}


def p_values(pooled: Pool, seed: int) -> dict[str, float]:
    """Every p-value of the data view; the classes behind the last are signs against the pooled median of the first two features."""
    moments = moment_shifts(pooled, permutations=SHUFFLES)
    above = (pooled.rows[:, :2] > np.median(pooled.rows[:, :2], axis=0)) @ [2, 1]
    statistics = {"classifier": two_sample.classifier, "MMD": two_sample.mmd, "energy": two_sample.energy, "sliced Wasserstein": two_sample.sliced_wasserstein}
    return {
        **{name: permutation_test(statistic, pooled, permutations=SHUFFLES).p for name, statistic in statistics.items()},
        "Fréchet": frechet_test(pooled, permutations=SHUFFLES).test.p,
        **{f"{end} {name}": getattr(getattr(moments, name), f"{end}_p") for name in ("mean", "variance", "skew", "kurtosis") for end in ("median", "worst")},
        "KS, any after Holm": 0.0 if feature_tests(pooled).surely > 0.0 else 1.0,
        "labels": label_shift(above[: pooled.n], above[pooled.n :], labels="abcd", source_labels="abcd", seed=seed).p,
    }


def found(draw: Draw, other: Draw, *, draws: int, n: int = 100, m: int = 131) -> dict[str, float]:
    """Share of draws in which each p-value is at most 0.05."""
    dice = np.random.default_rng(0)
    every = [p_values(pool(draw(dice, n), other(dice, m), seed=seed, most=n + m), seed) for seed in range(draws)]
    return {name: float(np.mean([p[name] <= 0.05 for p in every])) for name in every[0]}


def levels_and_power(draws: int) -> None:
    columns = {name: found(draw, draw, draws=draws) for name, draw in ALIKE.items()}
    columns |= {name: found(normals, draw, draws=max(1, draws // 5)) for name, draw in PLANTED.items()}
    print("|", " | ".join(["p <= 0.05 in, %", *columns]), "|")
    print("|", " | ".join(["---"] * (1 + len(columns))), "|")
    for name in columns["normals"]:
        print("|", " | ".join([name, *(f"{100 * column[name]:.1f}" for column in columns.values())]), "|")


def ridges(draws: int = 100) -> None:
    for ridge in (0.03, 0.1, 0.3, 1.0, 3.0):
        two_sample.RIDGE = ridge
        powers = {}
        for name, draw in PLANTED.items():
            dice = np.random.default_rng(0)
            pools = [pool(normals(dice, 60), draw(dice, 60), seed=s, most=60) for s in range(draws)]
            powers[name] = np.mean([permutation_test(two_sample.classifier, p, permutations=SHUFFLES).p <= 0.05 for p in pools])
        print(ridge, " ".join(f"{name}: {power:.2f}" for name, power in powers.items()))


def seconds() -> None:
    dice = np.random.default_rng(0)
    x, xs = (np.maximum(dice.normal(size=(2000, 1280)) + shift, 0.0).astype(np.float32) for shift in (0.0, 0.02))
    codes = dice.integers(10, size=2000)
    names = tuple("abcdefghij")
    evidence = Evidence(x, codes, xs=xs, ys=codes, labels=names, source_labels=names)
    for name, run in {"compare": lambda: compare(x, xs, seed=0), "all measures": lambda: [measure(evidence) for measure in MEASURES]}.items():
        took = []
        for _ in range(3):
            start = time.process_time()
            run()
            took.append(time.process_time() - start)
        print(f"{name}: {np.median(took):.2f} s ({min(took):.2f} to {max(took):.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--ridge", action="store_true")
    parser.add_argument("--seconds", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.seconds:
        seconds()
    elif asked.ridge:
        ridges()
    else:
        levels_and_power(asked.draws)
