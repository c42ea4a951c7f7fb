"""What every source of the pool reaches on every real target: frozen, and fine-tuned, in folds and on test images.

    python benchmarks/collect.py --data DIR --packages DIR --out rows.jsonl [--only TARGET] [--list]
    python benchmarks/collect.py --out rows.jsonl --ship src/headstart/forecast/past_tasks.jsonl

One row per (target, source), written when it is measured; a run that is started again goes on where it was. Balanced accuracy throughout. Each row holds

- ``frozen``: ridge on the final features, five stratified folds of the training images, with the 90 % interval; ``frozen_test`` on the test images;
- ``fine_tuned``: Headstart's ``FineTune`` with its defaults (50 steps of 32), from the cut that ``CUTS`` names (about the last third of the layers; of
  EfficientNet and MobileNetV2 the last block and what is behind it, which two cores can afford), trained on all training images, on the test images;
- ``anchor``: the same training in three folds of the training images: what a run can know before it promises anything;
- ``baseline``: the best, by five folds, of three classical models on simple features, in folds and on the test images.

Final features of the training images, class codes and the source's own class probabilities lie beside, in ``OUT``'s folder ``features``, so that
scores can be computed afterwards. Activations go to the store (``HEADSTART_CACHE``). One thread, one seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pool
from headstart.activations.store import Store, default_root
from headstart.core import Source
from headstart.evaluate import Split, folds, interval_of_mean, interval_of_test, score, share_tested
from headstart.forecast import ANCHOR_FOLDS, Past
from headstart.learner import Candidate, learn
from headstart.methods import FineTune, Probe, SimpleImage
from headstart.methods.method import View
from headstart.modality.image import digest
from headstart.views import Views

FOLDS, SEED = 5, 0
CUTS = {"EfficientNet": 7, "SqueezeNet": 5, "EfficientNet MobileNetV2": 7, "EfficientNet MobileNetV1": 5, "CifarResNet": 7}
SIMPLE = (SimpleImage("handmade", "svm"), SimpleImage("handmade", "forest"), SimpleImage("pixels", "svm"))


def tuned(source: Source) -> Source:
    """Return the source with the one cut that fine-tuning starts from here."""
    family = source.family
    if source.name.startswith("mobilenet"):
        family = f"EfficientNet MobileNetV{source.name[len('mobilenetv')]}"  # timm builds MobileNets by its class EfficientNet
    return dataclasses.replace(source, tune_cuts=(CUTS[family],))


def crossed(candidate: Candidate, views: Views, y: np.ndarray, classes: int, splits: Sequence[Split], groups: np.ndarray) -> list[float]:
    """Scores over folds."""
    x = views.array(candidate.view)
    out = []
    for train, test in splits:
        fitted = learn(candidate, views, train, y, classes=classes, seed=SEED, groups=groups)
        out.append(score(y[test], fitted.output(np.asarray(x[test])), classes=classes))
    return out


def tested(candidate: Candidate, views: Views, target: pool.Target) -> dict[str, Any]:
    """Score on the test images after training on all training images."""
    classes = len(target.labels)
    fitted = learn(candidate, views, target.train, target.y, classes=classes, seed=SEED, groups=target.groups)
    output = fitted.output(np.asarray(views.array(candidate.view)[target.test]))
    truth = target.y[target.test]
    return {"score": score(truth, output, classes=classes), "interval": interval_of_test(truth, output.argmax(axis=1))}


def measure(target: pool.Target, source: Source, views: Views) -> dict[str, Any]:
    """One row but for the baseline."""
    began, classes = time.process_time(), len(target.labels)
    views.prime(source.name)
    splits, few = (_folds(target, k) for k in (FOLDS, ANCHOR_FOLDS))
    probe, full = Candidate(Probe(), source), Candidate(FineTune(), source)
    frozen = crossed(probe, views, target.y, classes, splits, target.groups)
    anchor = crossed(full, views, target.y, classes, few, target.groups)
    return {
        "source": source.name,
        "weights": source.weights_sha256,
        "parameters": source.parameters,
        "dim": source.dim,
        "trained_on": source.trained_on,
        "cut": source.backbone.cuts[source.tune_cuts[0]],
        "steps": FineTune().steps,
        "frozen": {"score": float(np.mean(frozen)), "interval": interval_of_mean(frozen, test_share=share_tested(splits)), "folds": frozen},
        "frozen_test": tested(probe, views, target),
        "anchor": {"score": float(np.mean(anchor)), "interval": interval_of_mean(anchor, test_share=share_tested(few)), "folds": anchor},
        "fine_tuned": tested(full, views, target),
        "seconds": time.process_time() - began,
    }


def baseline(target: pool.Target, views: Views) -> dict[str, Any]:
    """The best classical model by folds, and what it scores on the test images."""
    splits = _folds(target, FOLDS)
    tried = [(crossed(Candidate(m), views, target.y, len(target.labels), splits, target.groups), m) for m in SIMPLE]
    best, method = max(tried, key=lambda one: float(np.mean(one[0])))
    interval = interval_of_mean(best, test_share=share_tested(splits))
    test = tested(Candidate(method), views, target)
    return {"score": float(np.mean(best)), "interval": interval, "folds": best, "test": test, "model": f"{method.model} on {method.features} features"}


def _folds(target: pool.Target, k: int) -> list[Split]:
    rows = target.train
    pairs = folds(target.y[rows].tolist(), groups=target.groups[rows], k=k, seed=SEED)
    return [(rows[a], rows[b]) for a, b in pairs]


def save_features(target: pool.Target, source: Source, views: Views, path: Path) -> None:
    """Final features (n, d) float32 and codes (n,) of the training images; ``theta`` (n, z), where the source has a classifier."""
    x = views.array(View("pooled", source.name, (len(source.stages),)))[target.train]
    arrays = {"x": x.astype(np.float32), "y": target.y[target.train]}
    if source.backbone.classifier is not None:
        with torch.inference_mode():
            logits = source.backbone.classifier(torch.from_numpy(arrays["x"])).reshape(len(x), -1)
            arrays["theta"] = logits.softmax(dim=1).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def features_of(out: Path, target: str, source: str) -> Path:
    """Where :func:`save_features` puts them."""
    return out.parent / "features" / f"{target}--{source}.npz".replace(" ", "_")


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the finished rows; a last line that a kill tore is left out."""
    if not out.exists():
        return []
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def as_past(row: dict[str, Any]) -> Past:
    """Return a row as the history keeps it."""
    names = ("source", "weights", "n", "classes", "parameters", "trained_on")
    scores = {"frozen": row["frozen"], "fine_tuned": row["fine_tuned"], "anchor": row["anchor"], "baseline": row["baseline"]}
    return Past(task=row["digest"], **{k: row[k] for k in names}, **{k: round(v["score"], 4) for k, v in scores.items()})


