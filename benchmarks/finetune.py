"""Fine-tuning to the same accuracy on the same images with the same network: Headstart beside fastai, the Hugging Face Trainer and plain PyTorch.

    python benchmarks/finetune.py [--n 320] [--rounds 2] [--only part,whole,schedule]

Every measurement is a fresh process with two threads, and the contestants alternate. Images are solar cells (ELPV) as JPEG files of 500 x 500, the network
is EfficientNet-Lite0 with its ImageNet weights and a linear head; see extract.py. Seconds run from the first file to the last step; accuracy is on as many
other images. fastai and accelerate are wanted beside Headstart (pip install fastai accelerate, in an environment of its own); what is missing is skipped.

part     : the stages below blocks6 are frozen. store: ``extract`` and LP-FT with its defaults, 50 steps. plain, trainer: the same stages at 1e-3 with AdamW, a
           warm-up and a cosine, five epochs, the frozen part under no_grad, two loader workers. fastai: ``fine_tune(4)`` as it comes, one frozen epoch and
           four of all
whole    : all learns, twenty steps from images in memory: ``fit`` beside a plain loop in the same precision
schedule : rates and momenta that fastai's own optimiser received in ``fine_tune``, beside those of the method one-cycle
"""

from __future__ import annotations

import argparse
import copy
import math
import shutil
import tempfile
import time
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from extract import BATCH, Pictures, in_process, source_of, write_images

EPOCHS = 5
STAGE = "blocks5"  # the last frozen one
RATE = 1e-3
WHOLE_STEPS = 20
NEEDS = {"fastai": ("fastai",), "trainer": ("transformers", "accelerate")}


