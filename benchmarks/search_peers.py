"""The same seconds for fastai's usual script and for Headstart: who is better on the same held-out images?

    python benchmarks/search_peers.py --data DIR --out peers.jsonl [--budget 60] [--only TASK]
    python benchmarks/search_peers.py --out peers.jsonl --table

About 200 training images of each task and up to 500 others, scored by balanced accuracy, one seed. Each contestant is a process of its own with two threads, in
turn, and has so many seconds from its first image to a model that can predict. fastai wants to be installed beside Headstart, in an environment of its own
(pip install fastai); what is missing is skipped.

fastai    : ``vision_learner`` of EfficientNet-Lite0 with its ImageNet weights, a fifth of the images for validation, images made 224 pixels with
            ``aug_transforms()``, and ``fine_tune``: a frozen epoch, then as many of all as its seconds pay for, at least one
headstart : ``transfer`` from EfficientNet-Lite0 as it comes, which follows its plan, with the network's first load counted
bayes     : the same with ``search="bayes"``

AutoGluon-MultiModal 1.6.3 cannot be installed beside: it asks for timm<1.0.7, and Headstart for timm>=1.0.20; also for torch<2.14, torchvision<0.29,
transformers<5.15 and pandas<2.4, of which Headstart is pinned to later versions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pool
from collect import rows_of
from extract import in_process
from headstart.evaluate import balanced_accuracy

TASKS = ("elpv poly", "pacs sketch", "chest x-rays", "mnist", "pacs cartoon", "elpv mono", "usps", "coil")
SIDE, BATCH = 224, 32
DEARER = 2.5  # an epoch in which all learns, in frozen ones: the backward pass goes through the whole network


def written(target: pool.Target, folder: Path) -> dict[str, Any]:
    """Write all images as PNG files, under a folder for each class, and return where they are and what they show."""
    from PIL import Image

    from headstart.modality.image import read

    out: dict[str, Any] = {"folder": folder, "labels": target.labels, "y_test": target.y[target.test].tolist()}
    for side, rows in (("train", target.train), ("test", target.test)):
        out[side] = []
        for i in rows:
            path = folder / side / target.labels[target.y[i]] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read(target.items[i])).save(path)
            out[side].append(str(path))
    return out


def fastai(given: dict[str, Any]) -> tuple[list[str], str]:
    """fastai's usual script; its epochs are counted by the clock, its steps are those of ``fine_tune``."""
    from fastai.callback.schedule import Learner  # noqa: F401  (it patches fit_one_cycle onto the learner)
    from fastai.vision.all import ImageDataLoaders, Resize, aug_transforms, set_seed, vision_learner

    multiprocessing.set_start_method("fork", force=True)  # why: a spawned process hands its way of starting on, and loaders would import torch in every epoch
    began = time.monotonic()
    set_seed(0)
    loaders = ImageDataLoaders.from_folder(given["folder"] / "train", valid_pct=0.2, seed=0, bs=BATCH, item_tfms=Resize(SIDE), batch_tfms=aug_transforms())
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained_cfg_overlay={"file": str(given["weights"])})
    with learner.no_bar(), learner.no_logging():
        started = time.monotonic()
        learner.fit_one_cycle(1, slice(2e-3), pct_start=0.99)
        epoch = time.monotonic() - started
        epochs = max(1, int((given["budget"] - (time.monotonic() - began)) / (DEARER * epoch)))
        learner.unfreeze()
        learner.fit_one_cycle(epochs, slice(1e-5, 1e-3), pct_start=0.3, div=5.0)
    given["seconds"] = time.monotonic() - began
    with learner.no_bar(), learner.no_logging():
        found = learner.get_preds(dl=loaders.test_dl(given["test"]))[0].argmax(dim=1)
    return [loaders.vocab[i] for i in found], f"1 + {epochs} epochs"


def headstart(given: dict[str, Any], search: str = "") -> tuple[list[str], str]:
    """Headstart as it comes, from one network."""
    import headstart as hs

    began = time.monotonic()
    task = hs.Task.from_folder(given["folder"] / "train")
    result = hs.transfer(task, [hs.sources.get("efficientnet_lite0")], budget=given["budget"], seed=0, search=search)
    given["seconds"] = time.monotonic() - began
    shipped = result.arm(result.shipped)
    return [
        one.label for one in result.predict(given["test"])
    ], f"{result.verdict.decision}, ships {result.shipped} ({'' if shipped is None else shipped.method})"


CONTESTANTS = {"fastai": fastai, "headstart": headstart, "bayes": lambda given: headstart(given, "bayes")}


def job(model: str, contestant: str, given: dict[str, Any], pipe: Any) -> None:
    torch.set_num_threads(2)
    labels, said = CONTESTANTS[contestant](given)
    codes = [given["labels"].index(label) for label in labels]
    pipe.send({"score": balanced_accuracy(given["y_test"], codes), "seconds": given["seconds"], "said": said})


def weights_for_timm(path: Path) -> Path:
    """Write the packaged weights under timm's names, as a user who has no hub would."""
    from headstart import sources

    body = sources.get("efficientnet_lite0").backbone
    names = {"stem.conv.": "conv_stem.", "stem.bn.": "bn1.", "head.conv.": "conv_head.", "head.bn.": "bn2."} | {f"blocks{i}.": f"blocks.{i}." for i in range(7)}
    state = {}
    for name, tensor in body.stages.state_dict().items():
        old = next(old for old in names if name.startswith(old))
        state[names[old] + name.removeprefix(old)] = tensor
    state |= {f"classifier.{name}": tensor for name, tensor in body.classifier.state_dict().items()}
    torch.save(state, path)
    return path


def measure(options: argparse.Namespace) -> None:
    pool.TRAIN, pool.TEST = 200, 500
    done = {(row["task"], row["contestant"]) for row in rows_of(options.out)}
    racing = [name for name in CONTESTANTS if name != "fastai" or find_spec("fastai") is not None]
    if "fastai" not in racing:
        print("fastai skipped: it is not installed", flush=True)
    for name in TASKS if options.only is None else options.only.split(","):
        missing = [c for c in racing if (name, c) not in done]
        for target in pool.targets(options.data, None, only=name) if missing else ():
            with tempfile.TemporaryDirectory() as folder:
                given = {**written(target, Path(folder)), "budget": options.budget, "weights": weights_for_timm(Path(folder) / "lite0.pt")}
                for contestant in missing:
                    found = in_process("", contestant, given, job)
                    row = {"task": name, "contestant": contestant, "budget": options.budget, "n": len(target.train), "n_test": len(target.test), **found}
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)


def table_of(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Scores by task, seconds in brackets, and the mean."""
    cells: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cells[row["task"]][row["contestant"]] = row
    names = [name for name in CONTESTANTS if any(name in held for held in cells.values())]
    yield "| task, held out | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names)
    for task, held in cells.items():
        n = next(iter(held.values()))["n_test"]
        shown = [f"{held[c]['score']:.3f} ({held[c]['seconds']:.0f} s; {held[c]['said']})" if c in held else "-" for c in names]
        yield f"| {task}, {n} | " + " | ".join(shown) + " |"
    whole = [held for held in cells.values() if set(names) <= set(held)]
    if whole:
        yield f"| mean of {len(whole)} | " + " | ".join(f"{np.mean([held[c]['score'] for held in whole]):.3f}" for c in names) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds that each contestant has")
    parser.add_argument("--only", default=None, help="tasks, separated by commas")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    print("\n".join(table_of(rows_of(options.out))))


if __name__ == "__main__":
    main()
