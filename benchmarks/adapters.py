"""Adapters beside LP-FT and frozen features, on the same folds: which learning rate each wants, and what it costs.

    python benchmarks/adapters.py [--data DIR] [--methods lora,dora,...] [--rates 1e-3,3e-3]

450 polycrystalline solar cells (ELPV; functional against defective) on EfficientNet-Lite0 and, with ``--data``, 500 questions of TREC in six classes on
all-MiniLM-L6-v2. Five stratified folds, 50 steps of 32 cases, one seed, one thread, its seconds of computing. Balanced accuracy with the standard error
over folds. Frozen rows are a ridge head on the last stage, on the last four side by side, and Head2Toe by the share of features that it keeps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import headstart as hs
from headstart.activations.store import Store
from headstart.evaluate import Split, folds, score
from headstart.learner import Candidate, learn
from headstart.methods import FineTune, Head2Toe, Method, Probe, tuners
from headstart.modality import door
from headstart.views import Views

ADAPTERS = "lora,rs-lora,dora,loha,lokr,ia3,hra"
RATES = "3e-4,1e-3,3e-3,1e-2"
FOLDS, SEED = 5, 0


def cells() -> tuple[list[Any], list[str]]:
    """270 functional and 180 defective polycrystalline cells, a fixed draw, as colour arrays."""
    from elpv_dataset.utils import load_dataset

    pictures, probability, kinds = load_dataset()
    generator = np.random.default_rng(0)
    rows = [generator.choice(np.flatnonzero((kinds == "poly") & (probability == p)), n, replace=False) for p, n in ((0.0, 270), (1.0, 180))]
    return [np.repeat(pictures[i][..., None], 3, axis=2) for i in np.concatenate(rows)], ["functional"] * 270 + ["defective"] * 180


def questions(data: Path) -> tuple[list[str], list[str]]:
    """500 questions, a fixed draw, with the first word of their class's code."""
    lines = (data / "sentence_cls" / "TREC.train.all").read_text(encoding="latin-1").splitlines()
    drawn = [lines[i].split(" ", 1) for i in np.random.default_rng(0).choice(len(lines), 500, replace=False)]
    return [text for _, text in drawn], [label for label, _ in drawn]


def targets(data: Path | None) -> Iterator[tuple[str, str, str, tuple[list[Any], list[str]]]]:
    """Name, modality, source and cases of each target."""
    yield "cells", "image", "efficientnet_lite0", cells()
    if data is None:
        print("Without --data the questions of TREC are left out.")
    else:
        yield "questions", "text", "all-MiniLM-L6-v2", questions(data)


def candidates(names: str, rates: Sequence[float], source: hs.Source) -> Iterator[tuple[str, Candidate]]:
    for back, span in ((0, 1), (0, 4)):
        yield f"ridge on the last {span}", Candidate(Probe(back=back, span=span), source)
    for keep in (0.01, 0.05, 0.2, 1.0):
        yield f"head2toe keep {keep:g}", Candidate(Head2Toe(keep=keep), source)
    for kind in (FineTune, *tuners(names.split(","))) if names else ():
        method = kind()
        if isinstance(method, Method):
            yield from ((f"{kind.name} rate {rate:g}", Candidate(replace(method, rate=rate), source)) for rate in rates)


def crossed(candidate: Candidate, views: Views, y: np.ndarray, splits: Sequence[Split]) -> list[float]:
    classes, x = int(y.max()) + 1, views.array(candidate.view)
    fitted = [(learn(candidate, views, train, y, classes=classes, seed=SEED), test) for train, test in splits]
    return [score(y[test], model.output(np.asarray(x[test])), classes=classes) for model, test in fitted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--methods", default=ADAPTERS)
    parser.add_argument("--rates", default=RATES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for name, modality, source_name, (items, labels) in targets(options.data):
            source = hs.sources.get(source_name)
            names, y = np.unique(labels, return_inverse=True)
            views = Views(items, [door(modality).digest(item) for item in items], {source.name: source}, Store(Path(scratch)), modality)
            views.prime(source.name)
            splits = folds(labels, groups=None, k=FOLDS, repeats=1, seed=SEED)
            print(f"{name}: {len(y)} cases of {len(names)} classes on {source.name}")
            for what, candidate in candidates(options.methods, [float(rate) for rate in options.rates.split(",")], source):
                began = time.process_time()
                scores = crossed(candidate, views, y, splits)
                error = np.std(scores, ddof=1) / np.sqrt(len(scores))
                print(f"  {what:24} {np.mean(scores):.3f} +- {error:.3f}  {time.process_time() - began:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
