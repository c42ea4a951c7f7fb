"""fit(): the only training loop in the project.

It takes a method's three answers (what is trained, who learns when, what is minimised) and activations at a cut. What is frozen is frozen
bit for bit, BatchNorm statistics included; the same seed gives the same weights, bit for bit, on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headstart.activations.engines import is_out_of_memory, tune_allocator
from headstart.core import Batch, InputError, Net
from headstart.keeping import Checkpoint, Progress, Settings
from headstart.methods.method import Method, target_loss

WARMUP = 0.1
CLIP = 1.0
PREPARED = 4  # batches that a method may look at before the first step
PLAIN = Settings()


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
    reduced: bool = False,
    deadline: float = math.inf,
    progress: Callable[[float], None] | None = None,
    settings: Settings = PLAIN,
    resume: Checkpoint | None = None,
    keep: tuple[int, Callable[[Checkpoint], None]] | None = None,
) -> tuple[Net, History]:
    """Train ``net`` in place with AdamW on activations ``x`` (n, ...) and targets ``y`` (n,); return it with its history, its scaffold taken down.

    Integers are class codes, floats are numbers to regress.

    Linear warm-up over a tenth of the steps, then a cosine to 0; gradients clipped to norm 1; the method's weight decay on matrices and kernels,
    none on biases and norms (the defaults that fine-tuning recipes agree on). Classes count alike, however many cases each has.

    Parameters
    ----------
    reduced : convolutions and matrix products in bfloat16, weights and their updates in float32, where that is faster (see :func:`gains_from_bfloat16`)
    deadline : a time of ``time.monotonic`` at which training gives up
    progress : called with the share of steps done, 0..1
    settings : batches, an average of the weights, early stopping
    resume : go on from there; everything else must be as it was, and ``net`` built alike
    keep : after every so many steps, what is called with a checkpoint

    Raises
    ------
    OutOfTime
        the deadline passed.
    InputError
        the loss is no longer a number.
    """
    tune_allocator()
    reduced = reduced and gains_from_bfloat16(net)
    generator = torch.Generator().manual_seed(seed)
    targets, classes = _targets(y, net)
    taught, held = settings.split(np.asarray(y), generator)

    def take(rows: Tensor | np.ndarray) -> Batch:
        return Batch(_tensor(x, rows), targets[rows])

    size = min(settings.batch, len(taught))
    batches = [torch.from_numpy(taught)[rows] for rows in _batches(len(taught), method.steps, generator, size=size)]
    stages, learners = len([*net.body.children()]), _learners(net, method)
    optimiser = torch.optim.AdamW([{"params": [one.tensor], "weight_decay": one.decay} for one in learners], lr=0.0, weight_decay=0.0)
    micro = settings.micro or size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.prepare(net.eval(), take(torch.cat(batches[:PREPARED]).unique()), classes)
        state = Progress() if resume is None else resume.restore(net, optimiser)
        for step in range(state.step, len(batches)):
            if time.monotonic() > deadline:
                raise OutOfTime
            if len(held) and state.waited >= settings.patience:
                break
            factors = method.rates(stages, step / method.steps)
            _set_modes(net, learners, factors, state.multiples, method)
            loss, micro = _backward(method, net, optimiser, take(batches[step]), classes, step=step, micro=micro, reduced=reduced)
            state.losses.append(loss)
            if step % max(1, len(taught) // size) == 0:
                state.multiples = method.multiples(net)
            for one, group in zip(learners, optimiser.param_groups, strict=True):
                group["lr"] = method.rate * factors[one.stage] * state.multiples.get(one.name, 1.0) * _schedule(step, method.steps)
            nn.utils.clip_grad_norm_((p for p in net.parameters() if p.grad is not None), CLIP)
            optimiser.step()
            state.step = step + 1
            if settings.average:
                state.blend(net, settings.average)
            if len(held) and state.step % max(1, method.steps // settings.checks) == 0:
                state.judge(net, _loss_on(net, take(held), classes, size=size))
            if keep is not None and state.step % keep[0] == 0:
                keep[1](Checkpoint.of(net, optimiser, state))
            if progress is not None:
                progress(state.step / method.steps)
    return _finished(net, state), History(tuple(state.losses))


def predict_logits(net: Net, x: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the net's output (n, c), logits or numbers, for activations ``x`` (n, ...), in evaluation mode."""
    net.eval()
    with torch.inference_mode():
        parts = [net(_tensor(x, np.arange(i, min(i + batch, len(x))))) for i in range(0, len(x), batch)]
    return torch.cat(parts).double().numpy()


def gains_from_bfloat16(net: nn.Module) -> bool:
    """Whether the net trains faster in bfloat16 on this processor: it has the instructions, and no convolution runs over groups.

    Measured on two cores with them: dense convolutions 1.7 to 2 times as fast, depthwise ones 1.6 to 2 times as slow. A rule and no clock, so that
    the same machine always trains alike.

    >>> gains_from_bfloat16(nn.Conv2d(4, 4, 3, groups=4))
    False
    """
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(native) and all(m.groups == 1 for m in convolutions)


def _tensor(x: np.ndarray, rows: np.ndarray | Tensor) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(x[np.asarray(rows)]))
    values = values.float() if values.is_floating_point() else values  # why: token ids stay whole numbers
    return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


