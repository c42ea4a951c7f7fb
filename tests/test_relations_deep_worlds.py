"""Worlds of two domains whose shift is known, repaired by the methods that claim to repair it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from deep_worlds import World, accuracy, adapted, spurious
from headstart.core import Backbone, ColumnInput, Source
from headstart.learner import moved
from headstart.methods.relations.deep import DEEP, TENT, AdaBN, OwnStatistics, SourceOnly
from headstart.train import fit, predict_logits


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads only wait for each other on so small tensors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


REPAIR = ("dan", "jan", "deep-jdot", "dann", "cdan", "bsp", "mdd", "mcd", "mcc", "self-training")
KEEP = ("dan", "dann", "mcc")


@pytest.fixture(scope="module")
def shifted(one_thread: None) -> tuple[World, float]:
    """A world, and the accuracy of no adaptation in it."""
    world = spurious(seed=0)
    return world, accuracy(SourceOnly(), world)


@pytest.mark.parametrize("name", REPAIR)
def test_a_shift_along_the_best_direction_is_repaired(name: str, shifted: tuple[World, float]) -> None:
    world, without = shifted
    assert accuracy(DEEP[name](), world) > without + 0.15


def test_deep_coral_repairs_what_varies_otherwise() -> None:
    """The nuisance of the target lies along what tells the classes apart best in the source; means agree."""
    xs, ys, xt, yt = spurious(seed=1, shift=0.0)
    rng = np.random.default_rng(0)
    axis = xs[ys == 2].mean(axis=0) - xs[ys == 0].mean(axis=0)
    noise = 6.0 * rng.normal(size=(len(xt), 1)) * axis / np.linalg.norm(axis)
    world = (xs, ys, xt + noise, yt)
    assert accuracy(DEEP["deep-coral"](), world) > accuracy(SourceOnly(), world) + 0.05


def test_without_a_shift_adaptation_leaves_the_accuracy_where_it_was() -> None:
    world = spurious(seed=1, shift=0.0)
    without = accuracy(SourceOnly(), world)
    assert all(accuracy(DEEP[name](), world) > without - 0.05 for name in KEEP)


def test_longer_norms_are_what_afn_leaves() -> None:
    xs, ys, xt, _ = spurious(seed=1)
    spread = {m.name: np.abs(adapted(m, xs, ys, xt)).mean() for m in (SourceOnly(rate=DEEP["afn"]().rate), DEEP["afn"]())}
    assert spread["afn"] > spread["source-only"]


def normed(d: int) -> Source:
    """Columns behind a BatchNorm that has seen nothing yet."""
    body = Backbone({"columns": nn.Identity(), "norm": nn.BatchNorm1d(d)}, dim=d, preprocess=ColumnInput(tuple(map(str, range(d)))))
    return Source("n", modality="tabular", dim=d, stages=("columns", "norm"), opener=lambda: body.eval(), tune_cuts=(1,))


def test_another_gain_and_level_of_every_channel_is_repaired_by_its_statistics() -> None:
    xs, ys, xt, yt = spurious(seed=0, n=150, shift=0.0)
    rng = np.random.default_rng(1)
    xs, xt = xs.astype(np.float32), (xt * rng.uniform(0.3, 3.0, 20) + rng.normal(scale=3.0, size=20)).astype(np.float32)
    source, found = normed(20), {}
    for method in (OwnStatistics(steps=100), AdaBN(steps=100)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = method.build(source, features=xs, y=ys, classes=3, seed=0)
        found[method.name] = fit(method, net, xs, ys, seed=0, unlabelled=xt)[0]
    nets = {**found, "tent": moved(TENT(), found[OwnStatistics.name], xt, seed=0)}
    right = {name: float(np.mean(predict_logits(net, xt).argmax(axis=1) == yt)) for name, net in nets.items()}
    assert min(right["adabn"], right["tent"]) > right[OwnStatistics.name] + 0.15
