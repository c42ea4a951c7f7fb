"""Distillation: the closed form of its loss, what a student learns of its teacher, and that nothing of a fold's test rows reaches either."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from headstart import plan
from headstart.activations.store import Store
from headstart.bench import Bench, Silent, set_up
from headstart.contract_method import tiny_source
from headstart.core import Backbone, Batch, ColumnInput, Domain, Source, Task
from headstart.learner import Candidate, learn
from headstart.methods import Distil, Probe, tuners
from headstart.methods.method import Criterion
from headstart.methods.model.distil import softened
from headstart.modality import door, tabular
from headstart.search import Clock
from headstart.views import Views

COLUMNS = ("a", "b", "c")


def test_the_loss_is_hintons_by_hand() -> None:
    rng = np.random.default_rng(0)
    method = Distil(temperature=3.0, soft=0.25, depth=2)
    x, y = torch.from_numpy(rng.normal(size=(12, 3, 8, 8)).astype(np.float32)), np.arange(12) % 3
    features = tiny_source().backbone(x).detach().double().numpy()
    net = method.build(tiny_source(), features=features, y=y, classes=3, seed=0).eval()
    said = softmax(rng.normal(size=(12, 3)), axis=1)
    method.heed(net, said)
    rows, weights = torch.tensor([7, 1, 10, 4]), torch.tensor([1.0, 2.0, 0.5])
    terms = method.loss(net, Batch(x[rows], torch.from_numpy(y)[rows], rows), Criterion(weights))
    z, p, w = net(x[rows]).detach().double().numpy(), said[rows], weights.double().numpy()[y[rows]]
    soft = p ** (1 / 3) / (p ** (1 / 3)).sum(axis=1, keepdims=True)
    divergence = (soft * (np.log(soft) - log_softmax(z / 3, axis=1))).sum(axis=1)
    assert terms["teacher"].item() == pytest.approx(0.25 * 9 * (w * divergence).sum() / w.sum(), rel=1e-4)
    hard = -log_softmax(z, axis=1)[range(4), y[rows]]
    assert terms["cross entropy"].item() == pytest.approx(0.75 * (w * hard).sum() / w.sum(), rel=1e-4)


def test_it_is_least_where_the_student_agrees_and_its_gradient_keeps_its_size_as_the_temperature_rises() -> None:
    said, mass = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.ones(5)
    assert softened(said + 3.0, said, mass, temperature=2.0).item() == pytest.approx(0.0, abs=1e-6)
    limits = []
    for t in (100.0, 200.0):  # Hinton et al. 2015, eq. 4: (z - v) / c for logits of mean 0, whatever the temperature
        z = torch.zeros(5, 4, requires_grad=True)
        softened(z, said, mass, temperature=t).backward()
        limits.append(z.grad)
    expected = -(said - said.mean(dim=1, keepdim=True)) / 4 / 5
    torch.testing.assert_close(limits[0], expected, atol=3e-3, rtol=0)
    torch.testing.assert_close(limits[1], expected, atol=2e-3, rtol=0)


def test_of_numbers_the_student_is_drawn_to_what_the_teacher_says() -> None:
    method = Distil(soft=0.5)
    y = np.array([0.0, 1.0, -1.0])
    net = method.build(tiny_source(), features=np.random.default_rng(0).normal(size=(3, 10)), y=y, classes=0, seed=0).eval()
    said = np.array([[1.0], [0.0], [0.5]])
    method.heed(net, said)
    x = torch.randn(3, 8, 8, 8) if method.view(tiny_source()).cuts == (2,) else torch.randn(3, 6, 8, 8)
    terms = method.loss(net, Batch(x, torch.from_numpy(y).float(), torch.arange(3)), Criterion(torch.ones(0)))
    out = net(x).detach().double().numpy()
    assert terms["teacher"].item() == pytest.approx(0.5 * ((out - said) ** 2).mean(), rel=1e-4)


def dense(name: str, weight: torch.Tensor, *, parameters: int) -> Source:
    """One stage of rectified units with those weights on three columns."""
    first = nn.Linear(3, len(weight))
    with torch.no_grad():
        first.weight.copy_(weight)
        first.bias.zero_()
    body = Backbone({"one": nn.Sequential(first, nn.ReLU())}, dim=len(weight), preprocess=ColumnInput(COLUMNS, json.dumps([[c] for c in COLUMNS]))).eval()
    return Source(name, parameters=parameters, dim=len(weight), stages=("one",), modality="tabular", tune_cuts=(0,), opener=lambda: body, digest=lambda: name)


def knowing() -> Source:
    """Knows how far the first column is from 0, and nothing else."""
    return dense("knowing", torch.tensor([[1.0, 0, 0], [-1, 0, 0]]), parameters=1000)


def small(seed: int = 0) -> Source:
    return dense("small", 0.3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)), parameters=18)


def rows(x: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in x]


def seen(x: np.ndarray, folder: Path, *sources: Source) -> Views:
    items = rows(x)
    return Views(items, [tabular.digest(r) for r in items], {s.name: s for s in sources}, Store(folder), "tabular")


def learnt(method: Distil, x: np.ndarray, y: np.ndarray, train: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What student and teacher say of all rows, after learning on some."""
    views = seen(x, folder, small(), knowing())
    student = learn(Candidate(method, small()), views, train, y, classes=2, seed=0)
    teacher = learn(Candidate(Probe(), knowing()), views, train, y, classes=2, seed=0)
    return student.output(views.array(student.candidate.view)), teacher.output(views.array(teacher.candidate.view))


