"""What can be done to a shipped model with unlabelled target images alone, on pairs of PACS domains: each move's gain over the model as it is.

    python benchmarks/source_free.py --data DIR --out rows.jsonl [--each 20] [--only photo,cartoon]
    python benchmarks/source_free.py --out rows.jsonl --table

The shipped model is ridge with leave-one-out on the final features of EfficientNet-Lite0, trained on three quarters of a domain's images (``--each`` of each
class); the rest gives its confusions and its temperature. The moves are those of ``headstart adapt RUN TARGET``, with their defaults, on all images of the
other domain, whose labels score and choose nothing. "the rule" is the candidate that two validators of the panel rank first, as there; it ships nothing.
Balanced accuracy, in points. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import headstart as hs
from headstart.adaptation import SOURCE_ONLY, Side
from headstart.adapting.alone import moves, ranked_first
from headstart.adapting.ground import grounded
from headstart.adapting.origin import Origin, target_alone
from headstart.bench import Silent
from headstart.core import Domain, InputError, Inspection, Task
from headstart.evaluate import balanced_accuracy, holdout, temperature
from headstart.export import Predictor
from headstart.learner import outputs
from headstart.methods.features import RidgeLOO
from headstart.methods.method import View
from headstart.modality import door
from headstart.search import Clock

PACS = ("photo", "art_painting", "cartoon", "sketch")
HELD = 0.25


def sample(data: Path, domain: str, each: int) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """Return paths and class codes of as many images of each class, drawn once, and the classes."""
    dice = np.random.default_rng(list(domain.encode()))
    folders = sorted(path for path in (data / "pacs112" / domain).iterdir() if path.is_dir())
    found = [(str(path), c) for c, folder in enumerate(folders) for path in sorted(dice.permutation(sorted(folder.glob("*.jpg"))).tolist()[:each])]
    return [path for path, _ in found], np.array([c for _, c in found]), tuple(folder.name for folder in folders)


def shipped(name: str, paths: list[str], y: np.ndarray, labels: tuple[str, ...], folder: Path) -> Origin:
    """Return the run that would have shipped ridge on final features."""
    network = hs.sources.get("efficientnet_lite0")
    folder.mkdir(exist_ok=True)
    view = View("pooled", network.name, (len(network.stages),))
    task = Task("classification", "image", Domain(name, paths), labels)
    side = Side(name, len(y), len(y), 0, {label: int((y == c).sum()) for c, label in enumerate(labels)})
    read = (task, Inspection(tuple(door("image").digest(path) for path in paths)))
    predictor = Predictor(labels, "image", {}, None, view, network, {}, 1.0, 0.0)
    first = Origin(name, "classification", predictor, name, side, None)
    views = grounded(target_alone(first, read, labels="none"), [network], folder=folder, clock=Clock(1e9), observer=Silent(), seed=0, engine="torch").views
    x = np.asarray(views.array(view))
    train, held = holdout([labels[c] for c in y], share=HELD, seed=0)
    model = RidgeLOO().fit(x[train], y[train])
    p = model.predict_proba(x[held])
    confusion = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(confusion, (p.argmax(axis=1), y[held]), 1)
    whole = Predictor(labels, "image", {}, model, view, network, {}, temperature(y[held], p), 0.0)
    return Origin(name, "classification", whole, name, side, None, tuple(map(tuple, confusion.tolist())))


def measured(origin: Origin, paths: list[str], y: np.ndarray, name: str, folder: Path) -> dict[str, object]:
    """Return the score of each candidate on the target, and whom the validators rank first."""
    task = Task("classification", "image", Domain(name, paths))
    read = (task, Inspection(tuple(door("image").digest(path) for path in paths)))
    domains = target_alone(origin, read, labels="none")
    networks = [origin.source] if origin.source is not None else []
    folder.mkdir(exist_ok=True)
    ground = grounded(domains, networks, folder=folder, clock=Clock(1e9), observer=Silent(), seed=0, engine="torch", origin=origin)
    said = {SOURCE_ONLY: outputs(origin.predictor.model, np.asarray(ground.views.array(origin.predictor.view)), classes=domains.classes)}
    for entry in moves(ground, origin):
        x = ground.views.array(entry.candidate.view)[domains.target]
        try:
            said[entry.name] = outputs(entry.candidate.method.moved(x, seed=0, deadline=math.inf), x, classes=domains.classes)
        except InputError as refused:
            print(f"{origin.name} -> {name}: {entry.name} refused: {refused}", flush=True)
    scores = {candidate: 100.0 * balanced_accuracy(y, p.argmax(axis=1)) for candidate, p in said.items()}
    return {"pair": f"{origin.name} -> {name}", "scores": scores, "first": ranked_first(said, SOURCE_ONLY, domains.counted)[0]}


def collect(data: Path, out: Path, domains: list[str], each: int) -> None:
    """Measure the pairs that ``out`` lacks."""
    done = {json.loads(line)["pair"] for line in out.read_text().splitlines()} if out.exists() else set()
    samples = {domain: sample(data, domain, each) for domain in domains}
    with tempfile.TemporaryDirectory() as scratch:
        for source, target in itertools.permutations(domains, 2):
            if f"{source} -> {target}" in done:
                continue
            origin = shipped(source, *samples[source], Path(scratch) / source)
            row = measured(origin, *samples[target][:2], target, Path(scratch) / f"{source}-{target}")
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def table(out: Path) -> None:
    """Print gains over the model as it is, by move, with intervals over pairs."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row["scores"] if name != SOURCE_ONLY))
    print("| pair | source only | " + " | ".join(names) + " | first by the validators |")
    print("| --- | --- |" + " --- |" * (len(names) + 1))
    for row in rows:
        base = row["scores"][SOURCE_ONLY]
        cells = [f"{row['scores'][name] - base:+.1f}" if name in row["scores"] else "refused" for name in names]
        print(f"| {row['pair']} | {base:.1f} | " + " | ".join(cells) + f" | {row['first']} |")
    picked = {**{name: [row["scores"].get(name, row["scores"][SOURCE_ONLY]) for row in rows] for name in names}}
    picked["the rule"] = [row["scores"][row["first"]] for row in rows]
    for name, scores in picked.items():
        gains = np.array(scores) - [row["scores"][SOURCE_ONLY] for row in rows]
        half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
        worse = 100.0 * np.mean(gains < -0.5)
        print(f"{name}: {gains.mean():+.1f} ({gains.mean() - half:+.1f} to {gains.mean() + half:+.1f}), worse in {worse:.0f} %, at worst {gains.min():+.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--only", default=",".join(PACS))
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        collect(asked.data, asked.out, asked.only.split(","), asked.each)
    table(asked.out)


if __name__ == "__main__":
    main()
