"""fit(): the only training loop in the project.

It takes a method's three answers (what is trained, who learns when, what is minimised) and activations at a cut. What is frozen is frozen
bit for bit, BatchNorm statistics included; the same seed gives the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines import tune_allocator
from headstart.core import Batch, Net
from headstart.crew import gradients_of
from headstart.descent import Descent
from headstart.freezing import learners, set_modes
from headstart.gradients import Work, placed
from headstart.keeping import Checkpoint, Progress, Settings
from headstart.methods.method import Criterion, Method, target_loss

PREPARED = 4  # batches that a method may look at before the first step
PART = 64  # cases of the second domain that are looked at together; more are no faster on a CPU
PLAIN = Settings()
CPU = torch.device("cpu")


class OutOfTime(Exception):
    """The deadline passed in the middle of a fit; the fit's work is lost, earlier work is not."""


@dataclass(frozen=True)
class History:
    """The loss of every step, in order."""

    losses: tuple[float, ...]


def fit(
    method: Method,
    net: Net,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seed: int,
    unlabelled: np.ndarray | None = None,
    copies: np.ndarray | None = None,
    reduced: bool = False,
    deadline: float = math.inf,
    progress: Callable[[float], None] | None = None,
    settings: Settings = PLAIN,
    units: np.ndarray | None = None,
    resume: Checkpoint | None = None,
    keep: tuple[int, Callable[[Checkpoint], None]] | None = None,
) -> tuple[Net, History]:
    """Train ``net`` in place with AdamW on activations ``x`` (n, ...) and targets ``y`` (n,); return it with its history, its scaffold taken down.

    Integers are class codes, floats are numbers to regress.

    The method's schedule (as a rule, linear warm-up over a tenth of the steps, then a cosine to 0); gradients clipped to norm 1; the method's weight
    decay on matrices and kernels, none on biases and norms (the defaults that fine-tuning recipes agree on). Classes count alike, however many cases
    each has, unless ``settings`` say otherwise.

    Parameters
    ----------
    unlabelled : activations (m, ...) of a second domain without labels; every batch then brings as many of them
    copies : activations (m, k, ...) of augmented copies of those cases; every batch then brings one of each of its cases, in each pass over them the next
    reduced : convolutions and matrix products in bfloat16, weights and their updates in float32, where that is faster (see :func:`gains_from_bfloat16`)
    deadline : a time of ``time.monotonic`` at which training gives up
    progress : called with the share of steps done, 0..1
    settings : batches and how they are drawn and mixed, how cases are weighed, averages of the weights, early stopping; on which device, by how many
        processes (see :mod:`headstart.crew`). The net comes back on the CPU
    units : (n,) cases of one are never taught and held in at once
    resume : go on from there; everything else must be as it was, and ``net`` built alike
    keep : after every so many steps, what is called with a checkpoint

    Raises
    ------
    OutOfTime
        the deadline passed.
    InputError
        the loss is no longer a number; inputs that cannot be mixed are to be mixed; there is no GPU, or are not so many processes, as are asked for.
    """
    tune_allocator()
    net.to(device := settings.place())
    generator = torch.Generator().manual_seed(seed)
    targets, weights = _targets(y, net)
    taught, held = settings.split(np.asarray(y), generator, units)
    criterion = settings.criterion(weights.to(device))
    size = min(settings.batch, len(taught))
    batches = _batches(taught, method.steps, generator, size=size, odds=settings.odds(targets[taught], weights))
    descent = Descent(who := learners(net, method), method, {} if resume is None else resume.progress.multiples)
    micro = settings.micro or size
    others = _beside(unlabelled, len(batches), size=size, seed=seed)
    cases = _Cases(x, targets, unlabelled, device, copies)
    backward = gradients_of(Work(method, net, criterion, seed, device, reduced and gains_from_bfloat16(net, device)), settings)
    judge = partial(_loss_on, net, cases.take(held), criterion, size=size, device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        method.prepare(net.eval(), cases.first(batches, others), criterion)
        state = Progress(keeps=max(1, settings.soup)) if resume is None else _resumed(resume, method, net, descent.optimiser, cases)
        for step in range(state.step, len(batches)):
            if time.monotonic() > deadline:
                raise OutOfTime
            if len(held) and state.waited >= settings.patience:
                break
            _surveyed(method, net, cases, step)
            factors = method.rates(len(net.body), step / method.steps)
            set_modes(net, who, factors, state.multiples, method)
            batch = settings.mixed(cases.take(batches[step], others[step], turn=step * size, progress=step / method.steps), classes=len(weights))
            loss, micro = backward(batch, step=step, micro=micro)
            state.losses.append(loss)
            state.multiples = state.multiples if step % max(1, len(taught) // size) else method.multiples(net)
            descent.step(net, [f * method.rate for f in factors], state)
            state.step = step + 1
            state.blend(net, settings.average)
            if len(held) and state.step % max(1, method.steps // settings.checks) == 0:
                state.judge(net, judge())
            if keep is not None and state.step % keep[0] == 0:
                keep[1](Checkpoint.of(net, descent.optimiser, state))
            if progress is not None:
                progress(state.step / method.steps)
        state.serve(net, judge)
        _surveyed(method, net, cases, method.steps)
    return _finished(method, net.cpu()), History(tuple(state.losses))


def predict_logits(net: Net, x: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the net's output (n, c), logits or numbers, for activations ``x`` (n, ...), in evaluation mode."""
    net.eval()
    with torch.inference_mode():
        parts = [net(_tensor(x, np.arange(i, min(i + batch, len(x))))) for i in range(0, len(x), batch)]
    return torch.cat(parts).double().numpy()


def hidden(net: Net, x: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return what the net's last linear layer sees (n, d) of activations ``x`` (n, ...), in evaluation mode."""
    parts: list[Tensor] = []
    last = [m for m in net.head.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda module, given: parts.append(given[0]))
    try:
        predict_logits(net, x, batch=batch)
    finally:
        hook.remove()
    return torch.cat(parts).double().numpy()


def gains_from_bfloat16(net: nn.Module, device: torch.device = CPU) -> bool:
    """Whether the net trains faster in bfloat16 there. On a CPU: it has the instructions, and no convolution runs over groups. On a GPU: it has them.

    Measured on two cores with them: dense convolutions 1.7 to 2 times as fast, depthwise ones 1.6 to 2 times as slow. A rule and no clock, so that
    the same machine always trains alike.

    >>> gains_from_bfloat16(nn.Conv2d(4, 4, 3, groups=4))
    False
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(native) and all(m.groups == 1 for m in convolutions)


def _tensor(x: np.ndarray, rows: np.ndarray | Tensor | tuple[np.ndarray, np.ndarray]) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(x[rows if isinstance(rows, tuple) else np.asarray(rows)]))
    values = values.float() if values.is_floating_point() else values  # why: token ids stay whole numbers
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _batches(taught: np.ndarray, steps: int, generator: torch.Generator, *, size: int, odds: Tensor | None) -> list[Tensor]:
    """Shuffled passes over the rows ``taught`` (n,), or draws by ``odds`` (n,), in full batches, so that BatchNorm never sees a batch of one."""
    n, per_pass = len(taught), len(taught) // size
    found: list[Tensor] = []
    while len(found) < steps:
        rows = torch.randperm(n, generator=generator) if odds is None else torch.multinomial(odds, n, replacement=True, generator=generator)
        found += torch.from_numpy(taught)[rows[: per_pass * size]].split(size)
    return found[:steps]


@dataclass(frozen=True)
class _Cases:
    """What batches are taken from: activations, targets, and activations of a second domain where there is one; ``device`` is where the net is."""

    x: np.ndarray
    y: Tensor
    unlabelled: np.ndarray | None
    device: torch.device
    copies: np.ndarray | None = None

    def take(self, rows: Tensor | np.ndarray, beside: Tensor | None = None, *, turn: int = 0, progress: float = 0.0) -> Batch:
        """``turn`` is how many cases of the second domain were taken before, which says whose turn it is among their copies."""
        second = None if self.unlabelled is None or beside is None else _tensor(self.unlabelled, beside)
        copies = None
        if self.copies is not None and beside is not None:
            m, k = self.copies.shape[:2]
            copies = _tensor(self.copies, (np.asarray(beside), np.arange(turn, turn + len(beside)) // m % k))
        return Batch(_tensor(self.x, rows), self.y[rows], torch.as_tensor(rows), second, beside, progress, copies)

    def first(self, batches: Sequence[Tensor], others: Sequence[Tensor | None]) -> Batch:
        """The cases of the first batches, each once, where the net is."""
        return placed(self.take(torch.cat(list(batches[:PREPARED])).unique(), _joined(others[:PREPARED])), self.device)

    def parts(self) -> Iterator[Tensor]:
        """All of the second domain in order, in parts of nearly one size: so that none is a single case, which has no variance."""
        if self.unlabelled is not None:
            yield from (part.to(self.device) for part in parts_of(self.unlabelled))


def parts_of(x: np.ndarray) -> Iterator[Tensor]:
    """All activations x (m, ...) in order, in parts of nearly one size of at most 64: so that none is a single case, which has no variance."""
    for rows in np.array_split(np.arange(len(x)), -(-len(x) // PART)):
        yield _tensor(x, rows)


def _beside(unlabelled: np.ndarray | None, steps: int, *, size: int, seed: int) -> Sequence[Tensor | None]:
    """Shuffled passes over the unlabelled cases, in as many batches; drawn apart, so that labelled batches are what they are without them."""
    if unlabelled is None:
        return [None] * steps
    generator = torch.Generator().manual_seed(seed + 1)
    passes = [torch.randperm(len(unlabelled), generator=generator) for _ in range(-(-steps * size // len(unlabelled)))]
    parts: tuple[Tensor, ...] = torch.cat(passes)[: steps * size].split(size)
    return parts


def _surveyed(method: Method, net: Net, cases: _Cases, step: int) -> None:
    """Show the method the whole second domain, where there is one and it asks for it before this step."""
    if cases.unlabelled is not None and method.surveys(step, method.steps):
        with torch.no_grad():
            method.survey(net.eval(), cases.parts(), step / method.steps)
        net.to(cases.device)  # why: what it found may be new in the scaffold


def _resumed(kept: Checkpoint, method: Method, net: Net, optimiser: torch.optim.Optimizer, cases: _Cases) -> Progress:
    """Put the net back to where a training stood; a survey first, as that gives what the scaffold holds its shape."""
    _surveyed(method, net, cases, 0)
    return kept.restore(net, optimiser)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return the rows of several batches, each once."""
    rows = [part for part in parts if part is not None]
    return torch.cat(rows).unique() if rows else None


def _finished(method: Method, net: Net) -> Net:
    """Return the net to serve, without its scaffold, in evaluation mode."""
    net = method.finish(net.eval())
    net.scaffold = None
    return net.requires_grad_(True).eval()


def _loss_on(net: Net, batch: Batch, criterion: Criterion, *, size: int, device: torch.device) -> float:
    """Return the target's loss, without the method's penalties, in evaluation mode."""
    net.eval()
    with torch.no_grad():
        output = torch.cat([net(part.to(device)) for part in batch.x.split(size)])
        return float(torch.stack(list(target_loss(output, batch.y.to(device), criterion).values())).sum())


def _targets(y: np.ndarray, net: Net) -> tuple[Tensor, Tensor]:
    """Return targets (n,), and weights (c,) that make classes count alike: none for numbers."""
    if np.asarray(y).dtype.kind == "f":
        return torch.from_numpy(np.asarray(y, dtype=np.float32)), torch.ones(0)
    return torch.from_numpy(np.asarray(y, dtype=np.int64)), _class_weights(y, net)


def _class_weights(y: np.ndarray, net: Net) -> Tensor:
    classes = [m.out_features for m in net.head.modules() if isinstance(m, nn.Linear)][-1]
    counts = np.bincount(np.asarray(y), minlength=classes)
    return torch.from_numpy(len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1))).float()
