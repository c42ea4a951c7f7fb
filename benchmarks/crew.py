"""Fine-tuning by one process and by several that share each batch, in turn.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/crew.py [--steps 30] [--rounds 3]

Every weight of EfficientNet-Lite0 learns on made-up images of 224 pixels, 32 a step, with one thread a process; while one trains, the others wait. Beside the
seconds of a step stand the processor's seconds of the first process: where other programs share the cores, those tell what sharing saves it, less what it adds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from headstart import sources
from headstart.crew import together
from headstart.keeping import Settings
from headstart.methods import FineTuneAll
from headstart.train import fit

CASES = 64


def measured(processes: int, *, steps: int) -> tuple[float, float]:
    """Seconds, and seconds of this process's processor, of a step."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(CASES, 3, 224, 224)).astype(np.float16), np.arange(CASES) % 2
    method = FineTuneAll(steps=steps)
    net = method.build(sources.get("efficientnet_lite0"), features=None, y=y, classes=2, seed=0)
    began, spent = time.monotonic(), time.process_time()
    fit(method, net, x, y, seed=0, settings=Settings(processes=processes))
    return (time.monotonic() - began) / steps, (time.process_time() - spent) / steps


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=30)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    with together() as processes:
        found: dict[int, list[tuple[float, float]]] = {n: [] for n in (1, processes)}
        for _ in range(given.rounds):
            for n, rows in found.items():
                rows.append(measured(n, steps=given.steps))
        for n, rows in found.items():
            seconds, own = np.array(rows).T
            told = ", ".join(f"{value:.2f}" for value in seconds)
            print(f"{n} processes: {np.median(seconds):.2f} s a step ({told}); processor of the first {np.median(own):.2f} s", flush=True)


if __name__ == "__main__":
    main()
