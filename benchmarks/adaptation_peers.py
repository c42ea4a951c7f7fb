"""Do skada and Headstart learn the same where both define the same, and how long does each take?

    python benchmarks/adaptation_peers.py --data DIR [--rounds 3]

Needs skada 0.6, which wants an environment of its own. Features are the first 30 principal components of both domains of MNIST and USPS, so that covariances
have full rank, of every third case: 667 and 600. Both sides only adapt, in turn in one process; printed are medians of seconds, and how far apart lies what was
learnt.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from adaptation import read
from headstart.methods.relations.gaussian import coral, monge
from headstart.methods.relations.ratios import mean_matching, neighbours
from headstart.methods.relations.subspace import principal_directions
from headstart.methods.relations.transport import centres, class_plan, costs, entropic_plan
from headstart.methods.relations.whitening import Whitened, marginal

Side = Callable[[], np.ndarray]


def contests(xs: np.ndarray, ys: np.ndarray, xt: np.ndarray) -> dict[str, tuple[Side, Side]]:
    """Pairs of functions, ours and theirs, whose results are equal where the definitions are."""
    from skada import _mapping, _reweight, _subspace

    n, m = len(xs), len(xt)
    X, domain = np.vstack([xs, xt]), np.repeat([1, -2], [n, m])
    y = np.concatenate([ys, np.full(m, -1)])  # how skada writes that there is no label
    unit = np.var(xs, axis=0).sum() + np.var(xt, axis=0).sum()
    reg, eta = 0.05 * unit, 0.1
    gamma = 1.0 / xs.shape[1]

    def skada(adapter: Any, part: slice = slice(None, n)) -> np.ndarray:
        adapter.fit(X, y, sample_domain=domain)
        moved: np.ndarray = adapter.transform(X, y, sample_domain=domain, allow_source=True)[part]
        return moved

    def theirs_weights(adapter: Any) -> np.ndarray:
        weights: np.ndarray = adapter.fit(X, y, sample_domain=domain).compute_weights(X, y, sample_domain=domain)[:n]
        return weights

    def ours_subspaces() -> np.ndarray:
        Ps, Pt = principal_directions(xs, 10), principal_directions(xt, 10)
        gram: np.ndarray = ((xs - xs.mean(axis=0)) @ Ps @ (Ps.T @ Pt)) @ ((xs - xs.mean(axis=0)) @ Ps @ (Ps.T @ Pt)).T
        return gram

    def theirs_subspaces() -> np.ndarray:
        moved = skada(_subspace.SubspaceAlignmentAdapter(10))
        gram: np.ndarray = moved @ moved.T
        return gram

    factor = np.sqrt((n - 1) / n * m / (m - 1))  # their covariances divide by n, ours by n - 1
    lpl1 = _mapping.ClassRegularizerOTMappingAdapter
    return {
        "CORAL": (
            lambda: (coral(xs, xt, reg=0.0, scale=False)(xs) - xt.mean(axis=0)) / factor,
            lambda: skada(_mapping.CORALAdapter(reg=None)),
        ),
        "subspace alignment, inner products": (ours_subspaces, theirs_subspaces),
        "linear transport": (lambda: monge(xs, xt, reg=1e-12)(xs), lambda: skada(_mapping.LinearOTMappingAdapter(reg=1e-12))),
        "entropic transport": (
            lambda: centres(entropic_plan(costs(xs, xt), reg=0.05), xt),
            lambda: skada(_mapping.EntropicOTMappingAdapter(reg_e=reg, tol=1e-9)),
        ),
        "transport by classes": (
            lambda: centres(class_plan(costs(xs, xt), ys, reg=0.05, eta=eta / unit), xt),
            lambda: skada(lpl1(reg_e=reg, reg_cl=eta, tol=1e-9)),
        ),
        "nearest-neighbour weights": (lambda: neighbours(xs, xt, prior=0.0), lambda: theirs_weights(_reweight.NearestNeighborReweightAdapter())),
        "kernel mean matching": (
            lambda: mean_matching(xs, xt, gamma=gamma, upper=1000.0, slack=1.0 - 1.0 / np.sqrt(n)),
            lambda: theirs_weights(_reweight.KMMReweightAdapter(gamma=gamma)),
        ),
        "TCA, linear, scatter over cost": (
            lambda: _trade(X, n, Whitened.of(X).directions(marginal(n, m)[:, None], ridge=0.1 / np.square(X).sum(axis=1).mean(), k=5)),
            lambda: _trade(
                X, n, X.T @ _subspace.TransferComponentAnalysisAdapter(kernel="linear", n_components=5, mu=10.0).fit(X, y, sample_domain=domain).eigvects_
            ),
        ),
    }


def _trade(X: np.ndarray, n: int, A: np.ndarray) -> np.ndarray:
    """Return the shares of the pooled variance that lie between the domains, along each direction: what TCA makes small."""
    Z = X @ A
    between: np.ndarray = (Z[:n].mean(axis=0) - Z[n:].mean(axis=0)) ** 2 / Z.var(axis=0)
    return between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    xs, ys, xt, _ = read(asked.data / "mnist_usps" / "MNIST_vs_USPS.mat")
    axes = principal_directions(np.vstack([xs, xt]), 30)
    xs, ys, xt = (xs @ axes)[::3], ys[::3], (xt @ axes)[::3]
    print("| method | Headstart, s | skada, s | times as fast | largest difference | of values up to |\n| --- | --- | --- | --- | --- | --- |")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, sides in contests(xs, ys, xt).items():
            seconds: tuple[list[float], list[float]] = [], []
            for _ in range(asked.rounds):
                learnt = []
                for side, took in zip(sides, seconds, strict=True):
                    start = time.perf_counter()
                    learnt.append(side())
                    took.append(time.perf_counter() - start)
            ours, theirs = (median(took) for took in seconds)
            gap = np.abs(learnt[0] - learnt[1]).max()
            print(f"| {name} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.1f} | {gap:.1e} | {np.abs(learnt[1]).max():.1e} |", flush=True)
            if name == "kernel mean matching":
                K, k = rbf_kernel(xs, gamma=1.0 / xs.shape[1]), len(xs) * rbf_kernel(xs, xt, gamma=1.0 / xs.shape[1]).mean(axis=1)
                print("  objectives:", *(f"{0.5 * w @ K @ w - k @ w:.6f}" for w in learnt))
            if name.startswith("TCA"):
                print("  between over variance, ours:", learnt[0].round(5), "skada:", learnt[1].round(5))


if __name__ == "__main__":
    main()
