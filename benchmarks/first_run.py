"""Time, memory and accuracy of the main job, beside scikit-learn on raw pixels and a plain PyTorch loop on the same network.

    python benchmarks/first_run.py [--n 1000] [--budget 5m] [--seeds 3] [--epochs 5]

Data: solar cells of the packaged ELPV set (functional against defective). Every contestant sees the same training part and is scored
once on the same test part, which nothing tunes on; the three run in turn for each seed, interleaved. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def images(folder: Path, *, n: int, seed: int) -> Path:
    """Write n ELPV cells, half functional and half defective, as class folders."""
    from elpv_dataset.utils import load_dataset
    from PIL import Image

    pictures, probability, _ = load_dataset()
    generator = np.random.default_rng(seed)
    for name, rows in (("functional", np.flatnonzero(probability == 0.0)), ("defective", np.flatnonzero(probability == 1.0))):
        (folder / name).mkdir(parents=True)
        for i in generator.choice(rows, min(n // 2, len(rows)), replace=False):
            Image.fromarray(pictures[i]).save(folder / name / f"{i:04d}.png")
    return folder


def split(task: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The split that the main job makes for that seed."""
    from headstart.evaluate import holdout
    from headstart.evidence import joined_groups
    from headstart.modality.image import digest

    y = np.asarray(task.codes)
    groups = joined_groups(None, [digest(p) for p in task.target.x])
    train, test = holdout(y, groups=groups, share=0.25, seed=seed)
    return y, train, test


def main_job(folder: Path, *, seed: int, budget: str, epochs: int) -> dict[str, float]:
    import headstart as hs

    task = hs.Task.from_folder(folder)
    result = hs.transfer(task, hs.sources.available(task), budget=budget, seed=seed)
    arm = next(a for a in result.arms if a.name == result.shipped)
    return {"test": arm.test.value, "gain": result.verdict.gain}


def pixels(folder: Path, *, seed: int, budget: str, epochs: int) -> dict[str, float]:
    """The better, by cross-validation, of logistic regression and an SVM on 32 x 32 pixels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    import headstart as hs
    from headstart.modality import simple

    task = hs.Task.from_folder(folder)
    y, train, test = split(task, seed)
    x = simple.pixels(task.target.x)
    grids = [
        (LogisticRegression(max_iter=2000, class_weight="balanced"), {"logisticregression__C": np.logspace(-4, 1, 6)}),
        (SVC(class_weight="balanced"), {"svc__C": [0.3, 3.0, 30.0], "svc__gamma": ["scale", 1e-4]}),
    ]
    fitted = [GridSearchCV(make_pipeline(StandardScaler(), m), g, scoring="balanced_accuracy", cv=5).fit(x[train], y[train]) for m, g in grids]
    best = max(fitted, key=lambda g: g.best_score_)
    return {"test": float(balanced_accuracy_score(y[test], best.predict(x[test])))}


class Pictures:
    """What a DataLoader asks of a dataset; at the top of the file, so that a worker process can be sent one."""

    def __init__(self, paths: list[str], y: np.ndarray, look: Any) -> None:
        self.paths, self.y, self.look = paths, y, look

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from headstart.modality.image import read

        return self.look(read(self.paths[i])), int(self.y[i])


def plain_loop(folder: Path, *, seed: int, budget: str, epochs: int) -> dict[str, float]:
    """Lite0, every weight trained: AdamW 1e-4, batch 32, cosine, flips, as a practitioner would write it."""
    import timm
    import torch
    from sklearn.metrics import balanced_accuracy_score
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    import headstart as hs

    torch.manual_seed(seed)
    task = hs.Task.from_folder(folder)
    y, train, test = split(task, seed)
    source = hs.sources.get("efficientnet_lite0")
    look = [v2.ToImage(), v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]

    def pictures(rows: np.ndarray, *, flip: bool) -> Pictures:
        return Pictures([task.target.x[i] for i in rows], y[rows], v2.Compose([*look, v2.RandomHorizontalFlip()] if flip else look))

    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    model.load_state_dict(dict(zip(model.state_dict(), source.backbone.above(0).state_dict().values(), strict=True)))
    net = torch.nn.Sequential(model, torch.nn.Linear(1280, len(task.labels)))
    loader = DataLoader(pictures(train, flip=True), batch_size=32, shuffle=True, drop_last=True, num_workers=1)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(loader))
    for _ in range(epochs):
        net.train()
        for x, t in loader:
            loss = torch.nn.functional.cross_entropy(net(x), t)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.inference_mode():
        guesses = torch.cat([net(x).argmax(1) for x, _ in DataLoader(pictures(test, flip=False), batch_size=32)]).numpy()
    return {"test": float(balanced_accuracy_score(y[test], guesses))}


def measured(job: str, folder: Path, keywords: dict[str, Any], pipe: Any) -> None:
    os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp()
    began = time.perf_counter()
    out = globals()[job](folder, **keywords)
    shutil.rmtree(os.environ["HEADSTART_CACHE"])
    pipe.send({**out, "seconds": time.perf_counter() - began, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    spawn = mp.get_context("spawn")
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = images(Path(scratch) / "cells", n=args.n, seed=seed)
            for job in ("main_job", "pixels", "plain_loop"):
                mine, theirs = spawn.Pipe()
                process = spawn.Process(target=measured, args=(job, folder, {"seed": seed, "budget": args.budget, "epochs": args.epochs}, theirs))
                process.start()
                theirs.close()
                rows.setdefault(job, []).append(mine.recv())
                process.join()
                print(json.dumps({"seed": seed, "job": job, **rows[job][-1]}), flush=True)
    print(f"\n| contestant (n={args.n}, {args.seeds} seeds) | test balanced accuracy | seconds | peak MiB |\n| --- | --- | --- | --- |")
    for job, runs in rows.items():
        scores = [r["test"] for r in runs]
        middle = {k: np.median([r[k] for r in runs]) for k in ("seconds", "peak_mib")}
        print(f"| {job} | {np.mean(scores):.3f} (from {min(scores):.3f} to {max(scores):.3f}) | {middle['seconds']:.0f} | {middle['peak_mib']:.0f} |")


if __name__ == "__main__":
    main()
