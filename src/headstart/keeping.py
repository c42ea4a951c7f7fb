"""What a training keeps beside its weights: a checkpoint to go on from, their average, and the best so far on cases held in."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Settings:
    """How ``train.fit`` trains, whatever the method.

    Parameters
    ----------
    batch : cases of an optimiser step
    micro : cases that are computed at once; 0, the default, is the whole batch, and half as many each time that memory runs out. Gradients are those of
        the batch up to rounding, but for what looks at a batch as a whole (BatchNorm whose statistics learn, BSS)
    average : decay of an exponential moving average of the weights, which is served instead of the last ones; 0, the default, keeps none. Early on
        it is (1 + t) / (10 + t) at most, so that the start is soon forgotten (as in TensorFlow)
    held_in : share of the cases that are not trained on but stop the training early, 0..1; 0, the default, trains on all for all steps
    patience : checks without a new best before training stops; the best weights are served
    checks : how many times the held-in cases are looked at in the planned steps
    """

    batch: int = 32
    micro: int = 0
    average: float = 0.0
    held_in: float = 0.0
    patience: int = 5
    checks: int = 20

    def __post_init__(self) -> None:
        if self.average and self.held_in:
            raise ValueError("an average of weights and early stopping each decide which weights are served; choose one")

    def split(self, y: np.ndarray, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and those held in: of each class its share, but never its last case; of numbers the share of all.

        >>> taught, held = Settings(held_in=0.5).split(np.array([0, 0, 1, 0, 0]), torch.Generator().manual_seed(0))
        >>> len(held), 2 in taught
        (2, True)
        """
        if not self.held_in:
            return np.arange(len(y)), np.arange(0)
        order = torch.randperm(len(y), generator=generator).numpy()
        groups = [order] if np.asarray(y).dtype.kind == "f" else [order[np.asarray(y)[order] == c] for c in np.unique(y)]
        held = np.sort(np.concatenate([group[: min(len(group) - 1, round(self.held_in * len(group)))] for group in groups]))
        return np.setdiff1d(np.arange(len(y)), held), held


@dataclass
class Progress:
    """What changes while a net is trained, beside the net and its optimiser."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    multiples: dict[str, float] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    least: float = math.inf
    waited: int = 0

    def blend(self, net: nn.Module, decay: float) -> None:
        """Move the average towards the weights of step ``self.step``."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, value in net.state_dict().items():
            old = self.average.get(name)
            moves = old is not None and value.is_floating_point()
            self.average[name] = old.lerp(value, 1 - decay) if moves and old is not None else value.detach().clone()

    def judge(self, net: nn.Module, loss: float) -> None:
        """Keep the weights if the loss on cases held in is the least so far."""
        self.waited += 1
        if loss < self.least:
            self.least, self.waited, self.best = loss, 0, _copied(net)

    def served(self) -> dict[str, Tensor] | None:
        """Return the weights to serve; ``None``: the last ones."""
        return self.average or self.best or None


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood after a step. ``train.fit`` goes on from it and ends with the same bits as without a stop.

    It holds no data and no method: hand in the same ones, with the same seed, and a net that is built alike.
    """

    net: dict[str, Tensor]
    optimiser: dict[str, Any]
    random: Tensor
    progress: Progress

    @classmethod
    def of(cls, net: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> Checkpoint:
        """Return a copy of where a training stands."""
        return cls(_copied(net), copy.deepcopy(optimiser.state_dict()), torch.get_rng_state(), copy.deepcopy(progress))

    def restore(self, net: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
        """Put it back into a net and its optimiser, and into PyTorch's random state; return the progress."""
        net.load_state_dict(self.net)
        optimiser.load_state_dict(copy.deepcopy(self.optimiser))
        torch.set_rng_state(self.random)
        return copy.deepcopy(self.progress)


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
