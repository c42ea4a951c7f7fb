"""Gradient reversal: what keeps an adversary in one loop with what it is the adversary of (Ganin et al. 2016)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

AGAINST = 200  # steps of a net and its adversary
GENTLE = 1e-3  # rate at which neither runs away; at three times that DANN and MCD lost planted worlds (LOG.md)
HIDDEN = 100  # units of a critic's layers; 256 had no more right on five pairs of real domains, and cost half as much again (LOG.md)


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """Return x, through which a gradient passes times -``strength`` (Ganin et al. 2016, eqs. 16 and 17).

    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> reversed_gradient(x, 0.5).backward()
    >>> x.grad
    tensor([-0.5000])
    """
    return x.detach() + strength * (x.detach() - x)


def ramp(progress: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1, from 0 to 1: the adversary is heard once it knows something (there, sec. 5.2.2).

    >>> ramp(0.0), round(ramp(0.1), 4)
    (0.0, 0.4621)
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def critic(dim: int) -> nn.Sequential:
    """Return three layers that say of (n, dim) the log-odds (n, 1) of the labelled domain.

    Half of what is between them is dropped, as in the code of Long et al. 2018: a critic that is sure has no gradient left for the features to follow.
    """
    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, 1))


def told_apart(critic: nn.Module, source: Tensor, target: Tensor, weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the cross entropy, in nats, of a critic that tells cases (n, d) of both domains apart; each domain counts half, its cases by their weights (n,).

    >>> round(told_apart(nn.Linear(2, 1), torch.zeros(1, 2), torch.zeros(3, 2)).item(), 1) >= 0.7  # of what it cannot tell apart
    True
    """
    # why together: what the critic's weights cost to read is paid once
    odds = critic(torch.cat([source, target]))[:, 0]
    losses = (functional.softplus(-odds[: len(source)]), functional.softplus(odds[len(source) :]))
    if weights is None:
        return 0.5 * (losses[0].mean() + losses[1].mean())
    means = [(w * loss).sum() / w.sum() for w, loss in zip(weights, losses, strict=True)]
    return 0.5 * torch.stack(means).sum()
