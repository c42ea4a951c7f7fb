"""Several tasks over one trunk: does learning them together beat learning each alone? Judged for each task on folds that both sides share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from headstart.activations.store import Store, default_root
from headstart.bench import FOLDS, Observer, Silent, check
from headstart.core import InputError, Net, Source, Task
from headstart.evaluate import Split, interval_of_mean, metric, reach, score, share_tested, temperature
from headstart.export import Predictor
from headstart.guard import judge
from headstart.learner import Candidate, Fitted
from headstart.ledger import Ledger
from headstart.methods.method import View, space
from headstart.methods.model.multitask import MultiTask, places
from headstart.modality import door
from headstart.records import as_json
from headstart.result import Predictions, Score, Verdict
from headstart.runs import checked_margin, parse_budget
from headstart.search import Clock
from headstart.stacking import Drawn, Stack, labelled, splits, stacked
from headstart.train import OutOfTime, fit, predict_logits
from headstart.views import Views

REPEATS, PER_REPEAT = 3, 600.0  # repeats of the folds, one for so many seconds of the budget
JUDGED = 0.75  # share of the budget after which no further fold begins; the rest fits what is shipped
FINDINGS_FILE = "multitask.json"
Sampling = Literal["proportional", "sqrt", "equal"]


@dataclass(frozen=True)
class TaskGain:
    """What one task has of the others: scores alone and together on the same folds, and the guard's verdict on together minus alone."""

    name: str
    kind: str
    n: int
    labels: tuple[str, ...]
    metric: str
    single: Score
    together: Score
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, n = {self.n}): {self.metric} {self.single.value:.3f} alone, {self.together.value:.3f} together; {self.verdict}"


