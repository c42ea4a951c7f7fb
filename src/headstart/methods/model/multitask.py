"""Several tasks over one trunk, a head each: losses balanced by uncertainty (Kendall et al. 2018) or freed of conflict (PCGrad, Yu et al. 2020)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.core import Batch, Net, Source
from headstart.methods.method import Criterion, knob, target_loss
from headstart.methods.model.tuned import Tuned, blank, probed, walked

BALANCES = ("uniform", "uncertainty", "surgery")
HASTE = 100.0  # times the head's rate, at which log variances learn: in a hundred steps one went to -1.26, of an optimum of -4.76, where it had gone to -.05


@dataclass(frozen=True)
class Part:
    """One task's part of the head: its name, and how many classes it has, 0 for numbers.

    >>> [part.width for part in (Part("grade", 3), Part("age", 0))]
    [3, 1]
    """

    name: str
    classes: int

    @property
    def width(self) -> int:
        """How many outputs it takes."""
        return max(1, self.classes)


@dataclass(frozen=True)
class MultiTask(Tuned):
    """Fine-tune from a cut for several tasks at once: targets (n, tasks) of class codes and numbers, NaN where a label is missing.

    One linear head holds the heads of all tasks side by side, each from a probe on the cases that have its label. The loss of a task is the mean over the
    cases of a batch that have its label; a case without it adds nothing to it, as if it were not there, and still counts for the other tasks.

    Parameters
    ----------
    parts : the tasks, in the order of the targets' columns; none: one task as in every other method
    depth : which tuning cut to start from, 0 nearest to the output
    rate, decay, steps, smoothing, dropout : as in :class:`FineTune`
    balance : "uniform" adds the losses L up (the default: no scheme beats it reliably, Xin et al. 2022); "uncertainty" minimises L / v + log(v) / 2 for
        classes and L / 2v + log(v) / 2 for numbers, v a variance that each task learns (Kendall et al. 2018, eq. 7 and 10); "surgery" takes out of each task's
        gradient in the trunk what points against another's (Yu et al. 2020, algorithm 1). Where memory runs out, it does so in each part of a batch

    Examples
    --------
    >>> surgery(torch.tensor([[1.0, 0.0], [-1.0, 1.0]])).tolist()  # (1/2, 1/2) and (0, 1)
    [0.5, 1.5]
    """

    name: ClassVar[str] = "multitask"
    paper: ClassVar[str] = "Caruana 1997, Multitask learning"
    limits: ClassVar[str] = "tasks that want different trunks hold each other back; helps most where a task has few labels and a related one has many"

    depth: int = knob(0, choices=(0, 1))
    rate: float = knob(1e-3, low=2e-4, high=3e-3, log=True)
    decay: float = knob(0.8, choices=(0.65, 0.8, 0.9, 1.0))
    steps: int = knob(100, choices=(50, 100, 200, 400))
    balance: str = knob("uniform", choices=BALANCES)
    smoothing: float = knob(0.0, choices=(0.0, 0.1))
    dropout: float = knob(0.0, choices=(0.0, 0.2, 0.5))
    parts: tuple[Part, ...] = ()

    def build(self, source: Source, *, features: np.ndarray | None, y: np.ndarray, classes: int, seed: int) -> Net:
        if not self.parts:
            return super().build(source, features=features, y=y, classes=classes, seed=seed)
        linear = blank(source.dim, classes=sum(part.width for part in self.parts))
        with torch.no_grad():
            for part, at, column in zip(self.parts, places(self.parts), y.T, strict=True):
                have = ~np.isnan(column)
                own = probed(None if features is None else features[have], _targets(column[have], part), classes=part.classes)
                linear.weight[at] = own.weight
                linear.bias[at] = own.bias
        head = nn.Sequential(OrderedDict(dropout=nn.Dropout(self.dropout), linear=linear))
        scaffold = nn.ModuleDict({"balance": _Balance(y, self.parts, learns=self.balance == "uncertainty")})
        return Net(self.body(source, seed=seed), head, scaffold)

    def loss(self, net: Net, batch: Batch, criterion: Criterion) -> dict[str, Tensor]:
        if not self.parts:
            return super().loss(net, batch, criterion)
        output = net.head(walked(net.body, batch.x)[-1])
        balance = _balance(net)
        terms = {}
        for i, (part, at) in enumerate(zip(self.parts, places(self.parts), strict=True)):
            term = masked(output[:, at], batch.y[:, i], part, balance.weights(i), smoothing=self.smoothing)
            present = not bool(torch.isnan(batch.y[:, i]).all())
            terms[part.name] = tempered(term, balance.log_variance[i], part) if present and self.balance == "uncertainty" else term
        return terms

    def multiples(self, net: Net) -> dict[str, float]:
        """AdamW moves a log variance by the rate at most in a step: at the head's it would be about where it began after a hundred."""
        return {"scaffold.balance.log_variance": HASTE} if self.balance == "uncertainty" and self.parts else {}

    def descend(self, terms: dict[str, Tensor], net: Net, share: float) -> None:
        trunk, rest = ([p for p in module.parameters() if p.requires_grad] for module in (net.body, net.head))
        if self.balance != "surgery" or len(terms) < 2 or not trunk:
            super().descend(terms, net, share)
            return
        apart = []
        for term in terms.values():
            found = torch.autograd.grad(share * term.float(), [*trunk, *rest], retain_graph=True, allow_unused=True, materialize_grads=True)
            apart.append(torch.cat([g.flatten() for g in found[: len(trunk)]]))
            for p, g in zip(rest, found[len(trunk) :], strict=True):
                p.grad = g if p.grad is None else p.grad + g
        together = surgery(torch.stack(apart)).split([p.numel() for p in trunk])
        for p, g in zip(trunk, together, strict=True):
            p.grad = g.view_as(p) if p.grad is None else p.grad + g.view_as(p)


