"""How fast LogME is, beside the published algorithm, on one thread.

    python benchmarks/logme.py [--n 5000] [--d 1280] [--classes 50] [--rounds 5]

The peer is the fixed point of You et al. 2021/22, written anew from its formulas, with the steps of its authors' faster form: singular value decomposition
of F'F, left singular vectors F V / s, then class by class the projection of y, alpha and beta until their ratio moves by less than 1e-3 (11
iterations at most), and the posterior mean. Theirs compiles only the decomposition with numba, which is not installed here and calls the same LAPACK. The
second peer is kinder than what was published: all projections at once, and no posterior mean. All sides get the same centred features and one-hot targets in
the same process, in turn. Ours is asked for the evidence without an intercept, which is what the peer computes; the values are compared.
Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import svd
from threadpoolctl import threadpool_limits

from headstart.similarity.logme import logme, logme_of_spectrum
from headstart.spectrum import Spectrum

Case = tuple[np.ndarray, np.ndarray]


def features(n: int, d: int, classes: int, *, seed: int) -> Case:
    """ReLU features of correlated channels with class means, in float32 as networks give them, centred, and centred one-hot targets."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    low = rng.normal(size=(n, 200)) + 0.7 * rng.normal(size=(classes, 200))[y]
    x = np.maximum(low @ rng.normal(size=(200, d)) / 14.0 + 0.5 * rng.normal(size=(n, d)), 0.0)
    Y = np.eye(classes)[y]
    return (x - x.mean(axis=0)).astype(np.float32), Y - Y.mean(axis=0)


def published(F: np.ndarray, Y: np.ndarray, *, kind: bool = False) -> float:
    """Return the score; ``kind`` projects all classes at once and leaves out their posterior means."""
    n, d = F.shape
    F = F.astype(np.float64)
    _, s, Vt = svd(F.T @ F)
    s = np.sqrt(s)
    live = s > 1e-10
    s, Vt = s[live], Vt[live]
    U, sigma, total = F @ Vt.T / s, s**2, 0.0
    if kind:
        projections = U.T @ Y
    for k in range(Y.shape[1]):
        x = projections[:, k] if kind else U.T @ Y[:, k]
        outside = float(Y[:, k] @ Y[:, k] - x @ x)
        alpha, beta = 1.0, 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = np.sum(sigma / (sigma + t))
            m2 = np.sum(sigma * x**2 / (t + sigma) ** 2)
            res2 = np.sum(x**2 / (1.0 + sigma / t) ** 2) + outside
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (res2 + 1e-5)
            evidence = 0.5 * (d * np.log(alpha) + n * np.log(beta) - np.sum(np.log(alpha + beta * sigma)) - beta * res2 - alpha * m2 - n * np.log(2 * np.pi))
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        total += evidence / n
        if not kind:
            Vt.T @ (s * x / (t + sigma))
    return total / Y.shape[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--d", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.n <= options.d:
        parser.error("take n above d: below it the published value is wrong, and its steps are others")
    F, Y = features(options.n, options.d, options.classes, seed=0)
    sides: dict[str, Callable[[], float]] = {
        "published": lambda: published(F, Y),
        "published, kinder": lambda: published(F, Y, kind=True),
        "ours": lambda: logme(F, Y, intercept=False).value,
        "ours, by eigenvectors that other measures share": lambda: logme_of_spectrum(Spectrum.of(F), Y).value,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    values = {}
    with threadpool_limits(limits=1):
        for turn in range(options.rounds + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                values[name] = side()
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - start)
    print(f"n={options.n}, d={options.d}, C={options.classes}, one thread, {options.rounds} turns: medians of seconds, and of times as fast as published")
    for name, each in seconds.items():
        ratios = np.array(seconds["published"]) / each
        print(f"  {name}: {np.median(each):.3f} s; {np.median(ratios):.2f} times ({ratios.min():.2f} to {ratios.max():.2f}); value {values[name]:.12g}")


if __name__ == "__main__":
    main()