def _batches(n: int, steps: int, generator: torch.Generator, *, size: int) -> list[Tensor]:
    """Shuffled passes over the rows, cut into full batches, so that BatchNorm never sees a batch of one."""
    per_pass = n // size
    passes = [torch.randperm(n, generator=generator)[: per_pass * size].split(size) for _ in range(math.ceil(steps / per_pass))]
    return [rows for one in passes for rows in one][:steps]


@dataclass(frozen=True)
class _Learner:
    """A tensor that may learn: its name in the net, its stage (the last is the head), and its weight decay."""

    name: str
    tensor: nn.Parameter
    stage: int
    decay: float
    allowed: bool


def _learners(net: Net, method: Method) -> list[_Learner]:
    """List every tensor of the body and the head once, in the stage that holds it first, and what learns of the scaffold with the head."""
    parts: list[tuple[str, nn.Module]] = [*((f"body.{name}", stage) for name, stage in net.body.named_children()), ("head", net.head)]
    head = len(parts) - 1
    if net.scaffold is not None:
        parts.append(("scaffold", net.scaffold))
    found: dict[nn.Parameter, _Learner] = {}
    for i, (prefix, part) in enumerate(parts):
        for path, module in part.named_modules(prefix=prefix):
            for name, tensor in module.named_parameters(recurse=False):
                if tensor not in found and (i <= head or tensor.requires_grad):
                    allowed = i >= head or method.learns(module, name)
                    decay = method.weight_decay if tensor.ndim > 1 else 0.0
                    found[tensor] = _Learner(f"{path}.{name}", tensor, min(i, head), decay, allowed)
    return list(found.values())


def _set_modes(net: Net, learners: Sequence[_Learner], factors: Sequence[float], multiples: dict[str, float], method: Method) -> None:
    net.train()
    for stage, factor in zip([*net.body.children(), net.head], factors, strict=True):
        if factor == 0:
            stage.eval()  # why: a frozen BatchNorm would still move its running statistics, and the stage would drift without a gradient
    for one in learners:
        one.tensor.requires_grad_(one.allowed and factors[one.stage] > 0 and multiples.get(one.name, 1.0) > 0)
    for part in () if net.scaffold is None else net.scaffold.values():
        part.train(any(p.requires_grad for p in part.parameters()))
    if method.freezes_statistics:
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _backward(
    method: Method, net: Net, optimiser: torch.optim.Optimizer, batch: Batch, classes: Tensor, *, step: int, micro: int, reduced: bool
) -> tuple[float, int]:
    """Leave the gradients of the batch's loss in the net; return the loss and how many cases memory held at once."""
    random = torch.get_rng_state()
    while True:
        optimiser.zero_grad(set_to_none=True)
        try:
            return _accumulated(method, net, batch, classes, step=step, micro=micro, reduced=reduced), micro
        except (MemoryError, RuntimeError) as error:
            if micro == 1 or not is_out_of_memory(error):
                raise
        micro = (micro + 1) // 2
        torch.set_rng_state(random)


def _accumulated(method: Method, net: Net, batch: Batch, classes: Tensor, *, step: int, micro: int, reduced: bool) -> float:
    """Add up gradients part by part; each part's mean loss counts by its share of the batch's weights, so that the sum is the batch's own mean."""
    case_weights = classes[batch.y] if len(classes) else torch.ones(len(batch.y))
    whole = 0.0
    for rows in torch.arange(len(batch.y)).split(micro):
        part = Batch(batch.x[rows], batch.y[rows]) if len(rows) < len(batch.y) else batch
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss = torch.stack([term.float() for term in method.loss(net, part, classes).values()]).sum()
        if len(rows) < len(batch.y):
            loss = loss * (case_weights[rows].sum() / case_weights.sum())
        whole += _finite(float(loss.detach()), step, method)
        loss.backward()
    return whole


def _finished(net: Net, state: Progress) -> Net:
    """Return the net with the weights to serve, without its scaffold, in evaluation mode."""
    if (served := state.served()) is not None:
        net.load_state_dict(served)
    net.scaffold = None
    return net.requires_grad_(True).eval()


def _loss_on(net: Net, batch: Batch, classes: Tensor, *, size: int) -> float:
    """Return the target's loss, without the method's penalties, in evaluation mode."""
    net.eval()
    with torch.no_grad():
        output = torch.cat([net(part) for part in batch.x.split(size)])
        return float(torch.stack(list(target_loss(output, batch.y, classes).values())).sum())


def _schedule(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _targets(y: np.ndarray, net: Net) -> tuple[Tensor, Tensor]:
    """Return targets (n,), and weights (c,) that make classes count alike: none for numbers."""
    if np.asarray(y).dtype.kind == "f":
        return torch.from_numpy(np.asarray(y, dtype=np.float32)), torch.ones(0)
    return torch.from_numpy(np.asarray(y, dtype=np.int64)), _class_weights(y, net)


def _class_weights(y: np.ndarray, net: Net) -> Tensor:
    classes = [m.out_features for m in net.head.modules() if isinstance(m, nn.Linear)][-1]
    counts = np.bincount(np.asarray(y), minlength=classes)
    return torch.from_numpy(len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1))).float()


def _finite(loss: float, step: int, method: Method) -> float:
    if not math.isfinite(loss):
        raise InputError(f"The loss of {method.name!r} became {loss} at step {step + 1}. Lower its rate (now {method.rate:g}).")
    return loss