@dataclass(frozen=True)
class Together:
    """What :func:`multitask` found. For each task it predicts with the joint net where the mean gain is above the margin, else with the task's own."""

    source: str
    tasks: tuple[TaskGain, ...]
    params: Mapping[str, Any]
    sampling: str
    rows: int
    shared: int
    folds: int
    stopped_by: Literal["plan", "budget"]
    models: Mapping[str, Predictor] = field(default_factory=dict, compare=False, repr=False)

    def task(self, name: str) -> TaskGain:
        """Return what was found for the task of that name."""
        return next(t for t in self.tasks if t.name == name)

    def predict(self, inputs: Sequence[Any]) -> dict[str, Predictions]:
        """Predict every task for each input: labels with calibrated probabilities, numbers with 90 % intervals."""
        return {name: model.predict(inputs) for name, model in self.models.items()}

    def to_json(self) -> str:
        """Return the findings as JSON text; equal findings give equal bytes."""
        return as_json(self, without={"models"})

    def save(self, folder: str | Path) -> Path:
        """Write the findings, and each task's model into a folder of its own; return the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for i, model in enumerate(self.models.values()):
            model.save(folder / f"model{i}")
        (folder / FINDINGS_FILE).write_text(self.to_json(), encoding="utf-8")
        return folder


def multitask(
    tasks: Mapping[str, Task],
    source: Source,
    *,
    budget: str | float,
    seed: int,
    method: MultiTask | None = None,
    sampling: Sampling = "proportional",
    margin: float = 0.0,
    out: str | Path | None = None,
    skip_unreadable: bool = False,
    observer: Observer | None = None,
) -> Together:
    """Learn several tasks over one trunk, and say for each whether that beats learning it alone.

    Tasks may have other inputs, other sizes and other kinds. An input that stands in several tasks, by its bytes, is one case with several labels, so that
    it is never on both sides of a split; a target that is ``None`` or NaN is a missing label. Alone and together have the same method, steps and folds.

    Parameters
    ----------
    tasks : two or more by name, classification or regression, of one modality
    source : whose stages are the trunk
    budget : seconds, or text such as "5m"; folds that are not begun in three quarters of it are left out
    seed : decides splits, first weights and batches
    method : how the nets are trained, such as ``MultiTask(balance="surgery")``; ``None``: its defaults. Its ``parts`` are filled in
    sampling : how often a task's cases are drawn: "proportional" to their number (the default), to its "sqrt", or "equal" for all tasks
    margin : smallest gain that is worth the joint net
    out : folder that keeps finished folds, so that a killed call goes on; ``None``: a temporary one
    skip_unreadable : leave out inputs that cannot be read

    Raises
    ------
    InputError
        fewer than two tasks; tasks of several modalities; a task or source that cannot be used; no fold within the budget.

    Examples
    --------
    >>> multitask({}, Source("s"), budget="1m", seed=0)
    Traceback (most recent call last):
    headstart.core.InputError: 0 task(s) were given; learning together takes two or more. For one: headstart.transfer.
    """
    clock, margin = Clock(parse_budget(budget)), checked_margin(margin)
    observer = Silent() if observer is None else observer
    modality = _checked(tasks, source)
    kept, inspections = {}, {}
    for name, task in tasks.items():
        observer.phase(f"reading {name}", len(task.target))
        kept[name], inspections[name] = door(modality).inspect(labelled(task), skip_unreadable=skip_unreadable)
    stack = stacked(kept, inspections)
    how = dataclasses.replace(MultiTask() if method is None else method, parts=stack.parts)
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Ledger(Path(scratch if out is None else out) / "folds")
        clock.spent = ledger.seconds()
        views = Views(stack.items, stack.digests, {source.name: source}, Store(default_root()), modality)
        table = _Table(stack, source, views, how, Drawn(sampling=sampling), ledger, seed)
        pairs = splits(stack, k=FOLDS, repeats=int(np.clip(clock.budget // PER_REPEAT, 1, REPEATS)), seed=seed)
        observer.phase("folds, alone and together", len(pairs))
        done = _measured(table, pairs, clock=clock, observer=observer)
        gains = tuple(_gain(table, t, done, kept[part.name], margin=margin) for t, part in enumerate(stack.parts))
        observer.phase("fitting what is shipped", None)
        models = _shipped(table, gains, done, kept)
    params = {name: getattr(how, name) for name in space(how)}
    shared = int((stack.have.sum(axis=1) > 1).sum())
    stopped: Literal["plan", "budget"] = "plan" if len(done) == len(pairs) else "budget"
    found = Together(source.name, gains, params, sampling, len(stack.y), shared, len(done), stopped, models)
    if out is not None:
        found.save(out)
    return found


@dataclass(frozen=True)
class _Table:
    """What every fit works on: the stacked rows, the source with its views, the method with all parts, and where folds are kept."""

    stack: Stack
    source: Source
    views: Views
    method: MultiTask
    settings: Drawn
    ledger: Ledger
    seed: int

    def fitted(self, columns: Sequence[int], rows: np.ndarray, *, deadline: float) -> Net:
        """Return the net of those tasks, trained on those of the rows that have a label of theirs, in the targets' own units."""
        y = self.stack.y[np.ix_(rows, np.asarray(columns))]
        rows, y = rows[~np.isnan(y).all(axis=1)], y[~np.isnan(y).all(axis=1)]
        method = dataclasses.replace(self.method, parts=tuple(self.stack.parts[t] for t in columns))
        units = [(0.0, 1.0) if part.classes else (np.nanmean(c), np.nanstd(c) or 1.0) for part, c in zip(method.parts, y.T, strict=True)]
        y = np.column_stack([(c - centre) / spread for c, (centre, spread) in zip(y.T, units, strict=True)])
        final = View("pooled", self.source.name, (len(self.source.stages),))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            net = method.build(self.source, features=self.views.array(final)[rows], y=y, classes=0, seed=self.seed)
        x = self.views.array(method.view(self.source))[rows]
        net, _ = fit(method, net, x, y, seed=self.seed, deadline=deadline, settings=self.settings)
        linear = _linear(net)
        with torch.no_grad():
            for at, (centre, spread) in zip(places(method.parts), units, strict=True):
                linear.weight[at] *= spread
                linear.bias[at] = linear.bias[at] * spread + centre
        return net

    def outputs(self, columns: Sequence[int], train: np.ndarray, test: np.ndarray, *, deadline: float) -> np.ndarray:
        """Return (n_test, outputs) logits and numbers of a fold, made once."""
        weights = [self.source.name, self.source.weights_sha256]
        params = {name: getattr(self.method, name) for name in space(self.method)}
        given = [list(self.stack.digests), [[None if v != v else v for v in row] for row in self.stack.y[:, columns].tolist()], train.tolist(), test.tolist()]
        about = {"tasks": [dataclasses.asdict(self.stack.parts[t]) for t in columns], "source": weights, "params": params, "seed": self.seed}
        rows = hashlib.sha256(json.dumps(given).encode()).hexdigest()

        def make() -> np.ndarray:
            if time.monotonic() > deadline:
                raise OutOfTime
            net = self.fitted(columns, train, deadline=deadline)
            return predict_logits(net, self.views.array(self.method.view(self.source))[test])

        return self.ledger.outcome({**about, "rows": rows, "sampling": self.settings.sampling, "method": self.method.name}, make)[0]


@dataclass(frozen=True)
class _Fold:
    """Outputs of a fold's test rows: ``together`` (n_test, all outputs), and (n_test, width) of each task alone."""

    split: Split
    together: np.ndarray
    single: tuple[np.ndarray, ...]