def whole_net(source: Any, classes: int) -> nn.Module:
    linear = nn.Linear(source.dim, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    body = copy.deepcopy(source.backbone.above(0))
    return nn.Sequential(OrderedDict(body=body, head=linear))


class Partly(nn.Module):
    """A network whose first stages are frozen, as users write it."""

    def __init__(self, net: Any, cut: int) -> None:
        super().__init__()
        self.trunk, self.rest, self.head = net.body[:cut].requires_grad_(False), net.body[cut:], net.head

    def train(self, mode: bool = True) -> Partly:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        self.trunk.eval()
        return self

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        with torch.no_grad():
            x = self.trunk(pixel_values)
        logits = self.head(self.rest(x))
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Labelled:
    def __init__(self, pictures: Any, y: list[int], *, named: bool) -> None:
        self.pictures, self.y, self.named = pictures, y, named

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> Any:
        x, y = self.pictures[i], self.y[i]
        return {"pixel_values": x, "labels": y} if self.named else (x, torch.tensor(y))


def looks(source: Any) -> Any:
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    look = source.backbone.preprocess
    mode = InterpolationMode.BICUBIC if look.interpolation == "bicubic" else InterpolationMode.BILINEAR
    return transforms.Compose(
        [transforms.Resize(look.resize, mode), transforms.CenterCrop(look.size), transforms.ToTensor(), transforms.Normalize(look.mean, look.std)]
    )


def right(run: Any, pictures: Any, y: list[int]) -> float:
    with torch.inference_mode():
        guesses = torch.cat([run(torch.stack([pictures[i] for i in range(a, min(a + BATCH, len(y)))])).argmax(1) for a in range(0, len(y), BATCH)])
    return float((guesses == torch.tensor(y)).float().mean())


def store(given: dict[str, Any]) -> tuple[float, float]:
    """LP-FT from stored activations."""
    from headstart.activations.store import Store
    from headstart.learner import Candidate, learn
    from headstart.methods import FineTune
    from headstart.modality import door
    from headstart.views import Views

    source, n, y, scratch = source_of("lite0"), given["n"], np.asarray(given["y"]), Path(tempfile.mkdtemp(dir=given["scratch"]))

    def views(items: list[str]) -> Views:
        return Views(items, [door("image").digest(p) for p in items], {source.name: source}, Store(scratch))

    _ = source.backbone
    began = time.perf_counter()
    fitted = learn(Candidate(FineTune(), source), views(given["items"][:n]), np.arange(n), y, classes=2, seed=given["seed"])
    seconds = time.perf_counter() - began
    other = views(given["items"][n:])
    share = float(np.mean(fitted.output(np.asarray(other.array(fitted.candidate.view))).argmax(1) == y[n:]))
    shutil.rmtree(scratch)
    return seconds, share


def plain(given: dict[str, Any]) -> tuple[float, float]:
    from torch.utils.data import DataLoader

    source, n, y = source_of("lite0"), given["n"], given["y"]
    torch.manual_seed(given["seed"])
    net = Partly(whole_net(source, 2), source.backbone.cuts.index(STAGE))
    pictures = Pictures(given["items"], looks(source))
    learning = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=RATE, weight_decay=0.01)
    total = EPOCHS * (n // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step, total))
    began = time.perf_counter()
    loader = DataLoader(Labelled(pictures, y[:n], named=False), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2)
    net.train()
    for _ in range(EPOCHS):
        for x, targets in loader:
            loss = net(x, targets)["loss"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimiser.step()
            schedule.step()
    seconds = time.perf_counter() - began
    return seconds, right(net.eval(), Pictures(given["items"][n:], looks(source)), y[n:])


def trainer(given: dict[str, Any]) -> tuple[float, float]:
    from transformers import Trainer, TrainingArguments

    source, n, y = source_of("lite0"), given["n"], given["y"]
    net = Partly(whole_net(source, 2), source.backbone.cuts.index(STAGE))
    data = Labelled(Pictures(given["items"], looks(source)), y[:n], named=True)
    how = {"lr_scheduler_type": "cosine", "warmup_steps": round(0.1 * EPOCHS * (n // BATCH)), "weight_decay": 0.01, "dataloader_drop_last": True}
    how |= {"num_train_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "learning_rate": RATE, "seed": given["seed"]}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True, "dataloader_num_workers": 2}
    arguments = TrainingArguments(given["scratch"] / "hf", **how, **quiet)
    began = time.perf_counter()
    Trainer(net, arguments, train_dataset=data).train()
    seconds = time.perf_counter() - began
    return seconds, right(net.eval(), Pictures(given["items"][n:], looks(source)), y[n:])


def learner_of(net: Any, data: Any, *, seed: int) -> Any:
    """fastai's learner of a network with two groups, body and head, that does not validate."""
    from fastai.callback.core import Callback
    from fastai.callback.core import CancelValidException as Cancelled
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner, params
    from fastai.losses import CrossEntropyLossFlat

    class NoValidation(Callback):
        def before_validate(self) -> None:
            raise Cancelled

    torch.manual_seed(seed)
    loaders = DataLoaders.from_dsets(data, data, bs=BATCH, num_workers=2, shuffle=True, drop_last=True, device=torch.device("cpu"))
    groups = {"splitter": lambda m: [params(m.body), params(m.head)], "loss_func": CrossEntropyLossFlat()}
    return Learner(loaders, net, path=tempfile.mkdtemp(), cbs=[NoValidation()], **groups)


def fastai(given: dict[str, Any]) -> tuple[float, float]:
    import fastai.callback.schedule  # noqa: F401  (it patches fine_tune onto the learner)

    source, n, y = source_of("lite0"), given["n"], given["y"]
    net = whole_net(source, 2)
    began = time.perf_counter()
    learner = learner_of(net, Labelled(Pictures(given["items"], looks(source)), y[:n], named=False), seed=given["seed"])
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS - 1)
    seconds = time.perf_counter() - began
    return seconds, right(net.eval(), Pictures(given["items"][n:], looks(source)), y[n:])


def warm_cosine(step: int, total: int) -> float:
    warm = max(1, round(0.1 * total))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def in_memory(given: dict[str, Any]) -> tuple[Any, np.ndarray, np.ndarray]:
    from headstart.modality import door

    source, n = source_of("lite0"), 4 * BATCH
    of = door("image")
    x = of.collate([of.encode(p, source.backbone) for p in given["items"][:n]], source.backbone).numpy()
    return source, x, np.asarray(given["y"][:n])


def whole_fit(given: dict[str, Any]) -> tuple[float, float]:
    from headstart.methods import FineTuneAll
    from headstart.train import fit

    source, x, y = in_memory(given)
    method = FineTuneAll(steps=WHOLE_STEPS, smoothing=0.0)
    net = method.build(source, features=None, y=y, classes=2, seed=0)
    began = time.perf_counter()
    _, history = fit(method, net, x, y, seed=0)
    return time.perf_counter() - began, history.losses[-1]


def whole_plain(given: dict[str, Any]) -> tuple[float, float]:
    source, x, y = in_memory(given)
    net, images, targets = whole_net(source, 2), torch.from_numpy(x), torch.from_numpy(y)
    optimiser = torch.optim.AdamW([{"params": net.body.parameters(), "lr": 1e-4}, {"params": net.head.parameters(), "lr": 1e-3}], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step, WHOLE_STEPS))
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    batches: list[torch.Tensor] = []
    while len(batches) < WHOLE_STEPS:
        batches += torch.randperm(len(targets), generator=generator).split(BATCH)
    for rows in batches[:WHOLE_STEPS]:
        loss = nn.functional.cross_entropy(net(images[rows]), targets[rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return time.perf_counter() - began, float(loss.detach())


def same_schedule(given: dict[str, Any]) -> tuple[float, float]:
    """Largest relative difference of a rate, and largest of a momentum, between what fastai's optimiser received and the method's."""
    import fastai.callback.schedule  # noqa: F401
    from fastai.callback.core import Callback

    from headstart.methods import OneCycle

    received: list[list[tuple[float, float]]] = []

    class Listener(Callback):
        order = 61  # behind the schedule's own

        def before_batch(self) -> None:
            received.append([(h["lr"], h["mom"]) for h in self.opt.hypers])

    net = nn.Sequential(OrderedDict(body=nn.Linear(3, 3), head=nn.Linear(3, 2)))
    pairs = [(torch.randn(3), torch.tensor(i % 2)) for i in range(10 * BATCH)]
    learner = learner_of(net, pairs, seed=0)
    learner.add_cb(Listener())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(4)
    method = OneCycle(steps=50, epochs=4, groups=2)
    rates, momenta = [], []
    for step, groups in enumerate(received):
        scale, momentum = method.schedule(step, method.steps)
        factors = method.rates(1, step / method.steps)
        learning = [(f, r, m) for f, (r, m) in zip(factors, groups, strict=True) if f]  # what is frozen here, fastai gives a tenth, which only BatchNorm heeds
        rates += [abs(f * method.rate * scale / r - 1) for f, r, _ in learning]
        momenta += [abs(momentum - m) for *_, m in learning]
    assert len(received) == method.steps
    return max(rates), max(momenta)


CONTESTANTS = {"store": store, "plain": plain, "trainer": trainer, "fastai": fastai, "fit": whole_fit, "loop": whole_plain, "schedule": same_schedule}


def job(model: str, contestant: str, given: dict[str, Any], pipe: Any) -> None:
    torch.set_num_threads(2)
    pipe.send(CONTESTANTS[contestant](given))


def missing(contestant: str) -> str | None:
    return next((name for name in NEEDS.get(contestant, ()) if find_spec(name) is None), None)


def raced(names: list[str], given: dict[str, Any], rounds: int, *, what: str) -> None:
    for name in [n for n in names if missing(n)]:
        print(f"{name:8} skipped: {missing(name)} is not installed", flush=True)
    racing = [n for n in names if not missing(n)]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in racing}
    for seed in range(rounds):
        for name in racing:
            found[name].append(in_process("lite0", name, {**given, "seed": seed}, job))
    first = [seconds for seconds, _ in found[racing[0]]]
    for name, pairs in found.items():
        seconds, second = zip(*pairs, strict=True)
        ratios = np.divide(seconds, first)
        others = " / ".join(f"{v:.3f}" for v in second)
        print(f"{name:8} {' / '.join(f'{s:.1f}' for s in seconds)} s, {np.median(ratios):.2f} x the seconds of {racing[0]}; {what} {others}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="part,whole,schedule")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        items, y = write_images(scratch / "images", 2 * options.n)
        given: dict[str, Any] = {"items": items, "y": y, "n": options.n, "scratch": scratch, "seed": 0}
        if "part" in options.only:
            print(f"part frozen: {options.n} images, {EPOCHS} epochs", flush=True)
            raced(["store", "plain", "trainer", "fastai"], given, options.rounds, what="accuracy")
        if "whole" in options.only:
            print(f"all learns: {WHOLE_STEPS} steps of {BATCH} images in memory", flush=True)
            raced(["loop", "fit"], given, options.rounds + 1, what="last loss")
        if "schedule" in options.only and not missing("fastai"):
            rate, momentum = in_process("lite0", "schedule", given, job)
            print(f"fine_tune's own rates differ from one-cycle's by at most {rate:.1e} of themselves, its momenta by {momentum:.1e}", flush=True)


if __name__ == "__main__":
    main()