def test_a_student_learns_its_teachers_mistakes(tmp_path: Path) -> None:
    """The truth is the second column's sign; the teacher sees only the first one's size, and is wrong about half the cases. The student follows it there."""
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    y = ((np.abs(x[:, 0]) > 0.7) ^ (x[:, 1] > 1.0)).astype(int)
    taught = Distil(soft=1.0, temperature=1.0, steps=200, rate=3e-3, decay=1.0, teacher=(Probe(), knowing()))
    student, teacher = learnt(taught, x, y, np.arange(150), tmp_path)
    alone, _ = learnt(dataclasses.replace(taught, soft=0.5, teacher=None), x, y, np.arange(150), tmp_path)
    wrong = teacher.argmax(axis=1) != y
    follows = [(out.argmax(axis=1) == teacher.argmax(axis=1))[wrong].mean() for out in (student, alone)]
    assert wrong.mean() > 0.1
    assert follows[0] > 0.8
    assert follows[0] > follows[1]


def test_nothing_of_the_test_rows_reaches_teacher_or_student(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y, train = (np.abs(x[:, 0]) > 0.7).astype(int), np.arange(40)
    method = Distil(steps=5, teacher=(Probe(), knowing()))
    said = learnt(method, x, y, train, tmp_path / "one")[0]
    other = x.copy()
    other[40:] = 9.0
    assert np.array_equal(learnt(method, other, np.where(np.arange(60) < 40, y, 1 - y), train, tmp_path / "two")[0][train], said[train])
    assert not np.array_equal(learnt(method, x, 1 - y, train, tmp_path / "one")[0][train], said[train])


def test_students_of_two_teachers_are_two_candidates() -> None:
    told = [Candidate(Distil(teacher=teacher), small()).describe() for teacher in (None, (Probe(), knowing()), (Probe(head="logistic"), knowing()))]
    assert len({json.dumps(t, sort_keys=True) for t in told}) == 3
    assert "teacher" not in told[0]  # what was kept before there were teachers keeps its name


def ready(folder: Path, *sources: Source) -> Bench:
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    y = ["far" if v > 0.7 else "near" for v in np.abs(x[:, 0])]
    task, inspection = door("tabular").inspect(Task("classification", "tabular", Domain("t", rows(x), y), ("far", "near")))
    clock = Clock(100.0, began=time.monotonic() + 86_400)
    bench = set_up(task, inspection, sources, folder=folder, clock=clock, observer=Silent(), seed=0, engine="torch")
    bench.search.folds = bench.search.folds[:2]
    plan.rank(bench)
    return bench


def taught(bench: Bench) -> list[Any]:
    plan.fine_tuned(bench, tuners(["distil"]))
    return [c for c in bench.search.candidates if c.method.name == "distil"]


def test_a_run_lets_the_larger_source_teach_the_smaller_one(tmp_path: Path) -> None:
    bench = ready(tmp_path, small(), knowing())
    (candidate,) = taught(bench)
    assert (candidate.source.name, candidate.method.teacher[1].name) == ("small", "knowing")
    assert "knowing (frozen + head) taught small by distillation." in bench.notes


def test_where_nobody_can_teach_it_is_said_in_one_line(tmp_path: Path) -> None:
    bench = ready(tmp_path, knowing())
    assert taught(bench) == []
    assert bench.notes[-1] == "Method 'distil' needs a larger source whose probe beats a smaller one's; of knowing none does. Name more with --source."