def _checked(tasks: Mapping[str, Task], source: Source) -> Literal["image", "text", "tabular"]:
    if len(tasks) < 2:
        raise InputError(f"{len(tasks)} task(s) were given; learning together takes two or more. For one: headstart.transfer.")
    for task in tasks.values():
        check(task, [source], verb="learn")
    return next(iter(tasks.values())).modality


def _measured(table: _Table, pairs: Sequence[Split], *, clock: Clock, observer: Observer) -> list[_Fold]:
    """Return the folds that there was time for. Raises ``InputError`` where there was none."""
    deadline = clock.deadline(JUDGED)
    every = range(len(table.stack.parts))
    done: list[_Fold] = []
    for train, test in pairs:
        try:
            single = tuple(table.outputs([t], train, test, deadline=deadline) for t in every)
            done.append(_Fold((train, test), table.outputs(list(every), train, test, deadline=deadline), single))
        except OutOfTime:
            break
        observer.advance("folds, alone and together", 1)
    if not done:
        raise InputError(f"The budget of {clock.budget:g} s ended before one fold was learnt alone and together. Give more, such as budget='10m'.")
    return done


def _gain(table: _Table, task: int, done: Sequence[_Fold], of: Task, *, margin: float) -> TaskGain:
    part = table.stack.parts[task]
    sides: tuple[list[float], list[float]] = ([], [])
    for fold in done:
        have = table.stack.have[fold.split[1], task]
        truth = _truth(table, task, fold.split[1][have])
        for side, output in zip(sides, (fold.single[task], fold.together[:, places(table.stack.parts)[task]]), strict=True):
            side.append(score(truth, output[have], classes=part.classes))
    share = share_tested([fold.split for fold in done])
    n, name = len(of.target), metric(part.classes)
    single, together = (Score(name, float(np.mean(s)), interval=interval_of_mean(s, test_share=share, cases=n if part.classes else 0), n=n) for s in sides)
    return TaskGain(part.name, of.kind, n, of.labels, name, single, together, judge(sides[1], sides[0], margin=margin, test_share=share))


def _shipped(table: _Table, gains: Sequence[TaskGain], done: Sequence[_Fold], tasks: Mapping[str, Task]) -> dict[str, Predictor]:
    """Fit on all rows what is shipped: the joint net once, where any task wants it, and a net alone for each task that does not."""
    every, rows = list(range(len(gains))), np.arange(len(table.stack.y))
    joint = table.fitted(every, rows, deadline=math.inf) if any(g.verdict.ship == "transfer" for g in gains) else None
    models = {}
    for t, gain in enumerate(gains):
        together = gain.verdict.ship == "transfer" and joint is not None
        at = places(table.stack.parts)[t]
        net = sliced(joint, at) if together and joint is not None else table.fitted([t], rows, deadline=math.inf)
        truth, output = _unseen(table, t, done, at if together else None)
        classes = table.stack.parts[t].classes
        heat = temperature(truth, softmax(output, axis=1)) if classes else 1.0
        width = 0.0 if classes else reach(truth, output[:, 0])
        fitted = Fitted(Candidate(table.method, table.source), net, classes)
        models[gain.name] = Predictor.of(fitted, tasks[gain.name], temperature=heat, reach=width)
    return models


def _unseen(table: _Table, task: int, done: Sequence[_Fold], at: slice | None) -> tuple[np.ndarray, np.ndarray]:
    """Return a task's targets and outputs on the test rows of all folds, of the joint net's outputs ``at``, or alone."""
    truths, outputs = [], []
    for fold in done:
        have = table.stack.have[fold.split[1], task]
        truths.append(_truth(table, task, fold.split[1][have]))
        outputs.append((fold.single[task] if at is None else fold.together[:, at])[have])
    return np.concatenate(truths), np.concatenate(outputs)


def _truth(table: _Table, task: int, rows: np.ndarray) -> np.ndarray:
    values: np.ndarray = table.stack.y[rows, task]
    return values.astype(np.intp) if table.stack.parts[task].classes else values


def sliced(net: Net, at: slice) -> Net:
    """Return the net of one task: the trunk, which is shared, and those outputs of the joint head.

    >>> net = Net(nn.Sequential(), nn.Sequential(nn.Dropout(), nn.Linear(2, 5)))
    >>> sliced(net, slice(1, 3)).head[-1].weight.equal(net.head[-1].weight[1:3])
    True
    """
    joint = _linear(net)
    own: nn.Linear = nn.utils.skip_init(nn.Linear, joint.in_features, at.stop - at.start)
    with torch.no_grad():
        own.weight.copy_(joint.weight[at])
        own.bias.copy_(joint.bias[at])
    return Net(net.body, nn.Sequential(OrderedDict(dropout=nn.Dropout(0.0), linear=own))).eval()


def _linear(net: Net) -> nn.Linear:
    return [m for m in net.head.modules() if isinstance(m, nn.Linear)][-1]
