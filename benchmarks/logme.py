"""How fast LogME is, beside the published algorithm, on one thread.

    python benchmarks/logme.py [--n 5000] [--d 1280] [--classes 50] [--rounds 5]

The peer is the fixed point of You et al. 2021, written anew from its formulas, in the fast form that its authors publish: singular value decomposition of
F'F, left singular vectors F V / s, projections of all classes at once, then alpha and beta class by class until their ratio moves by less
than 1e-3, 11 iterations at most. Theirs compiles that last loop with numba, which is not installed here; the loop's share of the peer's time is printed, so
that a reader can take it off. Both sides get the same centred features and one-hot targets in the same process, in turn.
Ours is asked for the evidence without an intercept, over n, which is what the peer computes; the two values are compared. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.linalg import svd
from threadpoolctl import threadpool_limits

from headstart.similarity.logme import logme, logme_of_spectrum
from headstart.spectrum import Spectrum

Case = tuple[np.ndarray, np.ndarray]


def features(n: int, d: int, classes: int, *, seed: int) -> Case:
    """ReLU features of correlated channels with class means, centred, and centred one-hot targets."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    low = rng.normal(size=(n, 200)) + 0.7 * rng.normal(size=(classes, 200))[y]
    x = np.maximum(low @ rng.normal(size=(200, d)) / 14.0 + 0.5 * rng.normal(size=(n, d)), 0.0)
    Y = np.eye(classes)[y]
    return x - x.mean(axis=0), Y - Y.mean(axis=0)


def published(F: np.ndarray, Y: np.ndarray) -> tuple[float, float]:
    """Return the score and the seconds of the loop over classes."""
    n, d = F.shape
    _, s, Vt = svd(F.T @ F)
    s = np.sqrt(s)
    live = s > 1e-10
    s, V = s[live], Vt.T[:, live]
    U = F @ V / s
    x2 = np.square(U.T @ Y)
    sigma, start, total = s**2, time.perf_counter(), 0.0
    for k in range(Y.shape[1]):
        outside = float(Y[:, k] @ Y[:, k] - x2[:, k].sum())
        alpha, beta = 1.0, 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = np.sum(sigma / (sigma + t))
            m2 = np.sum(sigma * x2[:, k] / (t + sigma) ** 2)
            res2 = np.sum(x2[:, k] / (1.0 + sigma / t) ** 2) + outside
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (res2 + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        evidence = 0.5 * (d * np.log(alpha) + n * np.log(beta) - np.sum(np.log(alpha + beta * sigma)) - beta * res2 - alpha * m2 - n * np.log(2 * np.pi))
        total += evidence / n
    return total / Y.shape[1], time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--d", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    F, Y = features(options.n, options.d, options.classes, seed=0)
    seconds: dict[str, list[float]] = {"published": [], "ours": [], "ours, shared decomposition": []}
    loops, values = [], {}
    with threadpool_limits(limits=1):
        for round_ in range(options.rounds + 1):
            sides = {
                "published": lambda: published(F, Y),
                "ours": lambda: logme(F, Y, intercept=False).value,
                "ours, shared decomposition": lambda: logme_of_spectrum(Spectrum.of(F), Y).value,
            }
            for name, side in sides.items():
                start = time.perf_counter()
                values[name] = side()
                if round_:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
            loops.append(values["published"][1])
    peer = np.median(seconds["published"])
    print(f"n={options.n}, d={options.d}, C={options.classes}, one thread, median of {options.rounds} rounds (least to most)")
    for name, each in seconds.items():
        print(f"  {name}: {np.median(each):.3f} s ({min(each):.3f} to {max(each):.3f}), {peer / np.median(each):.1f} times as fast as the published")
    print(f"  of the published, the loop over classes: {np.median(loops):.3f} s; without it {(peer - np.median(loops)) / np.median(seconds['ours']):.1f} times")
    print(f"  values: published {values['published'][0]:.12g}, ours {values['ours']:.12g}; with an intercept {values['ours, shared decomposition']:.12g}")


if __name__ == "__main__":
    main()
