"""What a training keeps beside its weights: a checkpoint to go on from, their average, and the best so far on cases held in."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core import Batch, InputError
from headstart.methods.method import Criterion

MOST_SOUP = 16  # checkpoints of a soup: each is a copy of the weights in memory


BALANCES = ("weights", "sampling", "none")
DEVICES = ("cpu", "cuda")
BOUNDS = {
    "batch": (1, math.inf),
    "micro": (0, math.inf),
    "average": (0, 0.99999),
    "held_in": (0, 0.5),
    "patience": (1, math.inf),
    "checks": (1, math.inf),
    "soup": (0, MOST_SOUP),
    "focus": (0, 10),
    "mixup": (0, 10),
    "cutmix": (0, 10),
    "processes": (1, math.inf),
}


@dataclass(frozen=True)
class Settings:
    """How ``train.fit`` trains, whatever the method.

    Parameters
    ----------
    batch : cases of an optimiser step
    micro : cases that are computed at once; 0, the default, is the whole batch, and half as many each time that memory runs out. Gradients are those of
        the batch up to rounding, but for what looks at a batch as a whole (BatchNorm whose statistics learn, BSS), and where classes are unequal, or labels
        missing, for means over plain cases, of which a part counts by its classes' weights (co-tuning, DELTA, several tasks)
    average : decay of an exponential moving average of the weights, which is served instead of the last ones; 0, the default, keeps none. Early on
        it is (1 + t) / (10 + t) at most, so that the start is soon forgotten (as in TensorFlow)
    held_in : share of the cases that are not trained on but stop the training early, 0..1; 0, the default, trains on all for all steps
    patience : checks without a new best before training stops; the best weights are served
    checks : how many times the held-in cases are looked at in the planned steps
    soup : how many of the best checks are candidates of a greedy soup (Wortsman et al. 2022; AutoGluon takes 3): from the best on, one more is averaged
        in where the loss on cases held in does not rise; 0, the default, serves the best alone. Asks for ``held_in``
    balance : how classes of unequal size are made to count alike, which is what balanced accuracy asks for: "weights" on cases (the default), "sampling"
        of batches with equal odds for each class, or "none"
    focus : gamma of the focal loss (Lin et al. 2017 take 2 for detection); 0, the default, is cross entropy
    mixup : alpha of Beta(alpha, alpha), from which the share of another case of the batch is drawn that each case, with its target, is mixed with, .2 in
        Zhang et al. 2018; 0, the default, mixes nothing. Above a cut this is manifold mixup (Verma et al. 2019)
    cutmix : the same for a rectangle that is cut from another case (Yun et al. 2019 take 1); with both, each batch draws one of the two
    device : "cpu", the default, or "cuda": where networks are trained; they come back to the CPU. Draws and sums on a GPU end in other bits
    processes : how many share each batch, of those that are in :func:`headstart.crew.together`; 1, the default. Gradients are those of the batch up to
        rounding, with the exceptions of ``micro``; draws such as dropout's are other ones for another number
    """

    batch: int = 32
    micro: int = 0
    average: float = 0.0
    held_in: float = 0.0
    patience: int = 5
    checks: int = 20
    soup: int = 0
    balance: Literal["weights", "sampling", "none"] = "weights"
    focus: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = 1

    def __post_init__(self) -> None:
        if self.average and self.held_in:
            raise InputError("An average of weights (average) and early stopping (held_in) each decide which weights are served. Choose one.")
        if self.soup and not self.held_in:
            raise InputError("A soup is chosen on cases held in. Set held_in as well, such as held_in=0.1.")
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}={value:g} is out of range. Give a value from {low:g} to {high:g}.")
        if self.balance not in BALANCES:
            raise InputError(f"balance={self.balance!r} is unknown. Choose one of {', '.join(BALANCES)}.")
        if self.device not in DEVICES:
            raise InputError(f"device={self.device!r} is unknown. Choose one of {', '.join(DEVICES)}.")

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Return the settings that text such as "held_in=0.1, soup=3" names; the others keep their defaults.

        >>> Settings.parse("average=0.99").average
        0.99

        Raises
        ------
        InputError
            no such setting (with the nearest), or a value that it cannot have.
        """
        kinds: dict[str, type] = {f.name: type(f.default) for f in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in kinds:
                near = difflib.get_close_matches(name, kinds, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(kinds)}."
                raise InputError(f"There is no setting {name!r} of training. {hint}")
            try:
                given[name] = kinds[name](value)
            except ValueError:
                wanted = "a whole number" if kinds[name] is int else "a number"
                raise InputError(f"{name}={value} cannot be read. Give {wanted}, such as {name}={kinds[name](1)}.") from None
        return cls(**given)

    def changed(self) -> dict[str, Any] | None:
        """Return the settings that are not the defaults; ``None`` where all are."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default} or None

    def place(self) -> torch.device:
        """Return the device that this process trains on: of several on one machine each has a GPU of its own. Raises ``InputError`` where it has none."""
        if self.device == "cpu":
            return torch.device("cpu")
        own, seen = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not seen:
            raise InputError("device=cuda is asked for, and PyTorch sees no GPU here. Leave it out, or install PyTorch for your GPU's driver.")
        if own >= seen:
            raise InputError(f"Process {own + 1} of this machine has no GPU of its own: PyTorch sees {seen}. Start as many processes as there are GPUs.")
        return torch.device("cuda", own)

    def split(self, y: np.ndarray, generator: torch.Generator, units: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on and those held in: of each class its share, but never its last case; of numbers the share of all.

        Cases of one unit, such as a patient, stay on one side: units come in drawn order, and each is held in that takes no class over its share.

        >>> taught, held = Settings(held_in=0.5).split(np.array([0, 0, 1, 0, 0]), torch.Generator().manual_seed(0))
        >>> len(held), 2 in taught
        (2, True)
        """
        if not self.held_in:
            return np.arange(len(y)), np.arange(0)
        if units is not None:
            return self._split_whole(np.asarray(y), generator, units)
        order = torch.randperm(len(y), generator=generator).numpy()
        groups = [order] if np.asarray(y).dtype.kind == "f" else [order[np.asarray(y)[order] == c] for c in np.unique(y)]
        held = np.sort(np.concatenate([group[: min(len(group) - 1, round(self.held_in * len(group)))] for group in groups]))
        return np.setdiff1d(np.arange(len(y)), held), held

    def _split_whole(self, y: np.ndarray, generator: torch.Generator, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, unit = np.unique(units, return_inverse=True)
        codes = np.zeros(len(y), dtype=np.intp) if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1]
        counts = np.bincount(codes)
        left, held = np.minimum(counts - 1, np.round(self.held_in * counts).astype(np.intp)), np.zeros(len(y), dtype=bool)
        for one in torch.randperm(int(unit.max()) + 1, generator=generator).tolist():
            takes = np.bincount(codes[unit == one], minlength=len(counts))
            if (takes <= left).all():
                held[unit == one], left = True, left - takes
        return np.flatnonzero(~held), np.flatnonzero(held)

    def criterion(self, weights: Tensor) -> Criterion:
        """Return how the target's loss is counted, of weights (c,) that make the classes count alike; empty for numbers."""
        return Criterion(weights if self.balance == "weights" else torch.ones_like(weights), self.focus)

    def odds(self, y: Tensor, weights: Tensor) -> Tensor | None:
        """Return (n,) the odds by which cases are drawn; ``None``: each once in a pass."""
        return weights[y] if self.balance == "sampling" and len(weights) else None

    def mixed(self, batch: Batch, *, classes: int) -> Batch:
        """Return the batch with each case mixed with another; draws from PyTorch's own generator. ``classes`` is 0 for numbers.

        Raises
        ------
        InputError
            token ids are to be mixed, or a rectangle cut out of what has no rows and columns.
        """
        if not self.mixup and not self.cutmix:
            return batch
        cuts = bool(self.cutmix) and (not self.mixup or bool(torch.rand(()) < 0.5))
        if not batch.x.is_floating_point() or (cuts and batch.x.ndim != 4):
            what = "cutmix asks for images or maps" if cuts else "mixup asks for images, maps or vectors"
            raise InputError(f"{what}; this method trains on {'token ids' if not batch.x.is_floating_point() else 'vectors'}. Leave it out.")
        alpha = self.cutmix if cuts else self.mixup
        own = float(torch.distributions.Beta(alpha, alpha).sample())
        other = torch.randperm(len(batch.y))
        x, own = _pasted(batch.x, batch.x[other], own) if cuts else (own * batch.x + (1 - own) * batch.x[other], own)
        y = functional.one_hot(batch.y, classes).float() if classes else batch.y
        return dataclasses.replace(batch, x=x, y=own * y + (1 - own) * y[other])


@dataclass
class Progress:
    """What changes while a net is trained, beside the net and its optimiser."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    multiples: dict[str, float] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: list[tuple[float, dict[str, Tensor]]] = field(default_factory=list)  # the least loss first
    keeps: int = 1
    waited: int = 0

    def on(self, device: torch.device) -> Progress:
        """Return a copy whose weights are on that device."""
        return Progress(**{f.name: _on(getattr(self, f.name), device) for f in dataclasses.fields(self)})

    def blend(self, net: nn.Module, decay: float) -> None:
        """Move the average towards the weights of step ``self.step``; a decay of 0 keeps none."""
        if not decay:
            return
        decay = min(decay, (1 + self.step) / (10 + self.step))
        for name, value in net.state_dict().items():
            old = self.average.get(name)
            moves = old is not None and value.is_floating_point()
            self.average[name] = old.lerp(value, 1 - decay) if moves and old is not None else value.detach().clone()

    def judge(self, net: nn.Module, loss: float) -> None:
        """Keep the weights if the loss on cases held in is among the least so far."""
        self.waited = 0 if not self.best or loss < self.best[0][0] else self.waited + 1
        if len(self.best) < self.keeps or loss < self.best[-1][0]:
            self.best = sorted([*self.best, (loss, _copied(net))], key=lambda one: one[0])[: self.keeps]

    def serve(self, net: nn.Module, judge: Callable[[], float]) -> None:
        """Put the weights to serve into the net: their average, the best or a greedy soup of the best, or the last. ``judge`` is the net's loss now."""
        if self.average:
            net.load_state_dict(self.average)
        if not self.best:
            return
        (least, soup), *rest = self.best
        parts = 1
        for _, state in rest:
            more = {name: v.lerp(state[name], 1 / (parts + 1)) if v.is_floating_point() else v for name, v in soup.items()}
            net.load_state_dict(more)
            if (loss := judge()) <= least:
                least, soup, parts = loss, more, parts + 1
        net.load_state_dict(soup)


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
        at = torch.device("cpu")  # why: what is trained on a GPU can be gone on with on any machine
        return cls(_on(net.state_dict(), at), _on(optimiser.state_dict(), at), torch.get_rng_state(), progress.on(at))

    def restore(self, net: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
        """Put it back into a net and its optimiser, and into PyTorch's random state; return the progress."""
        net.load_state_dict(self.net)
        optimiser.load_state_dict(copy.deepcopy(self.optimiser))
        torch.set_rng_state(self.random)
        return self.progress.on(next(net.parameters()).device)


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _on(value: Any, device: torch.device) -> Any:
    """Return a copy of plain containers, with the tensors in them on that device."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {name: _on(one, device) for name, one in value.items()}
    return type(value)(_on(one, device) for one in value) if isinstance(value, list | tuple) else copy.deepcopy(value)


def _pasted(x: Tensor, other: Tensor, own: float) -> tuple[Tensor, float]:
    """Return (n, c, h, w) maps with one rectangle of the others' in them, of 1 - ``own`` of the area before it is clipped, and the area that is left."""
    h, w = x.shape[2:]
    side = math.sqrt(1 - own)
    row, column = (int(torch.randint(0, n, ())) for n in (h, w))
    (top, bottom), (left, right) = ((max(0, at - round(n * side) // 2), min(n, at + round(n * side) // 2)) for at, n in ((row, h), (column, w)))
    x = x.clone()
    x[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return x, 1 - (bottom - top) * (right - left) / (h * w)
