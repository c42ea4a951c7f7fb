"""Frozen features of 1,000 inputs, end to end from disk: Headstart's engines beside PyTorch as users run it, and beside PyTorch tuned.

    python benchmarks/extract.py [--n 1000] [--rounds 3] [--only lite0,resnet50,minilm]

Every measurement is a fresh process, and the contestants alternate in each round: what an allocator has seen before would decide otherwise. Seconds run
from the first file to the last feature, hashing and writing to the store included for Headstart; building the network, converting it for an engine and
choosing one are not, since they are done once per machine and source; what they took is printed apart.

default : PyTorch eager, float32, batches of 32, no_grad, a DataLoader with 2 workers (texts: batches in the order given)
tuned   : the same with channels-last weights and inputs, bfloat16 autocast and the allocator's thresholds set (texts: sorted by length, bfloat16)
bf16    : Headstart on the bfloat16 engine that it chooses; float32: on the fastest float32 engine

Images are solar cells (ELPV) as JPEG files of 500 x 500; texts are docstrings of scikit-learn, their classes its sub-packages. ResNet-50 has random weights,
its BatchNorm calibrated; the others have their own. The features' cosine is with Headstart on PyTorch in float32, after the mean over inputs is
subtracted; the probe is ridge with leave-one-out on all n. Results go to RESULTS.md by hand.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
WORDS = {"resnet50": "image", "lite0": "image", "minilm": "text"}
CONTESTANTS = ("default", "tuned", "bf16", "float32")


def write_images(folder: Path, n: int) -> tuple[list[str], list[int]]:
    """Write n cells as JPEG of 500 x 500, half functional and half defective; return paths and classes."""
    from elpv_dataset.utils import load_dataset
    from PIL import Image

    pictures, probability, _ = load_dataset()
    dice = np.random.default_rng(0)
    folder.mkdir()
    paths, y = [], []
    for code, value in enumerate((0.0, 1.0)):
        for i in dice.choice(np.flatnonzero(probability == value), n // 2, replace=False):
            paths.append(str(folder / f"{code}-{i:04d}.jpg"))
            Image.fromarray(pictures[i]).resize((500, 500), Image.Resampling.BICUBIC).convert("RGB").save(paths[-1], quality=92)
            y.append(code)
    order = dice.permutation(len(paths))
    return [paths[i] for i in order], [y[i] for i in order]


def docstrings(n: int) -> tuple[list[str], list[int]]:
    """First paragraphs of docstrings in scikit-learn, and the sub-package of each."""
    import ast

    import sklearn

    root = Path(sklearn.__file__).parent
    found: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        package = path.relative_to(root).parts[0]
        if "tests" in path.parts or package.endswith(".py") or package == "externals":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)) and len(text) > 60:
                found.setdefault(package, []).append(" ".join(text.split())[:600])
    common = sorted(found, key=lambda p: -len(found[p]))[:10]
    rows = list({text: (text, code) for code, package in enumerate(common) for text in found[package]}.values())
    order = np.random.default_rng(0).permutation(len(rows))[:n]
    return [rows[i][0] for i in order], [rows[i][1] for i in order]


def source_of(model: str) -> Any:
    """The source; ResNet-50 with the architecture's own initial weights and calibrated BatchNorm, the same in every process."""
    import torch

    import headstart as hs
    from headstart.core import Source
    from headstart.sources import twin

    if model == "lite0":
        return hs.sources.get("efficientnet_lite0")
    if model == "minilm":
        return hs.sources.get("all-MiniLM-L6-v2")
    body = twin({"library": "timm", "architecture": "resnet50"}, seed=0)
    body.train()
    with torch.no_grad():
        for k in range(4):
            body(torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(k)))
    recipe = {"library": "timm", "architecture": "resnet50"}
    return Source("resnet50", dim=2048, stages=tuple(body.stages), opener=lambda: body, digest=lambda: "calibrated", recipe=recipe)


class Pictures:
    """A dataset as users write it."""

    def __init__(self, paths: list[str], look: Any) -> None:
        self.paths, self.look = paths, look

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Any:
        from PIL import Image

        return self.look(Image.open(self.paths[i]).convert("RGB"))


def peer_images(source: Any, paths: list[str], *, tuned: bool) -> tuple[np.ndarray, float]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    from headstart.activations.engines import tune_allocator

    look, body = source.backbone.preprocess, source.backbone
    mode = InterpolationMode.BICUBIC if look.interpolation == "bicubic" else InterpolationMode.BILINEAR
    steps = [transforms.Resize(look.resize, mode), transforms.CenterCrop(look.size), transforms.ToTensor(), transforms.Normalize(look.mean, look.std)]
    if tuned:
        tune_allocator()
        body = body.to(memory_format=torch.channels_last)
    loader = DataLoader(Pictures(paths, transforms.Compose(steps)), batch_size=BATCH, num_workers=2)
    began = time.perf_counter()
    out = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
        for x in loader:
            out.append(body(x.contiguous(memory_format=torch.channels_last) if tuned else x).float())
    features = torch.cat(out).numpy()
    return features, time.perf_counter() - began


