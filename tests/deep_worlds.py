"""Planted worlds of two domains, and a source whose final features are the columns themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.core import Backbone, ColumnInput, Source
from headstart.keeping import Settings
from headstart.methods.method import Method
from headstart.methods.relations.deep import Deep
from headstart.train import fit, predict_logits

World = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def columns(d: int) -> Source:
    """A table of d columns as a source of one stage."""
    body = Backbone({"columns": nn.Identity()}, dim=d, preprocess=ColumnInput(tuple(map(str, range(d)))))
    return Source("s", modality="tabular", dim=d, stages=("columns",), opener=lambda: body, digest=lambda: "columns")


def adapted(method: Method, xs: np.ndarray, ys: np.ndarray, xt: np.ndarray, *, micro: int = 0) -> np.ndarray:
    """Logits (m, c) of target cases by a method that is fitted on columns."""
    xs, xt = xs.astype(np.float32), xt.astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given: dict[str, Any] = {"beside": xt} if isinstance(method, Deep) else {}
        net = method.build(columns(xs.shape[1]), features=xs, y=ys, classes=int(ys.max()) + 1, seed=0, **given)
    fit(method, net, xs, ys, seed=0, unlabelled=xt, settings=Settings(micro=micro))
    return predict_logits(net, xt)


def accuracy(method: Method, world: World) -> float:
    xs, ys, xt, yt = world
    return float(np.mean(adapted(method, xs, ys, xt).argmax(axis=1) == yt))


def spurious(*, seed: int, n: int = 300, d: int = 20, shift: float = 6.0) -> World:
    """Three classes that lie apart in all directions, most of all along one: and along that one the target is shifted by two classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centres, axis = 0.9 * rng.normal(size=(3, d)), rng.normal(size=d)
    axis /= np.linalg.norm(axis)

    def draw(moved: float) -> np.ndarray:
        return np.asarray(centres[y] + rng.normal(size=(n, d)) + (3.0 * (y - 1) + moved)[:, None] * axis)

    return draw(0.0), y, draw(shift), y
