"""What the activation store saves, and what an extraction holds in memory.

    python benchmarks/store.py [--n 1000] [--rounds 3] [--source efficientnet_lite0]
    python benchmarks/store.py --memory 50000 [--engine openvino-bf16]

The first compares a first run over n photographs of solar cells (ELPV, from disk: hashing, decoding, the network, writing) with a second run
over the same ones, which finds everything stored; the two alternate, each round with a store of its own. Both make what the main job asks
for: every cut pooled, the cuts to tune from whole. It also counts, over ten trials on every cut, how often an input went through the network.
The second, in a process of its own, reports the largest resident size above what was resident once the network was loaded, over that many
inputs: the n files again and again, each time under another name, so that each is computed. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from first_run import images
from headstart.activations import extract
from headstart.activations.store import Store
from headstart.core import Source
from headstart.modality.image import digest
from headstart.views import cuts_of


def first_and_second(paths: list[str], source: Source, root: Path) -> tuple[float, float]:
    """Seconds of a run over inputs that the store lacks, and of the same run again."""

    def run() -> tuple[float, int]:
        start = time.perf_counter()
        done = made(paths, [digest(p) for p in paths], source, Store(root))
        return time.perf_counter() - start, done.computed

    (first, computed), (second, again) = run(), run()
    assert (computed, again) == (len(paths), 0), "the network runs once per input"
    return first, second


def made(paths: list[str], digests: list[str], source: Source, store: Store, engine: str = "torch") -> Any:
    cuts, raw = cuts_of(source)
    return extract(source, paths, digests=digests, cuts=cuts, raw=raw, store=store, engine=engine)


def passes_of_trials(paths: list[str], source: Source, root: Path, *, trials: int = 10) -> int:
    """How many inputs the network saw over that many trials of a frozen probe, each on the next cut, from a store that began empty."""
    from headstart.methods.method import View
    from headstart.views import Views

    seen = 0
    for trial in range(trials):
        views = Views(items=paths, digests=[digest(p) for p in paths], sources={source.name: source}, store=Store(root))
        views.array(View(kind="pooled", source=source.name, cuts=(1 + trial % len(source.stages),)))
        seen += views.computed[source.name]
    return seen


def memory(paths: list[str], source: Source, root: Path, n: int, engine: str) -> tuple[float, float, float]:
    """MiB resident before, at most, and seconds, of an extraction of n inputs that the store lacks."""
    cuts_of(source)  # loads the network
    before = _resident()
    start = time.perf_counter()
    items = [paths[i % len(paths)] for i in range(n)]
    done = made(items, [hashlib.sha256(b"%d" % i).hexdigest() for i in range(n)], source, Store(root), engine)
    assert done.computed == n
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - start


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    import headstart as hs

    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", default="efficientnet_lite0")
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--engine", default="torch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        paths = sorted(str(p) for p in images(root / "cells", n=options.n, seed=0).rglob("*.png"))
        source = hs.sources.get(options.source)
        if options.memory:
            before, most, seconds = memory(paths, source, root / "store", options.memory, options.engine)
            print(f"{options.memory} inputs: {before:.0f} MiB before, {most:.0f} at most, {most - before:.0f} beside the network; {seconds:.0f} s")
            return
        rounds = [first_and_second(paths, source, root / f"store{k}") for k in range(options.rounds)]
        for k, (first, second) in enumerate(rounds):
            print(f"round {k}: first {first:.2f} s, second {second:.3f} s, ratio {first / second:.0f}")
        print(f"median ratio {np.median([a / b for a, b in rounds]):.0f}")
        print(f"ten trials: {passes_of_trials(paths, source, root / 'trials')} passes of {len(paths)} inputs")


if __name__ == "__main__":
    main()