def peer_texts(source: Any, texts: list[str], *, tuned: bool) -> tuple[np.ndarray, float]:
    import torch
    from transformers import AutoModel

    tokenizer, folder = source.backbone.tokenizer, None
    from headstart.sources.packages import TOKENIZER, _folder

    folder = _folder(TOKENIZER)
    model = AutoModel.from_pretrained(folder).eval()
    began = time.perf_counter()
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i])) if tuned else list(range(len(texts)))
    out = np.empty((len(texts), 384), dtype=np.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            out[rows] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    return out, time.perf_counter() - began


def ours(source: Any, items: list[str], engine: str, prepared: Path, scratch: Path) -> tuple[np.ndarray, float]:
    from headstart.activations import extract
    from headstart.activations.store import Store
    from headstart.modality import door

    root = scratch / f"store-{time.monotonic_ns()}"
    shutil.copytree(prepared, root)
    source.backbone.preprocess  # noqa: B018  loads the network, as the peers' is
    began = time.perf_counter()
    digests = [door(source.modality).digest(item) for item in items]
    done = extract(source, items, digests=digests, cuts=(len(source.stages),), store=Store(root), engine=engine)
    features = np.asarray(done.pooled[len(source.stages)])
    seconds = time.perf_counter() - began
    assert done.computed == len(items)
    shutil.rmtree(root)
    return features, seconds


def prepare(source: Any, items: list[str], y: list[int], prepared: Path) -> dict[str, Any]:
    """Convert the network for every engine, and choose; return the engines to run and how long that took."""
    from headstart import choice
    from headstart.activations import graphs_of, wanted_of
    from headstart.activations.engines import ENGINES, available, open_engine
    from headstart.activations.store import Store
    from headstart.modality import door

    choice.FEWEST = 0  # however few: the choice is what is measured
    store, wanted = Store(prepared), wanted_of((len(source.stages),), ())
    began = time.perf_counter()
    candidates = [e for e in available() if e != "onnxruntime" or "openvino" not in available()]
    for engine in candidates:
        open_engine(engine, source, wanted, kept=graphs_of(source, wanted, store=store, engine=engine))
    converted = time.perf_counter() - began
    began = time.perf_counter()
    x = door(source.modality)
    chooser = choice.Chooser("auto", items, [x.digest(i) for i in items], np.asarray(y), np.arange(len(items)), max(y) + 1, Store(prepared / "choice"))
    chosen = chooser(source)
    why = chooser.choices[source.name].why
    (known,) = json.loads((prepared / "choice" / "costs.json").read_text()).values()
    (speeds,) = known["engines"].values()
    shutil.rmtree(prepared / "choice")
    full = min((e for e in candidates if ENGINES[e][2] == "float32"), key=lambda e: speeds[e] or np.inf)
    return {"bf16": chosen, "float32": full, "plain": "torch", "why": why, "converting": converted, "choosing": time.perf_counter() - began, "ms": speeds}


def job(model: str, contestant: str, given: dict[str, Any], pipe: Any) -> None:
    source, items = source_of(model), given["items"]
    if contestant == "prepare":
        pipe.send(prepare(source, items, given["y"], given["prepared"]))
    elif contestant in ("default", "tuned"):
        pipe.send((peer_texts if model == "minilm" else peer_images)(source, items, tuned=contestant == "tuned"))
    else:
        pipe.send(ours(source, items, given[contestant], given["prepared"], given["scratch"]))


def in_process(model: str, contestant: str, given: dict[str, Any], job: Any = job) -> Any:
    spawn = mp.get_context("spawn")
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=job, args=(model, contestant, given, theirs))
    process.start()
    theirs.close()
    out = mine.recv()
    process.join()
    return out


def cosine(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean and least cosine of rows, the mean row of b taken from both."""
    a, b = a.astype(np.float64) - b.mean(0), b.astype(np.float64) - b.mean(0)
    c = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return float(c.mean()), float(c.min())


def probe(x: np.ndarray, y: list[int]) -> float:
    from headstart.methods.features.ridge import RidgeLOO

    return float(np.mean(RidgeLOO().fit(x, y).loo_decision_.argmax(1) == np.asarray(y)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="lite0,resnet50,minilm")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images = write_images(scratch / "images", options.n)
        for model in options.only.split(","):
            items, y = images if WORDS[model] == "image" else docstrings(options.n)
            given: dict[str, Any] = {"items": items, "y": y, "scratch": scratch, "prepared": scratch / f"prepared-{model}"}
            made = in_process(model, "prepare", given)
            given |= made
            print(f"\n{model}: converting {made['converting']:.1f} s, choosing {made['choosing']:.1f} s. {made['why']}", flush=True)
            print("ms per input of a batch: " + ", ".join(f"{e} {1e3 * s:.2f}" if s else f"{e} cannot" for e, s in made["ms"].items()))
            seconds: dict[str, list[float]] = {c: [] for c in CONTESTANTS}
            right, _ = in_process(model, "plain", given)
            features = {}
            for _ in range(options.rounds):
                for contestant in CONTESTANTS:
                    features[contestant], took = in_process(model, contestant, given)
                    seconds[contestant].append(took)
            middle = {c: float(np.median(s)) for c, s in seconds.items()}
            print(f"{'':12}{'engine':16}{'seconds':>24}{'x default':>11}{'x tuned':>9}{'cosine':>10}{'worst':>8}{'probe':>7}")
            for c in CONTESTANTS:
                mean, worst = cosine(features[c], right)
                ratios = [float(np.median(np.divide(seconds[other], seconds[c]))) for other in ("default", "tuned")]
                each = " / ".join(f"{s:.1f}" for s in seconds[c])
                name = given.get(c, "torch")
                print(f"{c:12}{name:16}{each:>24}{ratios[0]:>11.2f}{ratios[1]:>9.2f}{mean:>10.5f}{worst:>8.4f}{probe(features[c], y):>7.3f}")
            print(f"inputs per second: {', '.join(f'{c} {len(items) / s:.0f}' for c, s in middle.items())}", flush=True)


if __name__ == "__main__":
    main()
