"""Ten epochs above a cut: from the activation store, beside loops that run the frozen trunk again in every epoch.

    python benchmarks/cut_training.py [--n 1000] [--rounds 2] [--only lite0-probe,lite0-blocks5,resnet50-layer3]
    python benchmarks/cut_training.py --accuracy 3 [--only lite0-blocks5]

Every measurement is a fresh process, and the contestants alternate. Seconds run from the first file to the last step. Each epoch of a loop does the same
work, so that the loops run one epoch, and its seconds times ten count; Headstart runs all of it: one pass into the store, then ten epochs.

default : a DataLoader with 2 workers, PyTorch eager in float32, the trunk under no_grad, AdamW on what lies above the cut
tuned   : the same with channels-last, bfloat16 autocast and the allocator's thresholds set
store   : ``extract`` on the engine that was chosen, then ``train.fit``

All three train the same parts with the same batches, rates and schedule; BatchNorm keeps its statistics. With ``--accuracy`` the tuned loop runs all ten
epochs on 320 images, and the scores on 320 others are printed for that many seeds. Images are solar cells (ELPV) as JPEG files; see extract.py.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from extract import BATCH, Pictures, in_process, source_of, write_images
from headstart.core import Net
from headstart.methods.method import Criterion, Method, View, target_loss

EPOCHS = 10
CASES = {
    "lite0-probe": ("lite0", "head"),
    "resnet50-probe": ("resnet50", "head"),
    "lite0-blocks5": ("lite0", "blocks5"),
    "resnet50-layer3": ("resnet50", "layer3"),
}
RATE = 1e-3


def net_above(source: Any, cut: int, classes: int) -> Net:
    linear = nn.Linear(source.dim, classes)
    nn.init.zeros_(linear.weight)
    return Net(copy.deepcopy(source.backbone.above(cut)), nn.Sequential(OrderedDict(linear=linear)))


@dataclass(frozen=True)
class Above(Method):
    """Everything above the cut learns at one rate."""

    name: ClassVar[str] = "above"
    arm: ClassVar[Any] = "fine-tuned"
    level: ClassVar[Any] = "model"
    steps: int = 0
    rate: float = RATE

    def view(self, source: Any) -> View:
        return View("raw", source.name, (0,))

    def build(self, source: Any, **given: Any) -> Net:
        raise NotImplementedError

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * (stages + 1)

    def loss(self, net: Net, batch: Any, criterion: Any) -> Any:
        return target_loss(net(batch.x), batch.y, Criterion(criterion.weights * 0 + 1))


def from_store(model: str, stage: str, given: dict[str, Any], seed: int) -> tuple[float, float]:
    """Seconds, and the share of the test images that is right."""
    import shutil

    from headstart.activations import extract
    from headstart.activations.store import Store
    from headstart.modality import door
    from headstart.train import fit, predict_logits

    source, scratch = source_of(model), Path(tempfile.mkdtemp(dir=given["scratch"]))
    cut, y, n = source.backbone.cuts.index(stage), np.asarray(given["y"]), given["n"]
    whole = cut < len(source.stages)
    shutil.copytree(given["prepared"], scratch / "store")
    net = net_above(source, cut, int(y.max()) + 1)

    def activations(paths: list[str]) -> Any:
        digests = [door("image").digest(p) for p in paths]
        cuts, raw = ((), (cut,)) if whole else ((cut,), ())
        done = extract(source, paths, digests=digests, cuts=cuts, raw=raw, store=Store(scratch / "store"), engine=given["bf16"])
        return done.raw[cut] if whole else done.pooled[cut]

    began = time.perf_counter()
    x = activations(given["items"][:n])
    net, _ = fit(Above(steps=EPOCHS * (n // BATCH)), net, x, y[:n], seed=seed, reduced=True)
    seconds = time.perf_counter() - began
    right = 0.0 if n == len(y) else float(np.mean(predict_logits(net, activations(given["items"][n:])).argmax(1) == y[n:]))
    shutil.rmtree(scratch)
    return seconds, right


def loop(model: str, stage: str, given: dict[str, Any], seed: int, *, tuned: bool, epochs: int) -> tuple[float, float]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    from headstart.activations.engines import tune_allocator

    source = source_of(model)
    look, cut, n = source.backbone.preprocess, source.backbone.cuts.index(stage), given["n"]
    y = torch.tensor(given["y"])
    mode = InterpolationMode.BICUBIC if look.interpolation == "bicubic" else InterpolationMode.BILINEAR
    steps = [transforms.Resize(look.resize, mode), transforms.CenterCrop(look.size), transforms.ToTensor(), transforms.Normalize(look.mean, look.std)]
    pictures = Pictures(given["items"], transforms.Compose(steps))
    trunk, net = source.backbone.below(cut).eval(), net_above(source, cut, int(y.max()) + 1)
    if tuned:
        tune_allocator()
        trunk, net = trunk.to(memory_format=torch.channels_last), net.to(memory_format=torch.channels_last)
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    total, warm = EPOCHS * (n // BATCH), max(1, round(0.1 * EPOCHS * (n // BATCH)))

    def factor(step: int) -> float:
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    generator = torch.Generator().manual_seed(seed)

    def features(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return trunk(x.contiguous(memory_format=torch.channels_last) if tuned else x)

    began = time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)[: n // BATCH * BATCH].split(BATCH)
        for rows, x in zip(order, DataLoader(pictures, batch_sampler=[o.tolist() for o in order], num_workers=2), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                loss = nn.functional.cross_entropy(net(features(x)).float(), y[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    seconds = time.perf_counter() - began
    if n == len(y):
        return seconds, 0.0
    net.eval()
    with torch.inference_mode():
        test = DataLoader(pictures, batch_sampler=[list(range(i, min(i + BATCH, len(y)))) for i in range(n, len(y), BATCH)], num_workers=2)
        guesses = torch.cat([net(features(x)).argmax(1) for x in test])
    return seconds, float((guesses == y[n:]).float().mean())


def job(model: str, contestant: str, given: dict[str, Any], pipe: Any) -> None:
    stage, seed = given["stage"], given["seed"]
    if contestant == "prepare":
        pipe.send(prepare(model, stage, given))
    elif contestant == "store":
        pipe.send(from_store(model, stage, given, seed))
    else:
        pipe.send(loop(model, stage, given, seed, tuned=contestant == "tuned", epochs=given["epochs"]))


def prepare(model: str, stage: str, given: dict[str, Any]) -> str:
    """Convert the network, and name the engine: bfloat16 of OpenVINO where it is installed, else of PyTorch."""
    from headstart.activations import graphs_of, wanted_of
    from headstart.activations.engines import available, open_engine
    from headstart.activations.store import Store

    source = source_of(model)
    cut = source.backbone.cuts.index(stage)
    wanted = wanted_of((), (cut,)) if cut < len(source.stages) else wanted_of((cut,), ())
    engine = "openvino-bf16" if "openvino-bf16" in available() else "torch-bf16"
    given["prepared"].mkdir()
    open_engine(engine, source, wanted, kept=graphs_of(source, wanted, store=Store(given["prepared"]), engine=engine))
    return engine


def timed(model: str, given: dict[str, Any], rounds: int) -> None:
    seconds: dict[str, list[float]] = {c: [] for c in ("default", "tuned", "store")}
    for _ in range(rounds):
        for contestant in seconds:
            took, _ = in_process(model, contestant, given, job)
            seconds[contestant].append(took * (EPOCHS if contestant != "store" else 1))
    for c, each in seconds.items():
        ratio = float(np.median(np.divide(each, seconds["store"])))
        print(f"{c:8} {' / '.join(f'{s:.1f}' for s in each):>24} s   store is {ratio:.2f} x as fast", flush=True)


def accurate(model: str, given: dict[str, Any], seeds: int) -> None:
    scores: dict[str, list[float]] = {c: [] for c in ("tuned", "store")}
    for seed in range(seeds):
        for contestant in scores:
            scores[contestant].append(in_process(model, contestant, {**given, "seed": seed, "epochs": EPOCHS}, job)[1])
    for c, each in scores.items():
        print(f"{c:8} {' / '.join(f'{s:.3f}' for s in each)}   mean {np.mean(each):.3f}, deviation {np.std(each, ddof=1) if seeds > 1 else 0:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--accuracy", type=int, default=0)
    parser.add_argument("--only", default=",".join(CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        items, y = write_images(scratch / "images", 640 if options.accuracy else options.n)
        for case in options.only.split(","):
            model, stage = CASES[case]
            given: dict[str, Any] = {
                "items": items,
                "y": y,
                "n": 320 if options.accuracy else len(y),
                "stage": stage,
                "seed": 0,
                "epochs": 1,
                "scratch": scratch,
            }
            given["prepared"] = scratch / f"prepared-{case}"
            given["bf16"] = in_process(model, "prepare", given, job)
            print(f"\n{case}: {given['n']} images, {EPOCHS} epochs, features by {given['bf16']}", flush=True)
            if options.accuracy:
                accurate(model, given, options.accuracy)
            else:
                timed(model, given, options.rounds)


if __name__ == "__main__":
    main()