def ship(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the history that the package brings; its first line, which is no row, says what it is."""
    about = {"made by": "benchmarks/collect.py --ship", "targets": list(dict.fromkeys(row["target"] for row in rows))}
    lines = [about, *(dataclasses.asdict(as_past(row)) for row in rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="a target's name")
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument("--ship", type=Path, help="write the rows as a history of past tasks, and end")
    args = parser.parse_args()
    if args.ship:
        ship(rows_of(args.out), args.ship)
        return
    if args.list:
        print("\n".join(pool.names(args.data, args.packages)))
        return
    torch.set_num_threads(1)
    sources = [tuned(s) for s in pool.sources(args.data)]
    done = {(row["target"], row["source"]) for row in rows_of(args.out)}
    for target in pool.targets(args.data, args.packages, only=args.only):
        missing = [s for s in sources if (target.name, s.name) not in done]
        if not missing:
            continue
        digests = [digest(item) for item in target.items]
        views = Views(target.items, digests, {s.name: s for s in sources}, Store(default_root()))
        about = {
            "target": target.name,
            "digest": hashlib.sha256(json.dumps([digests, target.y.tolist()]).encode()).hexdigest(),
            "n": len(target.train),
            "n_test": len(target.test),
            "classes": len(target.labels),
            "baseline": baseline(target, views),
        }
        for source in missing:
            row = {**about, **measure(target, source, views)}
            save_features(target, source, views, features_of(args.out, target.name, source.name))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            scores = " ".join(f"{k} {row[k]['score']:.3f}" for k in ("baseline", "frozen", "frozen_test", "anchor", "fine_tuned"))
            print(f"{target.name}, {source.name}: {scores}, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
