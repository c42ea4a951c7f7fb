"""What test_crew.py starts as several processes: trainings that they share, beside the same ones by one of them; and a command with a mistake."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from deep_worlds import columns, spurious
from headstart.cli import main as headstart
from headstart.core import Batch, InputError, Net, Source
from headstart.crew import together
from headstart.keeping import Checkpoint, Settings
from headstart.methods import L2SP
from headstart.methods.method import Criterion, Method
from headstart.methods.model.tuned import frozen_copy
from headstart.methods.relations.deep import DeepCORAL, SelfTraining
from headstart.train import fit
from test_train import Plain, PlainLearningStatistics, data


@dataclass(frozen=True)
class Planted(Plain):
    """Its loss fails in all processes but the first; for "memory", where it sees more than three cases."""

    how: str = ""

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        found = super().loss(net, batch, criterion)
        if dist.get_rank() and self.how == "bug":
            raise KeyError("planted")
        if dist.get_rank() and self.how == "memory" and len(batch.y) > 3:
            raise MemoryError
        return {name: term * torch.nan for name, term in found.items()} if dist.get_rank() and self.how == "nan" else found


def cnn(method: Method, *, dropout: float = 0.0) -> Net:
    net = method.build(Source("s"), features=None, y=np.zeros(2), classes=2, seed=0)
    net.head[0].p = dropout
    return net


def held(method: Method) -> Net:
    torch.manual_seed(0)
    body = nn.Sequential(OrderedDict(a=nn.Linear(6, 8), b=nn.ReLU()))
    return Net(body, nn.Sequential(nn.Linear(8, 3)), nn.ModuleDict({"start": frozen_copy(body)}))


def deep(method: Method) -> Net:
    torch.manual_seed(0)
    xs, ys, _, _ = spurious(seed=0, n=48)
    return method.build(columns(20), features=xs.astype(np.float32), y=ys, classes=3, seed=0)


def weights(net: Net) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in net.state_dict().values()])


def apart(one: Net, other: Net) -> float:
    return float((weights(one) - weights(other)).abs().max())


def compared(method: Method, made: Callable[[Method], Net], x: np.ndarray, y: np.ndarray, *, alone: Settings, **given: object) -> dict[str, float]:
    """How far the weights of a training by all lie from those of one by the first; from those by all again; and how far either moved them."""
    everyone = Settings(batch=alone.batch, processes=dist.get_world_size())
    one, both, again = (fit(method, made(method), x, y, seed=3, settings=s, **given)[0] for s in (alone, everyone, everyone))
    start = made(method)
    start.scaffold = None
    return {"apart": apart(one, both), "again": apart(both, again), "moved": apart(start, both)}


def first_norm(processes: int) -> dict[str, float]:
    x, y = data(16)
    method = PlainLearningStatistics(steps=1)
    one, both = (fit(method, cnn(method), x, y, seed=0, settings=Settings(batch=16, processes=n))[0].body.a[1].running_mean for n in (1, processes))
    return {"apart": float((one - both).abs().max()), "moved": float(both.abs().max())}


def resumed(processes: int) -> float:
    """How far a training with dropout that was stopped half-way ends from one that was not."""
    x, y = data(32)
    kept: list[Checkpoint] = []
    method, settings = Plain(steps=6), Settings(batch=16, processes=processes)
    whole, _ = fit(method, cnn(method, dropout=0.5), x, y, seed=0, settings=settings, keep=(3, kept.append))
    half, _ = fit(method, cnn(method, dropout=0.5), x, y, seed=0, settings=settings, resume=kept[0])
    return apart(whole, half)


def told(how: str, processes: int) -> str:
    x, y = data(32)
    method = Planted(how=how, steps=3)
    try:
        fit(method, cnn(method), x, y, seed=0, settings=Settings(processes=processes))
    except (InputError, RuntimeError) as error:
        return f"{type(error).__name__}: {error} {' '.join(getattr(error, '__notes__', []))}"
    return ""


def main() -> None:
    with together() as processes:
        xs, ys, xt, _ = (part.astype(np.float32) if part.dtype.kind == "f" else part for part in spurious(seed=0, n=48))
        x, y = data(33)  # two batches in a pass, whose classes are not quite even
        found = {
            "cnn": compared(Plain(steps=8), cnn, x, y, alone=Settings(batch=16)),
            "uneven": compared(Plain(steps=4), cnn, x, y, alone=Settings(batch=15)),
            "few": compared(Plain(steps=4), cnn, x, y, alone=Settings(batch=3)),
            "statistics": compared(PlainLearningStatistics(steps=1), cnn, x, y, alone=Settings(batch=16)),
            "first norm": first_norm(processes),
            "memory": compared(Planted(steps=4, how="memory"), cnn, x, y, alone=Settings(batch=16)),
            "dropout": compared(Plain(steps=4), lambda method: cnn(method, dropout=0.5), x, y, alone=Settings(batch=16)),
            "l2-sp": compared(L2SP(steps=8), held, xs[:, :6], ys, alone=Settings()),
            "deep-coral": compared(DeepCORAL(steps=8), deep, xs, ys, alone=Settings(micro=16), unlabelled=xt),
            "self-training": compared(SelfTraining(steps=8), deep, xs, ys, alone=Settings(micro=16), unlabelled=xt),
            "resumed": resumed(processes),
            "bug": told("bug", processes),
            "nan": told("nan", processes),
            "after": told("", processes),
            "too many": told_of_too_many(processes),
        }
        print(json.dumps(found), flush=True)
        sys.argv = ["headstart", "transfer", "photos", "--out", "run", "--methods", "lp-fd"]
        headstart()


def told_of_too_many(processes: int) -> str:
    try:
        fit(Plain(), cnn(Plain()), *data(32), seed=0, settings=Settings(processes=processes + 1))
    except InputError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