def places(parts: Sequence[Part]) -> list[slice]:
    """Return which outputs of the joint head belong to each task.

    >>> places([Part("grade", 3), Part("age", 0)])
    [slice(0, 3, None), slice(3, 4, None)]
    """
    ends = np.cumsum([part.width for part in parts]).tolist()
    return [slice(end - part.width, end) for end, part in zip(ends, parts, strict=True)]


def masked(output: Tensor, y: Tensor, part: Part, weights: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return a task's loss over the cases that have its label: ``output`` (n, width), ``y`` (n,) with NaN where it is missing; 0 where none has one.

    >>> masked(torch.tensor([[1.0], [7.0]]), torch.tensor([3.0, torch.nan]), Part("age", 0), torch.ones(0))
    tensor(4.)
    """
    have = ~torch.isnan(y)
    if not bool(have.any()):
        return 0.0 * output.sum()  # why: a loss without a graph has no gradient, not even one of 0
    targets = y[have].long() if part.classes else y[have]
    return torch.stack(list(target_loss(output[have], targets, Criterion(weights), smoothing=smoothing).values())).sum()


def tempered(loss: Tensor, log_variance: Tensor, part: Part) -> Tensor:
    """Return a loss weighed by a learnt variance v: L / v + log(v) / 2, half of L for numbers (Kendall et al. 2018, eq. 7 and 10).

    >>> tempered(torch.tensor(6.0), torch.tensor(2.0).log(), Part("age", 0))  # 6 / 4 + log(2) / 2
    tensor(1.8466)
    """
    return (1.0 if part.classes else 0.5) * loss * torch.exp(-log_variance) + 0.5 * log_variance


def surgery(gradients: Tensor) -> Tensor:
    """Return the sum (d,) of the tasks' gradients (t, d), each less its parts against the others', which come in random order.

    Yu et al. 2020, algorithm 1: where g_i g_j < 0, g_i loses its projection on g_j. Order from PyTorch's generator.
    """
    given = gradients.double()
    total = torch.zeros_like(given[0])
    for i, own in enumerate(given):
        mine = own.clone()
        for j in torch.randperm(len(given)).tolist():
            along = mine @ given[j]
            if j != i and along < 0:
                mine -= along / (given[j] @ given[j]) * given[j]
        total += mine
    return total.to(gradients.dtype)


class _Balance(nn.Module):
    """What the loss needs of all training cases: weights that make a task's classes count alike; and the log variances that it may learn."""

    def __init__(self, y: np.ndarray, parts: Sequence[Part], *, learns: bool) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(len(parts)), requires_grad=learns)
        for i, (part, column) in enumerate(zip(parts, y.T, strict=True)):
            counts = np.bincount(column[~np.isnan(column)].astype(int), minlength=part.classes) if part.classes else np.zeros(0)
            even = counts.sum() / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1))
            self.register_buffer(f"weights{i}", torch.from_numpy(even).float())

    def weights(self, task: int) -> Tensor:
        """Return (c,) the weights of a task's classes; none for numbers."""
        return self.get_buffer(f"weights{task}")


def _balance(net: Net) -> _Balance:
    part = None if net.scaffold is None else net.scaffold["balance"]
    if not isinstance(part, _Balance):
        raise ValueError("several tasks are trained with their scaffold; this net has none")
    return part


def _targets(values: np.ndarray, part: Part) -> np.ndarray:
    return values.astype(np.intp) if part.classes else values
