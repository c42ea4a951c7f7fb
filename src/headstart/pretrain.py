"""A labelled dataset becomes a source: a network trained on it, whose stages can be kept, probed or fine-tuned like any other's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart import __version__
from headstart.core import Backbone, Batch, InputError, Net, Source, Task
from headstart.lending import lend
from headstart.methods.method import Arm, Criterion, Level, Method, View, target_loss
from headstart.modality import tabular
from headstart.train import fit

PASSES = 40  # over the rows; the cosine ends it, and weight decay keeps more from hurting
FEWEST, MOST = 300, 4000  # steps


@dataclass(frozen=True)
class Pretrain(Method):
    """Train every stage and the head on the source's own labels."""

    name: ClassVar[str] = "pretrain"
    arm: ClassVar[Arm] = "fine-tuned"
    level: ClassVar[Level] = "model"
    freezes_statistics: ClassVar[bool] = False

    backbone: Backbone
    steps: int
    rate: float = 2e-3

    def view(self, source: Source | None) -> View:
        return View("input")

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        return Net(self.backbone.above(0), nn.Linear(self.backbone.dim, max(1, classes)))

    def rates(self, stages: int, progress: float) -> list[float]:
        return [1.0] * (stages + 1)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        return target_loss(net(batch.x), batch.y, criterion)


def source_from_table(data: Task, target: Task, *, seed: int) -> Source:
    """Return a source that was trained on a table of a neighbouring domain, and lends its rows; the training happens on first use.

    Parameters
    ----------
    data : the labelled source table; its target column needs the meaning, not the values, of the task's
    target : the task; a column that only one of both tables has carries nothing over and is kept as a plain column of the feature
    seed : of first weights and batches

    Raises
    ------
    InputError
        the tables share no column.
    """
    mine, theirs = ({column for part in tabular.columns_of(task.target.x) for column in part} for task in (target, data))
    shared = mine & theirs
    if not shared:
        raise InputError(f"{data.target.name} and {target.target.name} share no column, so nothing can be carried over. Rename the columns that mean the same.")
    features = tabular.features_of([*target.target.x, *data.target.x])
    rows = [tabular.digest(row) for row in data.target.x]
    about = json.dumps([rows, [str(v) for v in data.target.y or ()], features, seed, __version__, torch.__version__])
    blank = tabular.network(features, seed=seed)
    source = Source(
        name=f"table {data.target.name}",
        family="dense network",
        parameters=sum(p.numel() for p in blank.parameters()),
        dim=blank.dim,
        stages=tuple(blank.stages),
        trained_on=f"{data.target.name} ({len(data.target)} rows, {len(shared)} shared columns)",
        licence="yours",
        origin=data.target.name,
        modality="tabular",
        tune_cuts=(0, 1),
        opener=partial(_trained, data, target, features, seed),
        digest=partial(_sha256, about),
        recipe={"library": "table", "features": features},
    )
    try:
        return lend([source], data, target)[0]
    except InputError:  # no label in common, or no row of its own: what was learned there can be carried over, rows cannot
        return source


def _trained(data: Task, target: Task, features: list[list[str]], seed: int) -> Backbone:
    backbone = tabular.network(features, seed=seed)
    x, own = (np.stack([tabular.encode(row, backbone).numpy() for row in task.target.x]) for task in (data, target))
    columns = next(m for m in backbone.modules() if isinstance(m, tabular.Standardise))
    absent = np.isnan(x).all(axis=0) | ~np.nan_to_num(x).any(axis=0)
    columns.learn(x)
    alone = tabular.Standardise(len(absent))
    alone.learn(own)
    with torch.no_grad():  # why: a column that the source never saw is scaled by the target's own values
        columns.mean[absent], columns.deviation[absent] = alone.mean[absent], alone.deviation[absent]
    y = np.asarray(data.codes) if data.labels else np.asarray(data.target.y, dtype=np.float64)
    if not data.labels:
        y = (y - y.mean()) / (y.std() or 1.0)
    method = Pretrain(backbone, steps=int(np.clip(PASSES * len(x) // 32, FEWEST, MOST)))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = method.build(Source("none"), features=None, y=y, classes=len(data.labels), seed=seed)
    fit(method, net, x, y, seed=seed)
    _forget(backbone, absent)
    return backbone


def _forget(backbone: Backbone, absent: np.ndarray) -> None:
    """Zero the weights of columns that the source never saw: random ones would only add noise to what it learned."""
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, tabular.Dense):
                module.linear.weight[:, : len(absent)][:, torch.from_numpy(absent)] = 0.0


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
